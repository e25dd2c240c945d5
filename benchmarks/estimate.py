"""The time that is told before a run starts, beside the time that it takes: ten recipes.

    python benchmarks/estimate.py [--threads N] [NAME ...]

Everything is packaged: the quickstart's text and base, and a teacher that the first recipe
fine-tunes. Each recipe is a study of its own in an empty folder; seconds are those of the whole
study, after imports and after its text was read once for the estimate. On an idle machine with
two cores all take about a quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from headstart.checking import apply
from headstart.forecast import how_long
from headstart.loading import load_recipe
from headstart.stages import base_of
from headstart.study import plan_runs, study, to_time

if TYPE_CHECKING:
    from collections.abc import Mapping

CLOSE = 0.25
MSE = {"train.objective": {"mse": 1.0}, "train.max_steps": 100}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "teacher, then a copy": {"teacher.model": None, "teacher.finetune.epochs": 2},
    "6 x 384, mse": MSE,
    "6 x 384, mse, auto": {**MSE, "train.learning_rate": "auto"},
    "3 x 384, labels, 3 epochs": {"student.layers": 3, "train.objective": {"labels": 1.0},
                                  "train.epochs": 3},
    "6 x 192, refit alone": {"student.hidden": 192, "init.refit": {"tokens": 10_000},
                             "train.max_steps": 0},
    "6 x 384, refit, mse": {**MSE, "init.refit": {"tokens": 5_000}},
    "12 x 192, principal, mse": {**MSE, "student": {"hidden": 192}, "init.merge": False,
                                 "init.refit": {"tokens": 5_000}},
    "6 x 192, from scratch, auto": {"student.hidden": 192, "init.source": "scratch",
                                    "train.learning_rate": "auto", "train.max_steps": 200},
    "6 x 384, relation": {"train.objective": {"mse": 1.0, "relation": 1.0},
                          "train.max_steps": 60},
    "two ways, two seeds, auto": {
        **MSE, "student.hidden": 192, "train.learning_rate": "auto", "seeds": [0, 1],
        "arms": {"copy": {}, "refitted": {"init.refit": {"tokens": 5_000}}},
    },
}  # fmt: skip


def measure(
    changes: Mapping[str, Any], base: str, out: Path, teacher: Path | None
) -> tuple[float, float]:
    """Give the seconds that are told, and those that it takes."""
    plain = {"arms": {}, "baseline": None, "teacher.base": base, "teacher.model": None}
    recipe = apply(load_recipe("quickstart"), {**plain, **changes})
    if teacher is not None:
        recipe = apply(recipe, {"teacher.model": str(teacher)})
    with tempfile.TemporaryDirectory() as folder:
        bases = Path(folder)
        told = how_long(to_time(plan_runs(recipe, out, bases=bases)), out, bases=bases)
    start = time.perf_counter()
    study(recipe, out)
    return sum(sum(run.values()) for run in told), time.perf_counter() - start


def main() -> None:
    """Print a line for each recipe."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    if strange := set(given.names) - set(RECIPES):
        parser.error(f"no recipe {', '.join(strange)}; there are: {', '.join(RECIPES)}")
    torch.set_num_threads(given.threads)
    first, close = next(iter(RECIPES)), 0
    chosen = [first, *(name for name in RECIPES if name != first
                       and (not given.names or name in given.names))]  # fmt: skip
    print("| recipe | told, s | taken, s | told / taken |", "| --- | --- | --- | --- |", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        base = str(base_of(load_recipe("quickstart"), Path(folder)))  # unpacked before the clock
        for i, name in enumerate(chosen):
            teacher = next(Path(folder).glob("0/teachers/*/model"), None)
            told, took = measure(RECIPES[name], base, Path(folder) / str(i), teacher)
            close += abs(told / took - 1) <= CLOSE
            print(f"| {name} | {told:.0f} | {took:.0f} | {told / took:.2f} |", flush=True)
    print(f"\n{given.threads} threads, load at the end {os.getloadavg()[0]:.1f}; "
          f"{close} of {len(chosen)} within {CLOSE:.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
