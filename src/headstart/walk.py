"""A model run layer by layer: from a kept state on, up to where something is to be read.

The model's own forward pass calls the layers, with whatever masks and positions it gives them;
layers before the start hand on what they get, and the last of them gives the kept state instead.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.utils.hooks import RemovableHandle

    from headstart.encode import Encoded
    from headstart.flow import Tap

    Read = dict[Tap, list[Tensor]]


LOOKS = 8  # batches at most that show the directions: more show hardly more (docs/log.md)


@dataclass(frozen=True, slots=True)
class Sample:
    """Text that a refit looks at, in batches.

    Args:
        encoded: The text; its labels are not read.
        fit: Examples of each batch that is fitted to.
        held_out: Examples of each batch that judges.
    """

    encoded: Encoded
    fit: Sequence[NDArray[np.int64]]
    held_out: Sequence[NDArray[np.int64]]

    @property
    def batches(self) -> list[NDArray[np.int64]]:
        """All batches, those that judge last."""
        return [*self.fit, *self.held_out]


def looks_of(sample: Sample, rank: int, world: int) -> list[int]:
    """Choose the batches that show the directions: the same in any order, for any processes.

    Args:
        sample: The text of all processes; each fits to every `world`-th batch, from its rank on.
        rank: Of this process.
        world: How many there are.

    Returns:
        Numbers among this process' own.
    """
    lengths, fit = sample.encoded.lengths, sample.fit
    order = sorted(range(len(fit)), key=lambda i: (lengths[fit[i]].max(), fit[i].min()))
    looks = min(len(fit), LOOKS)
    places = ((2 * i + 1) * len(fit) // (2 * looks) for i in range(looks))  # evenly, short to long
    return sorted(order[i] // world for i in places if order[i] % world == rank)


@dataclass(frozen=True, slots=True)
class Known:
    """What a forward pass need not compute.

    Args:
        inputs: What goes into modules, by their paths.
        idle: Linear maps that give zeros instead: what comes of them is not read, or is known.
    """

    inputs: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"])
    idle: Sequence[str] = ()


class _ReachedError(Exception):
    """All that was asked for has been read."""


class Walk:
    """A model whose layers can be run a few at a time.

    Args:
        model: In evaluation mode.
        blocks: Paths of its layers, in order.
        bf16: Whether matrix products run in bfloat16; what is read is at least single precision.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str], *, bf16: bool = False) -> None:
        """Find the layers."""
        self.model = model
        self.bf16 = bf16
        self.modules = dict(model.named_modules())
        self.blocks = [self.modules[path] for path in blocks]
        self.gives_tuple = False  # some families' layers return more than the stream

    @torch.inference_mode()
    def read(
        self,
        inputs: Mapping[str, Tensor],
        taps: Sequence[Tap],
        *,
        start: int = 0,
        state: Tensor | None = None,
        stop: int | None = None,
        until: Tap | None = None,
        known: Known | None = None,
    ) -> Read:
        """Run a batch, and read activations on the way.

        Args:
            inputs: What the model takes.
            taps: Places to read; a module that is called more than once is read each time.
            start: The first layer that is run.
            state: What layer `start - 1` gives; not needed where start is 0.
            stop: The layer after whose run nothing more is done; None for the head, too.
            until: Where to stop before that.
            known: What need not be computed.
        """
        with ExitStack() as stack:
            if start > 0:
                stack.enter_context(self._skipping(start, cast("Tensor", state)))
            for path, tensor in (known or Known()).inputs.items():
                stack.callback(self.modules[path].register_forward_pre_hook(_give(tensor)).remove)
            stack.enter_context(_idling([self.modules[path] for path in (known or Known()).idle]))
            found = stack.enter_context(self.watching(taps))
            if until is not None:
                stack.callback(self._hook(until, _halt).remove)
            if stop is not None:
                stack.callback(self.blocks[stop].register_forward_hook(_halt).remove)
            kind = next(iter(inputs.values())).device.type
            stack.enter_context(torch.autocast(kind, torch.bfloat16, enabled=self.bf16))
            with suppress(_ReachedError):
                self.model(**inputs)
        return found

    @contextmanager
    def watching(self, taps: Sequence[Tap]) -> Generator[Read]:
        """Read activations of whatever forward passes a block makes."""
        found: Read = {tap: [] for tap in taps}
        with ExitStack() as stack:
            for tap in taps:
                stack.callback(self._hook(tap, found[tap].append).remove)
            yield found

    def advance(
        self,
        inputs: Mapping[str, Tensor],
        taps: Sequence[Tap],
        *,
        start: int,
        stop: int,
        state: Tensor | None,
        known: Known | None = None,
    ) -> tuple[Tensor, Read]:
        """Run layers `start` to `stop`, both included, and return the stream after them."""
        kept: list[Tensor] = []

        def keep(_module: nn.Module, _args: object, output: object) -> None:
            self.gives_tuple = isinstance(output, tuple)
            kept.append(_wide(_first(output)))

        handle = self.blocks[stop].register_forward_hook(keep)
        try:
            read = self.read(inputs, taps, start=start, state=state, stop=stop, known=known)
        finally:
            handle.remove()
        return kept[0], read

    def _hook(self, tap: Tap, see: Callable[[Tensor], None]) -> RemovableHandle:
        module = self.modules[tap.path]
        if tap.side == "input":
            return module.register_forward_pre_hook(lambda _m, args: see(_wide(args[0])))
        return module.register_forward_hook(lambda _m, _a, output: see(_wide(_first(output))))

    @contextmanager
    def _skipping(self, start: int, state: Tensor) -> Generator[None]:
        """Let the layers before `start` hand on the stream, and the last of them the state."""

        def hand_on(hidden: Tensor, *_: object, **__: object) -> object:
            return (hidden, None) if self.gives_tuple else hidden

        def give(_hidden: Tensor, *_: object, **__: object) -> object:
            return (state, None) if self.gives_tuple else state

        for i, block in enumerate(self.blocks[:start]):
            block.forward = give if i == start - 1 else hand_on
        try:
            yield
        finally:
            for block in self.blocks[:start]:
                del block.forward


def _halt(*_: object) -> None:
    raise _ReachedError


def _give(tensor: Tensor) -> Callable[[nn.Module, tuple[object, ...]], tuple[object, ...]]:
    return lambda _module, args: (tensor, *args[1:])


@contextmanager
def _idling(modules: Sequence[nn.Module]) -> Generator[None]:
    """Let linear maps give zeros."""

    def idle(width: int) -> Callable[[Tensor], Tensor]:
        def zeros(x: Tensor) -> Tensor:
            at = x.device.type  # in the type that the map would give: models look at it
            kind = torch.get_autocast_dtype(at) if torch.is_autocast_enabled(at) else x.dtype
            return x.new_zeros(*x.shape[:-1], width, dtype=kind)

        return zeros

    for module in modules:
        module.forward = idle(cast("Tensor", module.weight).shape[0])
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _first(output: object) -> Tensor:
    return cast("Tensor", output[0] if isinstance(output, tuple) else output)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor
