"""Opening the answers of a finished teacher pass: seconds and memory do not grow with its rows.

    python benchmarks/cache.py [ROWS]

Writes logits of 60 classes for 10 million rows (2.4 GB, a file with holes) and opens them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart.teacher import _open

CLASSES = 60


def resident() -> int:
    """Give this process' largest resident size so far, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Write, open, read a row at both ends."""
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


if __name__ == "__main__":
    main()
