"""The teacher's answers, given once for each teacher and text and kept on disk.

A pass is addressed by its content: the teacher's weights and the exact pieces that it reads
(so tokenizer, texts and maximum length are in it). Another arm on the same text pays nothing.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from filelock import FileLock

from headstart.errors import HeadstartError
from headstart.evaluate import number_of_labels, predict
from headstart.folders import atomic_write

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.encode import Encoded


@dataclass(frozen=True, slots=True)
class Pass:
    """The teacher's logits on one split."""

    logits: NDArray[np.float32]  # (units, classes), memory-mapped
    seconds: float  # 0 where the pass was found on disk


def pieces_fingerprint(encoded: Encoded) -> str:
    """Hash what a model reads of a split, and where its answers are taken from."""
    digest = hashlib.sha256(f"{encoded.task}|{encoded.pad_id}|".encode())
    for array in (encoded.ids, encoded.starts, encoded.positions, encoded.unit_starts):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def teacher_pass(
    model: PreTrainedModel,
    encoded: Encoded,
    folder: Path,
    *,
    weights: str,
    accelerator: Accelerator,
) -> Pass:
    """Open the teacher's logits for a split, after computing them if need be.

    Args:
        model: The teacher.
        encoded: The split.
        folder: Holds one folder for each pass.
        weights: Fingerprint of the teacher's weights.
        accelerator: Shares the work out among the processes.

    Returns:
        Logits in the order of the split's units.

    Raises:
        HeadstartError: What lies there was made by another teacher or text, or is damaged.
    """
    meta: dict[str, object] = {
        "weights": weights,
        "pieces": pieces_fingerprint(encoded),
        "units": len(encoded.gold),
        "classes": number_of_labels(model),
    }
    key = hashlib.sha256(json.dumps(meta).encode()).hexdigest()[:16]
    place = folder / key
    seconds = 0.0
    with alone(accelerator, place):
        if not (place / "meta.json").exists():
            start = time.perf_counter()
            logits = predict(model, encoded, accelerator, label="teacher pass")
            if accelerator.is_main_process:
                _write(place, logits, meta)
            accelerator.wait_for_everyone()
            seconds = time.perf_counter() - start
    return Pass(_open(place, meta), seconds)


@contextmanager
def alone(accelerator: Accelerator, place: Path) -> Generator[None]:
    """Keep the processes of other runs from making the same thing; they wait, and find it made."""
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f"{place.name}.lock"))
    if accelerator.is_main_process:
        lock.acquire()
    try:
        accelerator.wait_for_everyone()
        yield
    finally:
        lock.release()


def _write(place: Path, logits: NDArray[np.float32], meta: dict[str, object]) -> None:
    """Write the logits, then the description that makes them whole."""
    place.mkdir(parents=True, exist_ok=True)
    partial = place / "logits.npy.partial"
    with partial.open("wb") as file:
        np.save(file, logits.astype(np.float32, copy=False), allow_pickle=False)
    partial.replace(place / "logits.npy")
    atomic_write(place / "meta.json", json.dumps(meta, indent=2) + "\n")


def _open(place: Path, meta: dict[str, object]) -> NDArray[np.float32]:
    found = json.loads((place / "meta.json").read_text(encoding="utf-8"))
    differing = sorted(k for k in meta if found.get(k) != meta[k])
    if differing:
        raise _stale(place, f"was made with other {' and '.join(differing)}")
    try:
        logits = np.load(place / "logits.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _stale(place, f"cannot be read ({error})") from error
    if logits.shape != (meta["units"], meta["classes"]):
        raise _stale(place, f"has shape {logits.shape}, not {(meta['units'], meta['classes'])}")
    return logits


def _stale(place: Path, why: str) -> HeadstartError:
    return HeadstartError(
        f"stale teacher cache: it {why}",
        where=str(place),
        way_out="delete that folder and run again",
    )
