"""A classifier's last layer, worked out for the one piece of a text that its head reads."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from headstart.families import FAMILIES
from headstart.flow import Solve

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from headstart.layout import Family

PADDED = 3  # dimensions of a batch whose texts are padded to one length


@contextmanager
def first_piece(model: PreTrainedModel, task: str) -> Generator[None]:
    """Leave out of a classifier's last layer what no logit follows from; afterwards it is whole.

    Queries, keys and values stay, of all pieces; what joins the stream after attention, and the
    feed-forward block, are worked out for the first piece alone. Where neurons are four times the
    channels, that leaves out 9 of 12 parts of the layer's products. Models that pool over all
    pieces, that tag, or whose family has no table, are left as they are.

    Args:
        model: Its last layer gets hooks; states of other pieces behind it are not to be read.
        task: classification or tagging.
    """
    config = model.config
    family = FAMILIES.get(str(getattr(config, "model_type", "")))
    pooled = getattr(config, "classifier_pooling", "cls")
    in_chunks = getattr(config, "chunk_size_feed_forward", 0) > 0  # of a fixed number of pieces
    if family is None or task != "classification" or pooled != "cls" or in_chunks:
        yield
        return
    hooks = [module.register_forward_pre_hook(_first) for module in _after_heads(model, family)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _first(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Keep the first piece of each text: (texts, pieces, channels) to (texts, 1, channels)."""
    return (given[0][:, :1], *given[1:]) if given[0].dim() == PADDED else given


def _after_heads(model: PreTrainedModel, family: Family) -> list[nn.Module]:
    """Find the last layer's map from the heads, and the module that reads its sum with the stream.

    What the one gives for a single piece is added to all pieces' stream, and the other reads the
    first of these sums: no other is right, and none is read.
    """
    joins = ((s.maps, s.total) for s in family.flow.layer if isinstance(s, Solve) and s.total)
    maps, total = next(joins)
    if total.side != "input":  # it is read where the layer ends: too late
        return []
    last = int(model.config.num_hidden_layers) - 1
    return [
        model.get_submodule(path.format(p=family.prefix, i=last)) for path in (*maps, total.path)
    ]
