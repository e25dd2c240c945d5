"""Where results go: a folder is taken once, and a file is there whole or not at all."""

from __future__ import annotations

import difflib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Collection


def at_home(path: str | Path) -> Path:
    """Put the home folder in the place of `~`; a user who is not known stays as written."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - pathlib raises where the user is unknown


def model_beside(name: str) -> str:
    """Name a model's folder that stands where a missing one was looked for, if one is alike.

    Returns:
        What ends a way out, or nothing.
    """
    try:
        there = [file.parent.name for file in at_home(name).parent.glob("*/config.json")]
    except OSError:  # it may not be listed
        return ""
    close = difflib.get_close_matches(Path(name).name, there, n=1, cutoff=0.7)
    return f"; did you mean {Path(name).parent / close[0]}?" if close else ""


def check_folder(out: Path) -> None:
    """Refuse a file where a folder is meant.

    Raises:
        HeadstartError: There is one.
    """
    if out.exists() and not out.is_dir():
        raise HeadstartError(
            "it is a file", where=str(out), way_out="choose a new or an empty folder"
        )


def make_folder(folder: Path) -> None:
    """Make a folder, and those on the way; one that is there stays.

    Raises:
        HeadstartError: The place takes no folders.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError) as fault:  # a file is in the way; below /proc
        raise HeadstartError(
            "no folder can be made there", where=str(folder), way_out="name another place"
        ) from fault


def claim(out: str | Path, *inputs: str | Path) -> Path:
    """Take a folder for a result before any work: a new or an empty one.

    Args:
        out: The folder.
        inputs: What the result is made from.

    Returns:
        Its absolute path.

    Raises:
        HeadstartError: It is one of the inputs, a file, or holds something.
    """
    out = Path(out).resolve()
    taken = [named for named in inputs if Path(named).resolve() == out]
    if taken:
        what = f"the result would take the place of {taken[0]}, which it is made from"
    elif out.is_dir() and any(out.iterdir()):
        what = "the folder holds something already"
    else:
        check_folder(out)
        return out
    raise HeadstartError(what, where=str(out), way_out="choose a new or an empty folder")


def stamp(folder: Path | None, endings: Collection[str]) -> tuple[tuple[str, int, int], ...]:
    """Say what a corpus' files are now: they need not be read again for as long as they stay.

    Args:
        folder: Of the files, or of folders of them; None has none.
        endings: Of the files that count.
    """
    found: list[tuple[str, int, int]] = []
    for file in [] if folder is None else sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if file.suffix in endings:
            with suppress(FileNotFoundError):  # deleted since
                state = file.stat()
                found.append((str(file), state.st_mtime_ns, state.st_size))
    return tuple(found)


def settle(*places: Path) -> None:
    """Bring files, and all files of folders, to the disk before something says that they are whole.

    Raises:
        OSError: One of them cannot be.
    """
    for place in places:
        for path in [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]:
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def is_partial(name: str) -> bool:
    """Whether a file is what a killed process left of one that it wrote."""
    return name.startswith(".") and name.endswith(".partial")


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that it is there whole or not at all, and folders on the way.

    Args:
        path: The file; one that exists is replaced.
        data: Its content; text is written as UTF-8.
    """
    make_folder(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
