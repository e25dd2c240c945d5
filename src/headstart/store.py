"""Safetensors files, read range by range and written as tensors come: none is held whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import safe_open
from torch import Tensor

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    Flow = tuple[Mapping[str, tuple[int, ...]], Iterable[Tensor], torch.dtype]

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
_NAMES = {kind: name for name, kind in TYPES.items()}
LARGE = 1 << 26  # bytes that are worth memory of their own
_ALIGNED = 8  # bytes; a header is filled up to a multiple


class Room:
    """Memory that one tensor after the other is read into: new memory costs more than reading."""

    def __init__(self) -> None:
        """Start with none."""
        self.raw = torch.empty(0, dtype=torch.uint8)

    def give(self, size: int) -> Tensor:
        """Give so many bytes; what was given before is no longer good, unless it was large."""
        if size > LARGE:
            return torch.empty(size, dtype=torch.uint8)
        if size > len(self.raw):
            self.raw = torch.empty(size, dtype=torch.uint8)
        return self.raw[:size]


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file.

    Args:
        file: The file.
        kind: Its type, as the file calls it.
        shape: Its shape.
        begin: Where its bytes begin.
    """

    file: Path
    kind: str
    shape: tuple[int, ...]
    begin: int

    def read(self, rows: slice | None = None, room: Room | None = None) -> Tensor:
        """Read it, or some of its rows.

        Args:
            rows: Which; None for all.
            room: Memory that it is read into, until the next one is; None for memory of its own.

        Raises:
            KeyError: It is of a type that no weight has.
            HeadstartError: The file has become shorter.
        """
        kind, shape, begin = TYPES[self.kind], self.shape, self.begin
        if rows is not None:
            first, end, _ = rows.indices(shape[0])
            begin += first * prod(shape[1:]) * kind.itemsize
            shape = (end - first, *shape[1:])
        size = prod(shape) * kind.itemsize
        raw = torch.empty(size, dtype=torch.uint8) if room is None else room.give(size)
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(begin)
            left = _bytes(raw)
            while left and (count := stream.readinto(left)):
                left = left[count:]
        if left:
            raise HeadstartError(
                "the file ends before its tensors do",
                where=str(self.file),
                way_out="copy or download it again",
            )
        return raw.view(kind).reshape(shape)


def stored(file: Path) -> dict[str, Stored]:
    """List the tensors of a file.

    Raises:
        SafetensorError, OSError: It is no such file, or broken.
    """
    opened: Any = safe_open(file, framework="pt")  # checks header and size
    del opened
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(size))
    return {
        name: Stored(file, one["dtype"], tuple(one["shape"]), 8 + size + one["data_offsets"][0])
        for name, one in header.items()
        if name != "__metadata__"
    }


def _bytes(raw: Tensor) -> memoryview:
    """Show the memory of a tensor of bytes."""
    return memoryview(cast("Any", raw.numpy()))


def write(
    file: Path,
    shapes: Mapping[str, tuple[int, ...]],
    blocks: Iterable[Tensor],
    kind: torch.dtype,
) -> None:
    """Write tensors of one type as they come, to the bytes that safetensors' own writer gives.

    Args:
        file: Is replaced.
        shapes: Of the tensors, by name.
        blocks: Their rows, in the order of the sorted names.
        kind: Their type.

    Raises:
        ValueError: The blocks do not fill the shapes.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        begin, end = end, end + prod(shapes[name]) * kind.itemsize
        told = {"dtype": _NAMES[kind], "shape": [*shapes[name]], "data_offsets": [begin, end]}
        header[name] = told
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with file.open("wb", buffering=0) as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for block in blocks:
            if block.dtype != kind:
                raise ValueError(f"{block.dtype} among {kind}")
            left = _bytes(block.contiguous().view(-1).view(torch.uint8))
            end -= len(left)
            while left:
                left = left[stream.write(left) :]
    if end:
        raise ValueError(f"{end} bytes are missing")
