"""One stage alone, folder to folder: fine-tune, distil, judge, check."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from headstart import checkpoint
from headstart.calibration import unlabelled
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError, combine
from headstart.evaluate import predict, score_languages
from headstart.features import Features
from headstart.folders import claim
from headstart.forecast import describe, estimate, rated
from headstart.groundwork import check_texts, drawn
from headstart.labels import lacking
from headstart.loading import data_of, expand
from headstart.objectives import needs_features, needs_teacher
from headstart.plan import Size, plan_sizes
from headstart.prepare import check_tracker, open_accelerator
from headstart.reader import read_config, read_selection
from headstart.stages import add_unlabelled, base_of, job_for, open_text
from headstart.tune import learn, searches

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from typing import TypeVar

    from transformers import PreTrainedModel

    from headstart.layout import Head
    from headstart.reader import Opened
    from headstart.recipe import Recipe
    from headstart.settings import Data, Train
    from headstart.stages import Text
    from headstart.train import Progress

    T = TypeVar("T")


def finetune(
    base: str, out: str | Path, *, task: Head, data: Data, train: Train, seed: int = 0
) -> Progress:
    """Fine-tune a base on labelled text, and write the model to a folder.

    Args:
        base: Folder or hub name of a pre-trained encoder.
        out: A new folder; the tracker writes beside it.
        task: classification or tagging.
        data: The labelled text.
        train: How to train; its objective is labels.
        seed: Of the fresh head, the order of the text, dropout.

    Returns:
        How it went.

    Raises:
        HeadstartError: Base or text are at fault, or the folder is taken.
    """
    out = claim(out, base)
    accelerator = open_accelerator(train.tracker, _beside(out))
    tokenizer = checkpoint.load_tokenizer(base)
    text = open_text(data, task, tokenizer, learned=train.languages)
    _check_lengths(text, base)
    model = checkpoint.with_head(base, task=task, labels=text.corpus.labels, seed=seed)
    job = job_for(text, train, accelerator, seed=seed)
    accelerator.init_trackers("tracker")
    progress, _ = learn(model.to(accelerator.device), job, floor=text.floor)
    if accelerator.is_main_process:
        checkpoint.save_model(model, tokenizer, out)
    accelerator.end_training()
    return progress


def distil(
    student: str,
    teacher: str,
    out: str | Path,
    *,
    task: Head,
    data: Data,
    train: Train,
    seed: int = 0,
) -> Progress:
    """Distil a teacher into a student that exists, and write the model to a folder.

    Args:
        student: Folder of the student; it is left as it is.
        teacher: Folder or hub name of the teacher.
        out: A new folder; the tracker writes beside it.
        task: classification or tagging.
        data: The labelled text.
        train: How to train.
        seed: Of the order of the text, and dropout.

    Returns:
        How it went.

    Raises:
        HeadstartError: Models or text are at fault, their labels or tokenizers differ, or the
            folder is taken.
    """
    out = claim(out, student, teacher)
    accelerator = open_accelerator(train.tracker, _beside(out))
    tokenizer = checkpoint.load_tokenizer(teacher)
    _check_tokenizers(student, teacher)
    text = open_text(data, task, tokenizer, learned=train.languages)
    selection = read_selection(student) if needs_features(train.objective) else None
    if data.text_per_language is not None:
        more = unlabelled(text.corpus, data.text)
        text = add_unlabelled(text, more, tokenizer, data.text_per_language, seed=seed)
    for named in (student, teacher):
        _check_lengths(text, named)
    model = checkpoint.load_model(student, task=task, labels=text.corpus.labels)
    asked = checkpoint.load_model(teacher, task=task, labels=text.corpus.labels)
    logits = None
    if needs_teacher(train.objective):
        logits = predict(asked.to(accelerator.device), text.splits["train"], accelerator)
    job = job_for(text, train, accelerator, seed=seed, teacher=logits)
    if selection is not None:
        asked = asked.to(accelerator.device)
        job = replace(job, features=Features(asked, selection, train.objective))
    accelerator.init_trackers("tracker")
    model = model.to(accelerator.device)
    progress, _ = learn(model, replace(job, start=job.evaluate(model)), floor=text.floor)
    if accelerator.is_main_process:
        known = (Path(student) / "selection.json").exists()
        kept = read_selection(student) if known else None
        checkpoint.save_model(model, tokenizer, out, selection=kept)
    accelerator.end_training()
    return progress


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.name}-tracker")


def _check_lengths(text: Text, named: str) -> None:
    longest = max(split.longest for split in text.splits.values())
    checkpoint.check_length(read_config(named).to_dict(), longest)


def _check_tokenizers(student: str, teacher: str) -> None:
    """Compare two tokenizers by what they hold: a student reads the teacher's pieces."""
    ours, theirs = (checkpoint.load_tokenizer(name).get_vocab() for name in (student, teacher))
    if ours != theirs:
        raise HeadstartError(
            f"student and teacher have other pieces ({len(ours):,} and {len(theirs):,})",
            where=student,
            way_out="distil into a student that was cut from this teacher",
        )


def evaluate_model(
    model: str, *, task: Head, data: Data | Mapping[str, object]
) -> dict[str, dict[str, float]]:
    """Score a model on the test split, per language.

    Args:
        model: Folder or hub name.
        task: classification or tagging.
        data: The labelled text, as under `data` in a recipe; train and dev are read, too, to check
            the labels.

    Returns:
        Metric values under language and metric name.

    Raises:
        HeadstartError: Model or text are at fault, or their labels differ.
    """
    accelerator = open_accelerator()
    text = open_text(data_of(data, task), task, checkpoint.load_tokenizer(model))
    _check_lengths(text, model)
    loaded: PreTrainedModel = checkpoint.load_model(model, task=task, labels=text.corpus.labels)
    test = text.splits["test"]
    logits = predict(loaded.to(accelerator.device), test, accelerator)
    return score_languages(test, logits, text.corpus.labels)


@dataclass(frozen=True, slots=True)
class Checked:
    """A recipe without faults, and what it will make."""

    runs: int
    sizes: tuple[Size, Size]  # teacher and student of the first run
    rows: Mapping[str, int]  # examples of each split; these and what follows, of the first run
    leaks: int  # dev and test rows whose text is in train too
    truncated: int  # words that the maximum length cuts off
    lacking: Mapping[str, Sequence[str]]  # labels that a language has no train row of
    time: str


def check(recipe: Recipe) -> Checked:
    """Find every fault of a recipe, its text and its models, before any work.

    Returns:
        What it will make, and how long that will take.

    Raises:
        HeadstartError: All faults, in one error.
    """
    faults: list[HeadstartError] = []
    runs = [one for _, one in expand(recipe)]
    for tracker in {part.tracker for one in runs for part in (one.train, one.teacher.finetune)}:
        if tracker:
            _try(partial(check_tracker, tracker), faults)
    found: dict[Hashable, Found] = {}
    with TemporaryDirectory() as folder:
        for one in runs:
            place = Path(folder) / str(len(found))
            given, learned = one.teacher.model, one.train.languages
            key = (one.data, given or one.teacher.base, given is None, learned)
            at = found.get(key) or found.setdefault(key, _find(one, place, faults))
            is_first = one.seed in recipe.seeds[:1] or not recipe.seeds  # chooses the rate
            at.runs.append(rated(one) if searches(one.train) and not is_first else one)
            asked = (*drawn(one).items(), one.data.text_per_language)
            if at.text and at.named and asked not in at.drawn:  # a seed draws as much as another
                at.drawn.add(asked)
                _try(partial(check_texts, one, at.named), faults)
            if at.named and (size := _try(partial(_sizes, one, at.named, at.labels), faults)):
                at.sizes.append(size)
            if given and one.init.source == "base" and one.teacher.base not in at.bases:
                at.bases.add(one.teacher.base)
                _try(partial(_check_base, one, place / "base", at.teacher), faults)
        if faults:
            unique = list({str(fault): fault for fault in faults}.values())
            raise combine(unique, where=recipe.name or "the recipe")
        return _checked(list(found.values()))


@dataclass(slots=True)
class Found:
    """What the runs that share text and teacher read; None where it is at fault."""

    named: str | None  # the teacher or its base
    teacher: Opened | None  # where a fine-tuned one is named
    labels: tuple[str, ...] | None
    text: Text | None
    runs: list[Recipe] = field(default_factory=list["Recipe"])
    sizes: list[tuple[Size, Size]] = field(default_factory=list[tuple[Size, Size]])
    drawn: set[Hashable] = field(default_factory=set["Hashable"])  # what was tried to be
    bases: set[str | None] = field(default_factory=set[str | None])  # that were checked


def _find(one: Recipe, place: Path, faults: list[HeadstartError]) -> Found:
    """Open what a run reads."""
    task, given = one.task, one.teacher.model
    corpus = _try(lambda: load_corpus(one.data, task), faults)
    labels = corpus.labels if corpus else one.data.labels
    named, teacher = given or _try(lambda: base_of(one, place), faults), None
    if given:
        teacher = _try(lambda: checkpoint.check_model(given, task=task, labels=labels), faults)
    elif named:
        _try(lambda: checkpoint.check_base(named, task=task), faults)
    tokenizer = _try(lambda: checkpoint.load_tokenizer(named), faults) if named else None
    text = None
    if corpus and tokenizer:
        learned = one.train.languages
        text = _try(lambda: open_text(one.data, task, tokenizer, learned=learned), faults)
    if text and named:
        _try(lambda: _check_lengths(text, named), faults)
    return Found(named, teacher, labels, text)


def _check_base(one: Recipe, place: Path, teacher: Opened | None) -> None:
    """Check the base that the student's weights come from, where the teacher is a given one."""
    if base := base_of(one, place):
        checkpoint.check_base(base, task=one.task, teacher=teacher)


def _try(attempt: Callable[[], T], faults: list[HeadstartError]) -> T | None:
    try:
        return attempt()
    except HeadstartError as fault:
        faults.append(fault)
        return None


def _sizes(recipe: Recipe, named: str, labels: tuple[str, ...] | None) -> tuple[Size, Size]:
    return plan_sizes(recipe, named, labels=None if recipe.teacher.model else len(labels or ()))


def _checked(found: list[Found]) -> Checked:
    first = next(text for at in found if (text := at.text))
    made: set[str] = set()  # shared by the groups, too
    each = (estimate(at.runs, at.named, at.text, made=made) for at in found if at.named and at.text)
    return Checked(
        runs=sum(len(at.runs) for at in found),
        sizes=found[0].sizes[0],
        rows={name: len(split) for name, split in first.splits.items()},
        leaks=sum(leak.rows for leak in first.corpus.leaks),
        truncated=sum(split.truncated for split in first.splits.values()),
        lacking=lacking(first.corpus.splits["train"], first.corpus.labels, first.corpus.task),
        time=describe([*chain.from_iterable(each)]),
    )
