"""How often an interval holds the truth: simulated studies whose true numbers are known.

    python benchmarks/coverage.py [STUDIES]

Four ways of making a student and a teacher, 2 languages x 150 texts of unlike difficulty; every
seed of a way is lucky or not, by a normal number of the spread given, in logits. Each line: the
share of studies whose 95 % interval holds the true number, that of intervals over examples alone,
and the median width in points. Numbers: the difference of two ways; the share of its teacher that a
way keeps; the initialization's share of the gain from the first way to the last. At the end, how
often two ways that differ by just the margin are called equivalent (5 % at most, if honest).
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from headstart.stats import Bootstrap, Counts, shapley

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headstart.stats import Estimate

    Truth = Mapping[str, np.ndarray]

TEXTS, MARGIN, ALPHA = 150, 0.03, 0.05
WORTH = {"scratch-labels": 0.0, "scratch-mse": 0.2, "copy-labels": 0.3, "copy-mse": 0.7}
TAUGHT = 1.2


def chances(hard: np.ndarray, worth: float, luck: np.ndarray) -> np.ndarray:
    """Give the chance of a right answer, (seeds, texts)."""
    return 1 / (1 + np.exp(-(hard + worth + luck)))


def simulated(rng: np.random.Generator, seeds: int, spread: float) -> dict[str, dict[str, Counts]]:
    """Draw one study."""
    hard = [rng.normal(0.8, 1.2, TEXTS) for _ in range(2)]
    drawn: dict[str, dict[str, Counts]] = {}
    for way, worth in {**WORTH, "teacher": TAUGHT}.items():
        count = 1 if way == "teacher" else seeds
        luck = np.zeros((1, 1)) if way == "teacher" else rng.normal(0, spread, seeds)[:, None]
        numbers = () if way == "teacher" else tuple(range(count))
        drawn[way] = {}
        for language, one in enumerate(hard):
            p = chances(one, worth, luck)
            hits = (rng.random(p.shape) < p).astype(float)
            drawn[way][str(language)] = Counts(hits, np.ones_like(hits), numbers)
    return drawn


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hold one way against another: the mean over languages."""
    return (second - first).mean(0)


def kept(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Give the share of the teacher's mean score."""
    return student.mean(0) / teacher.mean(0)


def credit(*scores: np.ndarray) -> np.ndarray:
    """Give the initialization's share of the gain from the first way to the last."""
    points = [(False, False), (False, True), (True, False), (True, True)]
    return shapley({p: s.mean(0) for p, s in zip(points, scores, strict=True)})[0]


NUMBERS: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    "difference": (("scratch-labels", "copy-labels"), difference),
    "share kept": (("copy-mse", "teacher"), kept),
    "initialization": (tuple(WORTH), credit),
}


@cache
def truths(spread: float) -> Truth:
    """Give each way's true score, over all texts and seeds, as (languages, draws) of one."""
    big = np.random.default_rng(9)
    hard = big.normal(0.8, 1.2, (200_000, 1))
    luck = spread * norm.ppf((np.arange(60) + 0.5) / 60)[None]  # as it is on average
    found = {way: chances(hard, worth, luck).mean() for way, worth in WORTH.items()}
    found["teacher"] = chances(hard, TAUGHT, np.zeros((1, 1))).mean()
    return {way: np.array([[score]]) for way, score in found.items()}


def equivalent(found: Estimate, true: float) -> bool:
    """Say whether a number that truly is the margin is taken for less; others are moved to it."""
    moved = type(found)(found.value - true + MARGIN, found.error, found.freedom, found.within)
    p = moved.beyond(MARGIN)
    return p is not None and p < ALPHA


def main() -> None:
    """Print a line for each number, spread and number of seeds."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    print("number          spread  seeds  held  over examples alone  width, points  equivalent")
    for spread in (0.0, 0.2, 0.6):
        for seeds in (2, 3, 5):
            rng = np.random.default_rng(seeds)
            drawn = [Bootstrap(simulated(rng, seeds, spread), draws=300) for _ in range(studies)]
            for name, (ways, of) in NUMBERS.items():
                true = float(np.ravel(of(*(truths(spread)[way] for way in ways)))[0])
                found = [one.estimate(ways, of)[0] for one in drawn]
                ends = [one.interval() or (0.0, 0.0) for one in found]
                alone = [one.interval_within() for one in found]
                same = np.mean([equivalent(one, true) for one in found])
                told = f"{held(ends, true):4.2f}  {held(alone, true):19.2f}  {width(ends):13.1f}"
                print(f"{name:<16}{spread:6.1f}  {seeds:5}  {told}  {same:10.3f}", flush=True)


def held(ends: list[tuple[float, float]], true: float) -> float:
    """Give the share of intervals that hold the truth."""
    return float(np.mean([low <= true <= high for low, high in ends]))


def width(ends: list[tuple[float, float]]) -> float:
    """Give the median width in points."""
    return float(np.median([100 * (high - low) for low, high in ends]))


if __name__ == "__main__":
    main()
