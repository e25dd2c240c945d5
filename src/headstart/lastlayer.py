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


@contextmanager
def first_piece(model: PreTrainedModel, task: str) -> Generator[None]:
    """Leave out of a classifier's last layer what no logit follows from; afterwards it is whole.

    Keys and values are needed of all pieces; what joins the stream after attention, and the
    feed-forward block, of the first piece alone: 9 of the layer's 12 matrices of hidden x hidden.
    Models that pool over all pieces, that tag, or whose family has no table, are left as they are.

    Args:
        model: Its last layer gets hooks; states of other pieces behind it are not to be read.
        task: classification or tagging.
    """
    family = FAMILIES.get(str(getattr(model.config, "model_type", "")))
    pooled = getattr(model.config, "classifier_pooling", "cls")
    if family is None or task != "classification" or pooled != "cls":
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
    return (given[0][:, :1], *given[1:])


def _after_heads(model: PreTrainedModel, family: Family) -> list[nn.Module]:
    """Find the last layer's map from the heads, and the module that reads its sum with the stream.

    What the one gives for a single piece is added to all pieces' stream, and the other reads the
    first of these sums: no other is right, and none is read.
    """
    layers = int(model.config.num_hidden_layers)
    joins = (step for step in family.flow.layer if isinstance(step, Solve) and step.total)
    step = next(joins)
    paths = (*step.maps, *([step.total.path] if step.total else []))
    at = (path.format(p=family.prefix, i=layers - 1) for path in paths)
    return [model.get_submodule(path) for path in at]
