"""The one loop in which models learn: teachers from labels, students from their teachers.

Everything that a step reads follows from the seed and the step's number, so a run that was
interrupted goes on to the bytes of one that was not.
"""

from __future__ import annotations

import itertools
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch

from headstart.console import track
from headstart.encode import pack
from headstart.errors import HeadstartError
from headstart.lastlayer import first_piece
from headstart.objectives import needs_features, needs_teacher
from headstart.prepare import (
    choose_precision,
    first_says,
    optimizer_for,
    rate_at,
    set_rate,
    trainable,
)
from headstart.state import between_steps, load_state, save_state
from headstart.stride import Stride, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from headstart.encode import Encoded
    from headstart.features import Bound, Features
    from headstart.settings import Train

    Ints = NDArray[np.int64]


class Dev(NamedTuple):
    """A model's worth on the development split of the trained-on languages."""

    score: float  # main metric, mean over languages
    loss: float  # cross-entropy to the gold labels, nats


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """All that a training needs besides the model."""

    data: Encoded
    settings: Train
    order: Callable[[int], Ints]  # the examples of an epoch, in order
    evaluate: Callable[[PreTrainedModel], Dev]
    accelerator: Accelerator
    learning_rate: float
    seed: int
    teacher: NDArray[np.float32] | None = None  # logits, (units, classes)
    features: Features | None = None  # the teacher at work
    folder: Path | None = None  # where the state is kept for resuming
    start: Dev | None = None  # what the untrained weights are worth, where they are a candidate
    label: str = "training"


@dataclass(slots=True)
class Progress:
    """Where a training stands; plain data, kept in the state."""

    step: int = 0
    tokens: int = 0  # real pieces, without padding
    seconds: float = 0.0
    best_step: int = 0
    best_score: float = -1.0
    best_loss: float = math.inf
    since_best: int = 0  # evaluations without a new best; the untrained weights' does not count
    processes: int = 1  # that share each batch
    precision: str = ""  # fp32 or bf16; decided once, so that a resumed training keeps it
    loss_sum: float = 0.0  # of the steps since the last evaluation, those still on the device apart
    curve: list[dict[str, float]] = field(default_factory=list[dict[str, float]])


def batches_of(job: Job, epoch: int) -> list[Ints]:
    """Cut an epoch into batches; they differ from epoch to epoch, and follow from the seed."""
    batches = pack(job.data.lengths, job.order(epoch), tokens=job.settings.batch_tokens)
    np.random.default_rng((job.seed, epoch, 1)).shuffle(batches)
    return batches


def total_steps(job: Job) -> int:
    """Steps of the whole training: `max_steps`, or the epochs' batches."""
    if job.settings.max_steps is not None:
        return job.settings.max_steps
    return max(round(job.settings.epochs * len(batches_of(job, 0))), 1)


def fit(model: PreTrainedModel, job: Job) -> Progress:
    """Train a model in place and leave it with the weights that were best on dev.

    Args:
        model: On the accelerator's device; afterwards in eval mode.
        job: Data, settings, and how to judge. With `start`, the weights that it came with are
            kept where no later ones are better.

    Returns:
        The curve, and what it cost.

    Raises:
        HeadstartError: The objective reads a teacher that is not there, or the state that lies
            in the folder was left by other processes.
    """
    _check_teacher(job)
    torch.manual_seed(job.seed + job.accelerator.process_index)
    pieces = torch.from_numpy(np.unique(np.append(job.data.ids, job.data.pad_id)).astype(np.int64))
    alone = job.features is None  # else the last layer's states are compared
    brief = first_piece(model, job.data.task) if alone else nullcontext()
    with trainable(model, job.settings, pieces), brief:
        optimizer = optimizer_for(model, job.settings)
        learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
        best = {name: p.detach().clone() for name, p in learned.items()}
        progress = Progress(processes=job.accelerator.num_processes)
        if job.start is not None:
            progress.best_score, progress.best_loss = job.start
        if job.folder is not None:
            progress = load_state(job.folder, learned, best, optimizer, Progress) or progress
            _check_processes(progress, job.accelerator, job.folder)
        progress.precision = progress.precision or choose_precision(job.settings, job.accelerator)
        try:
            bound = None if job.features is None else job.features.bind(model)
            _loop(model, optimizer, job, progress, learned, best, bound)
        finally:
            job.accelerator.free_memory()  # it holds on to all that it prepared
        _copy(best, learned)
    return progress


@torch.no_grad()
def _copy(of: Mapping[str, Tensor], to: Mapping[str, Tensor]) -> None:
    """Write weights over others, in their place."""
    for name, tensor in to.items():
        tensor.copy_(of[name])


def _check_teacher(job: Job) -> None:
    """Refuse an objective that has nothing to read."""
    terms = job.settings.learned
    lacks_logits = needs_teacher(terms) and job.teacher is None
    if lacks_logits or (needs_features(terms) and job.features is None):
        raise HeadstartError(
            f"the objective {' + '.join(terms)} needs a teacher",
            where="train.objective",
            way_out="name a teacher, or use labels alone",
        )


def _check_processes(progress: Progress, accelerator: Accelerator, folder: Path) -> None:
    """Refuse to resume where the processes are others than before, or stand at other steps."""
    steps = torch.tensor([progress.step], device=accelerator.device)
    if accelerator.num_processes > 1:
        steps = cast("Tensor", accelerator.gather(steps))
    found = set(steps.tolist())
    if progress.processes != accelerator.num_processes or len(found) > 1:
        raise HeadstartError(
            "the interrupted training was shared by other processes",
            where=str(folder),
            way_out=f"resume with {progress.processes} processes, or delete that folder",
        )


def _loop(
    model: PreTrainedModel,
    optimizer: torch.optim.AdamW,
    job: Job,
    progress: Progress,
    learned: Mapping[str, Tensor],
    best: dict[str, Tensor],
    bound: Bound | None,
) -> None:
    """Step, evaluate, keep the best, until the ceiling is met or dev has stopped rising."""
    settings, total = job.settings, total_steps(job)
    every = settings.eval_every or len(batches_of(job, 0))
    wrapped, running = job.accelerator.prepare(model, optimizer)
    bf16 = progress.precision == "bf16"
    stride = recorded(stride_of(job, wrapped, running, bound, bf16=bf16))
    saved = mark = time.perf_counter()
    losses: list[Tensor] = []  # not looked at before they must be: an accelerator works ahead
    with track(job.label, total) as advance, between_steps() as is_asked_to_stop:
        advance(progress.step)
        for index in _from(job, progress.step, total):
            if settings.patience is not None and progress.since_best >= settings.patience:
                break
            rate = job.learning_rate * rate_at(progress.step, total, settings.warmup)
            set_rate(optimizer, rate)
            losses.append(stride(index))
            progress.step += 1
            progress.tokens += _pieces(job, index)
            judges = progress.step % every == 0 or progress.step == total
            stops = is_asked_to_stop()
            due = stops or time.perf_counter() - saved > 60 * settings.checkpoint_minutes
            saves = job.folder is not None and first_says(job.accelerator, due)
            if judges or saves:
                _gather(progress, losses)
            now = time.perf_counter()
            progress.seconds, mark = progress.seconds + now - mark, now
            if judges:
                _judge(model, job, progress, min(every, (progress.step - 1) % every + 1))
                if progress.best_step == progress.step:
                    _copy(learned, best)
                mark = time.perf_counter()
            advance(1, _told(progress))
            if job.folder is not None and saves:
                save_state(job.folder, learned, best, optimizer, asdict(progress))
                saved = mark
            if stops:
                raise KeyboardInterrupt


def _told(progress: Progress) -> str:
    """Say what the best weights so far are worth; their loss, where they have no score."""
    if not progress.curve:
        return ""
    scored = f"dev {progress.best_score:.3f}"
    return scored if progress.best_score > 0 else f"dev loss {progress.best_loss:.3f}"


def _from(job: Job, step: int, total: int) -> Iterator[Ints]:
    """Give the batches of the whole training from a step on."""
    every = itertools.chain.from_iterable(batches_of(job, epoch) for epoch in itertools.count())
    return itertools.islice(every, step, total)


def stride_of(
    job: Job,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    bound: Bound | None = None,
    *,
    bf16: bool = False,
) -> Stride:
    """Give what takes a job's steps."""
    return Stride(
        model=model,
        optimizer=optimizer,
        accelerator=job.accelerator,
        data=job.data,
        settings=job.settings,
        teacher=job.teacher,
        bound=bound,
        bf16=bf16,
    )


def _pieces(job: Job, index: Ints) -> int:
    """Count the real pieces of a batch."""
    return int((job.data.starts[index + 1] - job.data.starts[index]).sum())


def _gather(progress: Progress, losses: list[Tensor]) -> None:
    """Fetch the losses, which waits until the device has done all steps so far."""
    for loss in torch.stack(losses).tolist():  # one by one: an interrupted run adds up the same
        progress.loss_sum += loss
    losses.clear()


def _judge(model: PreTrainedModel, job: Job, progress: Progress, steps: int) -> None:
    """Evaluate on dev, and note whether this is the best so far."""
    dev = job.evaluate(model)
    rises = dev.score > max((point["dev"] for point in progress.curve), default=-1.0)
    progress.since_best = 0 if rises else progress.since_best + 1
    better = (dev.score, -dev.loss) > (progress.best_score, -progress.best_loss)
    if better and math.isfinite(dev.loss):
        progress.best_score, progress.best_loss = dev.score, dev.loss
        progress.best_step = progress.step
    loss = torch.tensor(progress.loss_sum, device=job.accelerator.device)
    if job.accelerator.num_processes > 1:
        loss = cast("Tensor", job.accelerator.reduce(loss))
    point = {
        "step": progress.step,
        "seconds": round(progress.seconds, 3),
        "tokens": progress.tokens,
        "loss": loss.item() / steps,
        "dev": dev.score,
        "dev_loss": dev.loss,
    }
    progress.loss_sum = 0.0
    progress.curve.append(point)
    if job.accelerator.trackers:
        job.accelerator.log({f"{job.label}/{k}": v for k, v in point.items()}, step=progress.step)
