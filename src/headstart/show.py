"""What the command line prints: tables on standard output, faults on standard error."""

from __future__ import annotations

from shlex import quote
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from headstart.errors import HeadstartError
    from headstart.record import Record

SHOWN = 12  # students whose folder is told
WIDE = 160  # columns where standard output is no terminal, so that pipes get whole lines


def console(*, faults: bool = False) -> Console:
    """Open standard output, or standard error for faults."""
    opened = Console(stderr=faults, highlight=False)
    return opened if opened.is_terminal else Console(stderr=faults, highlight=False, width=WIDE)


def show_fault(error: HeadstartError) -> None:
    """Print a fault: what, where, and the way out; framed in red on a terminal."""
    where = console(faults=True)
    if where.is_terminal:
        where.print(Panel(Text(str(error)), title="fault", title_align="left", border_style="red"))
    else:
        where.print(Text(f"fault: {error}"), soft_wrap=True)


def show_stopped(verb: str) -> None:
    """Say what Ctrl-C left behind."""
    console(faults=True).print(told_stopped(verb))


def told_stopped(verb: str) -> str:
    """Say whether what was stopped goes on."""
    goes_on = verb in ("run", "study")
    return (
        f"stopped; {'the same command goes on from here' if goes_on else 'nothing of it is kept'}"
    )


def show_lines(*lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        console().print(Text(line), soft_wrap=True)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: text in the first column, numbers in the others."""
    table = Table(box=None, pad_edge=False)
    for i, name in enumerate(head):
        table.add_column(Text(name), justify="right" if i else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def show_scores(scores: Mapping[str, Mapping[str, float]], zero_shot: Collection[str]) -> None:
    """Print metrics per language and their means, in percent.

    Args:
        scores: Metric values under language and metric name.
        zero_shot: Languages that were never trained on.
    """
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    trained = [values for language, values in scores.items() if language not in zero_shot]
    others = [values for language, values in scores.items() if language in zero_shot]
    means = {"mean, trained on": trained, "mean, zero-shot": others}
    rows = [
        (f"{language} (zero-shot)" if language in zero_shot else language, values)
        for language, values in scores.items()
    ]
    rows += [
        (label, {name: fmean(values[name] for values in some) for name in names})
        for label, some in means.items()
        if some
    ]
    show_table(
        ["language", *names],
        [[label, *(f"{100 * values[name]:.1f}" for name in names)] for label, values in rows],
    )


def told_end(
    command: str,
    again: Sequence[str],
    settings: Sequence[str],
    out: Path,
    records: Sequence[Record],
) -> list[str]:
    """Write the page, and say what came out, where it lies, and what to try next.

    Args:
        command: How this program is called.
        again: The verb that made the runs, its recipe, and what else it was given.
        settings: Those of the call.
        out: The folder of a run or a study.
        records: The finished runs.
    """
    from headstart.answers import answer
    from headstart.insight import look_into
    from headstart.report import report

    is_run, insight = again[0] == "run", look_into(out)
    places = [out if is_run else out / "runs" / one.signature for one in records]
    shown = list(zip(records, places, strict=True))[:SHOWN]
    left = len(places) - len(shown)
    return [
        "",
        *answer(insight),
        f"The page is {report(out, insight)}; the students are ordinary transformers folders:",
        *(f"  {'student' if is_run else one.name}  {place / 'student'}" for one, place in shown),
        *([f"  and {left} more, in {out / 'runs'}"] if left else ()),
        "Next:",
        *next_steps(command, again, settings, out, records),
    ]


def next_steps(
    command: str,
    again: Sequence[str],
    settings: Sequence[str],
    out: Path,
    records: Sequence[Record],
) -> list[str]:
    """Name commands that fit what was made, as `told_end` does."""
    from headstart.tables import column_name

    verb, recipe, more = again[0], quote(again[1]), [quote(one) for one in again[2:]]
    places = [out if verb == "run" else out / "runs" / one.signature for one in records]
    told = "".join(f" --set {quote(one)}" for one in settings)
    kept = "".join(f" --set {quote(o)}" for o in settings if not o.startswith("student.layers="))
    made = _layers(places[0])
    fewer = made // 2 if made > 1 else 2
    other = " ".join([verb, recipe, quote(f"{out}-{fewer}"), *more])
    lines = [f"  another shape       {command} {other}{kept} --set student.layers={fewer}"]
    if recipe == "quickstart":
        return [
            *lines,
            f"  your teacher, data  {command} recipes template > mine.yaml",
            f"                      fill it in, then {command} check mine.yaml",
            f"  the paper's grid    {command} check paper-massive (reads its text from the hub)",
        ]
    ways = list(dict.fromkeys(column_name(record) for record in records))
    if len(ways) > 1:
        first, last = (quote(f"{out}:{way}") for way in (ways[0], ways[-1]))
        lines.append(f"  two of its ways     {command} compare {first} {last}")
    if len({record.seed for record in records}) == 1:
        seeds = f"study {recipe} {quote(f'{out}-seeds')}{told} --set 'seeds=[0, 1, 2]'"
        lines.append(f"  how sure it is      {command} {seeds}")
    best = max(range(len(records)), key=lambda i: _score(records[i]))
    named = (*_teachers(out, places[best]), places[best] / "student")
    models = " ".join(quote(str(one)) for one in named)
    return [*lines, f"  size and speed      {command} bench {models}"]


def _layers(place: Path) -> int:
    """Say how many layers a run's student has; 6 where that is not known."""
    from headstart.errors import HeadstartError
    from headstart.selection import Selection

    chosen = place / "student" / "selection.json"
    try:
        return len(Selection.from_json(chosen.read_text(encoding="utf-8")).layers)
    except (OSError, HeadstartError):
        return 6


def _score(record: Record) -> float:
    """Give the mean over languages trained on, on test."""
    from headstart.metrics import main_metric

    found = record.summary["student"]["trained_on"]
    return found[main_metric(record.task)] if found else 0.0


def _teachers(out: Path, place: Path) -> list[str]:
    """Find the teacher of a run: the one that its recipe names, or that was made here."""
    from headstart.document import parse

    recipe = place / "recipe.yaml"
    tree = parse(recipe.read_text(encoding="utf-8"), where=str(recipe)) if recipe.exists() else {}
    named = tree.get("teacher") if isinstance(tree, dict) else None
    given = named.get("model") if isinstance(named, dict) else None
    made = sorted(out.glob("teachers/*/model"))
    return [str(given)] if given else [str(folder) for folder in made[:1] if len(made) == 1]
