"""Recipes: names that later rooms define, defaults, and every fault at its key, all at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from pydantic import BaseModel

from headstart.checking import apply, known_keys
from headstart.errors import HeadstartError
from headstart.initial import RANKING
from headstart.loading import load_recipe
from headstart.objectives import FEATURES, OBJECTIVES
from headstart.recipe import RULES, Init, Recipe, Teacher, Term, Train
from headstart.settings import CORPUS_TASKS, SOFTENED
from headstart.settings import OBJECTIVES as KNOWN_OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Tree = dict[str, object]


def plain(**changes: object) -> Tree:
    """Make the smallest recipe, with some of its parts replaced."""
    tree: Tree = {
        "task": "classification",
        "data": {"corpus": "massive", "languages": ["en-US", "de-DE"]},
        "teacher": {"model": "my/teacher"},
    }
    return {**tree, **changes}


def data(**changes: object) -> Tree:
    return {"data": {"corpus": "massive", "languages": ["en-US", "de-DE"], **changes}}


def test_names_are_those_of_the_tables() -> None:
    from headstart import rules, sources

    tables = {
        "layers": rules.LAYER_RULES,
        "hidden": rules.HIDDEN_RULES,
        "heads": rules.HEAD_RULES,
        "ffn": rules.FFN_RULES,
    }
    assert {name: set(known) for name, known in RULES.items()} == {
        name: set(table) for name, table in tables.items()
    }
    assert set(RANKING) == set(rules.SCORED)
    assert set(KNOWN_OBJECTIVES) == {*OBJECTIVES, *FEATURES}
    tasks = {name: source.task for name, source in sources.CORPORA.items()}
    assert tasks | {"local": None} == CORPUS_TASKS


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_that_read_a_temperature_are_known(name: str) -> None:
    student, teacher = torch.randn(2, 8, 3, generator=torch.Generator().manual_seed(0))
    gold = torch.zeros(8, dtype=torch.int64)
    cold, warm = (OBJECTIVES[name].loss(student, teacher, gold, temperature=t) for t in (1.0, 3.0))
    assert bool((cold == warm).all()) == (name not in SOFTENED)


def test_every_key_but_plain_columns_is_documented() -> None:
    def undocumented(part: type[BaseModel], path: str = "") -> list[str]:
        found: list[str] = []
        for name, field in part.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found += undocumented(inner, f"{path}{name}.")
            elif not field.description:
                found.append(path + name)
        return found

    assert {key.rpartition(".")[0] for key in undocumented(Recipe)} == {"data.columns"}


def test_a_teacher_keeps_its_own_defaults_beside_what_is_named() -> None:
    recipe = load_recipe(plain(teacher={"base": "b", "finetune": {"epochs": 2}}))
    assert recipe.teacher.finetune.epochs == 2
    assert recipe.teacher.finetune.objective == {"labels": Term(weight=1.0)}
    assert recipe.teacher.finetune.learning_rate == 1.5e-4
    assert Teacher(base="b", finetune=Train(epochs=2)) == recipe.teacher
    assert recipe.train.objective == {"labels": Term(weight=0.5), "mse": Term(weight=0.5)}


def test_a_weight_may_stand_alone() -> None:
    short = load_recipe(plain(train={"objective": {"kl": 2}}))
    assert short == load_recipe(plain(train={"objective": {"kl": {"weight": 2.0}}}))


FAULTS: Mapping[str, tuple[Tree, str, str]] = {
    "unknown key, near": ({"sed": 1}, "sed", "did you mean 'seed'"),
    "unknown key, inner": ({"init": {"sorce": "base"}}, "init.sorce", "did you mean 'source'"),
    "unknown key, elsewhere": ({"epochs": 3}, "epochs", "it belongs at .*train.epochs"),
    "unknown key of a term": (
        {"train": {"objective": {"kl": {"temprature": 2}}}},
        "train.objective.kl.temprature",
        "did you mean 'temperature'",
    ),
    "no such task": ({"task": "clasification"}, "task", "should be 'classification' or 'tagging'"),
    "no such source": ({"init": {"source": "techer"}}, "init.source", "'teacher', 'base'"),
    "no such layer rule": ({"init": {"layers": "evn"}}, "init.layers", "did you mean 'even'"),
    "merging without a ranking": (
        {"init": {"merge": True, "heads": "uniform"}},
        "init.merge",
        "heads: uniform, ffn: taylor .*taylor, act",
    ),
    "no such head rule": ({"init": {"heads": "striped"}}, "init.heads", "mean 'strided'"),
    "no such corpus": (data(corpus="masive"), "data.corpus", "did you mean 'massive'"),
    "no such objective": ({"train": {"objective": {"kll": 1}}}, "train.objective.kll", "mean 'kl'"),
    "no word for a number": ({"train": {"epochs": "many"}}, "train.epochs", "'many' .* number"),
    "number or auto": ({"train": {"learning_rate": "fast"}}, "train.learning_rate", "or be 'auto'"),
    "no flag for a number": (data(max_length=True), "data.max_length", "True is not a number"),
    "not finite": ({"train": {"clip": float("inf")}}, "train.clip", "finite"),
    "below 0": ({"train": {"epochs": -1}}, "train.epochs", "greater than 0"),
    "share above 1": (data(sampling_alpha=1.5), "data.sampling_alpha", "less than or equal to 1"),
    "too short": ({"train": {"betas": [0.9]}}, "train.betas", "should be longer"),
    "no language": (data(languages=[]), "data.languages", "at least 1 item"),
    "no list of languages": (
        data(languages="en-US"),
        "data.languages",
        "be a list, such as",
    ),
    "a language twice": (data(languages=["de", "de"]), "data.languages", "named twice: de"),
    "seen and zero-shot": (data(zero_shot=["de-DE"]), "data.zero_shot", "at once: de-DE"),
    "local without folder": (data(corpus="local"), "data.folder", "needs the folder"),
    "hub with folder": (data(corpus="my/set", folder="x"), "data.folder", "is on the hub"),
    "corpus of another task": (data(corpus="uner"), "data", "'uner' is for tagging"),
    "no teacher": ({"teacher": {}}, "teacher.model", "neither base .* nor model"),
    "a teacher's teacher": (
        {"teacher": {"base": "b", "finetune": {"objective": {"mse": 1}}}},
        "teacher.finetune",
        "a teacher has no teacher",
    ),
    "base without a name": ({"init": {"source": "base"}}, "init", "teacher.base does not name"),
    "layers against shape": (
        {"student": {"layers": 3}, "init": {"layers": [0, 2]}},
        "init",
        "2 layers listed, but student.layers is 3",
    ),
    "no loss at all": ({"train": {"objective": {"mse": 0}}}, "train.objective", "weight above 0"),
    "no loss named": ({"train": {"objective": {}}}, "train.objective", "at least 1 item"),
    "idle temperature": (
        {"train": {"objective": {"mse": {"temperature": 2}}}},
        "train.objective",
        "'mse' has no temperature",
    ),
    "idle rates": (
        {"train": {"learning_rate": 1e-4, "learning_rates": [1e-3]}},
        "train.learning_rates",
        "set that to auto",
    ),
    "a seed twice": ({"seeds": [1, 1]}, "seeds", "named twice: 1"),
    "an arm's name": ({"arms": {"a|b": {}}}, "arms.a|b", "has a blank or a |"),
    "an arm's key": ({"arms": {"a": {"train.epocs": 1}}}, "train.epocs", "mean 'epochs'"),
    "an arm's value": ({"arms": {"a": {"train.epochs": 0}}}, "run a: .*train.epochs", "than 0"),
    "a study's own key": ({"arms": {"a": {"seed": 1}}}, "arms.a", "sets seed itself"),
    "no mapping": ({"train": {"objective": "mse"}}, "train.objective", "be a mapping, such as"),
    "almost a key": ({"train": {"steps": 9}}, "train.steps", "did you mean 'max_steps'"),
    "an arm's own languages": (
        {"arms": {"a": {"data.zero_shot": ["sw-KE"]}}},
        "arms.a",
        "judged in one table, so data.zero_shot is the same for all",
    ),
    "arm against grid": (
        {"arms": {"a": {"train.epochs": 1}}, "grid": {"train.epochs": [2]}},
        "arms.a",
        "train.epochs is in the grid too",
    ),
    "two arms alike": (
        {"arms": {"copy": {}, "even": {"init.layers": "even"}, "last": {"init.layers": "last"}}},
        "arms",
        "copy, even are the same run",
    ),
    "two points alike": ({"grid": {"train.epochs": [1, 1.0]}}, "grid", "are the same run"),
    "text that is nowhere": (
        data(text_per_language=9),
        "data.text_per_language",
        "data.text names no folder",
    ),
    "text without an answer": (
        {**data(text="here", text_per_language=9), "train": {"objective": {"labels": 1}}},
        "train",
        "needs an objective besides labels",
    ),
    "nothing to refit toward": (
        {"init": {"source": "scratch", "refit": {}}},
        "init.refit",
        "nothing to refit toward",
    ),
    "measured in an unknown language": (
        {"init": {"measure_languages": ["en-US", "xx"]}},
        "init",
        "measure_languages: xx: neither",
    ),
    "refitted in an unknown language": (
        {"init": {"refit": {"languages": ["xx"]}}},
        "init",
        "refit.languages: xx: neither",
    ),
    "states of other channels": (
        {
            "init": {"refit": {"directions": "principal"}},
            "train": {"objective": {"mse": 1.0, "hidden": 1.0}},
        },
        "train",
        "hidden compares kept channels",
    ),
    "an empty grid": ({"grid": {"train.epochs": []}}, "grid.train.epochs", "at least 1 item"),
    "a value twice": ({"grid": {"train.epochs": [2, 2]}}, "grid", "several runs .* epochs=2"),
    "no such baseline": ({"arms": {"abc": {}}, "baseline": "abd"}, "baseline", "mean 'abc'"),
    "a baseline of nothing": ({"baseline": "a"}, "baseline", "no arms"),
}


def law_a_fault_names_its_key(load: Callable[[Tree], object], fault: str) -> None:
    changes, key, words = FAULTS[fault]
    with pytest.raises(HeadstartError) as caught:
        load(plain(**changes))
    lines = str(caught.value)
    assert key.replace(".*", "") in lines or all(part in lines for part in key.split(".*"))
    with pytest.raises(HeadstartError, match=words):
        raise caught.value


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_names_its_key_and_the_way_out(fault: str) -> None:
    law_a_fault_names_its_key(load_recipe, fault)


def test_the_law_has_teeth() -> None:
    def vague(tree: Tree) -> object:
        try:
            return load_recipe(tree)
        except HeadstartError as error:
            raise HeadstartError(
                "the recipe is wrong", where="recipe", way_out="mend it"
            ) from error

    with pytest.raises(AssertionError):
        law_a_fault_names_its_key(vague, "unknown key, near")


def test_sound_recipes_have_no_faults() -> None:
    assert load_recipe(plain()).train == Train()
    for tree in (
        plain(init={"source": "base"}, teacher={"model": "m", "base": "b"}),
        plain(init={"layers": [0, 3]}, student={"layers": 2}),
        plain(**data(corpus="my/set")),
        plain(**data(corpus="local", folder="~/x")),
        plain(**data(corpus="local", folder="~nobody-of-that-name/x")),
        plain(train={"learning_rates": [1e-4]}),
    ):
        load_recipe(tree)


ALL_AT_ONCE = plain(
    task="tagging",
    sed=1,
    data={"corpus": "masive", "languages": [], "max_lenght": 3},
    teacher={"finetune": {"epochs": 0, "objective": {"mse": 1}}},
    init={"source": "bse", "layers": "evn"},
    train={"objective": {"kll": 1}, "patience": 0},
    seeds=[1, 1],
)


def test_all_faults_come_at_once() -> None:
    with pytest.raises(HeadstartError) as caught:
        load_recipe(ALL_AT_ONCE, ["train.epochs"])
    text = str(caught.value)
    assert text.startswith("13 faults")
    for key in (
        "--set", "key sed", "data.corpus", "data.languages", "data.max_lenght", "teacher.model",
        "teacher.finetune.epochs", "teacher.finetune;", "init.source", "init.layers",
        "train.objective.kll", "train.patience", "seeds",
    ):  # fmt: skip
        assert key in text, key


def test_faults_of_one_part_do_not_hide_those_between_parts() -> None:
    faulty = plain(task="tagging", init={"source": "base"})
    faulty["teacher"] = {"model": "m", "seed": -1}
    faulty["train"] = {"epochs": 0}
    with pytest.raises(HeadstartError, match="4 faults") as caught:
        load_recipe(faulty)
    for words in ("is for classification", "teacher.base", "teacher.seed", "train.epochs"):
        assert words in str(caught.value)


def test_a_fault_brings_no_false_one_after_it() -> None:
    broken = plain(train={"learning_rate": "fast", "learning_rates": [1e-4]}, **data(corpus="tms"))
    with pytest.raises(HeadstartError, match="2 faults"):
        load_recipe(broken)


def test_a_change_leaves_the_recipe_and_checks_the_result() -> None:
    recipe = load_recipe(plain())
    changed = apply(recipe, {"train.epochs": 2, "train.objective.kl.temperature": 4})
    assert recipe == load_recipe(plain())
    assert changed.train.epochs == 2
    assert changed.train.objective["kl"] == Term(temperature=4.0)
    assert set(changed.train.objective) == {"labels", "mse", "kl"}
    with pytest.raises(
        HeadstartError, match=r"seed is 0 and has no keys(.|\n)*set seed as a whole"
    ):
        apply(recipe, {"seed.x": 1})
    with pytest.raises(HeadstartError, match="2 faults"):
        apply(recipe, {"train.epochs": 0, "trian.epochs": 1})


def test_known_keys_are_what_a_recipe_takes() -> None:
    keys = {".".join(path) for path in known_keys()}
    assert {"seed", "data.columns.text", "teacher.finetune.epochs", "train.objective"} <= keys
    assert not any(key.startswith("train.objective.") for key in keys)


# --- rules that are left to us ---


@pytest.mark.parametrize(
    ("init", "found"),
    [
        ({}, ("uniform", "uniform", False)),
        ({"refit": {}}, ("taylor", "taylor", True)),
        ({"refit": {}, "source": "base"}, ("taylor", "taylor", True)),
        ({"refit": {}, "ffn": "magnitude"}, ("taylor", "magnitude", True)),
        ({"refit": {}, "ffn": "first"}, ("uniform", "first", False)),
        ({"refit": {}, "merge": False}, ("uniform", "uniform", False)),
        ({"merge": True}, ("taylor", "taylor", True)),
        ({"heads": "activation"}, ("activation", "uniform", False)),
    ],
)
def test_what_is_refitted_is_merged_unless_it_is_said_otherwise(
    init: dict[str, object], found: tuple[object, ...]
) -> None:
    rules = Init.model_validate(init).rules
    assert tuple(rules[name] for name in ("heads", "ffn", "merge")) == found
