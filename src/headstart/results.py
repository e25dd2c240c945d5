"""From logits to what is kept of a run: its record, and the prediction of every test example."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart import checkpoint, machine
from headstart.budget import work
from headstart.encode import word_predictions
from headstart.evaluate import absent_label, mean_score, score_languages
from headstart.families import family_of
from headstart.metrics import main_metric
from headstart.prepare import accelerator_name
from headstart.recipe import RESULT_VERSION
from headstart.record import Record, retention, summarize
from headstart.sources import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.corpus import Corpus
    from headstart.recipe import Recipe
    from headstart.ridge import Fitted
    from headstart.selection import Selection
    from headstart.stages import Teacher
    from headstart.tokenized import Text
    from headstart.train import Progress
    from headstart.tune import Trial

    Logits = Mapping[str, NDArray[np.float32]]
    Scores = dict[str, dict[str, dict[str, float]]]


@dataclass(slots=True)
class Costs:
    """Seconds of each stage.

    A teacher's pass that was found on disk cost its maker, not this run; a start that was found
    has its maker's seconds, so that ways can be compared.
    """

    teacher_seconds: float = 0.0
    teacher_pass_seconds: float = 0.0
    init_seconds: float = 0.0
    refit_seconds: float = 0.0
    general_seconds: float = 0.0
    trial_seconds: float = 0.0
    train_seconds: float = 0.0
    eval_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A student after its training, and how it went."""

    model: PreTrainedModel
    selection: Selection
    text: Mapping[str, str]  # fingerprints of the unlabelled texts that were read
    left_out: int  # texts of them that stand in dev or test too
    fitted: tuple[Fitted, ...]  # what refit did to each map and norm
    general: tuple[Mapping[str, float], ...]  # how general distillation went
    step0: dict[str, dict[str, float]]  # dev scores before the first step
    trials: list[Trial]
    progress: Progress
    rate_of: str | None  # signature of the run that made the trials; None for this one


def _work(model: PreTrainedModel) -> int:
    """Estimate what a model does for each piece of text, in multiply-adds."""
    plain: dict[str, Any] = model.config.to_dict()
    return round(work(family_of(plain), plain))


def score_splits(text: Text, logits: Logits) -> Scores:
    """Score dev and test in every language."""
    return {
        name: score_languages(text.splits[name], logits[name], text.corpus.labels)
        for name in ("dev", "test")
    }


def record_of(
    recipe: Recipe,
    key: str,
    *,
    text: Text,
    teacher: Teacher,
    trained: Trained,
    logits: Mapping[str, Logits],
    costs: Costs,
) -> Record:
    """Put down what was made, from what, at what cost.

    Args:
        recipe: What was asked for.
        key: The run's signature.
        text: What was learned from and tested on.
        teacher: Gives its size and weights' fingerprint.
        trained: The student.
        logits: Of dev and test, under teacher and student.
        costs: Seconds of the stages.
    """
    corpus = text.corpus
    scores = {name: score_splits(text, split) for name, split in logits.items()}
    scores["step0"] = {"dev": trained.step0}
    metric = main_metric(recipe.task)
    student_test, teacher_test = scores["student"]["test"], scores["teacher"]["test"]
    sizes = {
        name: {**checkpoint.count_parameters(model), "work": _work(model)}
        for name, model in (("teacher", teacher.model), ("student", trained.model))
    }
    inner = sizes["student"]["transformer"] + sizes["student"]["head"]
    rate = trained.trials[0].learning_rate if trained.trials else recipe.train.learning_rate
    return Record(
        signature=key,
        name=recipe.name,
        seed=recipe.seed,
        source=recipe.init.source,
        objective=objective_name(recipe),
        task=recipe.task,
        labels=corpus.labels,
        languages=corpus.languages,
        zero_shot=corpus.zero_shot,
        scores=scores,
        summary={
            name: summarize(tests, corpus.languages, corpus.zero_shot, metric=metric)
            for name, tests in (("teacher", teacher_test), ("student", student_test))
        },
        retention=retention(student_test, teacher_test, metric=metric),
        curve=tuple(trained.progress.curve),
        learning_rate={
            "chosen": rate,
            "tried": [asdict(trial) for trial in trained.trials],
            "tried_by": trained.rate_of,
        },
        costs={
            **asdict(costs),
            "tokens": trained.progress.tokens,
            "flops": 6.0 * inner * trained.progress.tokens,
            "peak_memory_bytes": machine.peak_memory(),
        },
        shape=sizes,
        versions={**machine.versions(), "result version": str(RESULT_VERSION)},
        fingerprints={
            "data": corpus.fingerprint,
            "test": _test_print(corpus),
            "teacher": teacher.weights,
            **trained.text,
        },
        hardware=machine.hardware(accelerator_name(trained.model.device)),
        commit=machine.commit(),
        marks=_marks(text, logits["student"]["test"], scores),
        precision=trained.progress.precision,
        leaks=_leaks(text),
        truncated={name: split.truncated for name, split in text.splits.items()},
        stray_inside=corpus.stray_inside,
        teacher_curve=teacher.curve,
        general_curve=trained.general,
        text_left_out=trained.left_out,
        learned_from=recipe.train.languages or (),
        best_step=trained.progress.best_step,
        refit=tuple(asdict(fitted) for fitted in trained.fitted),
        train_rows=corpus.splits["train"].num_rows,
    )


def _test_print(corpus: Corpus) -> str:
    """Hash the test rows, in whatever order languages and labels are named."""
    tagging, names = corpus.task == "tagging", corpus.labels
    columns = corpus.splits["test"].select(["language", *COLUMNS[corpus.task]]).to_pydict()
    rows: list[tuple[str, Any, Any]] = [
        (language, text, [names[i] for i in gold] if tagging else names[gold])
        for language, text, gold in zip(*columns.values(), strict=True)
    ]
    rows.sort(key=lambda row: row[0])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def objective_name(recipe: Recipe) -> str:
    """Write the objective as one word, such as `labels+mse`."""
    return "+".join(name for name, term in recipe.train.objective.items() if term.weight > 0)


def _leaks(text: Text) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            "language": leak.language,
            "split": leak.split,
            "rows": leak.rows,
            "conflicts": leak.conflicts,
            "dropped": text.data.drop_leaks,
        }
        for leak in text.corpus.leaks
    )


def _marks(
    text: Text, logits: NDArray[np.float32], scores: Mapping[str, Scores]
) -> tuple[str, ...]:
    """Name what makes a run unfit to be compared with."""
    marks: list[str] = []
    if not np.isfinite(logits).all():
        marks.append("nan")
    if len(np.unique(logits.argmax(-1))) == 1:
        marks.append("one-class")
    floor = text.floor
    for name, mark in (("student", "below-majority"), ("teacher", "teacher-below-majority")):
        if mean_score(scores[name]["dev"], text.corpus.task) <= floor:
            marks.append(mark)
    return tuple(marks)


def write_predictions(
    path: Path, text: Text, logits: NDArray[np.float32], teacher: NDArray[np.float32]
) -> None:
    """Keep every test example's prediction: a row an example, lists of words when tagging.

    Args:
        path: Of the Parquet file.
        text: Its test split was predicted.
        logits: The student's, (units, classes); they are kept, too.
        teacher: The teacher's.
    """
    split, table = text.splits["test"], text.corpus.splits["test"]
    tagging = text.corpus.task == "tagging"
    absent = absent_label(text.corpus.labels)
    words, units = split.word_starts, split.unit_starts
    values = {
        "gold": split.words,
        "predicted": word_predictions(split, logits, absent=absent),
        "teacher": word_predictions(split, teacher, absent=absent),
    }
    columns: dict[str, pa.Array] = {
        name: table[name].combine_chunks() for name in ("id", "language")
    }
    for name, value in values.items():
        columns[name] = pa.ListArray.from_arrays(words, value) if tagging else pa.array(value)
    flat = pa.array(logits.astype(np.float32).ravel())
    rows = pa.FixedSizeListArray.from_arrays(flat, logits.shape[1])
    columns["logits"] = pa.ListArray.from_arrays(units, rows) if tagging else rows
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table(columns), partial, compression="zstd")
    partial.replace(path)
