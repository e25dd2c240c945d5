"""The one place that writes to the terminal while work goes on: bars, and lines in a log."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Generator

LINE_EVERY = 60.0  # seconds between lines where there is no bar
console = Console(stderr=True, highlight=False)


class Advance(Protocol):
    """Moves a bar on by some steps, and may change the note beside it."""

    def __call__(self, steps: int = 1, note: str = "") -> None:
        """Do so."""
        ...


def leads() -> bool:
    """Whether this process speaks: the first of those that `torchrun` started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """Write one line to standard error."""
    if leads():
        console.print(text, markup=False, soft_wrap=True)


@contextmanager
def track(label: str, total: int, unit: str = "steps") -> Generator[Advance]:
    """Show a bar while a block runs; where standard error is no terminal, a line a minute.

    Args:
        label: What is being done.
        total: Steps that will be reported.
        unit: What they are called in a line.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    quiet = not (leads() and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        bar = progress.add_task(label, total=total, note="")
        done, told, began = 0, "", time.monotonic()
        said = began

        def tell(more: str = "") -> None:
            say(f"{label}: {done:,} of {total:,} {unit}{told and f', {told}'}{more}")

        def advance(steps: int = 1, note: str = "") -> None:
            nonlocal done, said, told
            done, told = done + steps, note or told
            progress.advance(bar, steps)
            if note:
                progress.update(bar, note=note)
            if not console.is_terminal and time.monotonic() - said > LINE_EVERY:
                said = time.monotonic()
                tell()

        yield advance
        if said > began:  # lines were written: the last one says how it ended
            tell(f", {time.monotonic() - began:,.0f} s")
