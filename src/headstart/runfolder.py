"""The folder of a run: refused, held, taken, and let go."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from headstart.errors import HeadstartError
from headstart.folders import atomic_write, check_folder
from headstart.loading import to_yaml
from headstart.record import read_record

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from headstart.recipe import Recipe
    from headstart.record import Record

LOCK = ".lock"
SHARED = ("base", "teachers", "passes", "starts")  # found by what they hold, whoever made them


def refuse_taken(out: Path) -> None:
    """Refuse a file, and a folder that holds something else, before anything is written."""
    check_folder(out)
    is_run = (out / "recipe.yaml").exists()
    if out.exists() and not is_run and any(e.name not in (LOCK, *SHARED) for e in out.iterdir()):
        raise HeadstartError(
            "the output folder is not empty, and holds no run",
            where=str(out),
            way_out="choose an empty or a new folder",
        )


@contextmanager
def alone_in(out: Path) -> Generator[None]:
    """Keep a run's folder from a second process that was started on it."""
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as fault:
        raise HeadstartError(
            "another process makes this run",
            where=str(out),
            way_out="wait for it, or choose another folder",
        ) from fault
    try:
        yield
    finally:
        lock.release()


def take(recipe: Recipe, out: Path, key: str) -> Record | None:
    """Take an empty folder, or one of the same run; return the record if it is finished."""
    mark = f"# signature: {key}"
    place = out / "recipe.yaml"
    if place.exists():
        if place.read_text(encoding="utf-8").splitlines()[0] != mark:
            raise HeadstartError(
                "the output folder holds another run",
                where=str(out),
                way_out="choose another folder, or delete this one",
            )
        finished = out / "record.json"
        return read_record(finished) if finished.exists() else None
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(place, f"{mark}\n{to_yaml(recipe)}")
    return None


def let_go(out: Path) -> None:
    """Leave a folder to the mended recipe, where the faulty one has made nothing of its own."""
    if {entry.name for entry in out.iterdir()} <= {"recipe.yaml", LOCK, *SHARED}:
        (out / "recipe.yaml").unlink(missing_ok=True)
