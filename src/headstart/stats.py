"""How sure a number is: intervals over seeds and examples, paired tests, shares of a gain.

Scores are ratios of sums over examples, so that accuracy and entity F1 are resampled alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Floats = NDArray[np.float64]
DRAWS = 2000
BLOCK = 200  # draws at once: memory for as many examples
RARE = 0.05  # share of draws that may leave a number unknown
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Counts:
    """What one way of making a student got right in one language, example by example.

    A seed's score is the sum of its `hits` over the sum of its `of`: right answers over answers
    (accuracy), or twice the right entities over those in the text and those found (F1).

    Args:
        hits: Shape (seeds, examples).
        of: The same shape.
        seeds: Of the students, one a row, in the same order wherever they are the same; none for
            a model that no seed decides, with one row.
    """

    hits: Floats
    of: Floats
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number, and how far it may be off.

    Args:
        value: The number, over all seeds and examples.
        error: Standard error over seeds and examples; None where a way has one seed only.
        freedom: Degrees of freedom of that error; few where seeds decide, and they are few.
        within: Standard error over examples alone: of these very students.
    """

    value: float
    error: float | None
    freedom: float | None
    within: float

    def interval(self, level: float = LEVEL, *, among: int = 1) -> tuple[float, float] | None:
        """Give the interval over seeds and examples; None with one seed.

        Args:
            level: How often it holds the true number.
            among: How many numbers this one was picked from, for its size: the interval is as
                much wider as a normal one that holds for all of them at once (Bonferroni).
        """
        if self.error is None or self.freedom is None:
            return None
        wider = ndtri(1 - (1 - level) / (2 * among)) / ndtri(0.5 + level / 2)
        half = float(stdtrit(self.freedom, 0.5 + level / 2) * wider) * self.error
        return self.value - half, self.value + half

    def interval_within(self, level: float = LEVEL) -> tuple[float, float]:
        """Give the interval of these very students, over examples alone."""
        half = float(stdtrit(np.inf, 0.5 + level / 2)) * self.within
        return self.value - half, self.value + half

    def beyond(self, margin: float) -> float | None:
        """Test equivalence: p of a number that lies outside of -margin to margin.

        Args:
            margin: What is still the same, above 0.

        Returns:
            The larger p of two one-sided t tests; small where the two are equivalent. None with
            one seed.

        Source:
            Schuirmann (1987), two one-sided tests.
        """
        if self.error is None or self.freedom is None:
            return None
        if self.error == 0:
            return float(abs(self.value) >= margin)
        return float(stdtr(self.freedom, (abs(self.value) - margin) / self.error))


class Bootstrap:
    """Two levels of resampling, paired over all ways: seeds, then examples within languages.

    Each level is drawn while the other stands, and the two variances are added, less what both
    count: how much seeds differ in which examples they get right. Of k seeds, k - 1 are drawn,
    which makes the variance of their mean unbiased. Examples are drawn once for all ways, and so
    are the seeds of ways that have the same ones.

    Args:
        ways: Counts by way and language; each language's examples are the same in all ways.
        draws: How often.
        seed: Of the draws.

    Raises:
        HeadstartError: The ways' examples differ in number, or no language is in all of them.

    Source:
        Rao & Wu (1988), resampling inference with complex survey data; Owen (2007), the
        pigeonhole bootstrap, on what crossed levels count twice.
    """

    def __init__(
        self, ways: Mapping[str, Mapping[str, Counts]], *, draws: int = DRAWS, seed: int = 0
    ) -> None:
        """Draw once, for whatever is asked then."""
        rng = np.random.default_rng(seed)
        first = next(iter(ways.values()))
        self.languages = tuple(lang for lang in first if all(lang in way for way in ways.values()))
        if not self.languages:
            raise _unlike("no language was tested in all of them")
        self.seeds = {name: way[self.languages[0]].seeds for name, way in ways.items()}
        self._point: dict[str, list[Floats]] = {name: [] for name in ways}
        self._drawn: dict[str, list[Floats]] = {name: [] for name in ways}
        for language in self.languages:
            count = first[language].hits.shape[1]
            if any(way[language].hits.shape[1] != count for way in ways.values()):
                raise _unlike(f"their examples of {language} differ in number")
            drawn: dict[str, list[Floats]] = {name: [] for name in ways}
            for block in range(0, draws, BLOCK):
                size, equal = min(BLOCK, draws - block), np.full(count, 1 / count)
                weights = rng.multinomial(count, equal, size=size).astype(float).T
                for name, way in ways.items():
                    hits, of = way[language].hits, way[language].of
                    drawn[name].append(_ratio(hits @ weights, of @ weights))
            for name, way in ways.items():
                hits, of = way[language].hits.sum(1), way[language].of.sum(1)
                self._point[name].append(_ratio(hits, of)[:, None])
                self._drawn[name].append(np.concatenate(drawn[name], axis=1))
        self._shares = {
            seeds: _shares(len(seeds), draws, rng) for seeds in dict.fromkeys(self.seeds.values())
        }

    def estimate(
        self, ways: Sequence[str], of: Callable[..., NDArray[np.floating]]
    ) -> tuple[Estimate, ...]:
        """Estimate numbers that follow from scores.

        Args:
            ways: Whose scores.
            of: Gets an array of each way, shape (languages, draws), and gives the numbers, shape
                (draws,) or (numbers, draws).
        """

        def variance(scores: Sequence[Floats]) -> Floats:
            found = np.atleast_2d(of(*scores))
            unknown = np.isnan(found).mean(axis=1)  # a share, where a teacher's draw has no hit
            some = np.where(unknown[:, None] > RARE, 0.0, found)
            return np.where(unknown > RARE, np.nan, np.nanvar(some, axis=1, ddof=1))

        points = [np.stack(self._point[way]) for way in ways]  # languages, seeds, draws
        drawn = [np.stack(self._drawn[way]) for way in ways]
        value = np.atleast_2d(of(*(scores.mean(axis=1) for scores in points)))[:, 0]
        examples = variance([scores.mean(axis=1) for scores in drawn])
        shares = [self._shares[self.seeds[way]] for way in ways]
        pairs = zip(points, shares, strict=True)
        seeds = variance([(scores * share).sum(axis=1) for scores, share in pairs])
        few = min((len(s) for way in ways if (s := self.seeds[way])), default=0)
        twice = np.zeros_like(seeds)
        if few > 1 and len({self.seeds[way] for way in ways if self.seeds[way]}) == 1:
            each = [variance([s[:, i % s.shape[1]] for s in drawn]) for i in range(few)]
            twice = (np.mean(each, axis=0) - examples) / (few - 1)
        parts = zip(value, seeds, examples, twice, strict=True)
        return tuple(_estimate(*map(float, part), few=few) for part in parts)

    def mean(self, ways: Sequence[str], of: Callable[..., NDArray[np.floating]]) -> Estimate:
        """Estimate the mean over languages of what `of` gives of each language's scores."""
        return self.estimate(ways, lambda *scores: of(*scores).mean(axis=0))[0]


def permutation_p(
    first: Counts, second: Counts, *, draws: int = 9999, rng: np.random.Generator
) -> float:
    """Test whether two ways differ in one language: each example's answers may be swapped.

    The seeds of a way are taken together, so that p is about these students and other text, not
    about other seeds.

    Args:
        first: One way.
        second: The other, on the same examples.
        draws: How often answers are swapped.
        rng: Where the draws come from.

    Returns:
        Two-sided, never 0: the observed assignment counts as one.

    Source:
        Phipson & Smyth (2010), permutation p-values should never be zero.
    """
    parts = [part.mean(axis=0) for way in (first, second) for part in (way.hits, way.of)]
    hits, of, other_hits, other_of = parts
    seen = abs(_ratio(hits.sum(), of.sum()) - _ratio(other_hits.sum(), other_of.sum()))
    extreme = 0
    for start in range(0, draws, 1000):
        swap = rng.integers(0, 2, (min(1000, draws - start), len(hits))).astype(float)
        moved = [swap @ (theirs - ours) for ours, theirs in ((hits, other_hits), (of, other_of))]
        gap = _ratio(hits.sum() + moved[0], of.sum() + moved[1])
        gap = gap - _ratio(other_hits.sum() - moved[0], other_of.sum() - moved[1])
        extreme += int((np.abs(gap) >= seen - 1e-12).sum())
    return (extreme + 1) / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests, so that one false alarm among all is rare.

    Source:
        Holm (1979), a simple sequentially rejective multiple test procedure.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = steps.clip(max=1)
    return adjusted.tolist()


def shapley(values: Mapping[tuple[bool, ...], Floats]) -> list[Floats]:
    """Share a gain among factors: each gets its mean effect over all orders of adding them.

    Args:
        values: The result with each combination of factors, all of them.

    Returns:
        One share a factor; they sum to the result with all less the result with none.

    Raises:
        HeadstartError: A combination is missing.

    Source:
        Shapley (1953), a value for n-person games.
    """
    count = len(next(iter(values)))
    every = list(product((False, True), repeat=count))
    if missing := [point for point in every if point not in values]:
        raise HeadstartError(
            f"{len(missing)} of {len(every)} combinations of factors are missing",
            where="shapley",
            way_out="give the result of every combination",
        )
    shares: list[Floats] = []
    for i in range(count):
        without = [point for point in every if not point[i]]
        weights = [
            factorial(sum(p)) * factorial(count - sum(p) - 1) / factorial(count) for p in without
        ]
        gains = [values[(*p[:i], True, *p[i + 1 :])] - values[p] for p in without]
        shares.append(np.sum([w * gain for w, gain in zip(weights, gains, strict=True)], axis=0))
    return shares


def _ratio(hits: NDArray[np.floating], of: NDArray[np.floating]) -> Floats:
    """Divide, where there is something to divide by; else 0."""
    return np.asarray(hits / np.where(of > 0, of, 1), float)


def _shares(count: int, draws: int, rng: np.random.Generator) -> Floats:
    """Draw one seed less than there are; say what share each has, (seeds, draws)."""
    if count < 2:
        return np.ones((1, draws))
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=draws).T / (count - 1)


def _estimate(value: float, seeds: float, examples: float, twice: float, *, few: int) -> Estimate:
    if few == 1:
        return Estimate(value, None, None, examples**0.5)
    if few == 0:
        return Estimate(value, examples**0.5, np.inf, examples**0.5)
    both = seeds + examples - min(max(twice, 0.0), seeds, examples)
    freedom = (few - 1) * (both / seeds) ** 2 if seeds > 0 else np.inf  # Satterthwaite
    return Estimate(value, both**0.5, freedom, examples**0.5)


def _unlike(what: str) -> HeadstartError:
    return HeadstartError(
        f"these runs cannot be held against each other: {what}",
        where="their predictions",
        way_out="compare runs of one recipe's languages and test rows",
    )
