"""Print what two ways and their teacher have on rare and on frequent labels of a study.

    python tools/by_label.py STUDY WAY OTHER

F1 of each label over all test rows of all languages, the mean over seeds; labels in thirds, by
how many test rows have them. Below, the labels on which OTHER lacks most.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq

from headstart.evidence import PREDICTIONS
from headstart.record import read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SHOWN = 3  # labels


def f1(gold: NDArray[np.int64], found: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """Give the F1 of each label."""
    hits = np.bincount(gold[gold == found], minlength=labels)
    either = np.bincount(gold, minlength=labels) + np.bincount(found, minlength=labels)
    return 2 * hits / np.maximum(either, 1)


def main() -> None:
    """Print the table, and two lines."""
    study, way, other = sys.argv[1:]
    found: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("teacher", way, other)}
    labels: Sequence[str] = ()
    support = np.zeros(0, np.int64)
    for place in sorted(Path(study, "runs").iterdir()):
        record = read_record(place / "record.json")
        name, labels = record.name.partition("|seed=")[0], record.labels
        if name in (way, other):
            rows = pq.read_table(place.joinpath(*PREDICTIONS))
            gold, ours, theirs = (rows[k].to_numpy() for k in ("gold", "predicted", "teacher"))
            support = np.bincount(gold, minlength=len(labels))
            found[name].append(f1(gold, ours, len(labels)))
            found["teacher"].append(f1(gold, theirs, len(labels)))
    means = {name: np.mean(each, axis=0) for name, each in found.items()}
    there = np.flatnonzero(support)
    thirds = np.array_split(there[np.argsort(support[there], kind="stable")], 3)
    print("| labels, by test rows |", " | ".join(means), "|")
    print("| --- |" + " --- |" * len(means))
    for part in (*thirds, there):
        told = f"{len(part)}, {support[part].min():,} to {support[part].max():,} rows"
        print(
            f"| {told} |",
            " | ".join(f".{1000 * m[part].mean():03.0f}" for m in means.values()),
            "|",
        )
    change = means[other][there] - means[way][there]
    for i in np.argsort(change)[:SHOWN]:
        label = there[i]
        told = ", ".join(f"{name} .{1000 * m[label]:03.0f}" for name, m in means.items())
        print(f"\n{labels[label]} ({support[label]:,} rows): {told}")


if __name__ == "__main__":
    main()
