"""What the command line prints: tables on standard output, faults on standard error."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from headstart.errors import HeadstartError

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


def show_stopped() -> None:
    """Say what Ctrl-C left behind."""
    console(faults=True).print("stopped; run and study go on from here with the same command")


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
