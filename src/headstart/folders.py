"""Where results go: a folder is taken once, and a file is there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.errors import HeadstartError


def check_folder(out: Path) -> None:
    """Refuse a file where a folder is meant.

    Raises:
        HeadstartError: There is one.
    """
    if out.exists() and not out.is_dir():
        raise HeadstartError(
            "it is a file", where=str(out), way_out="choose a new or an empty folder"
        )


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


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that it is there whole or not at all, and folders on the way.

    Args:
        path: The file; one that exists is replaced.
        data: Its content; text is written as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
