"""Two models side by side: how far each has been run, and what is kept of it, on disk.

Activations of every batch lie in unnamed files, so that memory does not grow with the text; on a
CUDA card they stay there for as long as it has room.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from tempfile import TemporaryFile, gettempdir
from typing import TYPE_CHECKING
from weakref import finalize

import torch
from torch import Tensor

from headstart.errors import HeadstartError
from headstart.walk import Known

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from headstart.encode import Batch
    from headstart.flow import Tap
    from headstart.layout import Head
    from headstart.walk import Read, Walk


ROOM = 0.25  # share of an accelerator's memory that is left to others


class Scratch:
    """Tensors by batch: on a CUDA card that has room, else in an unnamed file."""

    def __init__(self) -> None:
        """Start empty."""
        self.file = TemporaryFile()  # noqa: SIM115 (it is closed with this object)
        finalize(self, self.file.close)
        self.places: dict[int, tuple[int, torch.Size, torch.dtype]] = {}
        self.end = 0
        self.held: dict[int, Tensor] = {}  # what stays on an accelerator

    def __setitem__(self, batch: int, tensor: Tensor) -> None:
        """Keep a batch's tensor; a later one of the same shape takes its place."""
        if batch not in self.places and has_room(tensor):
            self.held[batch] = tensor.detach().clone()
            return
        self.held.pop(batch, None)
        content = tensor.cpu().contiguous().numpy()
        if batch not in self.places:
            self.places[batch] = (self.end, tensor.shape, tensor.dtype)
            self.end += content.nbytes
        try:
            self.file.seek(self.places[batch][0])
            self.file.write(content.data)
            self.file.flush()
        except OSError as fault:
            raise HeadstartError(
                f"no room for {self.end / 1e9:.1f} GB of activations: {fault.strerror}",
                where=gettempdir(),
                way_out="set TMPDIR to a folder with more room, or look at fewer tokens",
            ) from fault

    def __getitem__(self, batch: int) -> Tensor:
        """Read a batch's tensor; the caller may change it."""
        if batch in self.held:
            return self.held[batch].clone()
        start, shape, dtype = self.places[batch]
        tensor = torch.empty(shape, dtype=dtype)
        self.file.seek(start)
        self.file.readinto(tensor.numpy().data)
        return tensor


def has_room(tensor: Tensor) -> bool:
    """Whether a tensor is on a CUDA card of which a quarter is free: it stays there."""
    if tensor.device.type != "cuda":
        return False
    at = tensor.device
    free, whole = torch.cuda.mem_get_info(at)
    unused = torch.cuda.memory_reserved(at) - torch.cuda.memory_allocated(at)  # this process'
    return free + unused > ROOM * whole


@dataclass(slots=True)
class Side:
    """A model on its walk: the stream after its layer `at`, for every batch.

    Within the next layer, `inputs` of some maps and norms are kept once what they depend on is
    settled, so that the `idle` maps before them are not run again.
    """

    walk: Walk
    head: Head
    prefix: str
    batches: Sequence[Batch]
    states: Scratch = field(default_factory=Scratch)
    at: int = -1
    inputs: dict[str, Scratch] = field(default_factory=dict[str, Scratch])
    idle: list[str] = field(default_factory=list[str])

    def advance(self, layer: int) -> None:
        """Go on to the end of a layer."""
        if layer != self.at:
            for _ in self.through(layer, ()):
                pass

    def through(self, layer: int, taps: Sequence[Tap]) -> Generator[Read]:
        """Go on to the end of a layer, and read every batch on the way."""
        for i, batch in enumerate(self.batches):
            start, state, known = self.at + 1, self._state(i, batch), self._known(i, batch)
            self.states[i], read = self.walk.advance(
                batch.inputs, taps, start=start, stop=layer, state=state, known=known
            )
            yield read
        self.at = layer
        self.inputs.clear()
        self.idle.clear()

    def read(
        self,
        i: int,
        taps: Sequence[Tap],
        *,
        stop: int | None,
        until: Tap | None = None,
        idle: Sequence[str] = (),
    ) -> Read:
        """Read a batch on the way from where the model stands; some linear maps give zeros."""
        batch = self.batches[i]
        state = self._state(i, batch)
        return self.walk.read(
            batch.inputs,
            taps,
            start=self.at + 1,
            state=state,
            stop=stop,
            until=until,
            known=self._known(i, batch, idle),
        )

    def keep(self, path: str, idle: Sequence[str], tensors: Scratch) -> None:
        """Give a map or norm its inputs from now on: maps that lead to it need not be run."""
        self.inputs = {k: v for k, v in self.inputs.items() if k not in idle} | {path: tensors}
        self.idle += idle

    def _known(self, i: int, batch: Batch, idle: Sequence[str] = ()) -> Known:
        device, kept = batch.rows.device, self.inputs.items()
        return Known({path: found[i].to(device) for path, found in kept}, [*self.idle, *idle])

    def _state(self, i: int, batch: Batch) -> Tensor | None:
        return None if self.at < 0 else self.states[i].to(batch.rows.device)
