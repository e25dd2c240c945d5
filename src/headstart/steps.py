"""One stage alone, folder to folder: fine-tune, distil, judge, check."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from headstart import checkpoint
from headstart.corpus import check_labels, load_corpus
from headstart.errors import HeadstartError, combine
from headstart.evaluate import predict, score_languages
from headstart.loading import expand
from headstart.objectives import needs_teacher
from headstart.plan import Size, estimate, plan_sizes
from headstart.prepare import open_accelerator
from headstart.reader import read_config
from headstart.stages import RATES, base_of, job_for, open_text
from headstart.teacher import teacher_pass
from headstart.tune import learn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from transformers import PreTrainedModel

    from headstart.layout import Head
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
        out: A new folder; an older model there is replaced.
        task: classification or tagging.
        data: The labelled text.
        train: How to train; its objective is labels.
        seed: Of the fresh head, the order of the text, dropout.

    Returns:
        How it went.

    Raises:
        HeadstartError: Base or text are at fault.
    """
    accelerator = open_accelerator(train.tracker, out)
    accelerator.init_trackers("tracker")
    tokenizer = checkpoint.load_tokenizer(base)
    text = open_text(data, task, tokenizer)
    model = checkpoint.with_head(base, task=task, labels=text.corpus.labels, seed=seed)
    job = job_for(text, train, accelerator, seed=seed)
    progress, _ = learn(model.to(accelerator.device), job, RATES["base"], floor=text.floor)
    if accelerator.is_main_process:
        checkpoint.save_model(model, tokenizer, out)
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
        out: A new folder.
        task: classification or tagging.
        data: The labelled text.
        train: How to train.
        seed: Of the order of the text, and dropout.

    Returns:
        How it went.

    Raises:
        HeadstartError: Models or text are at fault, or their labels or tokenizers differ.
    """
    accelerator = open_accelerator(train.tracker, out)
    accelerator.init_trackers("tracker")
    tokenizer = checkpoint.load_tokenizer(teacher)
    _check_tokenizers(student, teacher)
    text = open_text(data, task, tokenizer)
    model = checkpoint.load_model(student, task=task, labels=text.corpus.labels)
    logits = None
    if needs_teacher(train.objective):
        asked = checkpoint.load_model(teacher, task=task, labels=text.corpus.labels)
        weights = checkpoint.weights_fingerprint(asked)
        with TemporaryDirectory() as folder:
            logits = teacher_pass(
                asked.to(accelerator.device),
                text.splits["train"],
                Path(folder),
                weights=weights,
                accelerator=accelerator,
            ).logits
            logits = logits[:]  # the folder goes, the answers stay
    job = job_for(text, train, accelerator, seed=seed, teacher=logits)
    progress, _ = learn(model.to(accelerator.device), job, RATES["teacher"], floor=text.floor)
    if accelerator.is_main_process:
        checkpoint.save_model(model, tokenizer, out)
    return progress


def _check_tokenizers(student: str, teacher: str) -> None:
    """Compare two tokenizers by what they hold: a student reads the teacher's pieces."""
    ours, theirs = (checkpoint.load_tokenizer(name).get_vocab() for name in (student, teacher))
    if ours != theirs:
        raise HeadstartError(
            f"student and teacher have other pieces ({len(ours):,} and {len(theirs):,})",
            where=student,
            way_out="distil into a student that was cut from this teacher",
        )


def evaluate_model(model: str, *, task: Head, data: Data) -> dict[str, dict[str, float]]:
    """Score a model on the test split, per language.

    Args:
        model: Folder or hub name.
        task: classification or tagging.
        data: The labelled text; train and dev are read, too, to check the labels.

    Returns:
        Metric values under language and metric name.

    Raises:
        HeadstartError: Model or text are at fault, or their labels differ.
    """
    accelerator = open_accelerator()
    text = open_text(data, task, checkpoint.load_tokenizer(model))
    loaded: PreTrainedModel = checkpoint.load_model(model, task=task, labels=text.corpus.labels)
    test = text.splits["test"]
    logits = predict(loaded.to(accelerator.device), test, accelerator)
    return score_languages(test, logits, text.corpus.labels)


@dataclass(frozen=True, slots=True)
class Checked:
    """A recipe without faults, and what it will make."""

    runs: int
    sizes: tuple[Size, Size]  # teacher and student of the first run
    rows: Mapping[str, int]  # examples of each split
    leaks: int  # dev and test rows whose text is in train too
    truncated: int  # words that the maximum length cuts off
    time: str


def check(recipe: Recipe) -> Checked:
    """Find every fault of a recipe, its text and its models, before any work.

    Returns:
        What it will make, and how long that will take.

    Raises:
        HeadstartError: All faults, in one error.
    """
    faults: list[HeadstartError] = []
    with TemporaryDirectory() as folder:
        corpus = _try(lambda: load_corpus(recipe.data, recipe.task), faults)
        named = _try(lambda: str(recipe.teacher.model or base_of(recipe, Path(folder))), faults)
        labels = corpus.labels if corpus else None
        runs = [one for _, one in expand(recipe)]
        sizes = [
            size
            for one in runs
            if named and (size := _try(partial(_sizes, one, named, labels), faults))
        ]
        if named:
            _try(lambda: checkpoint.load_tokenizer(named), faults)
        if labels and named and recipe.teacher.model:
            found = checkpoint.labels_of(read_config(named))
            _try(lambda: check_labels(labels, found, where=named), faults)
        if faults:
            unique = list({str(fault): fault for fault in faults}.values())
            raise combine(unique, where=recipe.name or "the recipe")
        text = open_text(recipe.data, recipe.task, checkpoint.load_tokenizer(str(named)))
        return _checked(runs, sizes[0], text, str(named))


def _try(attempt: Callable[[], T], faults: list[HeadstartError]) -> T | None:
    try:
        return attempt()
    except HeadstartError as fault:
        faults.append(fault)
        return None


def _sizes(recipe: Recipe, named: str, labels: tuple[str, ...] | None) -> tuple[Size, Size]:
    count = None if recipe.teacher.model else len(labels or ())
    return plan_sizes(recipe, named, labels=count)


def _checked(runs: list[Recipe], sizes: tuple[Size, Size], text: Text, named: str) -> Checked:
    return Checked(
        runs=len(runs),
        sizes=sizes,
        rows={name: len(split) for name, split in text.splits.items()},
        leaks=sum(leak.rows for leak in text.corpus.leaks),
        truncated=sum(split.truncated for split in text.splits.values()),
        time=estimate(runs, named, text),
    )
