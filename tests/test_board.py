"""The table of a running study: its counts are true, and its end follows from the pace so far."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from headstart import board as room
from headstart.board import DONE, ELSEWHERE, LEFT, RUNNING, SHOWN, Board, shown

NAMES = [f"arm {i}" for i in range(20)]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    return now


def board() -> Board:
    return Board(dict.fromkeys(NAMES, LEFT), dict.fromkeys(NAMES, 10.0))


def drawn(one: Board) -> str:
    screen = Console(file=StringIO(), width=100)
    screen.print(one)
    assert isinstance(screen.file, StringIO)
    return screen.file.getvalue()


def test_the_end_follows_from_the_pace(clock: list[float]) -> None:
    one = board()
    assert one.seconds_left() == 200
    one.start("arm 0")
    clock[0] = 30.0
    one.finish("arm 0", "81.0 / 60.2")
    assert one.seconds_left() == 19 * 30
    one.start("arm 1")
    clock[0] = 42.0
    assert one.seconds_left() == 19 * 30 - 12
    assert one.summary().startswith("1 done, 1 running, 18 left; about 9 min to go, until ")


def test_runs_of_other_processes_count(clock: list[float]) -> None:
    one = board()
    one.start("arm 0")
    one.start_elsewhere("arm 1")
    assert one.seconds_left() == 200 / 2
    clock[0] = 4.0
    one.start_elsewhere("arm 1")  # seen again
    assert one.seconds_left() == (200 - 8) / 2
    assert one.summary().startswith("0 done, 2 running, 18 left; ")
    clock[0] = 11.0  # it should have ended, and does not speed up what is left
    assert one.seconds_left() == 180
    for name in NAMES[2:14]:
        one.start_elsewhere(name)
    one.states["arm 0"] = DONE
    one.start("arm 19")
    assert f"arm 19  {RUNNING}" in drawn(one)  # the one that is made here is in view


def test_a_run_that_takes_longer_never_gives_time_below_zero(clock: list[float]) -> None:
    one = Board({"a": LEFT}, {"a": 10.0})
    one.start("a")
    clock[0] = 60.0
    assert one.seconds_left() == 0


def test_the_table_shows_the_runs_around_the_present_one(clock: list[float]) -> None:
    one = board()
    for name in NAMES[:9]:
        one.states[name] = DONE
    one.notes["arm 8"] = ELSEWHERE
    one.start("arm 9")
    clock[0] = 5.0
    text = drawn(one)
    assert sum(f"{name} " in text for name in NAMES) == SHOWN
    (line,) = [line for line in text.splitlines() if line.startswith("arm 9 ")]
    assert line.split() == ["arm", "9", RUNNING, "5", "s"]
    assert ELSEWHERE in text
    one.states = dict.fromkeys(NAMES, DONE)
    assert one.summary() == "20 done, 0 running, 0 left"
    assert "9 done, 1 running, 10 left" in text


def test_without_a_terminal_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with shown(board()):
        pass
    assert capsys.readouterr() == ("", "")
