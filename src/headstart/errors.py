"""What can be wrong, said in one form: what, where, and the way out."""

from __future__ import annotations

import difflib
import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class HeadstartError(ValueError):
    """One fault of the user's input, with its place and its remedy.

    Args:
        what: The fault, with the values at hand.
        where: File and line, recipe key, or argument.
        way_out: What to do now.
    """

    def __init__(self, what: str, *, where: str, way_out: str) -> None:
        """Put the three parts into one message."""
        self.what, self.where, self.way_out = what, where, way_out
        self.parts: tuple[HeadstartError, ...] = ()  # of several in one
        super().__init__(f"{what}\n  where: {where}\n  way out: {way_out}")

    def __reduce__(self) -> tuple[object, tuple[str, str, str]]:
        """Keep the three parts when the error crosses processes."""
        return _rebuild, (self.what, self.where, self.way_out)


def _rebuild(what: str, where: str, way_out: str) -> HeadstartError:
    return HeadstartError(what, where=where, way_out=way_out)


def combine(faults: Sequence[HeadstartError], *, where: str) -> HeadstartError:
    """Put several faults into one error, so that they can be mended in one go.

    Args:
        faults: At least one.
        where: The file or object that has them.

    Returns:
        The fault itself if there is one only, otherwise a numbered list of all.
    """
    faults = [part for fault in faults for part in fault.parts or (fault,)]
    if len(faults) == 1:
        return faults[0]
    lines = [f"{i}. {f.what} (at {f.where}; {f.way_out})" for i, f in enumerate(faults, 1)]
    whole = HeadstartError(
        f"{len(faults)} faults:\n  " + "\n  ".join(lines),
        where=where,
        way_out="mend each as it says",
    )
    whole.parts = tuple(faults)
    return whole


ROOM = ("ENOSPC", "EDQUOT", "EFBIG")
PLACE = ("EACCES", "EPERM", "EROFS", "ENOTDIR", "ENAMETOOLONG", "EIO")


def of_the_disk(error: OSError) -> HeadstartError | None:
    """Turn the system's fault of a place into ours; None where it may be the program's own."""
    name = errno.errorcode.get(error.errno or 0)
    if name not in ROOM + PLACE:
        return None
    return HeadstartError(
        f"the system says: {error.strerror}",
        where=str(error.filename or "output"),
        way_out=("make room" if name in ROOM else "name another place, or change its rights")
        + "; what was finished is kept",
    )


def not_written(place: object, fault: Exception) -> HeadstartError:
    """Say that a file of tensors could not be written."""
    return HeadstartError(
        f"it cannot be written: {fault}",
        where=str(place),
        way_out="make room, or name another place; what was finished is kept",
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """Suggest the known word that `word` most likely stands for.

    Returns:
        A phrase that ends a sentence: ``did you mean 'x'?``, or a list of what is known.
    """
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    close = close or [lower[x] for x in difflib.get_close_matches(word.lower(), lower, 1, 0.5)]
    return f"did you mean {close[0]!r}?" if close else "choose from " + ", ".join(names)
