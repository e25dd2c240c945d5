"""Steps for a card that outruns the program which feeds it: recorded once a shape, then played.

A small step is hundreds of kernels, which a card does faster than a processor starts them. A CUDA
graph holds the kernels of a whole step, forward pass to optimizer, and starts them with one call;
it reads from fixed places, so batches are padded to few shapes, and padding counts for nothing.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

from headstart.console import say
from headstart.objectives import UNLABELLED
from headstart.reader import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from headstart.encode import Batch

GRID = 8  # padded lengths are its multiples
LARGEST = 4_096  # pieces: four times as many keep a card busy without (docs/performance.md)


@dataclass(frozen=True, slots=True)
class Feed:
    """What a step reads.

    Args:
        batch: Examples, and the units that the loss looks at.
        teacher: Logits, float32, (units, classes); None where no term reads them.
        weight: What each unit's loss counts for: one number, or float32, (units,).
        piece_weight: What each piece's counts for, where losses are on hidden states.
    """

    batch: Batch
    teacher: Tensor | None
    weight: float | Tensor
    piece_weight: float = 0.0

    def tensors(self) -> list[Tensor]:
        """Collect all that lies on a device, in one order."""
        batch, more = self.batch, (self.teacher, self.weight)
        every = (*batch.inputs.values(), batch.rows, batch.gold, *more)
        return [one for one in every if isinstance(one, torch.Tensor)]

    def on(self, device: torch.device) -> Feed:
        """Copy it to a device."""

        def there(one: Tensor) -> Tensor:
            return one.to(device, non_blocking=True)

        batch, weight = self.batch, self.weight
        return replace(
            self,
            batch=replace(
                batch,
                inputs={name: there(one) for name, one in batch.inputs.items()},
                rows=there(batch.rows),
                gold=there(batch.gold),
            ),
            teacher=None if self.teacher is None else there(self.teacher),
            weight=there(weight) if isinstance(weight, torch.Tensor) else weight,
        )


def padded(feed: Feed, *, pad_id: int, tagging: bool, longest: int) -> Feed:
    """Pad a batch to one of few shapes; the loss and its gradients stay what they are.

    Args:
        feed: On the processor; its weight is one number.
        pad_id: The padding piece.
        tagging: Whether logits stand for pieces, not for examples.
        longest: Pieces of the longest example there is, which the model can read.

    Returns:
        A feed whose lengths are multiples of `GRID`, or the longest there is, whose examples are at
        most a quarter more, and whose weight is 0 for every unit that was added.
    """
    ids, mask = feed.batch.inputs["input_ids"], feed.batch.inputs["attention_mask"]
    examples, length = ids.shape
    whole, width = _rounded(examples), min(length + -length % GRID, max(longest, length))
    around = (0, width - length, 0, whole - examples)
    mask = F.pad(mask, around)
    mask[examples:, 0] = 1  # attention over nothing would be no number
    inputs = {"input_ids": F.pad(ids, around, value=pad_id), "attention_mask": mask}
    rows = feed.batch.rows
    if tagging:
        rows = rows // length * width + rows % length
    return _more_units(
        replace(feed, batch=replace(feed.batch, inputs=inputs, rows=rows)),
        whole * width if tagging else whole,
    )


def _more_units(feed: Feed, units: int) -> Feed:
    """Add units that count for nothing: they read the first logits, and have no label."""
    batch, teacher = feed.batch, feed.teacher
    added = (0, units - len(batch.rows))
    gold = F.pad(batch.gold, added, value=UNLABELLED)
    return replace(
        feed,
        batch=replace(batch, rows=F.pad(batch.rows, added), gold=gold),
        teacher=None if teacher is None else F.pad(teacher, (0, 0, *added)),
        weight=F.pad(torch.full((len(batch.rows),), float(feed.weight)), added),
    )


def _rounded(number: int) -> int:
    """Round up to five, six, seven or eight times a power of two; up to eight stays."""
    step = 1 << max((number - 1).bit_length() - 3, 0)
    return number + -number % step


class Recorded(Protocol):
    """A step's kernels."""

    def replay(self) -> None:
        """Do them again, on what now stands where the step read."""
        ...


class Recorder(Protocol):
    """Where steps are taken, and how they are recorded."""

    def take(self, step: Callable[[], Tensor]) -> Tensor:
        """Take a step."""
        ...

    def record(self, step: Callable[[], Tensor]) -> tuple[Recorded, Tensor]:
        """Record a step without taking it: its kernels, and where its loss will stand."""
        ...


@cache
def _beside() -> torch.cuda.Stream:
    """Open the stream where graphs are recorded, one a process: each holds memory of its own."""
    return torch.cuda.Stream()


class Cuda:
    """Steps beside the default stream, and graphs that share their memory."""

    def __init__(self) -> None:
        """Open a pool of memory."""
        self._stream = _beside()
        self._pool = torch.cuda.graph_pool_handle()

    def take(self, step: Callable[[], Tensor]) -> Tensor:
        """Take a step where graphs are recorded: what autograd keeps belongs to a stream."""
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            loss = step()
        here.wait_stream(self._stream)
        return loss

    def record(self, step: Callable[[], Tensor]) -> tuple[Recorded, Tensor]:
        """Record a step as a graph."""
        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with _uncollected(), torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool)
            try:
                loss = step()
            except RuntimeError:
                with suppress(RuntimeError):  # the first fault says more
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph, loss


@contextmanager
def _uncollected() -> Generator[None]:
    """Collect no garbage: an older graph that is collected now would end a recording."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Replay:
    """Takes steps: the first of a shape as ever, the second is recorded, others are played.

    Args:
        step: Takes a step on a feed and gives its loss, without a look at either.
        device: Where feeds go.
        recorder: How steps are recorded; None for CUDA graphs.
    """

    def __init__(
        self, step: Callable[[Feed], Tensor], device: torch.device, recorder: Recorder | None = None
    ) -> None:
        """Know no shape yet."""
        self._step, self._device = step, device
        self._recorder: Recorder | None = recorder or Cuda()
        self._seen: set[tuple[int, ...]] = set()
        self._known: dict[tuple[int, ...], tuple[Feed, Recorded, Tensor]] = {}

    def __call__(self, feed: Feed) -> Tensor:
        """Take a step on a padded feed that lies on the processor, and give its loss."""
        shape = tuple(feed.batch.inputs["input_ids"].shape)
        if shape in self._known:
            placed, recorded, loss = self._known[shape]
            for place, value in zip(placed.tensors(), feed.tensors(), strict=True):
                place.copy_(value, non_blocking=True)
        else:
            placed = feed.on(self._device)
            known = self._record(placed) if shape in self._seen else None
            self._seen.add(shape)
            if known is None:
                return self._plainly(placed)
            recorded, loss = known
            self._known[shape] = (placed, recorded, loss)
        recorded.replay()
        return loss.clone()

    def _plainly(self, feed: Feed) -> Tensor:
        if self._recorder is None:
            return self._step(feed)
        return self._recorder.take(lambda: self._step(feed))

    def _record(self, feed: Feed) -> tuple[Recorded, Tensor] | None:
        """Record a step, unless that was or is now seen to fail."""
        if self._recorder is None:
            return None
        try:
            return self._recorder.record(lambda: self._step(feed))
        except RuntimeError as fault:  # too little memory, or a model that looks at its values
            _tell(first_line(fault))
            self._recorder = None
            self._known.clear()  # and their memory
            return None


@cache
def _tell(reason: str) -> None:
    """Say once why steps are taken one kernel at a time."""
    say(f"steps are not recorded as CUDA graphs: {reason}")
