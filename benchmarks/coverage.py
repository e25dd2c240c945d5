"""How often an interval holds the truth: simulated studies whose true difference is known.

    python benchmarks/coverage.py [STUDIES]

Two ways of making a student, 2 languages x 150 texts of unlike difficulty; every seed is lucky or
not, by a normal number of the spread given, in logits. Each line: the share of studies whose 95 %
interval holds the true difference; beside it, that of intervals over examples alone, and the median
width in points.
"""

from __future__ import annotations

import sys

import numpy as np

from headstart.stats import Bootstrap, Counts

TEXTS, WORTH = 150, 0.3


def chances(hard: np.ndarray, worth: float, luck: np.ndarray) -> np.ndarray:
    """Give the chance of a right answer, (seeds, texts)."""
    return 1 / (1 + np.exp(-(hard + worth + luck)))


def simulated(rng: np.random.Generator, seeds: int, spread: float) -> dict[str, dict[str, Counts]]:
    """Draw one study."""
    hard = [rng.normal(0.8, 1.2, TEXTS) for _ in range(2)]
    ways: dict[str, dict[str, Counts]] = {}
    for way, worth in (("a", 0.0), ("b", WORTH)):
        luck = rng.normal(0, spread, seeds)[:, None]
        ways[way] = {}
        for language, one in enumerate(hard):
            p = chances(one, worth, luck)
            hits = (rng.random(p.shape) < p).astype(float)
            ways[way][str(language)] = Counts(hits, np.ones_like(hits), tuple(range(seeds)))
    return ways


def main() -> None:
    """Print a line for each number of seeds and spread."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    print("spread  seeds  held  held over examples alone  median width, points")
    for spread in (0.0, 0.2, 0.6):
        big = np.random.default_rng(9)
        hard, luck = big.normal(0.8, 1.2, (200_000, 1)), big.normal(0, spread, (1, 60))
        truth = float((chances(hard, WORTH, luck) - chances(hard, 0.0, luck)).mean())
        for seeds in (2, 3, 5):
            rng, held, alone, widths = np.random.default_rng(seeds), 0, 0, list[float]()
            for _ in range(studies):
                ways = simulated(rng, seeds, spread)
                found = Bootstrap(ways, draws=300).mean(["a", "b"], lambda a, b: b - a)
                low, high = found.interval() or (0.0, 0.0)
                held += low <= truth <= high
                least, most = found.interval_within()
                alone += least <= truth <= most
                widths.append(100 * (high - low))
            print(f"{spread:6.1f}  {seeds:5}  {held / studies:4.2f}  {alone / studies:24.2f}  "
                  f"{np.median(widths):20.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
