"""Students by budget: within it, the least lossy of all, and never silently beside it."""

from __future__ import annotations

from itertools import product
from math import log2
from typing import Any

import pytest

from headstart import budget
from headstart.budget import BUDGETS, wanted_shape, work
from headstart.checking import apply
from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.layout import Shape, count_parameters, shape_of, student_changes
from headstart.loading import load_recipe
from headstart.pace import pace
from headstart.recipe import Student
from headstart.rules import student_shape
from headstart.student import student_from
from tiny import VARIANTS, tiny_config, tiny_model

SHARES = (0.2, 0.4, 0.7, 1.0)  # of the teacher, that a budget leaves
LARGE = {  # XLM-R base
    "model_type": "xlm-roberta", "vocab_size": 250_002, "hidden_size": 768,
    "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "max_position_embeddings": 514, "type_vocab_size": 1, "num_labels": 60,
}  # fmt: skip


def costs(config: dict[str, Any], shape: Shape) -> dict[str, float]:
    """Count what a shape costs from scratch."""
    family = family_of(config)
    changed = config | student_changes(family, config, shape, layers=tuple(range(shape.layers)))
    params = count_parameters(family, changed, "classification")["total"]
    return {
        "params": params,
        "bytes": 4 * params,
        "speedup": work(family, config) / work(family, changed),
    }


def loss(teacher: Shape, shape: Shape) -> float:
    depth, width = log2(teacher.layers / shape.layers), log2(teacher.hidden / shape.hidden)
    return budget.LAYERS_LOSE * depth**2 + budget.CHANNELS_LOSE * width**2


def all_shapes(config: dict[str, Any]) -> list[Shape]:
    teacher = shape_of(family_of(config), config)
    every = product(range(1, teacher.layers + 1), range(1, teacher.heads + 1))
    found: list[Shape] = []
    for layers, heads in every:
        shape = student_shape(teacher, {"layers": layers, "heads": heads})
        try:
            costs(config, shape)
        except HeadstartError:  # loses the projection of its embeddings
            continue
        found.append(shape)
    return found


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", BUDGETS)
def test_what_is_chosen_fits_and_nothing_that_fits_loses_less(variant: str, kind: str) -> None:
    config = tiny_config(variant).to_dict()
    teacher = shape_of(family_of(config), config)
    whole = costs(config, teacher)[kind]
    known = {shape: costs(config, shape)[kind] for shape in all_shapes(config)}
    for share in SHARES:
        wanted = whole / share if kind == "speedup" else whole * share
        sign = 1 if kind == "speedup" else -1
        fits = [shape for shape, cost in known.items() if sign * cost >= sign * wanted]
        ask = {kind: wanted}
        if not fits:
            with pytest.raises(HeadstartError, match=f"student.{kind}"):
                wanted_shape(family_of(config), config, "classification", ask)
            continue
        found = wanted_shape(family_of(config), config, "classification", ask)
        assert found in fits
        assert loss(teacher, found) == min(loss(teacher, shape) for shape in fits)


def test_a_student_has_the_parameters_that_were_asked_for() -> None:
    teacher = tiny_model("bert")
    most = 0.5 * teacher.num_parameters()
    student = student_from(teacher, params=most)
    assert student.num_parameters() <= most
    fast = student_from(teacher, speedup=1.2)
    assert fast.config.num_hidden_layers < 4 or fast.config.hidden_size < 32


def test_sizes_that_are_named_stay() -> None:
    def shape(**wanted: float) -> Shape:
        return wanted_shape(family_of(LARGE), LARGE, "classification", wanted)

    assert shape(speedup=4, layers=12).layers == 12
    assert shape(speedup=4, hidden=768).hidden == 768
    assert shape(speedup=3, ffn=3072).ffn == 3072
    assert shape(layers=6) == Shape(6, 768, 12, 3072)
    assert shape(speedup=1) == Shape(12, 768, 12, 3072)
    both = shape(speedup=4, params=60e6)
    assert costs(LARGE, both)["params"] <= 60e6
    with pytest.raises(HeadstartError, match=r"2\.5 is no whole number"):
        shape(layers=2.5)
    assert costs(LARGE, both)["speedup"] >= 4


def test_the_estimate_of_speed_is_what_was_measured() -> None:
    """On two processors of a common server; docs/performance.md has the table."""
    config = LARGE | {"hidden_size": 384, "intermediate_size": 1536}
    measured = {(6, 384): 2.0, (3, 384): 3.9, (12, 192): 3.2, (6, 192): 6.3, (12, 96): 9.1}
    for (layers, hidden), times in measured.items():
        teacher = shape_of(family_of(config), config)
        heads = hidden // teacher.head_size
        shape = student_shape(teacher, {"layers": layers, "heads": heads})
        assert costs(config, shape)["speedup"] == pytest.approx(times, rel=0.15)


def test_a_budget_that_nothing_meets_says_how_far_it_is() -> None:
    def refused(**wanted: float) -> str:
        with pytest.raises(HeadstartError) as told:
            wanted_shape(family_of(LARGE), LARGE, "classification", wanted)
        return str(told.value)

    assert "the smallest has 16," in refused(params=1000)
    assert "1,000 are asked for" in refused(params=1000)
    assert "bytes" in refused(bytes=10)
    assert "the fastest is" in refused(speedup=10_000)
    joint = refused(speedup=1.5, params=100e6, layers=12, hidden=768)
    assert "parameters" in joint
    assert "times as fast" in joint


@pytest.mark.parametrize(
    ("text", "number"),
    [("30M", 30e6), ("1.5 k", 1500), ("50MB", 50e6), ("2GB", 2e9), ("200 kB", 2e5), (7, 7),
     ("3G", 3e9), ("9", 9)],
)  # fmt: skip
def test_amounts_are_written_as_people_write_them(text: object, number: float) -> None:
    assert Student.model_validate({"params": text}).params == number


@pytest.mark.parametrize("text", ["30Q", "3B", "M", "-3M", "1e", True, 0, "3 M B x"])
def test_other_amounts_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match="params"):
        Student.model_validate({"params": text})


def test_listed_layers_and_a_budget_for_their_number_are_told() -> None:
    recipe = load_recipe("quickstart")
    with pytest.raises(HeadstartError, match="the budget would choose how many"):
        apply(recipe, {"student": {"speedup": 2}, "init.layers": [0, 3]})
    apply(recipe, {"student": {"speedup": 2, "layers": 2}, "init.layers": [0, 3]})


def test_a_shape_is_timed_on_fresh_weights() -> None:
    configs = [tiny_config("bert", layers=layers).to_dict() for layers in (4, 4, 1)]
    first, same, small = pace(configs, "classification")
    assert first == 1.0
    assert 0.2 < same < 5  # busy machines
    assert small > 0
