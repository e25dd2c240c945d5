"""What a study costs beside its runs: 200 tiny ones, one after the other.

    python benchmarks/overhead.py [RUNS]

Prints the study's seconds over those spent inside its runs; the budget is 1.10.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import time
from pathlib import Path

from headstart.loading import load_recipe

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from world import world

BUDGET = 1.10
room = importlib.import_module("headstart.study")  # the package's own name is the function


def main() -> None:
    """Make the study, and time what is inside its runs and outside."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    inside, made = [0.0], room.run

    def timed(*args: object, **more: object) -> object:
        start = time.perf_counter()
        found = made(*args, **more)  # type: ignore[arg-type]
        inside[0] += time.perf_counter() - start
        return found

    room.run = timed  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        recipe = world(Path(folder) / "world", seeds=list(range(runs)))
        recipe = load_recipe(recipe, ["train.max_steps=2", "train.learning_rate=0.001"])
        start = time.perf_counter()
        room.study(recipe, Path(folder) / "out")
        whole = time.perf_counter() - start
    ratio = whole / inside[0]
    print(f"{runs} runs: {whole:.1f} s, {inside[0]:.1f} s inside them; ratio {ratio:.3f} "
          f"(budget {BUDGET:.2f}) {'ok' if ratio <= BUDGET else 'over'}")  # fmt: skip
    if ratio > BUDGET:
        sys.exit(1)


if __name__ == "__main__":
    main()
