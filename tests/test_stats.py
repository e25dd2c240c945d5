"""Statistics: held to their definitions, to trusted libraries, intervals to a simulation."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, permutation_test, t

from headstart.errors import HeadstartError
from headstart.stats import Bootstrap, Counts, Estimate, holm, permutation_p, shapley

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Ways = dict[str, dict[str, Counts]]
LUCK = norm.ppf((np.arange(60) + 0.5) / 60)[None]  # of seeds, as it is on average


def simulated(rng: np.random.Generator, *, seeds: int, spread: float) -> Ways:
    """Make two ways of unlike worth, on 2 x 150 texts of unlike difficulty, by lucky seeds."""
    hard = [rng.normal(0.8, 1.2, 150) for _ in range(2)]
    ways: Ways = {}
    for way, worth in (("a", 0.0), ("b", 0.3)):
        luck = rng.normal(0, spread, seeds)[:, None]
        chances = [1 / (1 + np.exp(-(one + worth + luck))) for one in hard]
        ways[way] = {str(i): right(rng.random(p.shape) < p) for i, p in enumerate(chances)}
    return ways


def right(found: np.ndarray) -> Counts:
    hits = np.atleast_2d(found).astype(float)
    return Counts(hits, np.ones_like(hits), tuple(range(len(hits))))


def gap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return b - a


def true_gap(spread: float) -> float:
    """How far apart the two ways of `simulated` are over all texts and seeds."""
    big = np.random.default_rng(9)
    hard, luck = big.normal(0.8, 1.2, (100_000, 1)), spread * LUCK
    chances = [(1 / (1 + np.exp(-(hard + worth + luck)))).mean() for worth in (0.3, 0.0)]
    return chances[0] - chances[1]


def covered(interval: Callable[[Estimate], tuple[float, float] | None], spread: float) -> float:
    """Share of 150 studies of three seeds whose interval holds the true gap."""
    truth, rng, hits = true_gap(spread), np.random.default_rng(1), 0
    for _ in range(150):
        ways = simulated(rng, seeds=3, spread=spread)
        found = interval(Bootstrap(ways, draws=200).mean(["a", "b"], gap))
        assert found is not None
        hits += found[0] <= truth <= found[1]
    return hits / 150


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.6])
def test_intervals_hold_the_truth_as_often_as_they_say(spread: float) -> None:
    assert covered(lambda found: found.interval(), spread) > 0.9


def six_ways(rng: np.random.Generator) -> Ways:
    """Make six ways of three seeds and a teacher, on 2 x 150 texts."""
    return drawn(rng, {**WORTH, **REFITTED, "teacher": 1.2}, languages=2, spread=0.6)


def drawn(
    rng: np.random.Generator, worths: dict[str, float], *, languages: int, spread: float
) -> Ways:
    hard = [rng.normal(0.8, 1.2, 150) for _ in range(languages)]
    ways: Ways = {}
    for way, worth in worths.items():
        luck = rng.normal(0, spread, (1 if way == "teacher" else 3, 1)) * (way != "teacher")
        chances = [1 / (1 + np.exp(-(one + worth + luck))) for one in hard]
        ways[way] = {str(i): right(rng.random(p.shape) < p) for i, p in enumerate(chances)}
        if way == "teacher":
            ways[way] = {k: Counts(c.hits, c.of) for k, c in ways[way].items()}
    return ways


WORTH = {"scratch-labels": 0.0, "scratch-mse": 0.2, "copy-labels": 0.3, "copy-mse": 0.7}
REFITTED = {"refitted-labels": 0.5, "refitted-mse": 0.8}


def shares_of(scores: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    points = [(False, False), (False, True), (True, False), (True, True)]
    return shapley({p: s.mean(0) for p, s in zip(points, scores, strict=True)})


def credit(*scores: np.ndarray) -> np.ndarray:
    return shares_of(scores)[0]


def distilled(*scores: np.ndarray) -> np.ndarray:
    return shares_of(scores)[1]


def repaired(*scores: np.ndarray) -> np.ndarray:
    labels, mse, refitted_labels, refitted_mse = (one.mean(0) for one in scores)
    return (refitted_labels - labels + refitted_mse - mse) / 2


def gained(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    return (last - first).mean(0)


def kept_in_one(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    return student[0] / teacher[0]


def kept(student: np.ndarray, teacher: np.ndarray) -> np.ndarray:
    return student.mean(0) / teacher.mean(0)


@pytest.mark.parametrize(
    ("ways", "of"),
    [
        (("copy-mse", "teacher"), kept),
        (("copy-mse", "teacher"), kept_in_one),
        (tuple(WORTH), credit),
        (tuple(WORTH), distilled),
        (("scratch-labels", "copy-mse"), gained),
        (("copy-labels", "copy-mse", *REFITTED), repaired),
    ],
    ids=["kept", "kept in one language", "initialization", "distillation", "the gain", "refit"],
)
def test_shares_hold_the_truth_as_often_as_they_say(
    ways: tuple[str, ...], of: Callable[..., np.ndarray]
) -> None:
    """What a page says first: the share of the teacher that is kept, and of a gain."""
    big = np.random.default_rng(9)
    hard, luck = big.normal(0.8, 1.2, (100_000, 1)), 0.6 * LUCK

    def score(way: str) -> np.ndarray:
        worth, lucky = (1.2, 0 * luck) if way == "teacher" else ({**WORTH, **REFITTED}[way], luck)
        return np.array([[(1 / (1 + np.exp(-(hard + worth + lucky)))).mean()]])

    truth, rng = float(np.ravel(of(*map(score, ways)))[0]), np.random.default_rng(1)
    found = [Bootstrap(six_ways(rng), draws=200).estimate(ways, of)[0] for _ in range(150)]
    ends = [one.interval() for one in found]
    assert np.mean([low <= truth <= high for low, high in filter(None, ends)]) > 0.9
    alone = [one.interval_within() for one in found]
    assert np.mean([low <= truth <= high for low, high in alone]) < 0.8  # seeds count


def test_the_worst_drop_of_ten_languages_has_an_interval_that_holds_it() -> None:
    """Ten languages lose alike; the one that loses most here was picked for it."""
    big = np.random.default_rng(9).normal(0.8, 1.2, 400_000)
    student, teacher = ((1 / (1 + np.exp(-(big + worth)))).mean() for worth in (0.7, 1.2))
    rng, ends = np.random.default_rng(1), []
    for _ in range(100):
        ways = drawn(rng, {"copy-mse": 0.7, "teacher": 1.2}, languages=10, spread=0.0)
        drops = Bootstrap(ways, draws=200).estimate([*ways], lambda s, t: t - s)
        worst = max(drops, key=lambda drop: drop.value)
        ends.append((worst.interval(), worst.interval(among=10)))
    held = [[low <= teacher - student <= high for low, high in filter(None, of)]
            for of in zip(*ends, strict=True)]  # fmt: skip
    assert np.mean(held[1]) > 0.9
    assert np.mean(held[0]) < 0.9  # as if it had been named before


MISTAKES: dict[str, Callable[[Estimate], tuple[float, float] | None]] = {
    "examples alone": lambda found: found.interval_within(),
    "three seeds taken for many": lambda found: Estimate(
        found.value, found.error, np.inf, 0.0
    ).interval(),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_simulation_has_teeth(
    mistake: Callable[[Estimate], tuple[float, float] | None],
) -> None:
    assert covered(mistake, 0.6) < 0.9


def test_a_language_s_error_is_the_binomial_one_where_seeds_do_not_matter() -> None:
    found = np.random.default_rng(0).random(400) < 0.7
    ways = {"a": {"xx": right(np.stack([found] * 4))}}
    (made,) = Bootstrap(ways, draws=4000).estimate(["a"], lambda a: a[0])
    share = found.mean()
    assert made.value == pytest.approx(share)
    assert made.error == pytest.approx((share * (1 - share) / 400) ** 0.5, rel=0.05)
    assert made.error == made.within


def test_seeds_alone_give_the_t_interval() -> None:
    scores = np.array([0.5, 0.6, 0.55, 0.7])
    counts = Counts(scores[:, None] * np.ones((4, 50)), np.ones((4, 50)), (0, 1, 2, 3))
    (made,) = Bootstrap({"a": {"xx": counts}}, draws=20_000).estimate(["a"], lambda a: a[0])
    half = t.ppf(0.975, 3) * scores.std(ddof=1) / 2
    assert made.freedom == pytest.approx(3)
    low, high = made.interval() or (0, 0)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)


def test_a_number_that_was_picked_has_a_wider_interval() -> None:
    many = Estimate(0.1, 0.01, np.inf, 0.01)
    ends, all_at_once = many.interval(among=10), many.interval(1 - 0.05 / 10)
    assert ends is not None
    assert ends == pytest.approx(all_at_once)
    few = Estimate(0.1, 0.01, 2.0, 0.01)
    plain, wider = few.interval(), few.interval(among=10)
    assert plain is not None
    assert wider is not None
    ratio = (ends[1] - ends[0]) / (2 * 1.959964 * 0.01)
    assert wider[1] - wider[0] == pytest.approx(ratio * (plain[1] - plain[0]))
    assert few.interval(among=1) == pytest.approx(plain)


def test_one_seed_has_no_interval_over_seeds() -> None:
    ways = simulated(np.random.default_rng(0), seeds=1, spread=0.2)
    made = Bootstrap(ways, draws=100).mean(["a", "b"], gap)
    assert made.interval() is None
    assert made.beyond(0.01) is None
    low, high = made.interval_within()
    assert low < made.value < high


def test_a_given_model_has_no_seeds() -> None:
    ways = simulated(np.random.default_rng(0), seeds=3, spread=0.2)
    ways["teacher"] = {k: Counts(c.hits[:1], c.of[:1]) for k, c in ways["b"].items()}
    made = Bootstrap(ways, draws=100).mean(["teacher", "b"], gap)
    assert made.interval() is not None
    (alone,) = Bootstrap(ways, draws=100).estimate(["teacher"], lambda a: a[0])
    assert alone.interval() == alone.interval_within()


def test_pairing_is_kept() -> None:
    ways = simulated(np.random.default_rng(0), seeds=3, spread=0.2)
    twin = Bootstrap({"a": ways["a"], "b": ways["a"]}, draws=100).mean(["a", "b"], gap)
    assert twin.interval() == (0, 0)
    assert twin.beyond(0.01) == 0
    shifted = {k: Counts(c.hits[:, ::-1], c.of) for k, c in ways["a"].items()}
    other = Bootstrap({"a": ways["a"], "b": shifted}, draws=100).mean(["a", "b"], gap)
    assert other.within > 0


def test_same_draws_same_numbers_and_another_seed_other_ones() -> None:
    ways = simulated(np.random.default_rng(0), seeds=3, spread=0.2)
    first, again, other = (
        Bootstrap(ways, draws=100, seed=seed).mean(["a", "b"], gap) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.value == other.value
    assert first.error != other.error


def test_draws_in_blocks_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = simulated(np.random.default_rng(3), seeds=3, spread=0.2)
    found = []
    for block in (7, 1000):
        monkeypatch.setattr("headstart.stats.BLOCK", block)
        found.append(Bootstrap(ways, draws=100).mean(["a", "b"], gap))
    assert found[0] == found[1]


@pytest.mark.parametrize(("hits", "is_known"), [(4, True), (1, False)])
def test_a_few_draws_without_a_share_do_not_take_its_interval(hits: int, is_known: bool) -> None:
    """A share of a teacher that is right four times in 200: two draws of a hundred have none."""
    some = np.zeros((3, 200))
    some[:, :hits] = 1
    ways = {"student": {"xx": right(some)}, "teacher": {"xx": replace(right(some[:1]), seeds=())}}

    def share(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.divide(
            a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b > 0
        )

    found = Bootstrap(ways).mean(["student", "teacher"], share)
    assert found.value == 1.0
    assert bool(np.isnan(found.error or 0.0)) is not is_known


def test_scores_are_ratios_of_sums() -> None:
    counts = Counts(np.array([[2.0, 0.0, 4.0]]), np.array([[4.0, 2.0, 4.0]]))
    (made,) = Bootstrap({"a": {"xx": counts}}, draws=10).estimate(["a"], lambda a: a[0])
    assert made.value == pytest.approx(6 / 10)
    empty = Counts(np.zeros((1, 3)), np.zeros((1, 3)))
    (made,) = Bootstrap({"a": {"xx": empty}}, draws=10).estimate(["a"], lambda a: a[0])
    assert made == Estimate(0, 0, np.inf, 0)


def test_unlike_runs_are_refused() -> None:
    ways = simulated(np.random.default_rng(0), seeds=2, spread=0.2)
    short = {k: Counts(c.hits[:, 1:], c.of[:, 1:], c.seeds) for k, c in ways["b"].items()}
    with pytest.raises(HeadstartError, match="examples of 0 differ"):
        Bootstrap({"a": ways["a"], "b": short})
    with pytest.raises(HeadstartError, match="no language"):
        Bootstrap({"a": ways["a"], "b": {"xx": ways["b"]["0"]}})


def test_equivalence_is_two_one_sided_t_tests() -> None:
    found = Estimate(0.01, 0.005, 8.0, 0.005)
    p = [1 - t.cdf((0.01 + 0.02) / 0.005, 8), t.cdf((0.01 - 0.02) / 0.005, 8)]
    assert found.beyond(0.02) == pytest.approx(max(p))
    assert Estimate(0.05, 0.005, 8.0, 0.005).beyond(0.02) == pytest.approx(1, abs=1e-3)
    assert Estimate(0.05, 0.0, 8.0, 0.0).beyond(0.02) == 1


def test_equivalence_agrees_with_statsmodels() -> None:
    # statsmodels 0.15.0: ttost_paired(a, b, -margin, margin)[0]
    a, b = [0.62, 0.65, 0.61, 0.66], [0.60, 0.645, 0.615, 0.63]
    seeds = {name: np.array(scores)[:, None] for name, scores in (("a", a), ("b", b))}
    ways = {
        name: {"xx": Counts(one * np.ones((4, 50)), np.ones((4, 50)), (0, 1, 2, 3))}
        for name, one in seeds.items()
    }
    (made,) = Bootstrap(ways, draws=20_000).estimate(["a", "b"], lambda x, y: x[0] - y[0])
    assert made.beyond(0.03) == pytest.approx(0.0549, rel=0.05)
    assert made.beyond(0.02) == pytest.approx(0.2029, rel=0.05)


def called_same(
    test: Callable[[Estimate], Estimate], spread: float, *, margins: float = 1.0
) -> float:
    """Share of 150 studies of three seeds that call two ways the same, by margins of their gap."""
    margin, rng, same = margins * true_gap(spread), np.random.default_rng(2), 0
    for _ in range(150):
        ways = simulated(rng, seeds=3, spread=spread)
        p = test(Bootstrap(ways, draws=200).mean(["a", "b"], gap)).beyond(margin)
        same += p is not None and p < 0.05
    return same / 150


@pytest.mark.parametrize("spread", [0.0, 0.2, 0.6])
def test_ways_a_margin_apart_are_seldom_called_the_same(spread: float) -> None:
    assert called_same(lambda found: found, spread) < 0.09
    assert called_same(lambda found: found, spread, margins=8) > 0.6  # well within it, they are


def test_the_simulation_of_equivalence_has_teeth() -> None:
    """Planted: the error over examples alone, as if other seeds were these."""
    alone = called_same(lambda found: replace(found, error=found.within, freedom=1e6), 0.6)
    assert alone > 0.1


def alarms(adjust: Callable[[list[float]], list[float]]) -> float:
    """Share of 150 studies of ten languages, in none of which two ways differ, that tell one."""
    rng, told = np.random.default_rng(5), 0
    for _ in range(150):
        p: list[float] = []
        for _ in range(10):
            chance = 1 / (1 + np.exp(-rng.normal(0.8, 1.2, 100)))
            one, other = (right(rng.random((3, 100)) < chance) for _ in range(2))
            p.append(permutation_p(one, other, draws=400, rng=rng))
        told += min(adjust(p)) < 0.05
    return told / 150


def test_holm_tells_a_difference_that_is_none_as_seldom_as_it_says() -> None:
    assert alarms(holm) < 0.1
    assert alarms(list) > 0.25  # planted: p-values as they are


def test_permutation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(14) < 0.4, rng.random(14) < 0.8

    def apart(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        return x.mean(axis=axis) - y.mean(axis=axis)

    exact = permutation_test(
        (a.astype(float), b.astype(float)), apart, permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    ).pvalue  # fmt: skip
    p = permutation_p(right(a), right(b), draws=40_000, rng=rng)
    assert p == pytest.approx(exact, abs=0.01)


def test_permutation_is_never_certain_nor_blind() -> None:
    rng = np.random.default_rng(0)
    none, every = right(np.zeros(60)), right(np.ones(60))
    assert permutation_p(none, every, draws=999, rng=rng) == 1 / 1000
    assert permutation_p(every, every, draws=999, rng=rng) == 1


def test_permutation_of_equal_ways_is_uniform() -> None:
    rng = np.random.default_rng(5)
    p = [
        permutation_p(right(rng.random(40) < 0.5), right(rng.random(40) < 0.5), draws=199, rng=rng)
        for _ in range(200)
    ]
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert np.mean(np.array(p) <= 0.5) > 0.35


def test_holm_agrees_with_statsmodels() -> None:
    # statsmodels 0.15.0: multipletests(p, method="holm")[1]
    p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.9]
    assert holm(p) == pytest.approx([0.05, 0.12, 0.12, 0.03, 0.4, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_order_and_is_no_smaller(p: list[float]) -> None:
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert max(adjusted) <= 1
    order = np.argsort(p)
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_two_factors_share_as_the_design_says() -> None:
    sl, sd, tl, td = 0.4, 0.5, 0.7, 0.72
    cells = {(False, False): sl, (False, True): sd, (True, False): tl, (True, True): td}
    start, objective = shapley({k: np.array([v]) for k, v in cells.items()})
    assert start[0] == pytest.approx(((tl - sl) + (td - sd)) / 2)
    assert objective[0] == pytest.approx(((sd - sl) + (td - tl)) / 2)


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_shares_sum_to_the_gain_and_a_factor_without_effect_gets_none(worth: list[float]) -> None:
    every = list(product((False, True), repeat=3))
    cells = {point: np.array([v]) for point, v in zip(every, worth, strict=True)}
    assert sum(shapley(cells))[0] == pytest.approx(worth[-1] - worth[0], abs=1e-12)
    blind = {point: cells[False, point[1], point[2]] for point in every}
    assert shapley(blind)[0][0] == pytest.approx(0, abs=1e-12)


def test_three_factors_are_the_mean_over_orders() -> None:
    rng = np.random.default_rng(2)
    cells = {point: rng.random(1) for point in product((False, True), repeat=3)}
    gains = np.zeros(3)
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for order in orders:
        now = [False] * 3
        for i in order:
            before = cells[tuple(now)]
            now[i] = True
            gains[i] += (cells[tuple(now)] - before)[0] / 6
    assert np.concatenate(shapley(cells)) == pytest.approx(gains)


def test_a_missing_combination_is_named() -> None:
    with pytest.raises(HeadstartError, match="1 of 4 combinations"):
        shapley({(False, False): np.zeros(1), (True, False): np.zeros(1), (True, True): np.ones(1)})
