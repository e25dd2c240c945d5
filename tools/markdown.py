"""Print a study's results as Markdown, for the documents.

    python tools/markdown.py STUDY [--over KEY]

Main metric on test in percent: means over languages with their spread over seeds, then per
language; and for each way of making a student what it took. With --over, one table alone: a column
for each value of that key of the grid, such as max_steps.
"""

from __future__ import annotations

import sys
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from headstart.machine import told
from headstart.tables import Table, cells, dev_score, heads, percent, read_records, tabulate

if TYPE_CHECKING:
    from collections.abc import Sequence


def row(texts: Sequence[str]) -> str:
    """Write one row."""
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def scores(table: Table) -> list[str]:
    """Write languages by columns."""
    head = heads(table)
    return [row(head), row(["---"] * len(head)), *(row(cells(line)) for line in table.rows)]


def spread(values: Sequence[float]) -> str:
    """Write the mean in percent and, over several seeds, the standard deviation."""
    return percent(fmean(values)) + (f" ± {percent(stdev(values))}" if len(values) > 1 else "")


def means(table: Table) -> list[str]:
    """Write for each column its means, and what share of its own teacher's they are."""
    head = ["student", "seeds", "trained on", "zero-shot", "share of the teacher", "seconds"]
    lines = [row(head), row(["---"] * len(head))]
    for column in table.columns:
        texts: list[str] = []
        shares: list[str] = []
        for kind in ("trained_on", "zero_shot"):
            ours, theirs = (
                [r.summary[model][kind].get(table.metric) for r in column.records]  # type: ignore[literal-required]
                for model in ("student", "teacher")
            )
            if None in ours:
                continue
            texts.append(spread(ours))
            shares.append(percent(fmean(ours) / fmean(theirs)) + " %")
        texts += ["-"] * (2 - len(texts))
        seconds = f"{column.seconds:.0f}"
        lines.append(
            row([column.name, str(len(column.records)), *texts, " / ".join(shares), seconds])
        )
    return lines


def making(table: Table) -> list[str]:
    """Write what each column took: rate, steps to its best, dev along the way, seconds."""
    head = [
        "student",
        "rates chosen",
        "best step of",
        "dev over steps",
        "seconds",
        "last quarter",
        "marks",
    ]
    lines = [row(head), row(["---"] * len(head))]
    for column in table.columns:
        first = column.records[0]
        points = [
            (0, dev_score(first, "step0")),
            *((int(p["step"] or 0), p["dev"] or 0.0) for p in first.curve),
        ]
        best = first.best_step
        if best is None:  # a record of before step 0 was a candidate
            best = max(points[1:] or points, key=lambda point: point[1])[0]
        rates = sorted({str(r.learning_rate["chosen"]) for r in column.records if r.curve})
        lines.append(
            row(
                [
                    column.name,
                    ", ".join(rates) or "-",
                    f"{best} of {points[-1][0]}",
                    " ".join(percent(dev) for _, dev in points),
                    f"{column.seconds:.0f}",
                    "-" if column.rise is None else f"{100 * column.rise:.1f}",
                    ", ".join(column.marks) or "-",
                ]
            )
        )
    return lines


def over(table: Table, key: str) -> list[str]:
    """Write the means of each way by one key of the grid."""
    found: dict[str, dict[str, str]] = {}
    for column in table.columns:
        parts = column.name.split("|")
        name = "|".join(part for part in parts if not part.startswith(f"{key}="))
        value = next((part.partition("=")[2] for part in parts if part.startswith(f"{key}=")), "-")
        kinds = [[r.summary["student"][k].get(table.metric) for r in column.records]
                 for k in ("trained_on", "zero_shot")]  # fmt: skip
        cell = " / ".join(spread(ours) for ours in kinds if None not in ours)
        alone = " (one seed)" if len(column.records) == 1 else ""
        found.setdefault(name, {})[value] = cell + alone
    values = sorted({v for cells in found.values() for v in cells}, key=lambda v: (len(v), v))
    head = [key, *(f"{int(v):,}" if v.isdigit() else v for v in values)]
    lines = [row(head), row(["---"] * len(head))]
    return lines + [row([n, *(v.get(value, "-") for value in values)]) for n, v in found.items()]


def main() -> None:
    """Print the tables, and on what they were made."""
    records = read_records(sys.argv[1])
    table = tabulate(records)
    if len(sys.argv) == 4 and sys.argv[2] == "--over":
        print("\n".join([*over(table, sys.argv[3]), ""]))
    else:
        print("\n".join([*means(table), "", *scores(table), "", *making(table), ""]))
    commits = ", ".join(sorted({str(record.commit) for record in records}))
    seeds = ", ".join(map(str, sorted({record.seed for record in records})))
    taught = [percent(point["dev"] or 0.0) for point in records[0].teacher_curve]
    if taught:
        print(f"The teacher's dev scores: {' '.join(taught)}.")
    print(f"Seeds {seeds}; {told(records[0].hardware)}; commit {commits}.")


if __name__ == "__main__":
    main()
