"""Runs side by side: languages by ways of making a student, averaged over seeds."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError
from headstart.metrics import main_metric
from headstart.record import Record, read_record, read_runs, remarks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# More steps may turn an answer where dev rose so much in the last quarter of them, or by such a
# share of the best: ways that do not know the task yet have small scores, and rise slowly.
RISING, OF_BEST = 0.02, 0.05


@dataclass(frozen=True, slots=True)
class Column:
    """One way of making a student, averaged over its seeds; or a teacher of such students."""

    name: str
    records: tuple[Record, ...]
    model: str = "student"  # or teacher

    def score(self, language: str) -> float | None:
        """Mean of the main metric on test; None where the language was not tested."""
        metric = main_metric(self.records[0].task)
        rows = [r.scores[self.model]["test"].get(language) for r in self.records]
        values = [row[metric] for row in rows if row is not None]
        return fmean(values) if values else None

    def mean(self, languages: Sequence[str]) -> float | None:
        """Mean of the scores in languages; None where none of them was tested."""
        scores = [score for code in languages if (score := self.score(code)) is not None]
        return fmean(scores) if scores else None

    @property
    def marks(self) -> tuple[str, ...]:
        """What makes some of its runs unfit to be compared with."""
        return tuple(sorted({mark for record in self.records for mark in record.marks}))

    @property
    def rise(self) -> float | None:
        """Dev score that the last quarter of the steps added to the best before, mean over seeds.

        None where no evaluation came before that quarter.
        """
        gains = [gain for record in self.records if (gain := _rise(record)) is not None]
        return fmean(gains) if gains else None

    @property
    def still_rises(self) -> bool:
        """Whether more steps may turn what this way is found to be worth."""
        best = max((p["dev"] or 0.0 for r in self.records for p in r.curve), default=0.0)
        return self.rise is not None and self.rise >= min(RISING, OF_BEST * best) > 0

    @property
    def seconds(self) -> float:
        """Mean time of a run: making, repairing, choosing the learning rate, and training."""
        made = ("init_seconds", "refit_seconds", "general_seconds")
        names = (*made, "trial_seconds", "train_seconds")
        return fmean(sum(r.costs.get(name, 0.0) for name in names) for r in self.records)


@dataclass(frozen=True, slots=True)
class Row:
    """One language, or an average: each teacher's score and each column's."""

    label: str
    kind: str  # trained, zero-shot or average
    teachers: tuple[float | None, ...]
    scores: tuple[float | None, ...]
    note: str = ""  # what stands beside a language


@dataclass(frozen=True, slots=True)
class Table:
    """Languages by ways of making a student."""

    metric: str
    teachers: tuple[Column, ...]
    columns: tuple[Column, ...]
    taught: tuple[int, ...]  # the place of each column's teacher in `teachers`
    rows: tuple[Row, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Name the languages that are not zero-shot, and the others, where there are some."""
        trained = _trained(self.columns)
        return (trained, "zero-shot") if self.columns[0].records[0].zero_shot else (trained,)


def _trained(columns: Sequence[Column]) -> str:
    return learned_name(record for column in columns for record in column.records)


def learned_name(records: Iterable[Record]) -> str:
    """Name the languages of `data.languages`, which some runs may not have learned from."""
    return "the recipe's languages" if any(r.learned_from for r in records) else "trained on"


def _unlearned(columns: Sequence[Column]) -> set[str]:
    """Find the languages of `data.languages` that no student learned from."""
    runs = [record for column in columns for record in column.records]
    learned = {code for run in runs for code in run.learned_from or run.languages}
    return {code for run in runs for code in run.languages} - learned


def _rise(record: Record) -> float | None:
    points = [(p["step"] or 0, p["dev"] or 0.0) for p in record.curve]
    border = 0.75 * max((step for step, _ in points), default=0)
    early = [dev for step, dev in points if step <= border]
    return max(dev for _, dev in points) - max(early) if early else None


def rising(columns: Iterable[Column]) -> list[str]:
    """Say which ways had not stopped rising at their last step."""
    return [
        f"{c.name} had not stopped rising: {100 * (c.rise or 0.0):+.1f} points on dev in its last "
        f"quarter"
        for c in columns
        if c.still_rises
    ]


def heads(table: Table) -> list[str]:
    """Name what `cells` gives of each row."""
    return ["language", *(c.name for c in (*table.teachers, *table.columns))]


def cells(row: Row) -> list[str]:
    """Write a row: its label, then the scores of teachers and columns in percent."""
    label = f"{row.label} ({row.note})" if row.note else row.label
    return [label, *map(percent, (*row.teachers, *row.scores))]


def read_records(out: str | Path) -> list[Record]:
    """Read the finished runs of a study's folder, or the one of a run's.

    Returns:
        The runs that the study now consists of, under their present names, in the recipe's
        order. Where a folder has no list of them: all that lie there, by name and seed.

    Raises:
        HeadstartError: Nothing is finished there.
    """
    out = Path(out)
    if (out / "runs.json").exists():
        listed = [(name, out / "runs" / key) for name, key in read_runs(out / "runs.json")]
        finished = [(name, place / "record.json") for name, place in listed]
        records = [replace(read_record(p), name=name) for name, p in finished if p.exists()]
    else:
        paths = [out / "record.json", *(out / "runs").glob("*/record.json")]
        records = [read_record(path) for path in paths if path.exists()]
        records.sort(key=lambda record: (record.name, record.seed))
    if not records:
        raise HeadstartError(
            "no finished run is there",
            where=str(out),
            way_out="give the folder of a run or a study, or run its recipe first",
        )
    return records


def tabulate(records: Sequence[Record]) -> Table:
    """Put runs side by side; runs that differ in their seed only share a column.

    Args:
        records: Runs of one task in the same languages.

    Raises:
        HeadstartError: They cannot stand in one table.
    """
    first = records[0]
    for record in records:
        if (record.task, record.languages, record.zero_shot) != (
            first.task,
            first.languages,
            first.zero_shot,
        ):
            raise HeadstartError(
                f"runs {first.name!r} and {record.name!r} differ in task or languages",
                where="the folder of the records",
                way_out="report each study by itself",
            )
    groups = _grouped(records, _teacher_key)
    names = [f"teacher {i + 1}" if len(groups) > 1 else "teacher" for i in range(len(groups))]
    teachers = tuple(
        Column(f"{name} (reference)", group, "teacher")
        for name, group in zip(names, groups.values(), strict=True)
    )
    ways = _grouped(records, lambda record: (column_name(record), _teacher_key(record)))
    taught = tuple(list(groups).index(_teacher_key(group[0])) for group in ways.values())
    plain = [column_name(group[0]) for group in ways.values()]
    columns = tuple(
        Column(name if plain.count(name) == 1 else f"{name}, teacher {place + 1}", group)
        for name, place, group in zip(plain, taught, ways.values(), strict=True)
    )
    unlearned = _unlearned(columns)
    rows = [
        Row(
            code,
            kind,
            tuple(t.score(code) for t in teachers),
            tuple(c.score(code) for c in columns),
            note if kind == "zero-shot" or code in unlearned else "",
        )
        for kind, languages, note in (
            ("trained", first.languages, "no training rows"),
            ("zero-shot", first.zero_shot, "zero-shot"),
        )
        for code in languages
        if any(t.score(code) is not None for t in teachers)
    ]
    return Table(
        main_metric(first.task),
        teachers,
        columns,
        taught,
        (*rows, *_averages(rows, _trained(columns))),
    )


def dev_score(record: Record, of: str) -> float:
    """Give the main metric on dev, mean over languages, of `teacher`, `student` or `step0`."""
    metric = main_metric(record.task)
    return fmean(row[metric] for row in record.scores[of]["dev"].values())


def column_name(record: Record) -> str:
    """Name a run without its seed."""
    parts = [part for part in record.name.split("|") if not part.startswith("seed=")]
    return "|".join(parts) or f"{record.source}, {record.objective}"


def sizeless(name: str) -> str:
    """Name a way without how many examples it had."""
    return "|".join(part for part in name.split("|") if "examples_per_language" not in part)


def _teacher_key(record: Record) -> str:
    """Tell teachers apart: by weights and scores, which the text's settings decide too."""
    scores = json.dumps(record.scores["teacher"]["test"], sort_keys=True)
    return record.fingerprints.get("teacher", "") + scores


def _grouped(
    records: Sequence[Record], key: Callable[[Record], object]
) -> dict[object, tuple[Record, ...]]:
    groups: dict[object, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: tuple(group) for name, group in groups.items()}


def _averages(rows: Sequence[Row], trained: str) -> Iterable[Row]:
    for label, kind in ((trained, "trained"), ("zero-shot", "zero-shot")):
        some = [row for row in rows if row.kind == kind]
        if some:
            teachers = zip(*(row.teachers for row in some), strict=True)
            scores = zip(*(row.scores for row in some), strict=True)
            yield Row(
                f"mean, {label}", "average", tuple(map(_mean, teachers)), tuple(map(_mean, scores))
            )


def all_remarks(columns: Sequence[Column]) -> list[str]:
    """Say what is peculiar about the text; with names where it is not so for every column."""
    said: dict[str, list[str]] = {}
    for column in columns:
        for remark in remarks(column.records[0]):
            said.setdefault(remark, []).append(column.name)
    return [
        remark if len(names) == len(columns) else f"{', '.join(names)}: {remark}"
        for remark, names in said.items()
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def percent(value: float | None) -> str:
    """Write a share as a percentage with one digit; a dash where it is unknown."""
    return "-" if value is None else f"{100 * value:.1f}"
