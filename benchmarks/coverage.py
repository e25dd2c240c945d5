"""How often an interval holds the truth: simulated studies whose true numbers are known.

    python benchmarks/coverage.py [STUDIES]

Six ways of making a student and a teacher, 2 languages x 150 texts of unlike difficulty; every
seed of a way is lucky or not, by a normal number of the spread given, in logits. Each line: the
share of studies whose 95 % interval holds the true number, that of intervals over examples alone,
and the median width in points. Numbers: the difference of two ways; the share of its teacher that a
way keeps; the gain from scratch to the copy, and the initialization's and distillation's shares of
it; what a refit brings over the copy; the share that is kept in one language; and the first two in
entity F1, of sentences with 0, 1 or more entities, of which each is found by the same chances, and
others besides. At the end, how often two ways that differ by just the
margin are called equivalent (5 % at most, if honest).

Then, of two ways that are the same in each of 10 languages, without luck of seeds: in how many
studies some language has a p below 0.05, as it is and by Holm's adjustment (5 % at most). And of 10
languages that lose alike against the teacher, how often the interval of the one that loses most
holds their loss, as it would be for one and as it is told, and how many points too much it loses.
"""

from __future__ import annotations

import sys
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from headstart.stats import Bootstrap, Counts, holm, permutation_p, shapley

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headstart.stats import Estimate

    Truth = Mapping[str, np.ndarray]

TEXTS, MARGIN, ALPHA = 150, 0.03, 0.05
WORTH = {"scratch-labels": 0.0, "scratch-mse": 0.2, "copy-labels": 0.3, "copy-mse": 0.7,
         "refitted-labels": 0.5, "refitted-mse": 0.8}  # fmt: skip
TAUGHT = 1.2
ENTITIES, STRAY = 1.5, 1.0  # in a sentence, on average: there; found where there is none, at worst
TRIED = 10  # languages, in each of which two ways are the same


def chances(hard: np.ndarray, worth: float, luck: np.ndarray) -> np.ndarray:
    """Give the chance of a right answer, (seeds, texts)."""
    return 1 / (1 + np.exp(-(hard + worth + luck)))


Study = dict[str, dict[str, Counts]]


def simulated(rng: np.random.Generator, seeds: int, spread: float, *, f1: bool = False) -> Study:
    """Draw one study; by right answers, or by entities."""
    there = rng.poisson(ENTITIES, (2, TEXTS))
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
            of = np.ones_like(hits)
            if f1:
                found = rng.binomial(there[language], p)
                hits, of = 2.0 * found, there[language] + found + rng.poisson(STRAY * (1 - p))
            drawn[way][str(language)] = Counts(hits, of.astype(float), numbers)
    return drawn


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Hold one way against another: the mean over languages."""
    return (second - first).mean(0)


def loss(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Give what a student lacks, by language."""
    return teacher - student


def kept(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Give the share of the teacher's mean score."""
    return student.mean(0) / teacher.mean(0)


def kept_in_one(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    """Give the share of the teacher's score in one language."""
    return student[0] / teacher[0]


def credit(factor: int, *scores: np.ndarray) -> np.ndarray:
    """Give a factor's share of the gain from the first way to the last."""
    points = [(False, False), (False, True), (True, False), (True, True)]
    return shapley({p: s.mean(0) for p, s in zip(points, scores, strict=True)})[factor]


def repaired(*scores: np.ndarray) -> np.ndarray:
    """Give what a refit brings over the copy, the mean of both objectives."""
    copies, refits = scores[:2], scores[2:]
    return sum((b - a).mean(0) for a, b in zip(copies, refits, strict=True)) / 2


NUMBERS: dict[str, tuple[tuple[str, ...], Callable[..., np.ndarray]]] = {
    "difference": (("scratch-labels", "copy-labels"), difference),
    "share kept": (("copy-mse", "teacher"), kept),
    "whole gain": (("scratch-labels", "copy-mse"), difference),
    "initialization": (tuple(WORTH)[:4], partial(credit, 0)),
    "distillation": (tuple(WORTH)[:4], partial(credit, 1)),
    "refit": (tuple(WORTH)[2:], repaired),
    "kept in one": (("copy-mse", "teacher"), kept_in_one),
}


@cache
def truths(spread: float, *, f1: bool = False) -> Truth:
    """Give each way's true score, over all texts and seeds, as (languages, draws) of one."""
    big = np.random.default_rng(9)
    hard = big.normal(0.8, 1.2, (200_000, 1))
    luck = spread * norm.ppf((np.arange(60) + 0.5) / 60)[None]  # as it is on average
    found: dict[str, np.ndarray] = {}
    for way, worth in {**WORTH, "teacher": TAUGHT}.items():
        right = chances(hard, worth, np.zeros((1, 1)) if way == "teacher" else luck).mean(0)
        stray = STRAY * (1 - right)
        entities = 2 * ENTITIES * right / (ENTITIES * (1 + right) + stray)
        found[way] = np.array([[(entities if f1 else right).mean()]])
    return found


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
            show(studies, seeds, spread, f1=False)
            show(studies, seeds, spread, f1=True)
    rng = np.random.default_rng(0)
    least = np.array([families(rng) for _ in range(studies)])
    told = " and ".join(f"{share:.3f}" for share in (least < ALPHA).mean(0))
    print(f"some of {TRIED} languages differs, of ways that are the same: {told} by Holm")
    for spread in (0.0, 0.2, 0.6):
        rng = np.random.default_rng(1)
        one, all_, more = np.mean([worst(rng, spread) for _ in range(studies)], axis=0)
        print(f"the worst of {TRIED} alike, spread {spread}: held {one:.3f}, for all at once "
              f"{all_:.3f}, told {more:.1f} points too much", flush=True)  # fmt: skip


def show(studies: int, seeds: int, spread: float, *, f1: bool) -> None:
    """Print the lines of some studies."""
    rng = np.random.default_rng(seeds)
    drawn = [Bootstrap(simulated(rng, seeds, spread, f1=f1), draws=300) for _ in range(studies)]
    for name, (ways, of) in list(NUMBERS.items())[: 2 if f1 else None]:
        true = float(np.ravel(of(*(truths(spread, f1=f1)[way] for way in ways)))[0])
        found = [one.estimate(ways, of)[0] for one in drawn]
        ends = [one.interval() or (0.0, 0.0) for one in found]
        alone = [one.interval_within() for one in found]
        same = np.mean([equivalent(one, true) for one in found])
        told = f"{held(ends, true):4.2f}  {held(alone, true):19.2f}  {width(ends):13.1f}"
        called = f"{name}, F1" if f1 else name
        print(f"{called:<16}{spread:6.1f}  {seeds:5}  {told}  {same:10.3f}", flush=True)


def families(rng: np.random.Generator) -> tuple[float, float]:
    """Test two ways that are the same in each language: the least p, and by Holm."""
    p: list[float] = []
    for _ in range(TRIED):
        chance = chances(rng.normal(0.8, 1.2, TEXTS), WORTH["copy-mse"], np.zeros((3, 1)))
        hits = [(rng.random(chance.shape) < chance).astype(float) for _ in range(2)]
        one, other = (Counts(h, np.ones_like(h), (0, 1, 2)) for h in hits)
        p.append(permutation_p(one, other, draws=1000, rng=rng))
    return min(p), min(holm(p))


def worst(rng: np.random.Generator, spread: float) -> tuple[bool, bool, float]:
    """Look for the language that loses most, of some that lose alike: is its interval right?"""
    luck = rng.normal(0, spread, 3)[:, None]
    parts: dict[str, dict[str, Counts]] = {"copy-mse": {}, "teacher": {}}
    for language in range(TRIED):
        hard = rng.normal(0.8, 1.2, TEXTS)
        for way, worth in (("copy-mse", WORTH["copy-mse"]), ("teacher", TAUGHT)):
            seeds = () if way == "teacher" else (0, 1, 2)
            p = chances(hard, worth, luck if seeds else np.zeros((1, 1)))
            hits = (rng.random(p.shape) < p).astype(float)
            parts[way][f"{language:02}"] = Counts(hits, np.ones_like(hits), seeds)
    losses = Bootstrap(parts, draws=300).estimate([*parts], loss)
    found = max(losses, key=lambda one: one.value)
    true = truths(spread)["teacher"].item() - truths(spread)["copy-mse"].item()
    ends = found.interval(), found.interval(among=TRIED)
    one, all_ = (bool(end and end[0] <= true <= end[1]) for end in ends)
    return one, all_, 100 * (found.value - true)


def held(ends: list[tuple[float, float]], true: float) -> float:
    """Give the share of intervals that hold the truth."""
    return float(np.mean([low <= true <= high for low, high in ends]))


def width(ends: list[tuple[float, float]]) -> float:
    """Give the median width in points."""
    return float(np.median([100 * (high - low) for low, high in ends]))


if __name__ == "__main__":
    main()
