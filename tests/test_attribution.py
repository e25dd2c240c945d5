"""Attribution: the parts are the design's, sum to the whole, and carry intervals."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from headstart.attribution import Attribution, Way, attribute
from headstart.stats import Bootstrap, Counts

STARTS = [("scratch", False), ("base", False), ("teacher", False), ("teacher", True)]
WORTH = {  # of scratch, base, teacher, refitted
    "labels": (0.30, 0.55, 0.70, 0.80),
    "mse": (0.40, 0.50, 0.75, 0.85),
}
LANGUAGES = ("aa", "bb", "cc")


def way(start: tuple[str, bool], objective: str, setting: str = "") -> Way:
    name = f"{start[0]}{'+' * start[1]}-{objective}{setting}"
    return Way(name, *start, objective, setting)


def counts(share: float, seeds: int) -> Counts:
    """Give every seed and language the same share of 200 right."""
    hits = np.zeros((seeds, 200))
    hits[:, : round(200 * share)] = 1
    return Counts(hits, np.ones_like(hits), tuple(range(seeds)))


def study(
    starts: list[tuple[str, bool]],
    *,
    seeds: int = 2,
    objectives: tuple[str, ...] = ("labels", "mse"),
) -> list[Attribution]:
    ways = [way(start, objective) for start, objective in product(starts, objectives)]
    scores: dict[str, dict[str, Counts]] = {}
    for w in ways:
        worth = WORTH[w.objective][STARTS.index((w.source, w.refitted))]
        scores[w.name] = {code: counts(worth - 0.1 * (code == "cc"), seeds) for code in LANGUAGES}
    return attribute(ways, Bootstrap(scores, draws=100), ["cc"])


def test_the_parts_are_those_of_the_design() -> None:
    (found,) = study(STARTS[:3])
    sl, sd, bl, bd, tl, td = 0.3, 0.4, 0.55, 0.5, 0.7, 0.75
    values = {part.name: part.trained_on.value for part in found.parts}
    assert values == pytest.approx(
        {
            "initialization": ((tl - sl) + (td - sd)) / 2,
            "pre-training": ((bl - sl) + (bd - sd)) / 2,
            "fine-tuning": ((tl - bl) + (td - bd)) / 2,
            "distillation": ((sd - sl) + (td - tl)) / 2,
        }
    )
    assert (found.first.name, found.last.name) == ("scratch-labels", "teacher-mse")
    assert found.whole.trained_on.value == pytest.approx(td - sl)


def test_refit_is_a_third_factor_that_needs_the_copy() -> None:
    """Each part is its mean effect over all orders that can be: the starts follow one another."""
    found = study(STARTS)[0]
    names = ["pre-training", "fine-tuning", "refit"]
    effects: dict[str, list[float]] = {name: [] for name in (*names, "distillation")}
    for order in ([*names, "distillation"], ["distillation", *names]):
        start, told = 0, "labels"
        for factor in order:
            before = WORTH[told][start]
            start, told = (start, "mse") if factor == "distillation" else (start + 1, told)
            effects[factor].append(WORTH[told][start] - before)
    values = {part.name: part.trained_on.value for part in found.parts}
    del values["initialization"]
    assert values == pytest.approx({name: np.mean(some) for name, some in effects.items()})


@pytest.mark.parametrize("count", [2, 3, 4])
def test_parts_sum_to_the_whole_in_every_language(count: int) -> None:
    found = study(STARTS[:1] + STARTS[-count + 1 :] if count < 4 else STARTS)[0]
    for language in LANGUAGES:
        value = {part.name: part.by_language[language].value for part in found.parts}
        whole = found.whole.by_language[language].value
        assert value["initialization"] + value["distillation"] == pytest.approx(whole)
        steps = [value[part.name] for part in found.parts if part.of == "initialization"]
        assert sum(steps) == pytest.approx(value["initialization"])


def test_refit_is_a_step_where_it_was_tried_with_both_objectives() -> None:
    found = study(STARTS)[0]
    assert [part.name for part in found.parts] == [
        "initialization", "pre-training", "fine-tuning", "refit", "distillation",
    ]  # fmt: skip
    assert found.part("refit").trained_on.value == pytest.approx(0.1)
    assert found.last.refitted


def test_beside_a_refitted_copys_gain_stands_the_plain_ones() -> None:
    """As if no refit had been tried."""
    _, beside = study(STARTS)
    (alone,) = study(STARTS[:3])
    assert beside == alone
    assert [found.last.refitted for found in study([STARTS[0], *STARTS[2:]])] == [True, False]
    assert len(study([*STARTS[:2], STARTS[3]])) == 1  # no plain copy


def test_without_the_base_its_two_steps_are_one() -> None:
    (found,) = study([STARTS[0], STARTS[2]])
    names = [part.name for part in found.parts if part.of]
    assert names == ["pre-training and fine-tuning"]
    (repaired,) = study([STARTS[0], STARTS[1], STARTS[3]])
    names = [part.name for part in repaired.parts if part.of]
    assert names == ["pre-training", "fine-tuning and refit"]


def test_zero_shot_languages_stand_apart() -> None:
    (found,) = study(STARTS[:3])
    zero = found.whole.zero_shot
    assert zero is not None
    assert zero.value == pytest.approx(0.45)
    ways = [way(start, objective) for start in STARTS[:3] for objective in WORTH]
    scores = {w.name: {"aa": counts(0.5, 2)} for w in ways}
    (alone,) = attribute(ways, Bootstrap(scores, draws=50), [])
    assert alone.whole.zero_shot is None


def test_one_seed_gives_no_interval() -> None:
    (found,) = study(STARTS[:3], seeds=1)
    assert all(part.trained_on.interval() is None for part in found.parts)
    assert all(part.trained_on.within > 0 for part in found.parts)


@pytest.mark.parametrize(
    ("starts", "objectives"),
    [
        (STARTS[:2], ("labels", "mse")),
        (STARTS[1:], ("labels", "mse")),
        (STARTS[:3], ("labels",)),
        (STARTS[:3], ("mse",)),
    ],
    ids=["no teacher's copy", "no scratch", "no distillation", "no labels"],
)
def test_an_incomplete_grid_attributes_nothing(
    starts: list[tuple[str, bool]], objectives: tuple[str, ...]
) -> None:
    assert study(starts, objectives=objectives) == []


def test_each_setting_and_objective_has_its_own() -> None:
    ways = [
        way(start, objective, setting)
        for start in STARTS[:3]
        for objective in ("labels", "mse", "kl")
        for setting in ("", "|8 examples")
    ]
    scores = {w.name: {"aa": counts(0.5, 2)} for w in ways}
    found = attribute(ways, Bootstrap(scores, draws=50), [])
    assert {(one.setting, one.last.objective) for one in found} == set(
        product(("", "|8 examples"), ("mse", "kl"))
    )


def test_only_what_changes_is_credited() -> None:
    """Planted: a way mistaken for another would move a part that has no effect."""
    ways = [way(start, objective) for start in STARTS[:3] for objective in WORTH]
    scores = {w.name: {"aa": counts(0.4 + 0.2 * (w.objective == "mse"), 3)} for w in ways}
    (found,) = attribute(ways, Bootstrap(scores, draws=50), [])
    assert found.part("initialization").trained_on.value == pytest.approx(0)
    assert found.part("distillation").trained_on.value == pytest.approx(0.2)


def test_copies_that_were_chosen_otherwise_are_never_mixed() -> None:
    """Each choice of layers has its own gain, whatever the order of the arms."""
    scratch = [way(STARTS[0], objective) for objective in WORTH]
    copies = [
        Way(f"{init}-{objective}", "teacher", False, objective, "", init)
        for init, objective in (
            ("first", "labels"),
            ("even", "mse"),
            ("even", "labels"),
            ("first", "mse"),
        )
    ]
    worth = {"first-labels": 0.6, "first-mse": 0.65, "even-labels": 0.9, "even-mse": 0.95}
    scores = {w.name: {"aa": counts(WORTH[w.objective][0], 2)} for w in scratch}
    scores |= {name: {"aa": counts(share, 2)} for name, share in worth.items()}
    found = attribute([*scratch, *copies], Bootstrap(scores, draws=50), [])
    assert {(one.last.init, tuple(w.init for w in one.ways)) for one in found} == {
        (init, ("", "", init, init)) for init in ("first", "even")
    }
    gains = {one.last.init: one.part("distillation").trained_on.value for one in found}
    assert gains == pytest.approx({"first": 0.075, "even": 0.075})
