"""How fast this machine is at matrix products, and how much of that a training reaches."""

from __future__ import annotations

import os
import time
from functools import cache
from typing import TYPE_CHECKING

import torch

from headstart.prepare import has_fast_bf16

if TYPE_CHECKING:
    from headstart.settings import Train

# Fitted to the seconds of runs: see docs/performance.md.
EFFICIENCY = {"fp32": 0.75, "bf16": 0.5}  # share of bare products that a training reaches
THREADS = 0.8  # so many threads are worth as one to this power
BUSY = 0.6  # load for each processor from which on an estimate says so


def busy() -> str:
    """Say what no estimate knows: an accelerator's speed, or other programs; empty if neither."""
    if torch.accelerator.is_available():
        return ", if its processor did it; the first run shows how fast its accelerator is"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < BUSY * (os.cpu_count() or 1):
        return ""
    return f"; longer while other programs are at work here (load {load:.1f})"


@cache
def matrix_rate(precision: str = "fp32") -> float:
    """Measure this machine's matrix products for a fifth of a second: operations per second.

    One thread is measured at its best, and others are counted on top of it: what else the machine
    is doing just now says nothing about the hours to come.

    Args:
        precision: fp32 or bf16.
    """
    threads = torch.get_num_threads()
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.set_num_threads(1)
    try:
        a, b = torch.ones(512, 384, dtype=kind), torch.ones(384, 1536, dtype=kind)
        began, best = time.perf_counter(), float("inf")
        while time.perf_counter() - began < 0.2:
            start = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return threads**THREADS * 2 * 512 * 384 * 1536 / best


@cache
def _own_precision() -> str:
    """Say what `precision: auto` is here; measured once, however many runs a study has."""
    return "bf16" if has_fast_bf16("cpu") else "fp32"


def seconds_each(train: Train | None = None) -> float:
    """Seconds of a multiply-add in a training, as its precision will be; None: in answering."""
    precision = "fp32" if train is None else train.precision
    precision = _own_precision() if precision == "auto" else precision
    return 2 / (matrix_rate(precision) * EFFICIENCY[precision])
