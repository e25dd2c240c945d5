"""One step of a training: what it reads of a batch, and what it does with it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headstart.encode import collate, to_device, unit_logits
from headstart.objectives import weighted
from headstart.prepare import half
from headstart.replay import LARGEST, Feed, Replay, padded

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from headstart.encode import Encoded, Ints
    from headstart.features import Bound
    from headstart.settings import Train


@dataclass(frozen=True, slots=True, kw_only=True)
class Stride:
    """Takes a step on each global batch that it is called with; see `Job` for its parts."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    accelerator: Accelerator
    data: Encoded
    settings: Train
    teacher: NDArray[np.float32] | None
    bound: Bound | None
    bf16: bool

    def __call__(self, index: Ints) -> Tensor:
        """Give this process' share of the loss, on the device."""
        return self.take(self.feed(index, self.accelerator.device))

    def feed(self, index: Ints, device: torch.device | None = None) -> Feed:
        """Collect what this process reads of a global batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        share = index[rank::world]
        idle = len(share) == 0  # fewer examples than processes: join in with a loss of zero
        batch = collate(self.data, index[:1] if idle else share, device=device)
        target = None if self.teacher is None else to_device(self.teacher[batch.units], device)
        units = max(_count(self.data.unit_starts, index), 1)  # of all processes
        pieces = _count(self.data.starts, index)
        part = 0.0 if idle else float(world)  # processes' gradients are averaged
        return Feed(batch, target, part / units, part / pieces)

    def take(self, feed: Feed) -> Tensor:
        """Take a step and give its loss, without a look at it."""
        accelerator, batch = self.accelerator, feed.batch
        with (
            half(accelerator.device.type, bf16=self.bf16),
            nullcontext({}) if self.bound is None else self.bound.watch() as seen,
        ):
            logits = unit_logits(self.model(**batch.inputs).logits, batch)
        losses = weighted(self.settings.objective, logits, feed.teacher, batch.gold)
        each = isinstance(feed.weight, torch.Tensor)
        loss = (losses * feed.weight).sum() if each else losses.sum() * feed.weight
        if self.bound is not None:
            loss = loss + self.bound.loss(seen, batch) * feed.piece_weight
        self.optimizer.zero_grad(set_to_none=True)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        return loss.detach() / accelerator.num_processes


def recorded(stride: Stride) -> Callable[[Ints], Tensor]:
    """Record a stride's steps where that is faster, and known to work.

    Small ones on CUDA, in one process, on logits, of models whose attention is PyTorch's own.
    """
    device, data = stride.accelerator.device, stride.data
    alone = stride.accelerator.num_processes == 1 and stride.bound is None
    small = stride.settings.batch_tokens <= LARGEST
    attention = getattr(getattr(stride.model, "config", None), "_attn_implementation", None)
    if not (alone and small and device.type == "cuda" and attention == "sdpa"):
        return stride
    tagging, longest = data.task == "tagging", data.longest
    replay = Replay(stride.take, device)
    return lambda index: replay(
        padded(stride.feed(index), pad_id=data.pad_id, tagging=tagging, longest=longest)
    )


def _count(starts: Ints, index: Ints) -> int:
    """Count what some slices of a flat array hold."""
    return int((starts[index + 1] - starts[index]).sum())
