"""A finished study as statistics see it: ways, intervals, attributions, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from headstart.attribution import Attribution, Way, attribute
from headstart.document import parse
from headstart.errors import HeadstartError
from headstart.evidence import gather_counts, read_seen, teacher_counts
from headstart.recipe import NOT_DECIDING
from headstart.stats import Bootstrap, Counts, Estimate
from headstart.tables import column_name, read_records, tabulate

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from headstart.evidence import Seen
    from headstart.record import Record
    from headstart.tables import Column, Table

    Floats = NDArray[np.float64]
    Tree = dict[str, object]

FRESH = ("scratch", "permuted")  # nothing of which is chosen
NOT_SETTING = NOT_DECIDING | {"seed", "init", "train.objective"}


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
        baseline: The column that the recipe names as its baseline.
    """

    table: Table
    ways: tuple[Way, ...]
    bootstrap: Bootstrap | None
    attributions: tuple[Attribution, ...]
    missing: str | None = None
    baseline: Column | None = None

    @property
    def trained(self) -> str:
        """Say which languages the means that are not zero-shot are over."""
        kind = self.table.kinds[0]
        return "the languages trained on" if kind == "trained on" else kind

    @property
    def languages(self) -> str:
        """Count the languages, by what was learned from them."""
        named, unseen = len(self.first.languages), len(self.first.zero_shot)
        lacking = sum(bool(row.note) and row.kind == "trained" for row in self.table.rows)
        told = [f"{named - lacking} language{'s' * (named - lacking != 1)} trained on"]
        told += [f"{lacking} more of the recipe's, without training rows"] if lacking else []
        return ", ".join([*told, f"{unseen} zero-shot"] if unseen else told)

    @property
    def fewer(self) -> list[str]:
        """Name the ways that have fewer seeds than others."""
        most = max(len(column.records) for column in self.table.columns)
        some = [column for column in self.table.columns if len(column.records) < most]
        return [f"{column.name} has {len(column.records)} of {most} seeds" for column in some]

    @property
    def first(self) -> Record:
        """Any run, for what all have in common."""
        return self.table.columns[0].records[0]

    def way_of(self, column: Column) -> Way:
        """Find what a column is."""
        return self.ways[self.table.columns.index(column)]

    def teacher_of(self, column: Column) -> Column:
        """Find a column's teacher."""
        return self.table.teachers[self.table.taught[self.table.columns.index(column)]]

    def kept(self, column: Column, *, zero_shot: bool) -> Kept | None:
        """Say what a way keeps over a kind of languages; None where there is nothing to say."""
        rows = self._rows(zero_shot=zero_shot)
        return self._kept(column, [rows])[0] if len(rows) else None

    def against(self, column: Column, *, zero_shot: bool) -> Estimate | None:
        """Say how far a way is above the baseline over a kind of languages; None if unknown."""
        rows = self._rows(zero_shot=zero_shot)
        if self.baseline is None or self.bootstrap is None or not len(rows):
            return None

        def gain(ours: Floats, theirs: Floats) -> Floats:
            return (ours[rows] - theirs[rows]).mean(0)

        return self.bootstrap.estimate([column.name, self.baseline.name], gain)[0]

    def _rows(self, *, zero_shot: bool) -> NDArray[np.int64]:
        """Find the bootstrap's languages of a kind."""
        known = () if self.bootstrap is None else self.bootstrap.languages
        unseen = np.array([lang in self.first.zero_shot for lang in known], bool)
        return np.flatnonzero(unseen == zero_shot)

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
            share = np.divide(ours, theirs, out=np.full_like(ours, np.nan), where=theirs > 0)
            return np.concatenate([ours, share, theirs - ours])

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
    named = _recipe(out / "study.yaml").get("baseline")
    bases = [column for column in table.columns if column_name(column.records[0]) == named]
    baseline = bases[0] if len(bases) == 1 else None  # each of several teachers has its own
    return Insight(table, ways, bootstrap, tuple(attributions), missing, baseline)


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
    plain = [_recipe(place_of(out, c.records[0]) / "recipe.yaml") for c in columns]
    inits = [
        {} if column.records[0].source in FRESH else flat(cast("Tree", tree.get("init") or {}))
        for column, tree in zip(columns, plain, strict=True)
    ]
    settings = [flat(tree, without=NOT_SETTING) for tree in plain]
    told, chosen = _differing(settings), _differing(inits)
    ways: list[Way] = []
    for i, column in enumerate(columns):
        first = column.records[0]
        has_general = bool(cast("Tree", plain[i].get("init") or {}).get("general"))
        source = "general" if has_general else first.source
        objective = _objective(plain[i]) or first.objective
        ways.append(Way(column.name, source, bool(first.refit), objective, told[i], chosen[i]))
    return tuple(ways)


def _differing(plain: Sequence[Mapping[str, str]]) -> list[str]:
    """Write each one's values of the keys in which they differ."""
    every = dict.fromkeys(key for one in plain for key in one)
    varied = [k for k in every if k != "source" and len({one.get(k) for one in plain if one}) > 1]
    return [
        ", ".join(f"{k.rpartition('.')[2]}={one[k]}" for k in varied if k in one) for one in plain
    ]


def _recipe(path: Path) -> Tree:
    """Read a resolved recipe; nothing where there is none."""
    return recipe_in(path.read_text(encoding="utf-8"), where=str(path)) if path.exists() else {}


def recipe_in(text: str, *, where: str) -> Tree:
    """Read a resolved recipe as plain data; nothing where it is none."""
    tree = parse(text, where=where)
    return cast("Tree", tree) if isinstance(tree, dict) else {}


def flat(tree: Tree, above: str = "", *, without: Collection[str] = ()) -> dict[str, str]:
    """Write plain data as dotted keys and texts."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{above}{key}"
        if name in without:
            continue
        if isinstance(value, dict):
            found |= flat(cast("Tree", value), f"{name}.", without=without)
        else:
            found[name] = str(value)
    return found


def _objective(tree: Tree) -> str:
    """Write the parts of the loss, with their weights and temperatures where these say anything."""
    train = cast("Tree", tree.get("train") or {})
    terms = cast("dict[str, dict[str, float]]", train.get("objective") or {})
    terms = {name: term for name, term in terms.items() if term.get("weight", 1.0) > 0}
    alike = len({term.get("weight", 1.0) for term in terms.values()}) < 2
    return "+".join(
        name
        + ("" if alike else f" x {term.get('weight', 1.0):g}")
        + (f" T={term['temperature']:g}" if term.get("temperature", 1.0) != 1.0 else "")
        for name, term in terms.items()
    )
