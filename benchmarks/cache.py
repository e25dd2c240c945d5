"""Opening the answers of a finished teacher pass: seconds and memory, and finding which they are.

    python benchmarks/cache.py [ROWS]

Writes logits of 60 classes for 10 million rows (2.4 GB, a file with holes) and opens them; before
that a pass is found by the hash of its text's pieces, ten a row here.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart.encode import Encoded
from headstart.teacher import _open, pieces_fingerprint

CLASSES, PIECES = 60, 10


def resident() -> int:
    """Give this process' largest resident size so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def texts(rows: int) -> Encoded:
    """Make rows of ten pieces each."""
    each, none = np.arange(rows + 1), np.zeros(rows, np.int64)
    ids = np.arange(rows * PIECES, dtype=np.int32)
    return Encoded(
        task="classification", pad_id=1, ids=ids, starts=PIECES * each, positions=none,
        unit_starts=each, gold=none, unit_words=none, words=none, word_starts=each,
        language_ids=none, languages=("xx",),
    )  # fmt: skip


def main() -> None:
    """Write, open, read a row at both ends; then hash the text."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shape = (rows, CLASSES)
        np.lib.format.open_memmap(place / "logits.npy", mode="w+", dtype=np.float32, shape=shape)
        meta: dict[str, object] = {"units": rows, "classes": CLASSES}
        (place / "meta.json").write_text(json.dumps(meta))
        before, start = resident(), time.perf_counter()
        logits = _open(place, meta)
        _ = logits[0].sum() + logits[-1].sum()
        spent = time.perf_counter() - start
        size = (place / "logits.npy").stat().st_size
        print(f"{rows:,} rows: {1e3 * spent:.1f} ms, {(resident() - before) / 1e6:.1f} MB more; "
              f"{size / (rows * CLASSES * 4):.6f} of the raw logits on disk")  # fmt: skip
    encoded = texts(rows)
    before, start = resident(), time.perf_counter()
    pieces_fingerprint(encoded)
    spent = time.perf_counter() - start
    print(f"hash of {rows:,} x {PIECES} pieces: {spent:.2f} s, "
          f"{(resident() - before) / 1e6:.1f} MB more")  # fmt: skip


if __name__ == "__main__":
    main()
