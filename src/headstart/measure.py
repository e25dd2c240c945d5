"""Scores of a teacher's channels, heads and neurons, from what they do on text.

Text is read once for every rule, size and shape, in one forward pass; `taylor` takes a backward
one, too. Languages count alike.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.assembly import prefix_of
from headstart.checkpoint import why_no_choice
from headstart.console import track
from headstart.encode import collate, unit_logits
from headstart.errors import HeadstartError
from headstart.flow import Solve, Tap, into, out_of
from headstart.layout import shape_of
from headstart.reader import open_model
from headstart.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.encode import Batch
    from headstart.rules import Measured, Scores
    from headstart.walk import Read, Sample


PARTS = 2  # of a batch: a backward pass keeps what a forward one need not


class Totals:
    """Sums of something per unit, in each language.

    Args:
        languages: How many there are.
        shape: Of one language's sums.
    """

    def __init__(self, languages: int, *shape: int) -> None:
        """Start at zero."""
        self.sums = torch.zeros(languages, *shape, dtype=torch.float64)
        self.rows = torch.zeros(languages, dtype=torch.float64)

    def add(self, layer: int, values: Tensor, languages: Tensor) -> None:
        """Add rows of one layer: (rows, units), and the language of each."""
        self.sums[:, layer].index_add_(0, languages, values.cpu().double())
        if layer == 0:
            self.rows.index_add_(0, languages, torch.ones(len(values), dtype=torch.float64))

    def mean(self) -> NDArray[np.float64]:
        """Average rows within each language, then languages: (layers, units)."""
        seen = self.rows > 0
        return (self.sums[seen] / self.rows[seen, None, None]).mean(0).numpy()


def measure(
    teacher: PreTrainedModel, sample: Sample, rules: Collection[str], *, seed: int = 0
) -> Measured:
    """Score a teacher's units by what they do.

    ``activation`` is the mean absolute activation: of the residual stream after each layer (as a
    share of the layer's mean, summed over layers), of heads' outputs, of neurons' outputs.
    ``taylor`` is the root mean square, over texts, of what switching a head or neuron off would
    change in the log-likelihood of a label, to first order; labels are drawn as the teacher
    finds them likely, so that no gold label is read.

    Args:
        teacher: In evaluation mode.
        sample: The text; what is held out counts too.
        rules: Any of ``activation`` and ``taylor``.
        seed: Of the labels.

    Returns:
        Under each rule ``hidden``, shape (hidden,), of ``activation`` only; ``heads``,
        (layers, heads); ``ffn``, (layers, ffn).

    Raises:
        HeadstartError: ``taylor`` is asked of a model that does not choose one of several labels.

    Source:
        ``taylor``: Molchanov et al. (2019), arXiv:1906.10771, on gates as in Kwon et al. (2022),
        arXiv:2204.09656; there with gold labels, here with labels drawn from the model.
    """
    reason = why_no_labels(teacher) if "taylor" in rules else None
    if reason:
        raise HeadstartError(
            f"rule taylor draws labels, and {reason}",
            where="recipe key init",
            way_out="choose rule activation or magnitude",
        )
    rng = torch.Generator().manual_seed(seed)
    with torch.inference_mode(mode=False):  # its sums are to be added to
        meter = _Meter(teacher, sample)
    with (
        track("ranking heads and neurons", len(sample.batches), "batches") as advance,
        _sloping(meter.walk),
    ):
        for index in sample.batches:
            for part in np.array_split(index, min(PARTS, len(index))):
                batch = collate(sample.encoded, part, device=teacher.device)
                languages = torch.from_numpy(sample.encoded.language_ids[part])
                meter.see(batch, languages, rules, rng)
            advance(1)
    made: dict[str, dict[str, Scores]] = {}
    if "activation" in rules:
        levels = meter.active["hidden"].mean()
        shares = (levels / levels.mean(axis=1, keepdims=True)).sum(axis=0)
        sizes = {size: meter.active[size].mean() for size in ("heads", "ffn")}
        made["activation"] = {"hidden": shares, **sizes}
    if "taylor" in rules:
        made["taylor"] = {size: np.sqrt(meter.vital[size].mean()) for size in ("heads", "ffn")}
    return made


def why_no_labels(model: PreTrainedModel) -> str | None:
    """Say why a model does not choose one of several labels; None if it does."""
    head = open_model(model).head
    if head not in ("classification", "tagging"):
        return "the model has no task head"
    return why_no_choice(model.config.to_dict(), head)


@contextmanager
def _sloping(walk: Walk) -> Generator[None]:
    """Let gradients flow from a model's first layer on, and to no weight.

    What weights' gradients would need is not kept then.
    """
    learning = [p for p in walk.model.parameters() if p.requires_grad]

    def begin(_block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0].detach().requires_grad_(torch.is_grad_enabled()), *args[1:])

    with torch.inference_mode(mode=False):
        hook = walk.blocks[0].register_forward_pre_hook(begin)
        try:
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            hook.remove()
            for parameter in learning:
                parameter.requires_grad_(True)


class _Meter:
    """A teacher that is being measured."""

    def __init__(self, teacher: PreTrainedModel, sample: Sample) -> None:
        opened = open_model(teacher)
        flow, prefix = opened.family.flow, prefix_of(opened.family, opened.head)
        shape = shape_of(opened.family, opened.plain)
        attended, down = (s.maps[0] for s in flow.layer if isinstance(s, Solve) and s.total)
        paths = [out_of(flow.block).at(prefix, i).path for i in range(shape.layers)]
        self.walk = Walk(teacher, paths)
        self.taps: dict[str, list[Tap]] = {
            "hidden": [out_of(path) for path in paths],
            "heads": [into(attended).at(prefix, i) for i in range(shape.layers)],
            "ffn": [into(down).at(prefix, i) for i in range(shape.layers)],
        }
        self.heads = shape.heads
        units = {"hidden": shape.hidden, "heads": shape.heads, "ffn": shape.ffn}
        languages = len(sample.encoded.languages)
        self.active = {k: Totals(languages, shape.layers, n) for k, n in units.items()}
        self.vital = {k: Totals(languages, shape.layers, units[k]) for k in ("heads", "ffn")}

    def see(
        self, batch: Batch, languages: Tensor, rules: Collection[str], rng: torch.Generator
    ) -> None:
        """Run a batch, and add what the rules look at."""
        sizes = self.taps if "activation" in rules else self.vital
        taps = [tap for size in sizes for tap in self.taps[size]]
        learns = "taylor" in rules
        with torch.set_grad_enabled(learns), self.walk.watching(taps) as found:
            output = self.walk.model(**batch.inputs)
            if learns:
                self._weigh(found, unit_logits(output.logits, batch).float(), languages, rng)
        if "activation" in rules:
            self._look(found, batch, languages)

    def _look(self, found: Read, batch: Batch, languages: Tensor) -> None:
        """Add the absolute activations of every token."""
        mask = batch.inputs["attention_mask"].bool()
        owners = languages[:, None].expand(mask.shape)[mask.cpu()]
        for size, taps in self.taps.items():
            for layer, tap in enumerate(taps):
                rows = found[tap][0].detach()[mask].abs()
                self.active[size].add(layer, self._units(size, rows).mean(-1), owners)

    def _weigh(self, found: Read, logits: Tensor, languages: Tensor, rng: torch.Generator) -> None:
        """Add, for every text, the squared effect of switching each unit off."""
        if not bool(logits.isfinite().all()):
            raise HeadstartError(
                "an answer of the teacher is infinite or no number",
                where="taylor, which ranks heads and neurons by it",
                way_out="look at the teacher's weights, or set train.precision to fp32",
            )
        drawn = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=rng)[:, 0]
        loss = F.cross_entropy(logits, drawn.to(logits.device), reduction="sum")
        taps = [
            (size, layer, tap) for size in self.vital for layer, tap in enumerate(self.taps[size])
        ]
        slopes = torch.autograd.grad(loss, [found[tap][0] for _, _, tap in taps])
        for (size, layer, tap), slope in zip(taps, slopes, strict=True):
            effect = (found[tap][0].detach() * slope).sum(1)  # padding has no slope
            self.vital[size].add(layer, self._units(size, effect).sum(-1) ** 2, languages)

    def _units(self, size: str, rows: Tensor) -> Tensor:
        """Give each unit its channels: (rows, units, channels of one)."""
        return rows.unflatten(-1, (self.heads if size == "heads" else rows.shape[-1], -1))
