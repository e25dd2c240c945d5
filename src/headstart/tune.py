"""Which learning rate: tried on dev, its cost counted."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from headstart.console import say
from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.state import drop_state
from headstart.train import fit, total_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from headstart.record import Record
    from headstart.settings import Train
    from headstart.train import Job, Progress


LADDER = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
CLEAR = 0.05  # above the majority class, or below a trial: less says little
TRIALS = "trials.json"
PLACES = {"teacher": "teacher.finetune", "general": "init.general"}  # of what is trained
FIRST = (1e-4, 3e-4, 1e-3)  # what auto begins with, whatever the weights' source


@dataclass(frozen=True, slots=True)
class Trial:
    """One learning rate tried."""

    learning_rate: float
    dev: float
    dev_loss: float
    steps: int
    seconds: float


def choose_rate(model: PreTrainedModel, job: Job, *, floor: float) -> list[Trial]:
    """Try learning rates at a fraction of the steps; the first of the result is the best on dev.

    The settings' own candidates are tried, or the three of `FIRST` and, for as long as the best
    is the lowest or the highest of those tried, the next of `LADDER` beyond it. Where none is
    clear of `floor`, the trials say little yet: they are repeated at twice the length.

    Args:
        model: Left as it is.
        job: The training to choose for.
        floor: Dev score of the majority class.

    Returns:
        The trials of the last length, the best first; after them the shorter ones, which cost
        time, too.
    """
    total = total_steps(job)
    steps = max(round(total * job.settings.trial_fraction), 1)
    shorter: list[Trial] = []
    while True:
        given = job.settings.learning_rates
        trials = [_try(model, job, rate, steps) for rate in given or FIRST]
        trials = _ranked(trials, floor)
        while given is None and (rate := _beyond(trials, floor)) is not None:
            trials = _ranked([*trials, _try(model, job, rate, steps)], floor)
        if _learned(trials, floor) or steps >= total:
            return [*trials, *shorter]
        steps, shorter = min(2 * steps, total), [*shorter, *trials]


def _try(model: PreTrainedModel, job: Job, rate: float, steps: int) -> Trial:
    """Train a copy for some steps."""
    short = job.settings.model_copy(
        update={"max_steps": steps, "eval_every": steps, "patience": None}
    )
    label = f"trying {rate:g}"
    trial = replace(job, settings=short, learning_rate=rate, folder=None, start=None, label=label)
    done = fit(copy.deepcopy(model), trial)
    return Trial(rate, done.best_score, done.best_loss, steps, done.seconds)


def _ranked(trials: Sequence[Trial], floor: float) -> list[Trial]:
    """Put the best first: by dev score, or by dev loss while scores hardly leave the floor."""

    def loss(trial: Trial) -> float:
        return trial.dev_loss if math.isfinite(trial.dev_loss) else math.inf

    if not _learned(trials, floor):
        return sorted(trials, key=loss)
    return sorted(trials, key=lambda trial: (-trial.dev, loss(trial)))


def _beyond(trials: Sequence[Trial], floor: float) -> float | None:
    """Give the rate next to the best, if that is the lowest or the highest of those tried.

    Upward only where the best has learned something: a rate that is too high learns nothing.
    """
    best, tried = trials[0].learning_rate, [trial.learning_rate for trial in trials]
    place = LADDER.index(best)
    if best == min(tried) and place > 0:
        return LADDER[place - 1]
    if _learned(trials, floor) and best == max(tried) and place < len(LADDER) - 1:
        return LADDER[place + 1]
    return None


def _learned(trials: Sequence[Trial], floor: float) -> bool:
    return max(trial.dev for trial in trials) > floor + CLEAR


def searches(settings: Train) -> bool:
    """Whether a training chooses its learning rate."""
    return settings.learning_rate == "auto" and settings.max_steps != 0


def trials_of(record: Record, settings: Train) -> list[Trial]:
    """Take the trials of another run, which has paid for them.

    Raises:
        HeadstartError: There are none, or they are not asked for.
    """
    tried = cast("Sequence[dict[str, Any]]", record.learning_rate["tried"])
    if not (tried and searches(settings)):
        raise HeadstartError(
            "a learning rate is to be taken from a run, and one of the two has a fixed one",
            where=record.name,
            way_out="set train.learning_rate to auto in both, or leave rate_from out",
        )
    return [replace(Trial(**one), seconds=0.0) for one in tried]


def learn(
    model: PreTrainedModel, job: Job, *, floor: float, trials: Sequence[Trial] = ()
) -> tuple[Progress, list[Trial]]:
    """Train a model in place, at the given learning rate or the best of several.

    A rate that is best in a short trial may be too high for the whole training, which stays near
    its peak for longer. Where dev ends clearly below the trial's, training starts again at the
    best of the lower rates tried.

    Args:
        model: On the accelerator's device.
        job: The training.
        floor: Dev score of the majority class.
        trials: Made for another seed; where there are any, this one makes none of its own.

    Returns:
        How it went, and the learning rates tried, the one it was trained at first (none where one
        was given); a training that fell is among them.

    Raises:
        HeadstartError: The loss of a training that has no start to fall back to is no number.
    """
    if not searches(job.settings):
        return sound(fit(model, job), job), []
    first = copy.deepcopy(model.state_dict())
    trials = _remembered(job) or _keep([*trials] or choose_rate(model, job, floor=floor), job)
    while True:
        best = trials[0]
        say(f"learning rate {best.learning_rate:g}: {best.dev:.3f} on dev after {best.steps} steps")
        progress = sound(fit(model, replace(job, learning_rate=best.learning_rate)), job)
        lower = [trial for trial in trials if trial.learning_rate < best.learning_rate]
        if not lower or progress.best_score >= best.dev - CLEAR:
            return progress, trials
        say(f"fell to {progress.best_score:.3f} in the whole training: again at a lower rate")
        dev, loss = progress.best_score, progress.best_loss
        fallen = Trial(best.learning_rate, dev, loss, progress.step, progress.seconds)
        trials = [lower[0], *(trial for trial in trials if trial != lower[0]), fallen]
        if job.folder is not None:
            drop_state(job.folder)  # first: interrupted between the two, it only falls once more
        _keep(trials, job)
        model.load_state_dict(first)


def sound(progress: Progress, job: Job) -> Progress:
    """Refuse a training that left no weights worth keeping, not even those that it began with.

    Raises:
        HeadstartError: Its loss was no number whenever dev was looked at.
    """
    if progress.step and math.isinf(progress.best_loss) and job.start is None:
        raise HeadstartError(
            f"{job.label}: the loss is no number at any look at dev",
            where=PLACES.get(job.label, "train.learning_rate"),
            way_out="take a lower learning_rate, or precision fp32",
        )
    return progress


def _remembered(job: Job) -> list[Trial]:
    """Take the trials of an interrupted run from its folder."""
    path = None if job.folder is None else job.folder / TRIALS
    if path is None or not path.exists():
        return []
    return [Trial(**trial) for trial in json.loads(path.read_text(encoding="utf-8"))]


def _keep(trials: list[Trial], job: Job) -> list[Trial]:
    """Write the trials down for a run that is interrupted later."""
    if job.folder is not None and job.accelerator.is_main_process:
        job.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(job.folder / TRIALS, json.dumps([asdict(trial) for trial in trials]))
    return trials
