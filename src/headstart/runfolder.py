"""The folder of a run: refused, held, taken, and let go."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from headstart.errors import HeadstartError
from headstart.folders import atomic_write, check_folder, is_partial, make_folder
from headstart.insight import flat, recipe_in
from headstart.loading import to_yaml
from headstart.recipe import NOT_DECIDING
from headstart.record import read_record

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from headstart.recipe import Recipe
    from headstart.record import Record

LOCK = ".lock"
SPENT = ("state", "starts")  # of a run that is done
SHOWN = 3  # settings that a message lists
BY_CONTENT = frozenset({"teacher.model", "teacher.base"})  # where they lie decides nothing
SHARED = ("base", "teachers", "passes", "starts")  # found by what they hold, whoever made them


def refuse_taken(out: Path) -> None:
    """Refuse a file, and a folder that holds something else, before anything is written."""
    check_folder(out)
    is_run = (out / "recipe.yaml").exists()
    if out.exists() and not is_run and _own(out) - {LOCK, *SHARED}:
        has = "a study" if (out / "study.yaml").exists() else "no run"
        raise HeadstartError(
            f"the output folder is not empty, and holds {has}",
            where=str(out),
            way_out="choose an empty or a new folder",
        )


def _own(out: Path) -> set[str]:
    """Name what a folder holds, but for what a killed process left half-written."""
    return {entry.name for entry in out.iterdir() if not is_partial(entry.name)}


@contextmanager
def alone_in(out: Path) -> Generator[None]:
    """Keep a run's folder from a second process that was started on it."""
    make_folder(out)
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
                f"the output folder holds another run: {_differs(place, recipe)}",
                where=str(out),
                way_out="choose another folder, or delete this one",
            )
        finished = out / "record.json"
        return read_record(finished) if finished.exists() else None
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(place, f"{mark}\n{to_yaml(recipe)}")
    return None


def _differs(place: Path, recipe: Recipe) -> str:
    """Say in which settings a folder's recipe differs from one that is to run there."""
    texts = (place.read_text(encoding="utf-8"), to_yaml(recipe))
    try:
        trees = [recipe_in(text, where=str(place)) for text in texts]
    except HeadstartError:
        return "its recipe cannot be read"
    there, here = (flat(tree, without=NOT_DECIDING | BY_CONTENT) for tree in trees)
    every = there | here
    keys = [key for key in every if there.get(key) != here.get(key)]
    keys = [key for key in keys if not any(other.startswith(f"{key}.") for other in every)]
    told = [f"{k} is {there.get(k)} there, {here.get(k)} here" for k in keys]
    more = f", and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return (
        "; ".join(told[:SHOWN]) + more
        if told
        else "the settings are the same; its text, a model, or the result version is another"
    )


def clear(out: Path) -> None:
    """Take away what a finished run needs no more, and models that killed processes left."""
    for spent in (*(out / name for name in SPENT), *out.glob(".student.*")):
        shutil.rmtree(spent, ignore_errors=True)


def let_go(out: Path) -> None:
    """Leave a folder to the mended recipe, where the faulty one has made nothing of its own."""
    if _own(out) <= {"recipe.yaml", LOCK, *SHARED}:
        (out / "recipe.yaml").unlink(missing_ok=True)
