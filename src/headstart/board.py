"""How a study stands, on the terminal: what is done, what runs, what is left, and until when."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headstart.console import console, leads
from headstart.forecast import describe_seconds

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

SHOWN = 12  # runs; of more, those around the one that is being made
LEFT, RUNNING, DONE = "left", "running", "done"
AWAY, ELSEWHERE = "running elsewhere", "made by another process"


@dataclass(slots=True)
class Board:
    """The state of every run of a study.

    Args:
        states: Under each run's name.
        expected: Seconds of each run that is not done, as estimated before.
    """

    states: dict[str, str]
    expected: Mapping[str, float]
    notes: dict[str, str] = field(default_factory=dict[str, str])
    began: dict[str, float] = field(default_factory=dict[str, float])
    workers: int = 1  # runs that are made at a time
    spent: float = 0.0  # seconds of the runs made here
    planned: float = 0.0  # seconds that were expected of them

    def start(self, name: str) -> None:
        """Note that a run is being made."""
        self.states[name] = RUNNING
        self.began[name] = time.monotonic()

    def start_elsewhere(self, name: str) -> None:
        """Note that another process is at a run, since when it was seen there."""
        if self.states[name] != AWAY:
            self.start(name)
            self.states[name] = AWAY

    def finish(self, name: str, note: str, seconds: float | None = None) -> None:
        """Note that a run is done, what came out, and what it took, where that is known better."""
        self.states[name], self.notes[name] = DONE, note
        self.spent += time.monotonic() - self.began[name] if seconds is None else seconds
        self.planned += self.expected.get(name, 0.0)

    def seconds_left(self) -> float:
        """Estimate the time to the end, from the pace of the runs made here."""
        pace = self.spent / self.planned if self.planned else 1.0
        now, left, away = time.monotonic(), 0.0, 0
        undone = [name for name, state in self.states.items() if state != DONE]
        for name in undone:
            gone = 0.0 if self.states[name] == LEFT else now - self.began[name]
            rest = max(pace * self.expected.get(name, 0.0) - gone, 0.0)
            left += rest
            away += self.states[name] == AWAY and rest > 0
        return left / max(min(self.workers + away, len(undone)), 1)

    def summary(self) -> str:
        """Say how many runs are in which state, and when all are done."""
        states = [RUNNING if state == AWAY else state for state in self.states.values()]
        counts = {state: states.count(state) for state in (DONE, RUNNING, LEFT)}
        told = ", ".join(f"{count:,} {state}" for state, count in counts.items())
        if counts[DONE] == len(self.states):
            return told
        left = self.seconds_left()
        end = datetime.now().astimezone() + timedelta(seconds=left)
        return f"{told}; about {describe_seconds(left)} to go, until {end:%a %H:%M}"

    def __rich__(self) -> Group:
        """Draw the table."""
        table = Table(box=None, pad_edge=False)
        table.add_column("run")
        table.add_column("state")
        table.add_column("trained on / zero-shot", justify="right")
        names = list(self.states)
        now = next((i for i, name in enumerate(names) if self.states[name] == RUNNING), 0)
        first = max(min(now - SHOWN // 2, len(names) - SHOWN), 0)
        for name in names[first : first + SHOWN]:
            note = self.notes.get(name, "")
            if self.states[name] in (RUNNING, AWAY):
                note = describe_seconds(time.monotonic() - self.began[name])
            style = {DONE: "green", RUNNING: "bold"}.get(self.states[name], "dim")
            table.add_row(Text(name), Text(self.states[name], style=style), Text(note))
        return Group(table, Text(self.summary()))


@contextmanager
def shown(board: Board) -> Generator[None]:
    """Keep the table below all other output while a block runs; nothing where there is none."""
    if not (leads() and console.is_terminal):
        yield
        return
    with Live(board, console=console, refresh_per_second=2):
        yield
