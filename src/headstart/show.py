"""What the command line prints: tables on standard output, faults on standard error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def show_scores(scores: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics per language, in percent."""
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    rows = [
        [language, *(f"{100 * values[name]:.1f}" for name in names)]
        for language, values in scores.items()
    ]
    show_table(["language", *names], rows)
