"""Records to something a person reads: a table for the terminal, a page for the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from headstart.errors import HeadstartError
from headstart.metrics import main_metric
from headstart.record import Record, atomic_write, read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

AVERAGES = ("trained on", "zero-shot")


@dataclass(frozen=True, slots=True)
class Column:
    """One way of making a student, averaged over its seeds."""

    name: str
    records: tuple[Record, ...]

    def score(self, language: str) -> float | None:
        """Mean of the main metric on test; None where the language was not tested."""
        metric = main_metric(self.records[0].task)
        rows = [r.scores["student"]["test"].get(language) for r in self.records]
        values = [row[metric] for row in rows if row is not None]
        return fmean(values) if values else None

    @property
    def marks(self) -> tuple[str, ...]:
        """What makes some of its runs unfit to be compared with."""
        return tuple(sorted({mark for record in self.records for mark in record.marks}))

    @property
    def seconds(self) -> float:
        """Mean time of a run: making, choosing the learning rate, and training."""
        names = ("init_seconds", "trial_seconds", "train_seconds")
        return fmean(sum(r.costs[name] for name in names) for r in self.records)


@dataclass(frozen=True, slots=True)
class Row:
    """One language, or an average: the teacher's score and each column's."""

    label: str
    kind: str  # trained, zero-shot or average
    teacher: float
    scores: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Languages by ways of making a student."""

    metric: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def read_records(out: str | Path) -> list[Record]:
    """Read the finished runs of a study's folder, or the one of a run's.

    Raises:
        HeadstartError: Nothing is finished there.
    """
    out = Path(out)
    paths = [out / "record.json", *sorted((out / "runs").glob("*/record.json"))]
    records = [read_record(path) for path in paths if path.exists()]
    if not records:
        raise HeadstartError(
            "no finished run is there",
            where=str(out),
            way_out="give the folder of a run or a study, or run its recipe first",
        )
    return sorted(records, key=lambda record: (record.name, record.seed))


def tabulate(records: Sequence[Record]) -> Table:
    """Put runs side by side; runs that differ in their seed only share a column.

    Args:
        records: Runs of one task with the same teacher.

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
    columns = tuple(_columns(records))
    metric = main_metric(first.task)
    teacher = {k: v[metric] for k, v in first.scores["teacher"]["test"].items()}
    rows = [
        Row(language, kind, teacher[language], tuple(c.score(language) for c in columns))
        for kind, languages in (("trained", first.languages), ("zero-shot", first.zero_shot))
        for language in languages
        if language in teacher
    ]
    return Table(metric, columns, (*rows, *_averages(rows)))


def column_name(record: Record) -> str:
    """Name a run without its seed."""
    parts = [part for part in record.name.split("|") if not part.startswith("seed=")]
    return "|".join(parts) or f"{record.source}, {record.objective}"


def _columns(records: Iterable[Record]) -> Iterable[Column]:
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(column_name(record), []).append(record)
    return (Column(name, tuple(group)) for name, group in groups.items())


def _averages(rows: Sequence[Row]) -> Iterable[Row]:
    for label, kind in zip(AVERAGES, ("trained", "zero-shot"), strict=True):
        some = [row for row in rows if row.kind == kind]
        if some:
            yield Row(
                f"mean, {label}",
                "average",
                fmean(row.teacher for row in some),
                tuple(_mean(row.scores[i] for row in some) for i in range(len(some[0].scores))),
            )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def report(out: str | Path) -> Path:
    """Write a run's or study's page: one HTML file that needs nothing else.

    Args:
        out: The folder of a run or a study.

    Returns:
        `out/report.html`.

    Raises:
        HeadstartError: Nothing is finished there.
    """
    records = read_records(out)
    table = tabulate(records)
    environment = Environment(
        loader=PackageLoader("headstart"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= _FILTERS
    page = environment.get_template("report.html").render(
        table=table,
        first=records[0],
        curves=[curve_of(column) for column in table.columns],
        seeds=sorted({record.seed for record in records}),
        out=Path(out).name,
    )
    path = Path(out) / "report.html"
    atomic_write(path, page)
    return path


@dataclass(frozen=True, slots=True)
class Curve:
    """Dev score over steps, as points of a 100 x 40 picture; y grows downwards."""

    name: str
    points: str
    steps: int
    last: float


def curve_of(column: Column) -> Curve:
    """Draw the learning curve of a column's first seed, its untrained score included."""
    record = column.records[0]
    metric = main_metric(record.task)
    before = fmean(row[metric] for row in record.scores["step0"]["dev"].values())
    known = [(float(p["step"] or 0), p["dev"] or 0.0) for p in record.curve]
    points = [(0.0, before), *known]
    steps = max(points[-1][0], 1.0)
    drawn = " ".join(f"{100 * x / steps:.1f},{40 - 40 * y:.1f}" for x, y in points)
    return Curve(column.name, drawn, int(steps), max(y for _, y in points))


def percent(value: float | None) -> str:
    """Write a share as a percentage with one digit; a dash where it is unknown."""
    return "-" if value is None else f"{100 * value:.1f}"


def shade(value: float | None, teacher: float) -> str:
    """Colour a cell by the share of the teacher that is kept: red at half or less, green at all."""
    if value is None or teacher <= 0:
        return "transparent"
    kept = min(max((value / teacher - 0.5) / 0.5, 0.0), 1.0)
    return f"hsl({round(120 * kept)} 60% 50% / 0.3)"


def megabytes(parameters: int) -> str:
    """Size of that many parameters in single precision."""
    return f"{parameters * 4 / 1e6:,.0f} MB"


_FILTERS: Mapping[str, Callable[..., str]] = {
    "percent": percent,
    "shade": shade,
    "megabytes": megabytes,
}
