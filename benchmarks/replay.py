"""Whether steps that are recorded on CUDA are the steps that would have been taken.

    python benchmarks/replay.py

Tiny models of every family, with random weights, learn random answers, classifying and tagging, in
fp32 without dropout: once one step at a time, once recorded. Prints the largest relative
difference of the training loss between the two, and the steps that were recorded. Tests emulate
a graph on a processor; only a card can say whether it takes a family's steps.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from headstart import replay, train
from headstart.prepare import open_accelerator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from test_train import LABELS, drawn, fresh, job
from tiny import VARIANTS


class Counting(replay.Cuda):
    """Counts what it records."""

    recorded = 0

    def record(self, step):  # noqa: ANN001, ANN201
        """Record a step."""
        known = super().record(step)
        Counting.recorded += 1
        return known


def losses(family: str, task: str, *, recorded: bool) -> np.ndarray:
    """Train, and give the mean loss of every four steps."""
    accelerator = open_accelerator()
    data = drawn(240, task=task)
    teacher = np.random.default_rng(1).normal(size=(len(data.gold), len(LABELS)))
    asked = {"objective": {"labels": 1.0, "mse": 1.0}, "dropout": 0.0, "precision": "fp32"}
    work = job(data, accelerator, **asked, epochs=4, eval_every=4, batch_tokens=256)
    work = replace(
        work,
        teacher=teacher.astype(np.float32),
        evaluate=lambda _: train.Dev(0.0, 0.0),
    )
    ordinary = train.recorded
    if not recorded:
        train.recorded = lambda stride: stride
    try:
        model = fresh(task, family)
        if model.config.model_type != "deberta-v2":  # it has no other
            model.set_attn_implementation("sdpa")  # as saved models are opened
        model.to(accelerator.device)
        return np.array([point["loss"] for point in train.fit(model, work).curve])
    finally:
        train.recorded = ordinary


def main() -> None:
    """Print a line for each family and task."""
    if not torch.cuda.is_available():
        print("there is no CUDA card here")
        return
    replay.Cuda = Counting
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for family in VARIANTS:
        for task in ("classification", "tagging"):
            before = Counting.recorded
            plain, played = (losses(family, task, recorded=r) for r in (False, True))
            apart = float(np.max(np.abs(played / plain - 1.0)))
            shapes = Counting.recorded - before
            print(
                f"{family:22} {task:15} {shapes:3} shapes recorded, {apart:.1e} apart", flush=True
            )


if __name__ == "__main__":
    main()
