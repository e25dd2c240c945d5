"""What runs got right, example by example: their predictions on disk, as statistics read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.errors import HeadstartError
from headstart.metrics import example_counts
from headstart.stats import Counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headstart.metrics import Answers
    from headstart.record import Record

PREDICTIONS = ("predictions", "test.parquet")


class Seen(NamedTuple):
    """One language of one run: what each test example adds to the main metric."""

    rows: tuple[tuple[str, str], ...]  # id and right answer of each example
    student: tuple[NDArray[np.int64], NDArray[np.int64]]  # hits, and of how many
    teacher: tuple[NDArray[np.int64], NDArray[np.int64]]


def read_seen(run: Path, record: Record) -> dict[str, Seen]:
    """Read a run's predictions, by language.

    Args:
        run: Its folder.
        record: Its record.

    Returns:
        Nothing where the run has none, or none of its teacher's: those of earlier versions.

    Raises:
        HeadstartError: The file cannot be read.
    """
    path = run.joinpath(*PREDICTIONS)
    if not path.exists():
        return {}
    try:
        names = ["id", "language", "gold", "predicted"]
        has_teacher = "teacher" in pq.read_schema(path).names
        table = pq.read_table(path, columns=[*names, "teacher"] if has_teacher else names)
    except (OSError, pa.ArrowException) as fault:
        raise HeadstartError(
            f"the predictions cannot be read: {fault}",
            where=str(path),
            way_out="delete the run's folder, and make it again",
        ) from fault
    if not has_teacher:
        return {}
    owners = np.asarray(table["language"].to_pylist())
    return {
        language: _seen(table.take(np.flatnonzero(owners == language)), record)
        for language in dict.fromkeys(owners.tolist())
    }


def _seen(table: pa.Table, record: Record) -> Seen:
    gold, student, teacher = (table[name].to_pylist() for name in ("gold", "predicted", "teacher"))

    def counts(guess: Answers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return example_counts(record.task, gold, guess, record.labels)

    names = dict(enumerate(record.labels))

    def right(answer: int | list[int]) -> str:
        many = answer if isinstance(answer, list) else [answer]
        return " ".join(names.get(one, "") for one in many)

    rows = zip(map(str, table["id"].to_pylist()), map(right, gold), strict=True)
    return Seen(tuple(rows), counts(student), counts(teacher))


def gather_counts(
    ways: Mapping[str, Sequence[tuple[int, Mapping[str, Seen]]]],
) -> dict[str, dict[str, Counts]]:
    """Put runs of the same test rows together, those of a way by seed: seeds are drawn in pairs.

    Args:
        ways: Under the name of each way of making a student, its runs: seed, and what was seen; in
            any order.

    Returns:
        Counts by way and language.

    Raises:
        HeadstartError: The runs were not tested on the same rows.
    """
    first = next(iter(ways.values()))[0][1]
    found: dict[str, dict[str, Counts]] = {}
    every = dict.fromkeys(lang for runs in ways.values() for _, run in runs for lang in run)
    for way, runs in ways.items():
        ordered = sorted(runs, key=lambda run: run[0])
        seeds = tuple(seed for seed, _ in ordered)
        found[way] = {}
        for language in every:
            one = first.get(language)
            seen = [run[language] for _, run in ordered if language in run]
            if one is None or len(seen) < len(runs) or any(s.rows != one.rows for s in seen):
                raise HeadstartError(
                    f"{way} was not tested on the rows of {language} that others were",
                    where="predictions/test.parquet",
                    way_out="compare runs of one recipe's text",
                )
            hits, of = (np.stack([s.student[i] for s in seen]).astype(float) for i in (0, 1))
            found[way][language] = Counts(hits, of, seeds)
    return found


def teacher_counts(seen: Mapping[str, Seen]) -> dict[str, Counts]:
    """Give what a run's teacher got right; no seed of the study decides it."""
    parts = {k: [part[None].astype(float) for part in one.teacher] for k, one in seen.items()}
    return {language: Counts(hits, of) for language, (hits, of) in parts.items()}
