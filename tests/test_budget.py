"""Students by budget: within it, the least lossy of all, and never silently beside it."""

from __future__ import annotations

import hashlib
import json
import re
from itertools import product
from math import log2
from typing import TYPE_CHECKING, Any

import pytest
from transformers import BertForSequenceClassification

from headstart import budget
from headstart import pace as pace_room
from headstart.budget import BUDGETS, megabytes, wanted_shape, work
from headstart.checking import apply, dumped, without
from headstart.checkpoint import save_model
from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.layout import Shape, count_parameters, shape_of, student_changes
from headstart.loading import load_recipe, signature
from headstart.pace import pace
from headstart.recipe import NOT_DECIDING, RESULT_VERSION, Student
from headstart.rules import student_shape
from headstart.student import cut_checkpoint, student_from
from tiny import VARIANTS, tiny_config, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

HEADER = 8_000  # bytes of a file that are no weights: names, shapes
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


def test_a_students_file_is_no_larger_than_was_asked_for(tmp_path: Path) -> None:
    teacher = tiny_model("bert")
    save_model(teacher, tiny_tokenizer(), tmp_path / "teacher")
    whole = (tmp_path / "teacher" / "model.safetensors").stat().st_size
    for share in (0.4, 0.6, 0.8):
        cut_checkpoint(str(tmp_path / "teacher"), out := tmp_path / f"{share}",
                       shape={"bytes": share * whole})  # fmt: skip
        size = (out / "model.safetensors").stat().st_size
        assert size <= share * whole + HEADER
        assert size > 0.5 * share * whole


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
    """On two threads; docs/performance.md, Students by budget, has the table."""
    config = LARGE | {"hidden_size": 384, "intermediate_size": 1536}
    measured = {(6, 384): 2.1, (3, 384): 4.3, (12, 192): 3.8, (6, 192): 7.0, (12, 96): 9.6}
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


def test_a_budget_that_is_none_is_refused_from_python_as_from_a_recipe() -> None:
    teacher = tiny_model("bert")
    assert student_from(teacher, params="20k").num_parameters() <= 20_000
    wrong: list[dict[str, Any]] = [
        {"params": "30Q"}, {"bytes": True}, {"speedup": -1}, {"speedup": "4"}, {"params": 0},
    ]  # fmt: skip
    for asked in wrong:
        with pytest.raises(HeadstartError, match="is no budget"):
            student_from(teacher, **asked)


def test_a_named_width_that_cannot_be_is_told_as_without_a_budget() -> None:
    config = tiny_config("electra/projected", hidden=24, heads=4).to_dict()
    for more in ({}, {"params": 10_000}, {"speedup": 1.1}):
        with pytest.raises(HeadstartError, match="no projection"):
            student_from(tiny_model("electra/projected", hidden=24, heads=4), hidden=12, **more)
    assert config["embedding_size"] == 12


def test_the_schema_takes_what_people_write() -> None:
    kinds = Student.model_json_schema()["properties"]["params"]["anyOf"]
    (text,) = [
        kind for one in kinds for kind in one.get("anyOf", [one]) if kind["type"] == "string"
    ]
    assert re.search(text["pattern"], "30M")
    assert not re.search(text["pattern"], "30Q")


def test_a_recipe_without_a_budget_is_what_it_was_before_there_were_any() -> None:
    recipe = load_recipe("quickstart")
    tree = dumped(recipe)
    dropped = frozenset(f"student.{key}" for key in BUDGETS)
    assert set(tree["student"]) >= set(BUDGETS)  # type: ignore[attr-defined]
    with_keys = signature(recipe)
    assert with_keys != signature(apply(recipe, {"student.params": "30M"}))
    read = {"recipe": without(without(tree, NOT_DECIDING), dropped), "extra": {}}
    text = json.dumps(
        read | {"result_version": RESULT_VERSION}, sort_keys=True, separators=(",", ":")
    )
    assert with_keys == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_shape_is_timed_in_turn_with_its_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that moves by the layers of whoever answers."""
    configs = [tiny_config("bert", layers=layers).to_dict() for layers in (4, 2, 1)]
    now, turns = [0.0], list[int]()

    def answer(self: Any, **_: Any) -> None:
        turns.append(self.config.num_hidden_layers)
        now[0] += self.config.num_hidden_layers

    monkeypatch.setattr(BertForSequenceClassification, "forward", answer)
    monkeypatch.setattr(pace_room.time, "perf_counter", lambda: now[0])
    assert pace(configs, "classification") == [1.0, 2.0, 4.0]
    each = len(turns) // (3 * (pace_room.ROUNDS + 1))
    assert turns == ([4] * each + [2] * each + [1] * each) * (pace_room.ROUNDS + 1)


def test_any_family_can_be_timed() -> None:
    for variant in ("deberta-v2", "modernbert", "electra/projected"):
        config = tiny_config(variant, max_position_embeddings=64).to_dict()
        assert pace([config, config], "tagging")[0] == 1.0


def test_small_models_have_a_size_too() -> None:
    assert [megabytes(count) for count in (45_000, 9_900_000, 52_600_000, 2.2e9)] == [
        "0.0", "9.9", "53", "2,200"
    ]  # fmt: skip
