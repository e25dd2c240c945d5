"""Two ways of making a student, held against each other on the same test rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headstart.answers import points
from headstart.checking import nearest
from headstart.errors import HeadstartError
from headstart.evidence import gather_counts, read_seen
from headstart.insight import place_of
from headstart.record import Record, read_record
from headstart.stats import Bootstrap, Estimate, holm, permutation_p
from headstart.tables import column_name, learned_name, read_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from headstart.evidence import Seen

    Floats = NDArray[np.float64]
    Runs = Sequence[tuple[Path, Record]]

WAYS = ("the first", "the second")
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """One language, or the mean over a kind of languages.

    Args:
        label: The language, or the mean's name.
        scores: Of the first and of the second way.
        gain: The second's score less the first's.
        p: Of the paired permutation test; None for a mean.
        adjusted: The same, adjusted for the number of languages.
        examples: How many there are of it.
    """

    label: str
    scores: tuple[float, float]
    gain: Estimate
    p: float | None = None
    adjusted: float | None = None
    examples: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two ways differ by.

    Args:
        names: Of the two.
        seeds: Of each.
        rows: Languages in the order of the recipe, then the means.
        margin: Differences below it count as none.
        kinds_differ: Whether a language is zero-shot for one of the two alone.
    """

    names: tuple[str, str]
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    rows: tuple[Row, ...]
    margin: float
    kinds_differ: bool = False

    def verdict(self, row: Row) -> str:
        """Say what a difference comes to."""
        interval = row.gain.interval()
        if interval is None:
            return "one seed: unknown over seeds"
        beyond = row.gain.beyond(self.margin)
        if row.gain.error == 0 and beyond == 0:  # never differed: as rare as that is at the margin
            beyond = (1 - self.margin) ** row.examples
        if beyond is not None and beyond < ALPHA:
            return f"equivalent within {100 * self.margin:g}"
        if interval[0] <= 0 <= interval[1] or (row.p or 0.0) >= ALPHA:
            return "undecided"
        is_one_of_many = (row.adjusted or 0.0) >= ALPHA
        return f"{self.names[interval[0] > 0]} is better" + " (unadjusted)" * is_one_of_many


def compare(first: str, second: str, *, margin: float = 0.01, seed: int = 0) -> Comparison:
    """Compare two ways of making a student, language by language.

    Args:
        first: Folder of a run; or of a study, with a colon and the name of one of its ways.
        second: The other.
        margin: Differences below it count as none; a share of 1.
        seed: Of the draws.

    Returns:
        Scores and differences with their intervals; p-values of paired permutation tests, and
        those adjusted by Holm.

    Raises:
        HeadstartError: There is no such run, the two were tested on other rows, or their
            predictions are not there.
    """
    if not 0 < margin < 1:
        raise HeadstartError(
            f"a margin of {100 * margin:g} points", where="--margin", way_out="give 0.1 to 99"
        )
    both = [find_runs(named) for named in (first, second)]
    _check_tests([record for runs in both for _, record in runs], second)
    counts = gather_counts({way: _seen(runs) for way, runs in zip(WAYS, both, strict=True)})
    bootstrap = Bootstrap(counts, seed=seed)
    rng = np.random.default_rng(seed)
    p = [permutation_p(*(counts[way][x] for way in WAYS), rng=rng) for x in bootstrap.languages]
    tests = [*zip(p, holm(p), strict=True)]
    records = [record for runs in both for _, record in runs]
    groups = _groups(records, bootstrap.languages)
    sizes = [counts[WAYS[0]][x].hits.shape[1] for x in bootstrap.languages]

    def three(a: Floats, b: Floats) -> Floats:
        first, second = (np.stack([x[rows].mean(0) for rows in groups.values()]) for x in (a, b))
        return np.concatenate([first, second, second - first])

    found = bootstrap.estimate(WAYS, three)
    rows: list[Row] = []
    for i, label in enumerate(groups):
        a, b, gain = found[i :: len(groups)]
        told = tests[i] if i < len(tests) else (None, None)
        seen = sum(sizes[place] for place in groups[label])
        rows.append(Row(label, (a.value, b.value), gain, *told, examples=seen))
    names = [_name(named, runs[0][1]) for named, runs in zip((first, second), both, strict=True)]
    if names[0] == names[1] and first != second:
        names = [first, second]
    seeds = [tuple(record.seed for _, record in runs) for runs in both]
    kinds = {(frozenset(one.languages), frozenset(one.zero_shot)) for one in records}
    return Comparison(
        (names[0], names[1]), (seeds[0], seeds[1]), tuple(rows), margin, len(kinds) > 1
    )


def find_runs(named: str) -> Runs:
    """Find the runs that a text names: folders and records, one a seed.

    Raises:
        HeadstartError: There are none, or those of several ways.
    """
    parts = named.split(":")
    folder, way = named, ""
    for i in range(1, len(parts)):
        if not Path(named).is_dir() and Path(":".join(parts[:i])).is_dir():
            folder, way = ":".join(parts[:i]), ":".join(parts[i:])
            break
    if (Path(folder) / "record.json").exists():
        if way:
            raise HeadstartError(
                "the folder holds a single run, which has no ways",
                where=named,
                way_out=f"write {folder}",
            )
        return [(Path(folder), read_record(Path(folder) / "record.json"))]
    records = read_records(folder)
    ways = dict.fromkeys(column_name(record) for record in records)
    if way not in ways and (way or len(ways) > 1):
        raise HeadstartError(
            f"the study has no way {way!r}" if way else f"the study has {len(ways)} ways",
            where=named,
            way_out=f"write {folder}:WAY; {nearest(way, ways)}",
        )
    way = way or next(iter(ways))
    found = [(place_of(Path(folder), r), r) for r in records if column_name(r) == way]
    return sorted(found, key=lambda run: run[1].seed)


def _check_tests(records: Sequence[Record], named: str) -> None:
    """Refuse records of other test rows in the same languages; older ones do not say."""
    languages = {frozenset((*one.languages, *one.zero_shot)) for one in records}
    if len(languages) == 1 and len({one.fingerprints.get("test") for one in records} - {None}) > 1:
        raise HeadstartError(
            "the two were tested on other rows: texts or labels differ",
            where=named,
            way_out="make both runs on the same test files",
        )


def _seen(runs: Runs) -> list[tuple[int, Mapping[str, Seen]]]:
    found: list[tuple[int, Mapping[str, Seen]]] = []
    for place, record in runs:
        seen = read_seen(place, record)
        if not seen:
            raise HeadstartError(
                "its predictions are not there",
                where=str(place),
                way_out="make the run again with this version of headstart",
            )
        found.append((record.seed, seen))
    return found


def _groups(records: Sequence[Record], languages: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """List what is compared: each language, and both kinds of them; as places in `languages`."""
    groups = {language: np.array([i]) for i, language in enumerate(languages)}
    kinds = (
        (learned_name(records), records[0].languages),
        ("zero-shot", records[0].zero_shot),
    )
    for label, some in kinds:
        rows = np.flatnonzero([language in some for language in languages])
        if len(rows):
            groups[f"mean, {label}"] = rows
    return groups


def _name(named: str, record: Record) -> str:
    return column_name(record) if record.name != "run" else Path(named).name


def comparison_rows(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Write a comparison as a table: its head, and a row a language."""
    head = ["language", *found.names, "difference (95 %)", "p", "p, Holm", ""]
    rows: list[list[str]] = []
    for row in found.rows:
        scores = [f"{100 * score:.1f}" for score in row.scores]
        p = ["" if p is None else f"{p:.4f}" for p in (row.p, row.adjusted)]
        rows.append([row.label, *scores, points(row.gain, sign=True), *p, found.verdict(row)])
    return head, rows


def comparison_note(found: Comparison) -> str:
    """Say what the numbers of the table are."""
    both = " and ".join(", ".join(map(str, seeds)) for seeds in found.seeds)
    sure = f"95 % intervals over seeds {both} and test rows"
    if any(len(seeds) == 1 for seeds in found.seeds):
        sure = f"no interval over seeds, since one of the two has a single seed ({both})"
    first, second = found.names
    told = f"{second} less {first}, in points; {sure}; p of swapping the answers to a row"
    if any(found.verdict(row).endswith(")") for row in found.rows):
        told += "; unadjusted: that language alone, not as one of so many (Holm)"
    if found.kinds_differ:
        told += "; kinds of languages are those of the first: the second has other zero-shot ones"
    return told
