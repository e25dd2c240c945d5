"""How fast this machine is at what an encoder does, and at bare products."""

from __future__ import annotations

import math
import os
import time
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.optim.adamw import adamw

from headstart.budget import PER_CHANNEL
from headstart.prepare import half, has_fast_bf16

if TYPE_CHECKING:
    from collections.abc import Callable

    from headstart.plan import Size
    from headstart.settings import Train

# What is timed: texts, pieces of each, and layers of so many channels together, whose weights no
# cache near a processor holds.
TEXTS, LONG, CHANNELS = 32, 16, 1152
# Fitted to the seconds of runs: see docs/performance.md.
EFFICIENCY = 0.75  # share of bare products that a refit's sums reach
BESIDE = 1.25  # a whole model's time, of its layers' alone
BUSY = 0.6  # load for each processor from which on an estimate says so


def busy() -> str:
    """Say what no estimate knows: an accelerator's speed, or other programs; empty if neither."""
    if torch.accelerator.is_available():
        return ", if its processor did it; the first run shows how fast its accelerator is"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < BUSY * (os.cpu_count() or 1):
        return ""
    return f"; longer while other programs are at work here (load {load:.1f})"


def _best(work: Callable[[], object], seconds: float) -> float:
    """Time a piece of work, at its best in so many seconds.

    With all threads, but never above one alone: where another program holds a processor, threads
    wait for each other, which says nothing about the hours to come.
    """
    threads = torch.get_num_threads()
    found: list[float] = []
    try:
        for count in {1, threads}:
            torch.set_num_threads(count)
            work()
            began, times = time.perf_counter(), 0
            while times < 2 or time.perf_counter() - began < seconds:
                start = time.perf_counter()
                work()
                found.append(time.perf_counter() - start)
                times += 1
    finally:
        torch.set_num_threads(threads)
    return min(found)


@cache
def matrix_rate() -> float:
    """Measure this machine's matrix products in single precision: operations per second."""
    a, b = torch.ones(512, 384), torch.ones(384, 1536)
    return 2 * 512 * 384 * 1536 / _best(lambda: torch.mm(a, b), 0.1)


@cache
def layer_seconds(hidden: int, heads: int, ffn: int, precision: str, learns: bool) -> float:
    """Measure a layer of an encoder: seconds of a piece.

    Products grow with the width's square, all else with the width, and how they compare is the
    machine's: so a layer of the very width is timed.

    Args:
        hidden: Its width.
        heads: Its heads.
        ffn: Its neurons.
        precision: fp32 or bf16.
        learns: A whole training step of it, optimizer included; else a forward pass.
    """
    count = max(CHANNELS // hidden, 1)
    with torch.random.fork_rng(devices=()), torch.enable_grad():
        layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, math.gcd(hidden, heads), ffn, 0.0, activation="gelu", batch_first=True
            )
            for _ in range(count)
        )
        given = torch.randn(TEXTS, LONG, hidden)
    # of all texts alike: for a mask of each, PyTorch's layer imports an algebra system
    padding = torch.zeros(LONG, LONG, dtype=torch.bool)
    padding[:, LONG - 2 :] = True
    step = _stepping([*layers.parameters()])

    def forward() -> torch.Tensor:
        states = given
        with half("cpu", bf16=precision == "bf16"):
            for layer in layers:
                states = layer(states, src_mask=padding)
        return states

    def learn() -> None:
        forward().float().square().mean().backward()
        step()

    with torch.set_grad_enabled(learns):
        return _best(learn if learns else forward, 0.05) / (count * TEXTS * LONG)


def _stepping(parameters: list[nn.Parameter], rate: float = 1e-9) -> Callable[[], None]:
    """Clip gradients, take a step and drop them, as `torch.optim.AdamW(fused=True)` does.

    The optimizer's class imports PyTorch's compiler when it is made, which takes longer than all
    that is timed.
    """
    means, squares = ([torch.zeros_like(one) for one in parameters] for _ in range(2))
    counts = [torch.zeros(()) for _ in parameters]

    @torch.no_grad()
    def step() -> None:
        nn.utils.clip_grad_norm_(parameters, 1.0)
        gradients = [cast("torch.Tensor", one.grad) for one in parameters]  # all learn
        adamw(
            [*parameters], gradients, means, squares, [], counts, fused=True, lr=rate, beta1=0.9,
            beta2=0.999, eps=1e-8, weight_decay=0.01, amsgrad=False, maximize=False,
        )  # fmt: skip
        for one in parameters:
            one.grad = None

    return step


@cache
def _own_precision() -> str:
    """Say what `precision: auto` is here; measured once, however many runs a study has."""
    return "bf16" if has_fast_bf16("cpu") else "fp32"


def seconds_each(size: Size, train: Train | None = None, *, learns: bool = True) -> float:
    """Seconds of a model's multiply-add, as `Size.work` counts them.

    Args:
        size: Of the model.
        train: Says in which precision; None for answering, which is in single precision.
        learns: A third of a training step; else of a forward pass. Nothing to answering.
    """
    precision = "fp32" if train is None else train.precision
    precision = _own_precision() if precision == "auto" else precision
    learns = learns and train is not None
    each = layer_seconds(size.hidden, size.heads, size.ffn, precision, learns)
    counted = 4 * size.hidden**2 + 2 * size.hidden * size.ffn + PER_CHANNEL * size.hidden
    return BESIDE * each / counted / (3 if learns else 1)


def product_seconds() -> float:
    """Seconds of a multiply-add in single precision, where all is products."""
    return 2 / (matrix_rate() * EFFICIENCY)
