"""Recipes from names, files and overrides; signatures; the runs of a study."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from headstart.checking import apply, known_keys
from headstart.document import parse
from headstart.errors import HeadstartError
from headstart.loading import (
    expand,
    json_schema,
    load_recipe,
    shipped,
    signature,
    to_yaml,
)
from headstart.recipe import NOT_DECIDING, ONLY_WITHOUT_MODEL, Recipe, Term

BASE: dict[str, object] = {
    "task": "classification",
    "data": {"corpus": "local", "folder": "here", "languages": ["en", "de"], "text": "texts"},
    "init": {"refit": {}, "general": {}, "heads": "taylor", "ffn": "taylor"},
    "teacher": {"base": "encoder", "finetune": {"learning_rate": "auto"}},
}
TRAINING: Mapping[str, object] = {
    "languages": ["en"],
    "epochs": 2.0,
    "max_steps": 7,
    "learning_rate": 1e-5,
    "learning_rates": [1e-5],
    "trial_fraction": 0.3,
    "batch_tokens": 64,
    "warmup": 0.2,
    "weight_decay": 0.2,
    "betas": [0.8, 0.9],
    "clip": 2.0,
    "dropout": 0.0,
    "word_embeddings": "train",
    "precision": "fp32",
    "eval_every": 5,
    "patience": 2,
    "checkpoint_minutes": 9.0,
    "tracker": "tensorboard",
}
OTHER: Mapping[str, object] = {
    "name": "other",
    "task": "tagging",
    "data.corpus": "massive",
    "data.folder": "there",
    "data.text": "there",
    "data.text_per_language": 9,
    "data.languages": ["en"],
    "data.zero_shot": ["sw"],
    "data.examples_per_language": 10,
    "data.dev_per_language": 10,
    "data.test_per_language": 10,
    "data.labels": ["b", "a"],
    **{f"data.columns.{name}": "other" for name in ("text", "label", "tokens", "tags")},
    **{f"data.columns.{name}": "other" for name in ("id", "split", "language")},
    "data.sampling_alpha": 0.5,
    "data.max_length": 64,
    "data.drop_leaks": True,
    "data.revision": "main",
    "teacher.base": "other",
    "teacher.model": "tuned",
    "teacher.finetune.objective": {"labels": 2.0},
    **{f"teacher.finetune.{key}": value for key, value in TRAINING.items()},
    "teacher.examples_per_language": 9,
    "teacher.seed": 9,
    **{f"student.{key}": 2 for key in ("layers", "hidden", "heads", "ffn")},
    **{f"student.{key}": 9 for key in ("params", "bytes", "speedup")},
    "init.source": "base",
    "init.merge": True,
    "init.measure_tokens": 9,
    "init.measure_languages": ["en"],
    "init.refit.languages": ["en"],
    "init.refit.tokens": 9,
    "init.refit.text": "more",
    "init.refit.ridge": 0.1,
    "init.refit.directions": "principal",
    "init.general.tokens": 9,
    "init.general.steps": 9,
    "init.general.objective": "hidden",
    "init.general.learning_rate": 0.1,
    "init.general.batch_tokens": 9,
    "init.general.judge_tokens": 9,
    "init.layers": [0, 1],
    **{f"init.{key}": "first" for key in ("hidden", "heads", "ffn")},
    "train.objective": {"kl": {"weight": 1, "temperature": 2}},
    **{f"train.{key}": value for key, value in TRAINING.items()},
    "seed": 5,
    "arms": {"a": {}},
    "grid": {"seed": [1]},
    "baseline": "a",
    "seeds": [3],
}
PARTS = {path[:-1] for path in known_keys()}
LEAVES = [".".join(path) for path in known_keys() if path not in PARTS]

Sign = Callable[[Recipe], str]


def test_a_setting_brings_in_a_part_that_was_left_out() -> None:
    plain = load_recipe({**BASE, "init": {}})
    assert plain.init.refit is None
    asked = apply(plain, {"init.refit.tokens": 7}).init.refit
    assert asked is not None
    assert (asked.tokens, asked.ridge) == (7, "auto")
    with pytest.raises(HeadstartError, match=r"train.max_steps is None and has no keys"):
        apply(plain, {"train.max_steps.a": 1})


def test_the_table_of_changes_has_every_key() -> None:
    assert set(OTHER) == set(LEAVES)


def law_what_decides_is_signed(sign: Sign, key: str) -> None:
    before = load_recipe(BASE)
    changed = apply(before, {key: OTHER[key]})
    assert changed != before
    assert (sign(changed) == sign(before)) == (key in NOT_DECIDING)


@pytest.mark.parametrize("key", LEAVES)
def test_a_key_changes_the_signature_if_and_only_if_it_decides(key: str) -> None:
    law_what_decides_is_signed(signature, key)


MISTAKES: Mapping[str, tuple[Sign, str]] = {
    "signs the name": (lambda recipe: recipe.model_dump_json(), "name"),
    "forgets the seed": (lambda recipe: signature(apply(recipe, {"seed": 0})), "seed"),
    "forgets the data": (lambda r: r.model_dump_json(exclude={"data"}), "data.labels"),
}


@pytest.mark.parametrize(("sign", "key"), MISTAKES.values(), ids=MISTAKES)
def test_the_law_has_teeth(sign: Sign, key: str) -> None:
    with pytest.raises(AssertionError):
        law_what_decides_is_signed(sign, key)


@pytest.mark.parametrize("key", [key for key in LEAVES if key.startswith("teacher.")])
def test_a_given_teacher_needs_no_fine_tuning(key: str) -> None:
    before = apply(load_recipe(BASE), {"teacher.model": "tuned"})
    value = "other" if key == "teacher.model" else OTHER[key]
    decides = not any(key.startswith(idle) for idle in ONLY_WITHOUT_MODEL | NOT_DECIDING)
    assert (signature(apply(before, {key: value})) != signature(before)) == decides


def test_signatures_are_stable_and_hold_fingerprints() -> None:
    recipe = load_recipe(BASE)
    key = signature(recipe, data="1", teacher="2")
    assert len(key) == 16
    assert int(key, 16) >= 0
    assert key == signature(recipe, teacher="2", data="1")
    assert len({key, signature(recipe), signature(recipe, data="2", teacher="1")}) == 3
    assert signature(load_recipe(json.loads(json.dumps(BASE, sort_keys=True)))) == signature(recipe)


def test_signatures_are_the_same_in_another_process() -> None:
    code = (
        "import json, sys; from headstart.loading import load_recipe, signature;"
        "print(signature(load_recipe(json.loads(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(BASE)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == signature(load_recipe(BASE))


@pytest.mark.parametrize("key", [key for key in LEAVES if key not in ("grid", "baseline")])
def test_yaml_is_read_back_the_same(key: str, tmp_path: Path) -> None:
    recipe = apply(load_recipe(BASE), {key: OTHER[key]})
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def test_resolved_yaml_has_every_key() -> None:
    tree = parse(to_yaml(load_recipe(BASE)), where="test")
    for key in LEAVES:
        place = tree
        for part in key.split("."):
            assert isinstance(place, dict)
            assert part in place, key
            place = place[part]


@pytest.mark.parametrize("name", shipped())
def test_shipped_recipes_are_sound(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    runs = expand(recipe)
    signatures = {signature(run) for _, run in runs}
    assert len(signatures) == len(runs)


def law_settings_name_their_source(text: str) -> None:
    block = ""
    for line in text.splitlines():
        key, colon, _ = line.partition(":")
        if not colon or line.startswith("#"):
            continue
        if not line.startswith(" "):
            block = line
        named = [part for part in (line, block) if "# known" in part or "ours" in part]
        assert named or line.rstrip().endswith(":"), key


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("paper-")])
def test_recipes_after_the_paper_name_the_source_of_each_setting(name: str) -> None:
    text = shipped()[name].read_text(encoding="utf-8")
    law_settings_name_their_source(text)
    assert "arXiv 2406.16524" in text
    assert len(expand(load_recipe(name))) == 18
    with pytest.raises(AssertionError, match="learning_rate"):
        law_settings_name_their_source(text + "train:\n  learning_rate: 1\n")


def test_four_recipes_are_shipped() -> None:
    assert set(shipped()) == {"quickstart", "paper-massive", "paper-tsm", "paper-uner"}


def test_overrides_are_yaml_and_come_last() -> None:
    recipe = load_recipe(
        BASE,
        [
            "data.languages=[no, sv]",
            "train.learning_rate=1e-4",
            "train.objective.kl.temperature=2",
            "teacher.finetune.epochs=1",
            "train.max_steps=",
            "name=a=b",
        ],
        seed=7,
    )
    assert recipe.data.languages == ("no", "sv")
    assert recipe.train.learning_rate == 1e-4
    assert recipe.train.objective["kl"] == Term(temperature=2.0)
    assert set(recipe.train.objective) == {"labels", "mse", "kl"}  # the defaults stay
    assert recipe.teacher.finetune.objective == {"labels": Term()}
    assert (recipe.seed, recipe.name, recipe.train.max_steps) == (7, "a=b", None)


def test_an_override_can_give_what_the_file_lacks() -> None:
    assert load_recipe(BASE, ["data.folder=there"]).data.folder == Path("there")
    lacking = {**BASE, "data": {"languages": ["en"]}}
    assert load_recipe(lacking, ["data.folder=there"]).data.folder == Path("there")
    assert "folder" not in lacking["data"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("train.epochs", "has no value(.|\n)*write it as train.epochs=2"),
        ("train.epochs=[1", "not readable as YAML(.|\n)*--set train.epochs"),
        ("seed.x=1", "should be a valid integer"),
        ("task.x=1", "task is 'classification' and has no keys"),
    ],
)
def test_broken_overrides_are_faults(text: str, match: str) -> None:
    with pytest.raises(HeadstartError, match=match):
        load_recipe(BASE, [text])


def test_files_that_are_no_recipes_are_named(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="did you mean 'quickstart'"):
        load_recipe("quikstart")
    file = tmp_path / "x.yaml"
    for text, match in (("", "a recipe is a mapping"), ("- a", "a recipe is a mapping")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(HeadstartError, match=match):
            load_recipe(file)
    file.write_bytes(b"task: \xff")
    with pytest.raises(HeadstartError, match=r"no recipe can be read there(.|\n)*x\.yaml"):
        load_recipe(str(file))


def test_a_recipe_without_arms_is_one_run() -> None:
    recipe = load_recipe(BASE)
    assert expand(recipe) == [("run", recipe)]


def test_a_study_is_arms_by_grid_by_seeds() -> None:
    recipe = load_recipe(
        {
            **BASE,
            "arms": {"copied": {}, "scratch": {"init.source": "scratch", "init.refit": None}},
            "grid": {
                "data.examples_per_language": [10, 20],
                "train.objective": [{"labels": 1}, {"labels": 0.5, "mse": 0.5}],
            },
            "seeds": [0, 1],
            "baseline": "scratch|examples_per_language=10|objective=labels:1",
        }
    )
    runs = expand(recipe)
    names = [name for name, _ in runs]
    assert len(set(names)) == len(runs) == 16
    assert names[0] == "copied|examples_per_language=10|objective=labels:1|seed=0"
    assert names[-1] == "scratch|examples_per_language=20|objective=labels:0.5+mse:0.5|seed=1"
    for name, run in runs:
        assert run.name == name
        assert (run.init.source == "scratch") == name.startswith("scratch")
        assert f"seed={run.seed}" in name
        assert run == load_recipe(parse(to_yaml(run), where="run"))  # a run is a recipe of its own
        assert expand(run) == [("run", run)]
    assert len({signature(run) for _, run in runs}) == 16


def test_names_of_runs_are_short_and_distinct() -> None:
    def names(**study: object) -> list[str]:
        return [name for name, _ in expand(load_recipe({**BASE, **study}))]

    assert names(seeds=[3, 1]) == ["seed=3", "seed=1"]
    assert names(arms={"a": {}}) == ["a|seed=0"]
    assert names(grid={"init.source": ["teacher", "base"]}) == [
        "teacher|seed=0",
        "base|seed=0",
    ]
    assert names(grid={"teacher.seed": [0, 1]}) == [
        "teacher.seed=0|seed=0",
        "teacher.seed=1|seed=0",
    ]
    both = {"data.examples_per_language": [5], "teacher.examples_per_language": [7]}
    assert names(grid=both) == [
        "data.examples_per_language=5|teacher.examples_per_language=7|seed=0"
    ]
    assert names(grid={"data.examples_per_language": [8, None]}) == [
        "examples_per_language=8|seed=0",
        "examples_per_language=all|seed=0",
    ]
    assert names(grid={"train.languages": [["en"], None]}) == [
        "languages=en|seed=0",
        "languages=all|seed=0",
    ]
    other = {"data.text_per_language": [None], "teacher.examples_per_language": [None]}
    assert names(grid=other) == ["text_per_language=null|examples_per_language=null|seed=0"]
    plain = {"init.merge": [True, None], "data.drop_leaks": [False]}
    assert [name.rpartition("|")[0] for name in names(grid=plain)] == [
        "merge=true|drop_leaks=false",
        "merge=null|drop_leaks=false",
    ]


def test_expanding_checks_what_was_not_loaded_from_a_file() -> None:
    recipe = Recipe.model_validate({**BASE, "arms": {"a": {"train.epochs": 0}}})
    with pytest.raises(HeadstartError, match=r"0 should be greater than 0(.|\n)*run a"):
        expand(recipe)


def test_the_schema_describes_every_part() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema
    parts = {"Data", "Columns", "Teacher", "Student", "Init", "Train", "Term"}
    assert isinstance(schema["$defs"], dict)
    assert parts <= set(schema["$defs"])
    assert schema["additionalProperties"] is False


BENCHED = sorted((Path(__file__).parent.parent / "benchmarks" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", BENCHED, ids=lambda path: path.stem)
def test_the_recipes_behind_the_results_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert len(list(expand(recipe))) >= 1
    assert recipe.baseline is None or recipe.baseline.split("|")[0] in recipe.arms
