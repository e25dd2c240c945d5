"""Closed-form repair of a cut student: each map is solved for what makes the teacher's activations.

Copied layers get inputs that their weights never saw. From the embeddings to the head, each
linear map is fitted by ridge regression, toward its copied weights, from the student's own
activations to the teacher's: its output where the map feeds heads, neurons or labels, the
residual stream where it is added to that. No label is read, and no gradient taken.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from headstart.assembly import prefix_of
from headstart.console import track
from headstart.encode import collate
from headstart.errors import HeadstartError
from headstart.flow import Rescale, Solve, into
from headstart.layout import entries, lengths, shape_of
from headstart.places import Place, groups_of, paths_of, taps_of, targets_of
from headstart.principal import Turn
from headstart.reader import open_model
from headstart.recipe import Refit
from headstart.ridge import Scales, Sums
from headstart.sides import Scratch, Side
from headstart.stream import PRINCIPAL, after, settled
from headstart.walk import Walk, looks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from headstart.encode import Batch
    from headstart.flow import Step, Tap
    from headstart.layout import Dim, Head
    from headstart.places import Theirs, View
    from headstart.ridge import Fitted
    from headstart.selection import Selection
    from headstart.walk import Sample

RIDGES = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)


def refit(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    selection: Selection,
    sample: Sample,
    *,
    asked: Refit | None = None,
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
        asked: As a recipe says it: the ridge, where held-out text does not choose it for each map
            from `RIDGES`; and whether a narrower stream runs along principal directions.
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
    if selection.rules["hidden"] == PRINCIPAL:
        raise HeadstartError(
            "its stream runs along principal directions already, and no longer in the channels "
            "that its selection names",
            where="refit",
            way_out="cut it again, and refit that",
        )
    groups_of(selection)
    check_models(student, teacher)
    asked = settled(asked or Refit(), student, selection)
    ridges = RIDGES if asked.ridge == "auto" else (asked.ridge,)
    parts = (sample.fit, sample.held_out)
    rank, world = 0, 1
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
        job = _Refit(student, teacher, selection, mine, ridges, add, bf16=bf16)
        if after(selection, asked) != selection:
            job.turn(looks_of(sample, rank, world))
        return tuple(job.run())
    finally:
        teacher.train(was_training)


def check_models(student: PreTrainedModel, teacher: PreTrainedModel) -> None:
    """Refuse models that cannot be run side by side, or not precisely enough.

    Raises:
        HeadstartError: Their devices or types differ, or are of less than 32 bits.
    """
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


def _leads_into(before: Step, step: Step) -> bool:
    """Whether all that a step's maps give goes into the next one: queries, or a normalized sum."""
    if not isinstance(before, Solve):
        return False
    return before.total is None or (isinstance(step, Rescale) and before.total == into(step.norm))


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
        self.directions: Tensor | None = None

    def turn(self, batches: Sequence[int]) -> None:
        """Let the student's stream run along the directions that the teacher shows on batches."""
        turn = Turn(
            self.family, self.selection, self.sizes, list(self.entries.values()),
            self.student, self.teacher, self.add,
        )  # fmt: skip
        turn.check()
        self.directions = turn.make(batches)

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
        with track("refit", len(layers) + 1, "layers") as advance:
            done += self._solve(flow.before, None, stop=(0, 0))
            for j, (layer, group) in enumerate(zip(layers, groups_of(self.selection), strict=True)):
                self.teacher.advance(group[0] - 1)
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
        every = [place for _, places in groups for place in places]
        targets = targets_of(self.teacher, every, stop[1], goes_on=j is not None)
        done: list[Fitted] = []
        for k, (step, places) in enumerate(groups):
            until = groups[k + 1][1][0].until if k + 1 < len(groups) else None
            before = groups[k - 1] if j is not None and k else None
            idle = before[1] if before and _leads_into(before[0], step) else ()
            self._look(places, targets, idle, stop=stop[0], until=until)
            done += [place.settle(self.ridges, self.add) for place in places]
        return done

    def _look(
        self,
        places: Sequence[Place],
        targets: Mapping[str, Scratch],
        idle: Sequence[Place],
        *,
        stop: int | None,
        until: Tap | None,
    ) -> None:
        """Read all batches for a step; keep what idle places lead to, so that they run no more.

        The maps that are solved for are not run: what they give follows from the sums.
        """
        goes_in, kept = into(places[0].name), Scratch() if idle else None
        taps = {tap: None for place in places for tap in place.ours if tap}
        wanted = [*(taps | {goes_in: None} if idle else taps)]
        still = [place.name for place in places if isinstance(place.fit, Sums)]
        for i, batch in enumerate(self.student.batches):
            here = self.student.read(i, wanted, stop=stop, until=until, idle=still)
            if kept is not None:
                (kept[i],) = here[goes_in]
            for place in places:
                target = targets[place.name][i].to(batch.rows.device)
                place.look(here, target, batch, fits=i < len(self.sample.fit))
        if kept is not None:
            self.student.keep(goes_in.path, [place.name for place in idle], kept)

    def _places(self, step: Step, j: int | None) -> list[Place]:
        return [place for path in paths_of(step) if (place := self._place(step, path, j))]

    def _place(self, step: Step, path: str, j: int | None) -> Place | None:
        """Find a map or norm in both models; None where one of them has none."""
        entry = self.entries.get(path.format(p=self.student.prefix, i=j) + ".weight")
        layer = None if j is None else self.selection.layers[j]
        taps = taps_of(step, path)
        known = taps[1].at(self.teacher.prefix, layer).path in self.teacher.walk.modules
        if entry is None or not known:
            return None
        axis = "hidden" if isinstance(step, Solve) and step.total else entry.axes[0]
        on_stream = isinstance(step, Rescale) or step.total is not None
        name = path.format(p=self.student.prefix, i=j)
        module = cast("nn.Linear | nn.LayerNorm", self.student.walk.modules[name])
        size = [*reversed(module.weight.shape)]  # inputs and outputs, or channels
        there = taps[1].at(self.student.prefix, j) if on_stream else None
        sums = partial(
            Scales if isinstance(step, Rescale) else Sums,
            *size,
            bias=getattr(module, "bias", None) is not None,
            device=module.weight.device,
        )
        return Place(
            name,
            module,
            ours=(taps[0].at(self.student.prefix, j), there),
            theirs=self._theirs(taps[1], axis, j, on_stream=on_stream and entry.part != "head"),
            units=self.head == "tagging" and entry.part == "head",
            fit=sums(),
            held_out=sums(),
        )

    def _theirs(self, aim: Tap, axis: Dim, j: int | None, *, on_stream: bool) -> list[Theirs]:
        """Say what to read of the teacher, where several layers give a map's units in each."""
        donors = self.selection.donors((axis,), j)
        return [
            (
                aim.at(self.teacher.prefix, donor),
                self._view(axis, j, donor, on_stream=on_stream),
                None if len(donors) == 1 or j is None else self.selection.places(axis, j, donor),
            )
            for donor in donors
        ]

    def _view(self, axis: Dim, j: int | None, donor: int | None, *, on_stream: bool) -> View:
        """Say what of the teacher's channels the student is to have."""
        if on_stream and self.directions is not None:
            directions = self.directions
            return lambda rows: rows @ directions.to(rows)
        kept = self.selection.keep(axis, j, self.sizes, donor)
        return (lambda rows: rows) if kept is None else (lambda rows: rows[:, list(kept)])
