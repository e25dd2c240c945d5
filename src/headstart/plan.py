"""What a recipe will make and cost, told from configs and texts before any work."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from headstart import checkpoint
from headstart.budget import BYTES, wanted_shape, work
from headstart.families import family_of
from headstart.layout import count_parameters, shape_of, student_changes, traits_of
from headstart.loading import expand
from headstart.objectives import needs_features
from headstart.reader import read_config
from headstart.rules import choose
from headstart.sources import source_of
from headstart.stages import base_of, open_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.recipe import Recipe
    from headstart.settings import Train
    from headstart.stages import Text

# Share of the bare matrix rate that training reaches, measured on two cores: see docs/log.md.
EFFICIENCY = 0.5
BUSY = 0.6  # load for each processor from which on an estimate says so
# Forward passes of both models that a refit costs, its normal equations counted in.
REFIT_PASSES = 4


@dataclass(frozen=True, slots=True)
class Size:
    """One model's shape and size.

    Args:
        name: teacher or student.
        layers, hidden, heads, ffn: Its shape.
        parameters: `total`, and of them `vocabulary`, `transformer` and `head`.
        work: What it does for each piece of text, in multiply-adds.
        config: As plain data.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    parameters: Mapping[str, int]
    work: float
    config: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Size on disk in single precision."""
        return self.parameters["total"] * BYTES


def plan_sizes(recipe: Recipe, named: str, *, labels: int | None = None) -> tuple[Size, Size]:
    """Work out the teacher's and the student's size from the teacher's config.

    Args:
        recipe: Says what student is wanted.
        named: Folder or hub name of the teacher or its base.
        labels: Classes of the task, where the config is a base's.

    Returns:
        Teacher and student.

    Raises:
        HeadstartError: The student cannot be cut from that teacher.
    """
    config: dict[str, Any] = read_config(named).to_dict()
    if labels is not None:
        config |= {"num_labels": labels, "id2label": {str(i): str(i) for i in range(labels)}}
    family = family_of(config)
    old = shape_of(family, config)
    new = wanted_shape(family, config, recipe.task, recipe.student.model_dump())
    layers = choose(
        old,
        new,
        rules={"layers": recipe.init.layers},
        traits=traits_of(family, config),
    ).layers
    changed = config | student_changes(family, config, new, layers=layers)
    sizes: list[Size] = []
    for name, shape, plain in (("teacher", old, config), ("student", new, changed)):
        counts = count_parameters(family, plain, recipe.task)
        four = (shape.layers, shape.hidden, shape.heads, shape.ffn)
        sizes.append(Size(name, *four, counts, work(family, plain), plain))
    return sizes[0], sizes[1]


def study_sizes(recipe: Recipe) -> list[Size]:
    """Work out the teacher, then each student that differs from those before it.

    Raises:
        HeadstartError: One of them cannot be cut from its teacher.
    """
    labels = recipe.data.labels or source_of(recipe.data).labels
    count = len(labels) if labels else None
    found: list[Size] = []
    with TemporaryDirectory() as folder:
        for _, one in expand(recipe):
            named = one.teacher.model or str(base_of(one, Path(folder)))
            found += [size for size in plan_sizes(one, named, labels=count) if size not in found]
    return found


def _inner(parameters: Mapping[str, int]) -> int:
    """Parameters that every piece passes through: all but the word embeddings."""
    return parameters["transformer"] + parameters["head"]


def busy() -> str:
    """Say that other programs hold this machine, which no estimate knows; empty if none do."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < BUSY * (os.cpu_count() or 1):
        return ""
    return f"; longer while other programs are at work here (load {load:.1f})"


@cache
def matrix_rate() -> float:
    """Measure this machine's matrix products for half a second.

    One thread is measured at its best, and counted once for each thread: what else the machine is
    doing just now says nothing about the hours to come.

    Returns:
        Floating-point operations per second in single precision.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a, b = torch.ones(512, 384), torch.ones(384, 1536)
        began, best = time.perf_counter(), float("inf")
        while time.perf_counter() - began < 0.5:
            start = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return threads * 2 * 512 * 384 * 1536 / best


def seconds_for(
    recipe: Recipe, text: Text, sizes: tuple[Size, Size], *, teachers: int
) -> dict[str, float]:
    """Estimate the seconds of each stage from products per piece and the measured rate.

    Args:
        recipe: One run.
        text: Its corpus, tokenized.
        sizes: Teacher and student.
        teachers: 1 where the teacher is yet to be fine-tuned and asked, otherwise 0.

    Returns:
        Seconds under teacher, `teacher pass`, refit, general, student and evaluation.
    """
    rate = matrix_rate() * EFFICIENCY
    pieces = {name: int(split.lengths.sum()) for name, split in text.splits.items()}
    more_text = (recipe.data.text_per_language or 0) * len(text.languages)
    pieces["train"] += round(more_text * float(text.splits["train"].lengths.mean()))
    teacher, student = (2 * _inner(size.parameters) / rate for size in sizes)
    more = (recipe.teacher.examples_per_language or 0) / (recipe.data.examples_per_language or 1)
    tuned = recipe.teacher.finetune
    fitting = _passes(tuned, pieces["train"] * max(more, 1)) * 3 * teacher
    judging = _judgements(tuned, pieces["train"]) * pieces["dev"]
    step = 3 * student + (teacher if needs_features(recipe.train.objective) else 0.0)
    seen = recipe.init.refit.tokens if recipe.init.refit else 0
    general = recipe.init.general
    learned = 0.9 * general.steps * general.batch_tokens if general else 0.0
    return {
        "teacher": 0.0 if recipe.teacher.model else teachers * (fitting + judging * teacher),
        "teacher pass": teachers * sum(pieces.values()) * teacher,
        "refit": seen * REFIT_PASSES * (teacher + student),
        "general": learned * (3 * student + teacher),
        "student": _passes(recipe.train, pieces["train"]) * step
        + _judgements(recipe.train, pieces["train"]) * pieces["dev"] * student,
        "evaluation": (pieces["test"] + 2 * pieces["dev"]) * student,
    }


def _passes(train: Train, pieces: float) -> float:
    """Pieces that a training reads, its trials included."""
    whole = train.epochs * pieces
    if train.max_steps is not None:
        whole = 0.9 * train.max_steps * train.batch_tokens  # a tenth is padding
    rates = len(train.learning_rates or (1, 2, 3)) if train.learning_rate == "auto" else 0
    return whole * (1 + rates * train.trial_fraction)


def _judgements(train: Train, pieces: float) -> float:
    """How often a training is judged on dev, its trials included."""
    steps = train.epochs * pieces / (0.9 * train.batch_tokens)
    if train.max_steps is not None:
        steps = train.max_steps
    every = train.eval_every or pieces / (0.9 * train.batch_tokens)
    return max(steps / every, 1) + (3 if train.learning_rate == "auto" else 0)


def describe_seconds(seconds: float) -> str:
    """Write a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def estimate(
    recipes: Sequence[Recipe],
    named: str,
    text: Text,
    *,
    teachers: int = 1,
    starts: set[str] | None = None,
) -> list[dict[str, float]]:
    """Estimate a study's time before it starts.

    Args:
        recipes: Its runs, which share text and teacher.
        named: Folder or hub name of the teacher or its base.
        text: The corpus, tokenized.
        teachers: 0 where the teacher is made already.
        starts: What runs start from that were counted already; those of these are added.

    Returns:
        Seconds of each run by stage; what is shared counts for the first that needs it.
    """
    labels = len(text.corpus.labels)
    found: list[dict[str, float]] = []
    starts = set() if starts is None else starts  # each is made once
    for i, recipe in enumerate(recipes):
        sizes = plan_sizes(recipe, named, labels=labels)
        stages = seconds_for(recipe, text, sizes, teachers=teachers if i == 0 else 0)
        start = recipe.model_dump_json(include={"student", "init", "seed"})
        if start in starts:
            stages |= {"refit": 0.0, "general": 0.0}
        starts.add(start)
        found.append(stages)
    return found


def describe(runs: Sequence[Mapping[str, float]]) -> str:
    """Write the time of runs, as `estimate` gives it, in one sentence."""
    parts: dict[str, float] = {}
    for stages in runs:
        for stage, seconds in stages.items():
            parts[stage] = parts.get(stage, 0.0) + seconds
    shares = ", ".join(f"{k} {describe_seconds(v)}" for k, v in parts.items() if v >= 1)
    whole = f"about {describe_seconds(sum(parts.values()))} on this machine"
    return (f"{whole} ({shares})" if shares else whole) + busy()


def how_long(
    recipes: Sequence[Recipe], shared: Path, *, bases: Path | None = None
) -> list[dict[str, float]]:
    """Estimate the time of runs that share a teacher, before they start.

    Args:
        recipes: The runs that are not done yet; at least one.
        shared: Where teachers are kept.
        bases: Where a packed base is written; None for `shared`.

    Returns:
        Seconds of each by stage.
    """
    made = any((shared / "teachers").glob("*/made.json"))
    bases = bases or shared
    found: list[dict[str, float]] = []
    texts: dict[str, Text] = {}
    starts: set[str] = set()  # each is made once
    for recipe in recipes:
        named = recipe.teacher.model or str(base_of(recipe, bases))
        learned = recipe.train.languages
        key = f"{named}|{recipe.data.model_dump_json()}|{learned}"
        if key not in texts:
            tokenizer = checkpoint.load_tokenizer(named)
            texts[key] = open_text(recipe.data, recipe.task, tokenizer, learned=learned)
        teachers = 0 if made or found else 1
        found += estimate([recipe], named, texts[key], teachers=teachers, starts=starts)
    return found
