"""A map or norm that refit solves for: what it reads, what it is to give, and the sums so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.errors import HeadstartError
from headstart.flow import Rescale, into, out_of
from headstart.ridge import Scales, Sums, best_change
from headstart.selection import UNITS, groups
from headstart.sides import Scratch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from headstart.encode import Batch
    from headstart.flow import Step, Tap
    from headstart.ridge import Fitted
    from headstart.selection import Picks, Selection
    from headstart.sides import Side
    from headstart.walk import Read

View = Callable[[Tensor], Tensor]
"""From the teacher's activations, shape (rows, channels), to those that a student is to have."""

Theirs = tuple["Tap", View, "Sequence[int] | None"]
"""What to read of the teacher, and which of a place's columns it is to be; None for all."""


@dataclass(slots=True)
class Place:
    """A map or norm to fit, and what is known of it so far."""

    name: str
    module: nn.Linear | nn.LayerNorm
    ours: tuple[Tap, Tap | None]  # what it reads, and where what it gives is added to the stream
    theirs: Sequence[Theirs]
    units: bool  # whether only labelled words count
    fit: Sums | Scales
    held_out: Sums | Scales

    @property
    def until(self) -> Tap:
        """Say where a forward pass reaches it."""
        return into(self.name)

    def look(self, ours: Read, target: Tensor, batch: Batch, *, fits: bool) -> None:
        """Add a batch."""
        goes_in, total = self.ours
        x = self.rows(ours[goes_in], batch)
        there = 0 if total is None else self.rows(ours[total], batch)
        (self.fit if fits else self.held_out).add(x, target - there, target)

    def target(self, there: Read, batch: Batch) -> Tensor:
        """Put together what the teacher has for it: (rows, channels)."""
        parts = [(view(self.rows(there[tap], batch)), at) for tap, view, at in self.theirs]
        if parts[0][1] is None:
            return parts[0][0]
        joined = torch.cat([part for part, _ in parts], 1)
        return joined[:, torch.tensor([i for _, at in parts for i in at or ()]).argsort()]

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
        for sums in (self.fit.joined(add), self.held_out.joined(add)):
            if isinstance(sums, Sums):
                sums.less(self._as_it_is(sums))
        change, fitted = best_change(self.name, self.fit, self.held_out, ridges)
        if change is None:
            return fitted
        weight, bias = self.module.weight, self.module.bias if self.fit.bias else None
        if isinstance(self.fit, Scales):
            _set(weight, weight.to(change) * (1 + change[0]))
            if bias is not None:
                _set(bias, bias.to(change) * (1 + change[0]))
                _set(bias, bias.to(change) + change[1])
        else:
            _set(weight, weight.to(change) + change[: weight.shape[1]].T)
            if bias is not None:
                _set(bias, bias.to(change) + change[weight.shape[1]])
        return fitted

    def _as_it_is(self, sums: Sums) -> Tensor:
        """Write the map as its sums are: (inputs [+ 1], outputs)."""
        parts = [self.module.weight.T, *([self.module.bias[None]] if sums.bias else [])]
        return torch.cat(parts).detach().to(sums.xx)


@torch.no_grad()
def _set(parameter: Tensor, value: Tensor) -> None:
    """Give a parameter a value that was computed in double, and perhaps on another device."""
    parameter.copy_(value)


def targets_of(
    teacher: Side, places: Sequence[Place], stop: int | None, *, goes_on: bool
) -> dict[str, Scratch]:
    """Read what the teacher has at each place, in one run of its layers.

    Args:
        teacher: On its way.
        places: In its next layers.
        stop: The last layer that is run; None for the head, too.
        goes_on: Whether the teacher stays where it stops, to go on from there.

    Returns:
        Under each place's name, for every batch: (rows, channels).
    """
    targets = {place.name: Scratch() for place in places}
    taps = list(dict.fromkeys(tap for place in places for tap, _, _ in place.theirs))
    if not places:
        return targets
    batches = teacher.batches
    if goes_on and stop is not None:
        reads = teacher.through(stop, taps)
    else:
        reads = (teacher.read(i, taps, stop=stop) for i in range(len(batches)))
    for i, (batch, there) in enumerate(zip(batches, reads, strict=True)):
        for place in places:
            targets[place.name][i] = place.target(there, batch)
    return targets


def paths_of(step: Step) -> tuple[str, ...]:
    """List the maps of a step, or its norm."""
    return (step.norm,) if isinstance(step, Rescale) else step.maps


def taps_of(step: Step, path: str) -> tuple[Tap, Tap]:
    """Say what a map reads, and where what is to equal the teacher's can be read."""
    if isinstance(step, Rescale):
        return out_of(path), out_of(path)
    return into(path), step.total or out_of(path)


def groups_of(selection: Selection) -> list[Picks]:
    """List, for each layer of a student, the teacher's layers that its heads and neurons are of.

    Raises:
        HeadstartError: They are of layers that it does not stand for.
    """
    found: list[Picks] = []
    for j, group in enumerate(groups(selection.layers)):
        found_in = (layer for axis in UNITS for layer in selection.donors((axis,), j))
        donors = {layer for layer in found_in if layer is not None}
        if not donors <= {*group}:
            raise HeadstartError(
                f"layer {j} takes from layers {sorted(donors)} of the teacher, and stands for "
                f"{group[0]} to {group[-1]}",
                where="selection",
                way_out="choose again with init.merge",
            )
        found.append(tuple(layer for layer in group if layer in donors or layer == group[-1]))
    return found
