"""A narrower residual stream along the teacher's principal directions, instead of some channels.

The stream of a student that keeps k of d channels can hold what any k directions hold. Those of
most variance are found on text, and every map that reads or writes the stream is turned to them.
Where sums are normalized, that leaves their size nearly in proportion, so that a norm does to the
turned sum nearly what it did to the whole; gain and shift are fitted afterwards.

Source:
    The rotation is that of SliceGPT (Ashkboos et al., 2024, arXiv:2401.15024), which needs norms
    without mean and gain; here the refit that follows makes up for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from headstart.errors import HeadstartError
from headstart.flow import Rescale, Tap, out_of
from headstart.places import paths_of
from headstart.ridge import double_device
from headstart.stream import why_not

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.nn import Linear, Module

    from headstart.layout import Axis, Entry, Family
    from headstart.selection import Selection
    from headstart.sides import Side


@dataclass(slots=True)
class _Seen:
    """What was read of the teacher.

    Args:
        streams: Under each norm's path the products of the stream after it, with a 1 beside it,
            shape (channels + 1, channels + 1).
    """

    streams: dict[str, Tensor]

    @classmethod
    def empty(cls, norms: Sequence[str], channels: int, model: Module) -> _Seen:
        """Start with no rows; a process that gets no batch has sums of the same shapes."""
        device, wide = double_device(next(model.parameters()).device), channels + 1
        empty = torch.zeros(wide, wide, dtype=torch.float64, device=device)
        return cls({norm: empty.clone() for norm in norms})

    def add(self, found: Mapping[Tap, Tensor]) -> None:
        """Add rows by where they were read: products in their own precision, sums in double."""
        for tap, rows in found.items():
            wide = _with_one(rows)
            self.streams[tap.path] += wide.T @ wide

    def join(self, add: Callable[[Tensor], Tensor]) -> None:
        """Sum over processes."""
        self.streams = {path: add(products) for path, products in self.streams.items()}

    def covariances(self) -> list[Tensor]:
        """Give each stream's covariance over its whole variance."""
        found: list[Tensor] = []
        for products in self.streams.values():
            mean = products[:-1, -1] / products[-1, -1]
            spread = products[:-1, :-1] / products[-1, -1] - torch.outer(mean, mean)
            found.append(spread / spread.trace())
        return found

    def spread(self, path: str, directions: Tensor) -> float:
        """Give the root mean square of a stream's channels along the directions."""
        products = self.streams[path]
        turned = directions.T @ products[:-1, :-1] @ directions / products[-1, -1]
        return float(turned.diagonal().mean().sqrt())


def _with_one(rows: Tensor) -> Tensor:
    rows = rows.to(double_device(rows.device))
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def directions_of(covariances: Sequence[Tensor], width: int) -> Tensor:
    """Find the directions in which streams vary most, all streams alike.

    Args:
        covariances: One for each stream, shape (channels, channels), each of trace 1.
        width: How many channels there will be.

    Returns:
        Shape (channels, width): the first `width - 1` eigenvectors, turned so that no direction
        changes the mean over the new channels, which a norm takes away; and so that the channels
        are of about one size, as a norm has them.
    """
    mean = torch.stack(list(covariances)).mean(0)
    vectors = torch.linalg.eigh(mean)[1].flip(1)[:, : width - 1]
    draw = torch.randn(width, width - 1, generator=torch.Generator().manual_seed(0))
    start = torch.cat([torch.ones(width, 1), draw], dim=1).to(mean)
    return vectors @ torch.linalg.qr(start)[0][:, 1:].T


@dataclass(frozen=True, slots=True)
class Turn:
    """A student and a teacher whose stream is to be turned.

    Args:
        family: Of both.
        selection: What the student keeps of the teacher; of the stream only how many channels.
        sizes: The teacher's length of each axis.
        entries: The student's tensors.
        student: Changed in place.
        teacher: Gives directions and weights.
        add: Sums over processes.
    """

    family: Family
    selection: Selection
    sizes: Mapping[Axis, int]
    entries: Sequence[Entry]
    student: Side
    teacher: Side
    add: Callable[[Tensor], Tensor]

    def check(self) -> None:
        """Refuse models whose stream cannot be turned.

        Raises:
            HeadstartError: Sums are not normalized, embeddings have a width of their own, or the
                head predicts pieces.
        """
        fault = why_not(self.family, self.entries, self.student.head)
        if fault:
            raise HeadstartError(
                f"principal directions are not possible: {fault}",
                where="recipe key init.refit.directions",
                way_out="set it to kept",
            )

    @torch.no_grad()
    def make(self, batches: Sequence[int]) -> Tensor:
        """Find the directions, and turn the student's maps to them.

        Args:
            batches: Numbers of those that are looked at; another process looks at its own.

        Returns:
            Shape (the teacher's channels, the student's), with orthonormal columns but for one
            that lacks: no direction changes the mean over the student's channels.
        """
        seen = self._look(batches)
        directions = directions_of(seen.covariances(), len(self.selection.hidden))
        self._turn_tables(seen, directions)
        self._turn_layers(seen, directions)
        self._turn_head(directions)
        return directions

    def _look(self, batches: Sequence[int]) -> _Seen:
        """Add up products of the stream after each norm."""
        at = self.teacher.prefix
        first = self.family.flow.before[0]
        norms = [first.norm.format(p=at)] if isinstance(first, Rescale) else []
        for layer in range(len(self.teacher.walk.blocks)):
            steps = self.family.flow.layer
            norms += [s.norm.format(p=at, i=layer) for s in steps if isinstance(s, Rescale)]
        taps = list(map(out_of, norms))
        seen = _Seen.empty(norms, self.sizes["hidden"], self.teacher.walk.model)
        for i in batches:
            batch = self.teacher.batches[i]
            found = self.teacher.walk.read(batch.inputs, taps)
            mask = batch.inputs["attention_mask"].bool()
            seen.add({tap: found[tap][0][mask] for tap in taps})
        seen.join(self.add)
        return seen

    def _turn_tables(self, seen: _Seen, directions: Tensor) -> None:
        """Turn the embeddings and their norm."""
        ours = dict(self.student.walk.model.named_parameters())
        theirs = dict(self.teacher.walk.model.named_parameters())
        for entry in self.entries:
            if entry.layer is None and entry.part != "head" and len(entry.axes) == 2:
                old = theirs[entry.name(self.teacher.prefix)]
                ours[entry.name(self.student.prefix)].copy_(old @ directions.to(old))
        for path in (p for step in self.family.flow.before for p in paths_of(step)):
            if path.format(p=self.student.prefix) in self.student.walk.modules:
                self._set_norm(path, None, seen, directions)

    def _turn_layers(self, seen: _Seen, directions: Tensor) -> None:
        for entry in self.entries:
            if entry.layer is not None and len(entry.axes) == 2:
                out, inputs = entry.axes
                writes = out == "hidden"
                unit = inputs if writes else out
                path = entry.template.removesuffix(".weight")
                for donor in self.selection.donors((unit,), entry.layer):
                    there = self.selection.keep(unit, entry.layer, self.sizes, donor)
                    here = self.selection.places(unit, entry.layer, donor) if there else None
                    maps = self._modules(path, entry.layer, donor)
                    _set_map(*maps, directions, there, here, writes=writes)
                ours, theirs = self._modules(path, entry.layer)
                if writes and getattr(ours, "bias", None) is not None:
                    ours.bias.copy_(directions.to(theirs.bias).T @ theirs.bias)
        for j in range(len(self.selection.layers)):
            for step in self.family.flow.layer:
                if isinstance(step, Rescale):
                    self._set_norm(step.norm, j, seen, directions)

    def _turn_head(self, directions: Tensor) -> None:
        """Turn the map that reads the stream; what follows it stays as it was cut.

        A base has a pooler at most: what it lacks is fresh in the student, and has no channels yet.
        """
        known = self.teacher.walk.modules
        axes = {entry.template: entry.axes for entry in self.entries}
        for path in (p for step in self.family.flow.heads[self.student.head][:1]
                     for p in paths_of(step)):  # fmt: skip
            if f"{path}.weight" in axes and path.format(p=self.teacher.prefix) in known:
                rows = self.selection.keep(axes[f"{path}.weight"][0], None, self.sizes)
                _set_map(*self._modules(path, None), directions, rows, None, writes=False)

    def _set_norm(self, path: str, j: int | None, seen: _Seen, directions: Tensor) -> None:
        """Give a norm the spread that the stream has there; refit sees to the rest."""
        ours, theirs = self._modules(path, j)
        layer = None if j is None else self.selection.layers[j]
        name = path.format(p=self.teacher.prefix, i=layer)
        known = name in seen.streams  # a norm of a table of positions is off the stream
        ours.weight.fill_(seen.spread(name, directions) if known else theirs.weight.abs().mean())
        if getattr(ours, "bias", None) is not None:
            ours.bias.zero_()

    def _modules(self, path: str, j: int | None, donor: int | None = None) -> tuple[Linear, Linear]:
        layer = self.selection.layers[j] if donor is None and j is not None else donor
        ours = self.student.walk.modules[path.format(p=self.student.prefix, i=j)]
        theirs = self.teacher.walk.modules[path.format(p=self.teacher.prefix, i=layer)]
        return cast("Linear", ours), cast("Linear", theirs)


def _set_map(
    ours: Linear,
    theirs: Linear,
    directions: Tensor,
    there: Sequence[int] | None,
    here: Sequence[int] | None,
    *,
    writes: bool,
) -> None:
    """Turn one map, or those of its units that come from one of the teacher's layers."""
    old, turn = theirs.weight, directions.to(theirs.weight)
    take, put = (slice(None) if places is None else list(places) for places in (there, here))
    if writes:
        ours.weight[:, put] = turn.T @ old[:, take]  # the bias is nobody's alone
        return
    ours.weight[put] = old[take] @ turn
    if getattr(ours, "bias", None) is not None:
        ours.bias[put] = theirs.bias[take]
