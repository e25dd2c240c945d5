"""One run's scores and costs: training writes records, the face reads them and sees no tensor."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from statistics import fmean
from typing import TYPE_CHECKING, NotRequired, TypedDict, cast

from headstart.errors import HeadstartError
from headstart.folders import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

Metrics = Mapping[str, float]
PerLanguage = Mapping[str, Metrics]


class Summary(TypedDict):
    """Scores of one model over its languages, each language with equal weight."""

    trained_on: Metrics
    zero_shot: Metrics
    worst_language: str
    worst: Metrics


class LearningRate(TypedDict):
    """The rate that was used, and what `auto` tried: learning_rate, dev, steps, seconds.

    In a study, the first seed of a way tries for all; the others have its trials, at no seconds.
    """

    chosen: float | str
    tried: Sequence[Mapping[str, float | None]]
    tried_by: NotRequired[str | None]  # the signature of the way's first seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What came out of one run. A number that was not finite is None after reading.

    Args:
        signature: Of the recipe and what it points at.
        name: The run's name in its study.
        seed: Of the student.
        source: Of the student's first weights.
        objective: Parts of the loss, such as ``labels+mse``.
        task: classification or tagging.
        labels: Classes or tags, in the order of their ids.
        languages: Trained on.
        zero_shot: Tested only.
        scores: Metric values under teacher, student or step0; dev or test; language; metric.
        summary: Test scores over languages, under teacher and student.
        retention: Student's over teacher's main metric on test, per language.
        curve: One entry for each score on dev: step, epoch, seconds, loss, dev.
        learning_rate: Chosen and tried.
        marks: What makes it unfit to compare with: nan, one-class, [teacher-]below-majority.
        costs: Seconds of stages; tokens, flops of training without trials; peak_memory_bytes.
        shape: Under teacher and student: parameters by kind; `work` of a piece (`budget.work`).
        versions: Of Python, libraries, and results.
        fingerprints: SHA-256 of data, its test rows, and weights.
        hardware: The processor, how many cores, and the accelerator if one was used.
        commit: Of the code, where it is known.
        precision: Of the training: fp32 or bf16.
        leaks: Test or dev rows whose text is in train: language, split, rows, conflicts (rows
            whose label no copy has), dropped (whether their copies were left out of train).
        truncated: Per split, what the maximum length cuts: words when tagging, else texts.
        stray_inside: Tags `I-` that continue nothing, per language.
        teacher_curve: The teacher's, where it was fine-tuned here; as `curve`.
        general_curve: General distillation's, `dev_loss` for each token of text held out.
        learned_from: Languages whose rows the student learned from; none stands for all.
        best_step: Whose weights were kept; 0 is the untrained student. None: not known.
        text_left_out: Unlabelled texts that stand in dev or test too, and were not read.
        refit: Of each map and norm: name, ridge (None: left as it was), and the share of the
            teacher's variance unexplained before and after, on text fitted to and held_out.
        train_rows: Labelled rows that the student learned from. None: not known.
    """

    signature: str
    name: str
    seed: int
    source: str
    objective: str
    task: str
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    zero_shot: tuple[str, ...]
    scores: Mapping[str, Mapping[str, PerLanguage]]
    summary: Mapping[str, Summary]
    retention: Mapping[str, float]
    curve: tuple[Mapping[str, float | None], ...]
    learning_rate: LearningRate
    costs: Mapping[str, float]
    shape: Mapping[str, Mapping[str, int]]
    versions: Mapping[str, str]
    fingerprints: Mapping[str, str]
    hardware: Mapping[str, str | int]
    marks: tuple[str, ...] = field(default=())
    commit: str | None = None
    precision: str = "fp32"
    leaks: tuple[Mapping[str, object], ...] = ()
    truncated: Mapping[str, int] = field(default_factory=dict[str, int])
    stray_inside: Mapping[str, int] = field(default_factory=dict[str, int])
    teacher_curve: tuple[Mapping[str, float | None], ...] = ()
    general_curve: tuple[Mapping[str, float | None], ...] = ()
    text_left_out: int = 0
    learned_from: tuple[str, ...] = ()
    best_step: int | None = None
    refit: tuple[Mapping[str, object], ...] = ()
    train_rows: int | None = None

    def to_json(self) -> str:
        """Write the record as JSON; numbers that are not finite become null."""
        return json.dumps(_finite(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str, *, where: str = "record") -> Record:
        """Read a record, also one of an earlier version.

        Args:
            text: JSON.
            where: Named in errors.

        Raises:
            HeadstartError: The text is no record, or one of a later version.
        """
        content = _parsed(text, where)
        known = {f.name: f for f in fields(Record)}
        if later := sorted(set(content) - set(known)):
            raise HeadstartError(
                f"the record has unknown keys: {', '.join(later)}",
                where=where,
                way_out="read it with the later version of headstart that wrote it",
            )
        needed = {n for n, f in known.items() if f.default is f.default_factory is MISSING}
        if missing := sorted(needed - set(content)):
            raise _no_record(where, f"it lacks {', '.join(missing)}")
        made = {
            k: tuple(cast("list[object]", v)) if k in _TUPLES else v for k, v in content.items()
        }
        return Record(**made)  # pyright: ignore[reportArgumentType]

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all; a folder with one is finished."""
        atomic_write(path, self.to_json() + "\n")


_LISTS = ("labels", "languages", "zero_shot", "marks", "leaks", "refit", "learned_from")
_TUPLES = frozenset({*_LISTS, "curve", "teacher_curve", "general_curve"})


def read_record(path: Path) -> Record:
    """Read a record from its file.

    Raises:
        HeadstartError: There is no such file, or it holds no record.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _no_record(str(path), str(error)) from error
    return Record.from_json(text, where=str(path))


def write_runs(path: Path, runs: Sequence[tuple[str, str]]) -> None:
    """Write which runs a study now consists of: names and signatures, in the recipe's order."""
    entries = [{"name": name, "signature": signature} for name, signature in runs]
    atomic_write(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")


def read_runs(path: Path) -> list[tuple[str, str]]:
    """Read what `write_runs` wrote.

    Raises:
        HeadstartError: The file holds no list of runs.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [(str(entry["name"]), str(entry["signature"])) for entry in entries]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HeadstartError(
            f"this is no list of a study's runs: {error!r}",
            where=str(path),
            way_out="run the study again; finished runs are not made again",
        ) from error


def remarks(record: Record) -> list[str]:
    """Say what is peculiar about the text of a run, a sentence each."""
    said: list[str] = []
    if record.learned_from:
        these = ", ".join(record.learned_from)
        said.append(f"Labelled rows of {these} alone: no label of another language was seen.")
    for split in ("test", "dev"):
        found = [leak for leak in record.leaks if leak["split"] == split and leak["rows"]]
        rows = {str(leak["language"]): cast("int", leak["rows"]) for leak in found}
        odd = sum(cast("int", leak["conflicts"]) for leak in found)
        if found:
            stand = "row stands" if (whole := sum(rows.values())) == 1 else "rows stand"
            said.append(
                f"{whole:,} {split} {stand} in train too: {_counts(rows)}"
                + (f"; for {odd:,} of them no copy has the same label" if odd else "")
                + ("; their copies were left out of train." if found[0].get("dropped") else ".")
            )
    if record.text_left_out:
        left = f"{record.text_left_out:,} unlabelled texts stand in dev or test too"
        said.append(f"{left}, and were left out.")
    if cut := {split: count for split, count in record.truncated.items() if count}:
        what = "words" if record.task == "tagging" else "texts"
        said.append(f"The maximum length cuts {what}: {_counts(cut)}.")
    if record.stray_inside:
        said.append(f"I- tags that continue nothing, read as B-: {_counts(record.stray_inside)}.")
    return said


def _counts(of: Mapping[str, int], shown: int = 12) -> str:
    most = sorted(of.items(), key=lambda pair: -pair[1])[:shown] if len(of) > shown else of.items()
    more = f" and {len(of) - shown} more" if len(of) > shown else ""
    return ", ".join(f"{name} {count:,}" for name, count in most) + more


def _parsed(text: str, where: str) -> dict[str, object]:
    try:
        content: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise _no_record(where, str(error)) from error
    if not isinstance(content, dict):
        raise _no_record(where, "it holds no mapping")
    return cast("dict[str, object]", content)


def _no_record(where: str, why: str) -> HeadstartError:
    return HeadstartError(
        f"this is not a whole record: {why}",
        where=where,
        way_out="delete the file and run the recipe again",
    )


def _finite(value: object) -> object:
    """Copy plain data, with None for infinite and undefined numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {key: _finite(entry) for key, entry in items}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in cast("Sequence[object]", value)]
    return value


def summarize(
    per_language: PerLanguage,
    languages: Sequence[str],
    zero_shot: Sequence[str],
    *,
    metric: str,
) -> Summary:
    """Average over languages with equal weight, and find the worst language.

    Args:
        per_language: Metric values by language; languages without examples are absent.
        languages: Trained on.
        zero_shot: Tested only.
        metric: Decides which language is worst; the first of equals.

    Returns:
        Means for trained-on and zero-shot languages apart (empty where there are none), and
        the worst of all languages with its scores.
    """
    tested = [code for code in (*languages, *zero_shot) if code in per_language]
    worst = min(tested, key=lambda code: per_language[code][metric], default="")
    return Summary(
        trained_on=_means(per_language, languages),
        zero_shot=_means(per_language, zero_shot),
        worst_language=worst,
        worst=dict(per_language.get(worst, {})),
    )


def _means(per_language: PerLanguage, languages: Sequence[str]) -> dict[str, float]:
    rows = [per_language[code] for code in languages if code in per_language]
    return {name: fmean(row[name] for row in rows) for name in rows[0]} if rows else {}


def retention(student: PerLanguage, teacher: PerLanguage, *, metric: str) -> dict[str, float]:
    """Share of the teacher's score that the student keeps, per language.

    Returns:
        Student over teacher; languages where the teacher scores 0 are left out.
    """
    return {
        code: row[metric] / teacher[code][metric]
        for code, row in student.items()
        if teacher.get(code, {}).get(metric, 0.0) > 0
    }
