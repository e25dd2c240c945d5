"""A finished study as statistics see it: ways, intervals, attributions, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import yaml

from headstart.attribution import Attribution, Way, attribute
from headstart.errors import HeadstartError
from headstart.evidence import gather_counts, read_seen, teacher_counts
from headstart.stats import Bootstrap, Counts, Estimate
from headstart.tables import read_records, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headstart.evidence import Seen
    from headstart.record import Record
    from headstart.tables import Column, Table

    Floats = NDArray[np.float64]

NOT_SETTING = ("name", "seed", "seeds", "arms", "grid", "baseline", "init", "train.objective")


@dataclass(frozen=True, slots=True)
class Kept:
    """What a way keeps of its teacher, over a group of languages."""

    score: Estimate
    share: Estimate  # of the teacher's mean score
    below: Estimate  # the teacher's mean score less this one


@dataclass(frozen=True, slots=True)
class Insight:
    """A study.

    Args:
        table: Scores, languages by ways.
        ways: One for each of the table's columns.
        bootstrap: Knows the scores of all ways and teachers by the columns' names; None where
            there are no predictions to draw from.
        attributions: What the grid allows.
        missing: Why there is no bootstrap.
    """

    table: Table
    ways: tuple[Way, ...]
    bootstrap: Bootstrap | None
    attributions: tuple[Attribution, ...]
    missing: str | None = None

    @property
    def first(self) -> Record:
        """Any run, for what all have in common."""
        return self.table.columns[0].records[0]

    def teacher_of(self, column: Column) -> Column:
        """Find a column's teacher."""
        return self.table.teachers[self.table.taught[self.table.columns.index(column)]]

    def kept(self, column: Column, *, zero_shot: bool) -> Kept | None:
        """Say what a way keeps over a kind of languages; None where there is nothing to say."""
        if self.bootstrap is None:
            return None
        unseen = np.array([lang in self.first.zero_shot for lang in self.bootstrap.languages])
        rows = np.flatnonzero(unseen == zero_shot)
        return self._kept(column, [rows])[0] if len(rows) else None

    def kept_by_language(self, column: Column) -> dict[str, Kept]:
        """Say what a way keeps in each language; nothing where there is no bootstrap."""
        if self.bootstrap is None:
            return {}
        languages = self.bootstrap.languages
        each = self._kept(column, [np.array([i]) for i in range(len(languages))])
        return dict(zip(languages, each, strict=True))

    def _kept(self, column: Column, groups: Sequence[NDArray[np.int64]]) -> list[Kept]:
        def three(student: Floats, teacher: Floats) -> Floats:
            ours, theirs = (
                np.stack([x[rows].mean(0) for rows in groups]) for x in (student, teacher)
            )
            return np.concatenate([ours, ours / np.maximum(theirs, 1e-12), theirs - ours])

        names = [column.name, self.teacher_of(column).name]
        found = cast("Bootstrap", self.bootstrap).estimate(names, three)
        count = len(groups)
        return [Kept(*found[i::count]) for i in range(count)]


def look_into(out: str | Path) -> Insight:
    """Read a study's or a run's folder.

    Raises:
        HeadstartError: Nothing is finished there, or its runs cannot stand in one table.
    """
    out = Path(out)
    table = tabulate(read_records(out))
    ways = _ways(out, table.columns)
    bootstrap, missing = None, "Their predictions are not all there: no intervals."
    try:
        seen = [
            [(r.seed, read_seen(place_of(out, r), r)) for r in c.records] for c in table.columns
        ]
        if all(one for runs in seen for _, one in runs):
            bootstrap, missing = Bootstrap(_counts(table, seen)), None
    except HeadstartError as fault:
        missing = f"No intervals: {fault.what} ({fault.where})."
    attributions = (
        attribute(ways, bootstrap, table.columns[0].records[0].zero_shot) if bootstrap else []
    )
    return Insight(table, ways, bootstrap, tuple(attributions), missing)


def place_of(out: Path, record: Record) -> Path:
    """Find a run's folder in a study's, or the run's own."""
    inside = out / "runs" / record.signature
    return inside if inside.exists() else out


def _counts(
    table: Table, seen: Sequence[Sequence[tuple[int, Mapping[str, Seen]]]]
) -> dict[str, dict[str, Counts]]:
    """Put together what all ways and teachers got right."""
    names = [column.name for column in table.columns]
    found = gather_counts(dict(zip(names, seen, strict=True)))
    for place, teacher in enumerate(table.teachers):
        runs = seen[table.taught.index(place)]
        found[teacher.name] = teacher_counts(runs[0][1])
    return found


def _ways(out: Path, columns: Sequence[Column]) -> tuple[Way, ...]:
    """Say what each column is, and what tells its setting from that of others."""
    plain = [_settings(place_of(out, column.records[0])) for column in columns]
    every = dict.fromkeys(key for settings in plain for key in settings)
    varied = [key for key in every if len({settings.get(key) for settings in plain}) > 1]
    return tuple(
        Way(
            column.name,
            column.records[0].source,
            bool(column.records[0].refit),
            column.records[0].objective,
            ", ".join(
                f"{key.rpartition('.')[2]}={settings[key]}" for key in varied if key in settings
            ),
        )
        for column, settings in zip(columns, plain, strict=True)
    )


def _settings(run: Path) -> dict[str, str]:
    """Read a run's resolved recipe, without what ways differ in, as dotted keys."""
    path = run / "recipe.yaml"
    if not path.exists():
        return {}
    flat: dict[str, str] = {}

    def flatten(tree: Mapping[str, object], above: str) -> None:
        for key, value in tree.items():
            name = f"{above}{key}"
            if name in NOT_SETTING:
                continue
            if isinstance(value, Mapping):
                flatten(cast("Mapping[str, object]", value), f"{name}.")
            else:
                flat[name] = str(value)

    flatten(yaml.safe_load(path.read_text(encoding="utf-8")), "")
    return flat
