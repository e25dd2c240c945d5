"""Closed-form repair of a cut student: each map is solved for what makes the teacher's activations.

Copied layers get inputs that their weights never saw. From the embeddings to the head, each
linear map is fitted by ridge regression, toward its copied weights, from the student's own
activations to the teacher's: its output where the map feeds heads, neurons or labels, the
residual stream where it is added to that. No label is read, and no gradient taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from headstart.assembly import prefix_of
from headstart.console import track
from headstart.encode import collate
from headstart.errors import HeadstartError
from headstart.flow import Rescale, Solve, Tap, into, out_of
from headstart.layout import entries, lengths, shape_of
from headstart.reader import open_model
from headstart.ridge import Scales, Sums, best_change
from headstart.walk import Scratch, Side, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from headstart.encode import Batch
    from headstart.flow import Step
    from headstart.layout import Head
    from headstart.ridge import Fitted
    from headstart.selection import Selection
    from headstart.walk import Read, Sample

RIDGES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)


def refit(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    selection: Selection,
    sample: Sample,
    *,
    ridges: Sequence[float] = RIDGES,
    accelerator: Accelerator | None = None,
    bf16: bool = False,
) -> tuple[Fitted, ...]:
    """Refit a student in place.

    Args:
        student: Cut from the teacher, untrained; in evaluation mode afterwards.
        teacher: The model that it was cut from. Where it has no head, neither is the
            student's refitted.
        selection: What the student keeps of it.
        sample: The text.
        ridges: Candidates for the weight of the squared change, in units of the mean square of
            a map's inputs; held-out text chooses for each map.
        accelerator: Knows the processes that share the text; None for one process.
        bf16: Whether matrix products of the two models run in bfloat16.

    Returns:
        What became of each map and norm, in the order of the forward pass.

    Raises:
        HeadstartError: The student keeps its teacher's layers in another order, or the two are
            not on one device in one precision of 32 bits or more.
    """
    if list(selection.layers) != sorted(selection.layers):
        raise HeadstartError(
            f"layers {selection.layers} are not in the teacher's order",
            where="recipe key init.layers",
            way_out="list them in ascending order, or leave init.refit out",
        )
    _check_models(student, teacher)
    parts = (sample.fit, sample.held_out)
    add: Callable[[Tensor], Tensor] = _alone
    if accelerator is not None and accelerator.num_processes > 1:
        rank, world = accelerator.process_index, accelerator.num_processes
        parts = tuple(part[rank::world] for part in parts)
        add = partial(cast("Callable[[Tensor], Tensor]", accelerator.reduce))
    mine = replace(sample, fit=parts[0], held_out=parts[1])
    student.eval()
    was_training = teacher.training
    teacher.eval()
    try:
        job = _Refit(student, teacher, selection, mine, tuple(ridges), add, bf16=bf16)
        return tuple(job.run())
    finally:
        teacher.train(was_training)


def _check_models(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse models that cannot be run side by side, or not precisely enough."""
    found = {(model.device, model.dtype) for model in (student, teacher)}
    if len(found) > 1 or student.dtype not in (torch.float32, torch.float64):
        raise HeadstartError(
            f"student on {student.device} in {student.dtype}, teacher on {teacher.device} in "
            f"{teacher.dtype}",
            where="refit",
            way_out="put both on one device, in single precision: model.float()",
        )


def _alone(sums: Tensor) -> Tensor:
    return sums


class _Refit:
    """One refit under way."""

    def __init__(
        self,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        selection: Selection,
        sample: Sample,
        ridges: tuple[float, ...],
        add: Callable[[Tensor], Tensor],
        *,
        bf16: bool,
    ) -> None:
        self.bf16 = bf16
        opened = open_model(student)
        self.family, self.head = opened.family, opened.head
        self.selection, self.sample, self.ridges, self.add = selection, sample, ridges, add
        self.sizes = lengths(self.family, teacher.config.to_dict())
        device = student.device
        batches = [collate(sample.encoded, index, device=device) for index in sample.batches]
        self.student = self._side(student, self.head, batches)
        self.teacher = self._side(teacher, open_model(teacher).head, batches)
        named = entries(self.family, opened.plain, self.head)
        self.entries = {entry.name(self.student.prefix): entry for entry in named}

    def _side(self, model: PreTrainedModel, head: Head, batches: Sequence[Batch]) -> Side:
        prefix = prefix_of(self.family, head)
        layers = shape_of(self.family, model.config.to_dict()).layers
        paths = [self.family.flow.block.format(p=prefix, i=i) for i in range(layers)]
        return Side(Walk(model, paths, bf16=self.bf16), head, prefix, batches)

    def run(self) -> list[Fitted]:
        """Go from the embeddings to the head."""
        flow, layers = self.family.flow, self.selection.layers
        same_head = self.teacher.head == self.head
        last = (*flow.after, *(flow.heads[self.head] if same_head else ()))
        done: list[Fitted] = []
        with track("refit", len(layers) + 1) as advance:
            done += self._solve(flow.before, None, stop=(0, 0))
            for j, layer in enumerate(layers):
                self.teacher.advance(layer - 1)
                done += self._solve(flow.layer, j, stop=(j, layer))
                self.student.advance(j)
                self.teacher.advance(layer)
                advance(1)
            self.teacher.advance(len(self.teacher.walk.blocks) - 1)
            done += self._solve(last, None, stop=(None, None))
            advance(1)
        return done

    def _solve(
        self, steps: Sequence[Step], j: int | None, *, stop: tuple[int | None, int | None]
    ) -> list[Fitted]:
        """Fit one step after the other, each from the activations that the last one left."""
        found = [(step, self._places(step, j)) for step in steps]
        groups = [(step, places) for step, places in found if places]
        targets = self._targets([p for _, places in groups for p in places], stop[1])
        done: list[Fitted] = []
        for k, (_, places) in enumerate(groups):
            until = groups[k + 1][1][0].until if k + 1 < len(groups) else None
            taps = list(dict.fromkeys(tap for place in places for tap in place.ours))
            for i, batch in enumerate(self.student.batches):
                here = self.student.read(i, taps, stop=stop[0], until=until)
                for place in places:
                    target = targets[place.name][i].to(batch.rows.device)
                    place.look(here, target, batch, fits=i < len(self.sample.fit))
            done += [place.settle(self.ridges, self.add) for place in places]
        return done

    def _targets(self, places: Sequence[_Place], stop: int | None) -> dict[str, Scratch]:
        """Read what the teacher has at each place, in one run of its layer."""
        targets = {place.name: Scratch() for place in places}
        taps = list(dict.fromkeys(place.theirs for place in places))
        for i, batch in enumerate(self.teacher.batches if places else ()):
            there = self.teacher.read(i, taps, stop=stop)
            for place in places:
                rows = place.rows(there[place.theirs], batch)
                targets[place.name][i] = rows if place.kept is None else rows[:, place.kept]
        return targets

    def _places(self, step: Step, j: int | None) -> list[_Place]:
        return [place for path in _paths(step) if (place := self._place(step, path, j))]

    def _place(self, step: Step, path: str, j: int | None) -> _Place | None:
        """Find a map or norm in both models; None where one of them has none."""
        entry = self.entries.get(path.format(p=self.student.prefix, i=j) + ".weight")
        layer = None if j is None else self.selection.layers[j]
        taps = _taps(step, path)
        theirs = taps[1].at(self.teacher.prefix, layer)
        if entry is None or theirs.path not in self.teacher.walk.modules:
            return None
        axis = "hidden" if isinstance(step, Solve) and step.total else entry.axes[0]
        kept = self.selection.keep(axis, j, self.sizes)
        name = path.format(p=self.student.prefix, i=j)
        module = cast("nn.Linear | nn.LayerNorm", self.student.walk.modules[name])
        size = [*reversed(module.weight.shape)]  # inputs and outputs, or channels
        sums = partial(
            Scales if isinstance(step, Rescale) else Sums,
            *size,
            bias=getattr(module, "bias", None) is not None,
            device=module.weight.device,
        )
        return _Place(
            name,
            module,
            ours=(taps[0].at(self.student.prefix, j), taps[1].at(self.student.prefix, j)),
            theirs=theirs,
            kept=None if kept is None else torch.tensor(kept, device=module.weight.device),
            units=self.head == "tagging" and entry.part == "head",
            fit=sums(),
            held_out=sums(),
        )


@dataclass(slots=True)
class _Place:
    """A map or norm to fit, and what is known of it so far."""

    name: str
    module: nn.Linear | nn.LayerNorm
    ours: tuple[Tap, Tap]  # what it reads, and what is to equal the teacher's
    theirs: Tap
    kept: Tensor | None  # which of the teacher's channels
    units: bool  # whether only labelled words count
    fit: Sums | Scales
    held_out: Sums | Scales

    @property
    def until(self) -> Tap:
        """Say where a forward pass reaches it."""
        return into(self.name)

    def look(self, ours: Read, target: Tensor, batch: Batch, *, fits: bool) -> None:
        """Add a batch."""
        x, current = (self.rows(ours[tap], batch) for tap in self.ours)
        (self.fit if fits else self.held_out).add(x, target - current, target)

    def rows(self, found: Sequence[Tensor], batch: Batch) -> Tensor:
        """Lay out what counts as rows: (rows, channels)."""
        mask = batch.inputs["attention_mask"].bool()
        rows: list[Tensor] = []
        for tensor in found:
            is_text = tensor.shape[:-1] == mask.shape
            flat = tensor.flatten(0, -2)
            if is_text:
                flat = flat[batch.rows] if self.units else flat[mask.flatten()]
            rows.append(flat)
        return torch.cat(rows)

    def settle(self, ridges: Sequence[float], add: Callable[[Tensor], Tensor]) -> Fitted:
        """Change the map or norm for the better, or leave it."""
        change, fitted = best_change(
            self.name, self.fit.joined(add), self.held_out.joined(add), ridges
        )
        if change is None:
            return fitted
        module = self.module
        with torch.no_grad():
            if isinstance(self.fit, Scales):
                module.weight.mul_(1 + change[0])
                if self.fit.bias:
                    module.bias.mul_(1 + change[0]).add_(change[1])
            else:
                width = module.weight.shape[1]
                module.weight.add_(change[:width].T)
                if self.fit.bias:
                    module.bias.add_(change[width])
        return fitted


def _paths(step: Step) -> tuple[str, ...]:
    return (step.norm,) if isinstance(step, Rescale) else step.maps


def _taps(step: Step, path: str) -> tuple[Tap, Tap]:
    """Say what a map reads, and where the result of it can be read."""
    if isinstance(step, Rescale):
        return out_of(path), out_of(path)
    return into(path), step.total or out_of(path)
