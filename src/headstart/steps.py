"""One stage alone, folder to folder: fine-tune, distil, judge."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import checkpoint
from headstart.calibration import unlabelled
from headstart.errors import HeadstartError
from headstart.evaluate import predict, score_languages
from headstart.features import Features
from headstart.folders import claim
from headstart.labels import UNNAMED
from headstart.loading import data_of
from headstart.objectives import needs_features, needs_teacher
from headstart.pieces import check_pieces, load_tokenizer
from headstart.prepare import open_accelerator
from headstart.reader import open_model, read_config, read_selection
from headstart.stages import job_for
from headstart.tokenized import add_unlabelled, open_text
from headstart.tune import learn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from transformers import PreTrainedModel

    from headstart.layout import Head
    from headstart.settings import Data, Train
    from headstart.tokenized import Text
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
    tokenizer = load_tokenizer(base)
    text = open_text(data, task, tokenizer, learned=train.languages)
    check_lengths(text, base)
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
    tokenizer = load_tokenizer(teacher)
    way_out = "distil into a student that was cut from this teacher"
    check_pieces(student, teacher, way_out=way_out)
    text = open_text(data, task, tokenizer, learned=train.languages)
    selection = read_selection(student) if needs_features(train.learned) else None
    if data.text_per_language is not None:
        more = unlabelled(text.corpus, data.text)
        text = add_unlabelled(text, more, tokenizer, data.text_per_language, seed=seed)
    for named in (student, teacher):
        check_lengths(text, named)
    _check_size(student, teacher)
    model = checkpoint.load_model(student, task=task, labels=text.corpus.labels)
    asked = checkpoint.load_model(teacher, task=task, labels=text.corpus.labels)
    logits = None
    if needs_teacher(train.learned):
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


def check_lengths(text: Text, named: str) -> None:
    """Refuse text that is longer than a model can read.

    Raises:
        HeadstartError: It is.
    """
    checkpoint.check_length(read_config(named).to_dict(), text.longest)


def _check_size(student: str, teacher: str) -> None:
    """Refuse a student that is larger than its teacher: the two were likely swapped."""
    ours, theirs = (
        sum(math.prod(shape) for shape in open_model(named).shapes.values())
        for named in (student, teacher)
    )
    if ours > theirs:
        raise HeadstartError(
            f"the student is larger than its teacher ({ours:,} and {theirs:,} parameters)",
            where=student,
            way_out="name the student first, then the teacher",
        )


def evaluate_model(
    model: str, *, task: Head, data: Data | Mapping[str, object]
) -> dict[str, dict[str, float]]:
    """Score a model on the test split, per language.

    Args:
        model: Folder or hub name.
        task: classification or tagging.
        data: The labelled text, as under `data` in a recipe. Where the model's labels have names,
            test rows alone are read; else train and dev are, too, to know the text's labels.

    Returns:
        Metric values under language and metric name.

    Raises:
        HeadstartError: Model or text are at fault, or their labels differ.
    """
    accelerator = open_accelerator()
    data = data_of(data, task)
    labels = checkpoint.labels_of(read_config(model))
    checkpoint.check_model(model, task=task, labels=data.labels or labels)
    if not all(UNNAMED.fullmatch(name) for name in labels):
        every = (*data.languages, *data.zero_shot)
        alone = {"languages": (), "zero_shot": every, "labels": data.labels or labels}
        data = data.model_copy(update=alone)
    text = open_text(data, task, load_tokenizer(model))
    check_lengths(text, model)
    loaded: PreTrainedModel = checkpoint.load_model(model, task=task, labels=text.corpus.labels)
    test = text.splits["test"]
    logits = predict(loaded.to(accelerator.device), test, accelerator)
    return score_languages(test, logits, text.corpus.labels)
