"""Cut tensors as a selection says: copy, shuffle, and score by magnitude.

Tensors come in through a function that reads one by name, so that a teacher on disk is never
held whole.
"""

from __future__ import annotations

import hashlib
from itertools import chain
from math import prod
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from headstart.layout import Axis, Entry, Shape, dim_length
from headstart.selection import UNITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from headstart.selection import Selection

BLOCK = 1 << 20  # values of a table of pieces that are read at once


class Read(Protocol):
    """Gives a tensor by name, or some of its rows."""

    def __call__(self, name: str, rows: slice | None = None, /) -> Tensor:
        """Do so."""
        ...


def cut(
    tensor: Tensor,
    entry: Entry,
    selection: Selection,
    sizes: Mapping[Axis, int],
    donor: int | None = None,
) -> Tensor:
    """Keep of one tensor what a selection says.

    Args:
        tensor: The teacher's tensor, its dimensions as ``entry.axes``.
        entry: The student's tensor that it becomes, or a part of which.
        selection: What is kept.
        sizes: The teacher's length of each axis.
        donor: The teacher's layer that the tensor is in; the kept one if not named.

    Returns:
        A new tensor of the same type.
    """
    is_new = False
    for dim, axis in enumerate(entry.axes):
        kept = selection.keep(axis, entry.layer, sizes, donor)
        if kept is not None and kept != tuple(range(dim_length(axis, sizes))):
            tensor = tensor.index_select(dim, torch.tensor(kept, device=tensor.device))
            is_new = True
    tensor = tensor.detach()
    return tensor if is_new else tensor.clone(memory_format=torch.contiguous_format)


def transplant(
    read: Read,
    entries: Iterable[Entry],
    selection: Selection,
    *,
    sizes: Mapping[Axis, int],
    source_prefix: str,
    target_prefix: str,
) -> dict[str, Tensor]:
    """Make a student's tensors from a teacher's.

    Args:
        read: Gives a teacher's tensor by name.
        entries: The student's tensors; shared ones are left to whoever shares them.
        selection: What is kept.
        sizes: The teacher's length of each axis.
        source_prefix: Prefix of the encoder's names in the teacher.
        target_prefix: Prefix of the encoder's names in the student.

    Returns:
        New tensors by the student's names.
    """
    student: dict[str, Tensor] = {}
    for entry in entries:
        if not entry.tied:
            parts = blocks(read, entry, selection, sizes=sizes, source_prefix=source_prefix)
            student[entry.name(target_prefix)] = _filled(parts, dim_length(entry.axes[0], sizes))
    return student


def blocks(
    read: Read,
    entry: Entry,
    selection: Selection,
    *,
    sizes: Mapping[Axis, int],
    source_prefix: str,
) -> Iterator[Tensor]:
    """Make one of a student's tensors: rows of a large table of pieces, one block after the other.

    Args:
        read: Gives a teacher's tensor by name.
        entry: The student's tensor.
        selection: What is kept.
        sizes: The teacher's length of each axis.
        source_prefix: Prefix of the encoder's names in the teacher.

    Yields:
        New tensors.
    """
    names = source_names(entry, selection, source_prefix)
    shape = tuple(dim_length(dim, sizes) for dim in entry.axes)
    if entry.axes[0] == "vocab" and prod(shape) > BLOCK:
        step = max(BLOCK // prod(shape[1:]), 1)
        for start in range(0, shape[0], step):
            yield cut(read(names[0], slice(start, start + step)), entry, selection, sizes)
        return
    donors = selection.donors(entry.axes, entry.layer)
    named = zip(names, donors, strict=True)
    parts = [cut(read(name), entry, selection, sizes, donor) for name, donor in named]
    yield parts[0] if len(parts) == 1 else _joined(parts, entry, selection, donors)


def _filled(parts: Iterator[Tensor], rows: int) -> Tensor:
    """Put blocks of rows together without holding them twice."""
    first = next(parts)
    if len(first) >= rows or (second := next(parts, None)) is None:
        return first
    whole, at = first.new_empty(rows, *first.shape[1:]), 0
    for part in chain((first, second), parts):
        whole[at : at + len(part)] = part
        at += len(part)
    return whole


def _joined(
    parts: Sequence[Tensor], entry: Entry, selection: Selection, donors: Sequence[int | None]
) -> Tensor:
    """Put the units that several layers give into the order in which the student has them."""
    layer = cast("int", entry.layer)
    for dim, axis in enumerate(entry.axes):
        first = axis[0] if isinstance(axis, tuple) else axis
        if first in UNITS:
            places = [i for donor in donors for i in selection.places(axis, layer, donor)]
            order = torch.tensor(places, device=parts[0].device).argsort()
            return torch.cat([*parts], dim).index_select(dim, order)
    raise AssertionError(entry)


def source_names(entry: Entry, selection: Selection, prefix: str) -> tuple[str, ...]:
    """Name the teacher's tensors that a student's tensor comes from."""
    donors = selection.donors(entry.axes, entry.layer)
    return tuple(entry.name(prefix, donor) for donor in donors)


def shuffled(name: str, tensor: Tensor, *, seed: int) -> Tensor:
    """Shuffle the values of one tensor: same statistics, no knowledge.

    Args:
        name: The tensor's name; with the seed it decides the order.
        tensor: Any shape, on the CPU, in single precision or better.
        seed: Another seed, another order.

    Returns:
        A new tensor of the same shape and values.
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "big")])
    # Not by an index, which would be twice as large as the tensor.
    return torch.from_numpy(rng.permutation(tensor.flatten().numpy())).reshape(tensor.shape)


def magnitudes(
    read: Read, entries: Sequence[Entry], shape: Shape, *, prefix: str
) -> dict[str, NDArray[np.float64]]:
    """Score channels, heads and neurons by the size of their weights.

    A score is the mean absolute value of the weights that touch the unit, over the mean of the
    whole tensor (so that a large table counts as much as a small matrix), summed over tensors.
    Vectors (biases, gains) and weights of the head do not count.

    Args:
        read: Gives a tensor by name.
        entries: The model's tensors.
        shape: The model's shape.
        prefix: Prefix of the encoder's names.

    Returns:
        ``hidden``, shape (hidden,); ``heads``, (layers, heads); ``ffn``, (layers, ffn).
    """
    scores = {
        "hidden": np.zeros(shape.hidden),
        "attention": np.zeros((shape.layers, shape.heads * shape.head_size)),
        "ffn": np.zeros((shape.layers, shape.ffn)),
    }
    for entry in entries:
        if len(entry.axes) > 1 and entry.part != "head":
            _add(scores, entry, read(entry.name(prefix)))
    heads = scores["attention"].reshape(shape.layers, shape.heads, shape.head_size).mean(axis=2)
    return {"hidden": scores["hidden"], "heads": heads, "ffn": scores["ffn"]}


def _add(scores: Mapping[str, NDArray[np.float64]], entry: Entry, tensor: Tensor) -> None:
    size = tensor.detach().abs()
    whole = size.mean(dtype=torch.float64).clamp_min(1e-30)
    for dim, axis in enumerate(entry.axes):
        parts = axis if isinstance(axis, tuple) else (axis,)
        if parts[0] not in scores:
            continue
        others = [d for d in range(size.dim()) if d != dim]
        shares = size.mean(dim=others, dtype=torch.float64) / whole
        units = shares.reshape(len(parts), -1).sum(dim=0).numpy()
        row = scores[parts[0]]
        row[... if row.ndim == 1 else entry.layer] += units
