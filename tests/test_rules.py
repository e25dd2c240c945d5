"""Rules keep what they say; wishes that cannot be met are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart.errors import HeadstartError
from headstart.layout import Shape, Traits
from headstart.rules import FFN_RULES, HEAD_RULES, HIDDEN_RULES, LAYER_RULES, choose, student_shape
from headstart.selection import Selection, full

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headstart import rules

TEACHER = Shape(layers=6, hidden=48, heads=6, ffn=96)
SMALLER = Shape(layers=4, hidden=24, heads=3, ffn=40)
FIRST = Traits(keep_first=True)
RNG = np.random.default_rng(0)
SCORES = {
    "hidden": RNG.random(48),
    "heads": RNG.random((6, 6)),
    "ffn": RNG.random((6, 96)),
}


# --- rules ---


@pytest.mark.parametrize(
    ("rule", "twelve_to_six", "twelve_to_five"),
    [
        ("even", (1, 3, 5, 7, 9, 11), (1, 3, 6, 8, 11)),
        ("even-first", (0, 2, 4, 6, 8, 10), (0, 2, 4, 7, 9)),
        ("first", (0, 1, 2, 3, 4, 5), (0, 1, 2, 3, 4)),
        ("last", (6, 7, 8, 9, 10, 11), (7, 8, 9, 10, 11)),
    ],
)
def test_layer_rules(rule: str, twelve_to_six: Any, twelve_to_five: Any) -> None:
    assert LAYER_RULES[rule](12, 6) == twelve_to_six
    assert LAYER_RULES[rule](12, 5) == twelve_to_five


def law_picks_are_in_range_and_rise(rule: Callable[[int, int], tuple[int, ...]]) -> None:
    for length in range(1, 30):
        for count in range(1, length + 1):
            picks = rule(length, count)
            assert len(picks) == count
            assert list(picks) == sorted(set(picks))
            assert 0 <= picks[0] <= picks[-1] < length


def scored(rule: rules.Rule) -> Callable[[int, int], tuple[int, ...]]:
    def run(length: int, count: int) -> tuple[int, ...]:
        rng = np.random.default_rng(length)
        return rule(length, count, rng.integers(0, 3, length).astype(float), rng)

    return run


TABLES = {
    **{f"layers {name}": rule for name, rule in LAYER_RULES.items()},
    **{f"hidden {name}": scored(rule) for name, rule in HIDDEN_RULES.items()},
    **{f"heads {name}": scored(rule) for name, rule in HEAD_RULES.items()},
    **{f"ffn {name}": scored(rule) for name, rule in FFN_RULES.items()},
}


@pytest.mark.parametrize("rule", TABLES)
def test_every_rule_picks_different_rising_numbers(rule: str) -> None:
    law_picks_are_in_range_and_rise(TABLES[rule])


@pytest.mark.parametrize(
    "mistake",
    [
        lambda length, count: tuple(round(i * length / count) for i in range(1, count + 1)),
        lambda _, count: tuple(int(i * 1.5) for i in range(count)),
        lambda _, count: (0,) * count,
    ],
    ids=["past the end", "uneven steps", "one for all"],
)
def test_the_law_of_picks_has_teeth(mistake: Any) -> None:
    with pytest.raises(AssertionError):
        law_picks_are_in_range_and_rise(mistake)


def test_uniform_is_weight_selection_s() -> None:
    nothing = np.empty(0), np.random.default_rng(0)
    assert HIDDEN_RULES["uniform"](12, 4, *nothing) == (0, 3, 6, 9)
    assert HIDDEN_RULES["uniform"](10, 4, *nothing) == (0, 3, 6, 9)  # rint(linspace(0, 9, 4))
    assert HIDDEN_RULES["uniform"](7, 4, *nothing) == (0, 2, 4, 6)


def test_magnitude_keeps_the_highest_and_the_first_of_equals() -> None:
    scores = np.array([1.0, 5.0, 3.0, 5.0, 5.0])
    assert FFN_RULES["magnitude"](5, 2, scores, np.random.default_rng(0)) == (1, 3)


def test_strided_cuts_every_head_and_uniform_none() -> None:
    whole = choose(TEACHER, SMALLER)
    across = choose(TEACHER, SMALLER, rules={"heads": "strided"})
    assert whole.heads == ((0, 2, 4),) * 4
    assert across.heads == ((),) * 4
    assert across.attention[0] == tuple(range(0, 48, 2))
    assert across.student == whole.student == SMALLER


# --- choosing ---


def law_another_seed_draws_otherwise(draw: Callable[[int], Selection]) -> None:
    assert draw(1) == draw(1)
    first, second = draw(1), draw(2)
    assert first.hidden != second.hidden
    assert first.ffn != second.ffn
    assert len(set(first.ffn)) == len(first.ffn)  # each layer draws its own


def drawn(seed: int) -> Selection:
    names = {"hidden": "random", "heads": "random", "ffn": "random"}
    return choose(TEACHER, SMALLER, rules=names, seed=seed)


def test_random_is_decided_by_the_seed() -> None:
    law_another_seed_draws_otherwise(drawn)


def test_the_law_of_seeds_has_teeth() -> None:
    with pytest.raises(AssertionError):
        law_another_seed_draws_otherwise(lambda _: drawn(0))
    with pytest.raises(AssertionError):
        law_another_seed_draws_otherwise(lambda seed: drawn(seed + int(RNG.integers(1e6))))


def test_magnitude_reads_the_scores_of_the_kept_layer() -> None:
    names = {"layers": (2, 5), "hidden": "magnitude", "heads": "magnitude", "ffn": "magnitude"}
    made = choose(TEACHER, replace(SMALLER, layers=2), rules=names, scores={"magnitude": SCORES})
    assert set(made.hidden) == set(np.argsort(SCORES["hidden"])[-24:])
    for layer, heads, ffn in zip((2, 5), made.heads, made.ffn, strict=True):
        assert set(heads) == set(np.argsort(SCORES["heads"][layer])[-3:])
        assert set(ffn) == set(np.argsort(SCORES["ffn"][layer])[-40:])


def test_what_is_not_cut_is_kept_in_order() -> None:
    names = {"hidden": "random", "heads": "random", "ffn": "magnitude"}
    made = choose(TEACHER, replace(TEACHER, layers=3), rules=names)
    assert made.hidden == full(TEACHER).hidden
    assert made.attention == full(TEACHER).attention[:3]
    assert made.layers == (1, 3, 5)
    assert made.rules == {"layers": "even", **names}


@pytest.mark.parametrize("rule", LAYER_RULES)
def test_a_first_layer_unlike_the_others_stays_first(rule: str) -> None:
    made = choose(TEACHER, SMALLER, rules={"layers": rule}, traits=FIRST)
    assert made.layers[0] == 0
    assert made.layers[1:] == LAYER_RULES[rule](6, 4)[1:]


def test_listed_layers_are_taken_as_they_are() -> None:
    made = choose(TEACHER, SMALLER, rules={"layers": [1, 2, 4, 5]}, traits=FIRST)
    assert (made.layers, made.rules["layers"]) == ((1, 2, 4, 5), "list")


@pytest.mark.parametrize(
    "layers", [(0, 1), (0, 1, 2, 6), (3, 2, 1, 0), (0, 1, 1, 2), (-1, 0, 1, 2)]
)
def test_a_layer_list_that_does_not_fit_is_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(HeadstartError, match=r"4 rising numbers from 0 to 5"):
        choose(TEACHER, SMALLER, rules={"layers": layers})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rules": {"layers": "evn"}}, r"(?s)no rule 'evn' for layers.*did you mean 'even'"),
        ({"rules": {"ffn": "strided"}}, r"no rule 'strided' for ffn"),
        ({"rules": {"hidden": (0, 1)}}, r"no rule \(0, 1\) for hidden"),
        ({"rules": {"depth": "even"}}, r"no rule chooses 'depth'"),
        ({"source": "techer"}, r"(?s)no source 'techer'.*did you mean 'teacher'"),
        ({"rules": {"heads": "magnitude"}}, r"magnitude needs scores for heads"),
    ],
)
def test_an_unknown_name_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadstartError, match=message):
        choose(TEACHER, SMALLER, **more)


# --- shapes ---


@pytest.mark.parametrize(
    ("wanted", "shape"),
    [
        ({}, TEACHER),
        ({"layers": 3, "hidden": None}, replace(TEACHER, layers=3)),
        ({"hidden": 24}, Shape(6, 24, 3, 48)),
        ({"heads": 2}, Shape(6, 16, 2, 32)),
        ({"heads": 2, "hidden": 16, "ffn": 5}, Shape(6, 16, 2, 5)),
        ({"ffn": 96, "hidden": 8}, Shape(6, 8, 1, 96)),
    ],
)
def test_what_is_not_named_follows(wanted: Mapping[str, int | None], shape: Shape) -> None:
    assert student_shape(TEACHER, wanted) == shape


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"layers": 7},
            r"(?s)layers = 7 cannot be cut from a teacher with 6.*student.layers.*1 to 6",
        ),
        ({"layers": 0}, r"layers = 0 cannot be cut"),
        ({"layers": "2"}, r"layers = '2' is no whole number"),
        ({"layers": True}, r"layers = True is no whole number"),
        ({"ffn": 97}, r"ffn = 97"),
        ({"hidden": 20}, r"(?s)hidden = 20 is not 2 heads of 8.*a multiple of 8"),
        ({"hidden": 4}, r"hidden = 4 is not 0 heads of 8"),
        ({"hidden": 24, "heads": 4}, r"hidden = 24 is not 4 heads of 8"),
        ({"width": 24}, r"no size 'width'"),
    ],
)
def test_a_shape_that_cannot_be_cut_is_refused(wanted: dict[str, int], message: str) -> None:
    with pytest.raises(HeadstartError, match=message):
        student_shape(TEACHER, wanted)


# --- merged layers ---


def test_all_faults_of_a_shape_are_told_at_once() -> None:
    with pytest.raises(HeadstartError) as told:
        student_shape(Shape(4, 32, 4, 64), {"layers": 9, "hidden": 33, "ffn": True, "width": 3})
    for words in ("4 faults", "layers = 9", "hidden = 33", "ffn = True", "no size 'width'"):
        assert words in str(told.value)
    with pytest.raises(HeadstartError) as told:
        student_shape(Shape(4, 32, 4, 64), {"hidden": 20, "ffn": 65})
    for words in ("2 faults", "is not 2 heads of 8", "ffn = 65"):
        assert words in str(told.value)


def test_merged_layers_give_their_best_units() -> None:
    rules: Any = {"heads": "magnitude", "ffn": "magnitude", "merge": True}
    made = choose(TEACHER, replace(SMALLER, layers=2), rules=rules, scores={"magnitude": SCORES})
    assert made.layers == (2, 5)
    for j, group in enumerate(((0, 1, 2), (3, 4, 5))):
        best = np.sort(np.concatenate([SCORES["ffn"][i] for i in group]))[-40:]
        found = [SCORES["ffn"][at, i] for at, i in zip(made.ffn_of[j], made.ffn[j], strict=True)]
        assert sorted(found) == list(best)
        heads = zip(made.attention_of[j][::8], made.heads[j], strict=True)
        best = np.sort(np.concatenate([SCORES["heads"][i] for i in group]))[-3:]
        assert sorted(SCORES["heads"][at, i] for at, i in heads) == list(best)
    assert made.rules["ffn"] == "magnitude, merged"


def test_heads_of_unlike_layers_are_not_merged() -> None:
    kinds = Traits(kinds=("far", "near", "far", "near", "near", "near"))
    rules: Any = {"heads": "uniform", "merge": True}
    made = choose(TEACHER, replace(SMALLER, layers=2), rules=rules, traits=kinds)
    assert [set(row) for row in made.attention_of] == [{0, 2}, {3, 4, 5}]
    assert [set(row) for row in made.ffn_of] == [{0, 1, 2}, {3, 4, 5}]


def test_merging_groups_of_one_is_no_merging() -> None:
    plain = choose(TEACHER, replace(SMALLER, layers=6))
    merged = choose(TEACHER, replace(SMALLER, layers=6), rules={"merge": True})
    assert (merged.attention, merged.attention_of) == (plain.attention, ())
