"""What is told while work goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from headstart import console
from headstart.console import track

if TYPE_CHECKING:
    import pytest


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, said = [0.0], list[str]()
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(console, "say", said.append)
    monkeypatch.setattr(console.console, "_force_terminal", False)
    with track("student", 1200) as advance:
        for _ in range(1000):
            now[0] += 0.25
            advance(note="dev 50.0")
            advance(0)
    assert said[0] == "student: 241 of 1,200 steps, dev 50.0"
    assert len(said) == 4 + 1
    assert said[-1] == "student: 1,000 of 1,200 steps, dev 50.0, 250 s"


def test_a_short_job_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    monkeypatch.setattr(console, "say", said.append)
    with track("student", 2) as advance:
        advance(2)
    assert not said
