"""How long a recipe will take: products for each piece, over what this machine does a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headstart.budget import PER_CHANNEL, PER_PIECE
from headstart.checking import apply
from headstart.general import JUDGED
from headstart.groundwork import measured_rules
from headstart.objectives import needs_features, needs_teacher
from headstart.pieces import load_tokenizer
from headstart.plan import Size, plan_sizes
from headstart.prepare import rate_of_dropout, reads_labels
from headstart.speed import busy, product_seconds, seconds_each
from headstart.stages import base_of, teacher_data
from headstart.texts import bytes_of_text
from headstart.tokenized import open_text
from headstart.tune import FIRST, searches

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from headstart.recipe import Recipe, Refit
    from headstart.settings import Train
    from headstart.tokenized import Text

# What follows was fitted to the seconds of runs: see docs/performance.md.
FILLED = 0.95  # share of a batch that is no padding
RATES = {"teacher": 3.5, "refitted": 4.5}  # how many auto tries
FRESHER = 3.0  # the same for other first weights
# Rounds of trials, each twice as long as the one before: weights that do not know the task often
# learn nothing in the first, and least where labels and answers are mixed.
ROUNDS, FRESH_ROUNDS, MIXED_ROUNDS = 1, 2, 3
UNDROPPED = 0.92  # a step without dropout, of one with it
# A refit: forward passes of both models, and each multiply-add of its sums, adding up included.
REFIT_PASSES, REFIT_SUMS = 2.0, 6.9
# A run's own seconds, and those of each parameter that is loaded, hashed and written.
BEGINNING, LOADING = 0.7, 2e-8
BYTES = 2  # of a file of text for each piece: compressed ones have as few


def seconds_for(
    recipe: Recipe, text: Text, sizes: tuple[Size, Size], *, todo: Collection[str]
) -> dict[str, float]:
    """Estimate the seconds of each stage from products per piece and the measured rate.

    Args:
        recipe: One run.
        text: Its corpus, tokenized.
        sizes: Teacher and student.
        todo: What is not there yet: `teacher` to tune, splits for it to answer, `measuring`.

    Returns:
        Seconds under loading, teacher, `teacher pass`, measuring, refit, general, student and
        evaluation.
    """
    pieces = {name: int(split.lengths.sum()) for name, split in text.splits.items()}
    rows = len(text.splits["train"])
    more_text = (recipe.data.text_per_language or 0) * len(text.languages)
    pieces["train"] += round(more_text * float(text.splits["train"].lengths.mean()))
    whole = [size.work * seconds_each(size) for size in sizes]  # to answer, in fp32
    learning = seconds_each(sizes[1], recipe.train)
    features = needs_features(recipe.train.objective)
    student = learning * (sizes[1].work if features else _brief(sizes[1], recipe))
    answer, predict = (_brief(size, recipe) * seconds_each(size) for size in sizes)
    init, general = recipe.init, recipe.init.general
    read = min(init.measure_tokens, _there(recipe, text, init.measure_languages))
    refitted = _to_refit(recipe, text, init.refit) if init.refit else 0.0
    passes = 2 if "taylor" in measured_rules(recipe) else 1
    learned = FILLED * general.steps * general.batch_tokens if general else 0.0
    judged = JUDGED * general.judge_tokens if general else 0.0
    step = _step(recipe.train, whole[0], student)
    start = "refitted" if init.refit else init.source
    fit = _passes(recipe.train, pieces["train"], start) * step
    judge = _judgements(recipe.train, pieces["train"], start) * pieces["dev"] * predict
    return {
        "loading": BEGINNING + LOADING * sum(size.parameters["total"] for size in sizes),
        "teacher": _tuning(recipe, pieces, rows, sizes[0]) if "teacher" in todo else 0.0,
        "teacher pass": answer * sum(pieces[name] for name in pieces if name in todo),
        "measuring": passes * whole[0] * read if "measuring" in todo else 0.0,
        "refit": _refitting(recipe, sizes, refitted),
        "general": learned * (3 * sizes[1].work * learning + whole[0]) + judged * sum(whole),
        "student": fit + judge,
        "evaluation": (pieces["test"] + 2 * pieces["dev"]) * predict,
    }


def _brief(size: Size, recipe: Recipe) -> float:
    """Multiply-adds of a piece; of a classifier's last layer, queries, keys and values alone."""
    if recipe.task != "classification":
        return size.work
    layer = (size.work - PER_PIECE) / size.layers - PER_CHANNEL * size.hidden
    return size.work - layer + 3 * size.hidden**2


def _there(recipe: Recipe, text: Text, languages: Sequence[str] | None) -> float:
    """Count the pieces that may be looked at: of training rows, and in the files of `data.text`."""
    train, folder = text.splits["train"], recipe.data.text
    names = languages or train.languages
    more = 0 if folder is None else bytes_of_text(folder, names) / BYTES
    codes = [train.languages.index(name) for name in names]
    return more + float(train.lengths[np.isin(train.language_ids, codes)].sum())


def _to_refit(recipe: Recipe, text: Text, asked: Refit) -> float:
    """Count the pieces that a refit will look at; in a folder of its own, from its files' size."""
    if asked.text is None:
        return min(asked.tokens, _there(recipe, text, asked.languages))
    names = asked.languages or text.splits["train"].languages
    return min(asked.tokens, bytes_of_text(asked.text, names) / BYTES)


def _step(train: Train, teacher: float, student: float) -> float:
    """Seconds of a piece in training, from those of a forward pass."""
    dropped = UNDROPPED if rate_of_dropout(train) == 0 else 1.0
    return 3 * student * dropped + (teacher if needs_features(train.objective) else 0.0)


def _tuning(recipe: Recipe, pieces: Mapping[str, int], rows: int, size: Size) -> float:
    """Estimate the seconds of a teacher's fine-tuning."""
    tuned = recipe.teacher.finetune
    learned = pieces["train"] * _share(recipe, rows)
    seen = _passes(tuned, learned, "teacher")
    judged = _judgements(tuned, learned, "teacher") * pieces["dev"]
    each = 3 * seen * seconds_each(size, tuned) + judged * seconds_each(size)
    return _brief(size, recipe) * each


def _share(recipe: Recipe, rows: int) -> float:
    """Say how many rows the teacher learns from for each of the student's, as far as is known."""
    theirs, ours = recipe.teacher.examples_per_language, recipe.data.examples_per_language
    if theirs is None:
        return 1.0
    return theirs / ours if ours else min(theirs * len(recipe.data.languages) / rows, 1.0)


def _refitting(recipe: Recipe, sizes: tuple[Size, Size], pieces: float) -> float:
    """Estimate the seconds of a refit on so many pieces."""
    student = sizes[1]
    sums = student.layers * (student.ffn**2 + 5 * student.hidden**2)
    passes = (size.work * seconds_each(size, recipe.train, learns=False) for size in sizes)
    each = REFIT_PASSES * sum(passes) + REFIT_SUMS * sums * product_seconds()
    return pieces * each


def _trials(train: Train, start: str) -> tuple[float, float]:
    """Guess how many trials there are, and what share of a training's steps they take together."""
    if not searches(train):
        return 0.0, 0.0
    rates = len(train.learning_rates or ()) or RATES.get(start, FRESHER)
    mixed = reads_labels(train) and needs_teacher(train.learned)
    rounds = ROUNDS if start in RATES else MIXED_ROUNDS if mixed else FRESH_ROUNDS
    lengths = [train.trial_fraction]
    while len(lengths) < rounds and lengths[-1] < 1:
        lengths.append(min(2 * lengths[-1], 1.0))
    return rates * len(lengths), rates * sum(lengths)


def _passes(train: Train, pieces: float, start: str) -> float:
    """Pieces that a training reads, its trials included."""
    whole = train.epochs * pieces
    if train.max_steps is not None:
        whole = FILLED * train.max_steps * train.batch_tokens
    return whole * (1 + _trials(train, start)[1])


def _judgements(train: Train, pieces: float, start: str) -> float:
    """How often a training is judged on dev, its trials included."""
    steps = train.epochs * pieces / (FILLED * train.batch_tokens)
    if train.max_steps is not None:
        steps = train.max_steps
    every = train.eval_every or pieces / (FILLED * train.batch_tokens)
    return max(steps / every, 1) + _trials(train, start)[0]


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
    there: Collection[str] = (),
    made: set[str] | None = None,
) -> list[dict[str, float]]:
    """Estimate a study's time before it starts.

    Args:
        recipes: Its runs, which share text and teacher.
        named: Folder or hub name of the teacher or its base.
        text: The corpus, tokenized.
        there: What needs no time, under the names of `seconds_for`'s `todo`.
        made: What runs share that was counted already; that of these is added.

    Returns:
        Seconds of each run by stage; what is shared counts for the first that needs it.
    """
    labels = len(text.corpus.labels)
    found: list[dict[str, float]] = []
    made = set() if made is None else made  # each is made once
    for recipe in recipes:
        sizes = plan_sizes(recipe, named, labels=labels)
        shared = _shared(recipe)
        todo = [name for name, what in shared.items() if what not in made and name not in there]
        stages = seconds_for(recipe, text, sizes, todo=todo)
        parts = {"student", "init", "seed", "data", "teacher"}
        start = recipe.model_dump_json(include=parts, exclude={"data": {"text_per_language"}})
        start += str(recipe.train.languages)
        if start in made:
            stages |= dict.fromkeys(("measuring", "refit", "general"), 0.0)
        made |= {start, *shared.values()}
        found.append(stages)
    return found


def _shared(recipe: Recipe) -> dict[str, str]:
    """What a run needs of a teacher, as `seconds_for` names it, and what makes each its own."""
    data, given = recipe.data, recipe.teacher.model
    teacher = given or recipe.teacher.model_dump_json() + teacher_data(recipe).model_dump_json()
    judged = data.model_dump_json(exclude={"examples_per_language", "text_per_language"})
    drawn = recipe.seed if data.text_per_language else None
    learned = recipe.train.languages
    rows = {"dev": f"{judged} in {learned}", "test": judged}
    if needs_teacher(recipe.train.learned):
        rows["train"] = f"{data.model_dump_json()} in {learned}, drawn by {drawn}"
    if rules := sorted(measured_rules(recipe)):
        looks = recipe.init.measure_tokens, recipe.init.measure_languages, recipe.seed
        rows["measuring"] = f"{rules}, {looks} in {data.model_dump_json()} in {learned}"
    shared = {name: f"{name} of {rows[name]} by {teacher}" for name in rows}
    return shared if given else {"teacher": teacher, **shared}


def rated(recipe: Recipe) -> Recipe:
    """Give a recipe a learning rate: that of a run which takes its way's first seed's."""
    return apply(recipe, {"train.learning_rate": FIRST[0], "train.learning_rates": None})


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
    there = {"teacher"} if any((shared / "teachers").glob("*/made.json")) else set[str]()
    if any((shared / "passes").glob("*")):  # of all that is asked, it is supposed
        there |= {"train", "dev", "test"}
    bases = bases or shared
    found: list[dict[str, float]] = []
    texts: dict[str, Text] = {}
    made: set[str] = set()  # each is made once
    for recipe in recipes:
        named = recipe.teacher.model or str(base_of(recipe, bases))
        learned = recipe.train.languages
        key = f"{named}|{recipe.data.model_dump_json()}|{learned}"
        if key not in texts:
            tokenizer = load_tokenizer(named)
            texts[key] = open_text(recipe.data, recipe.task, tokenizer, learned=learned)
        found += estimate([recipe], named, texts[key], there=there, made=made)
    return found
