"""The whole way: what a run writes, when it stops, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from headstart import machine, packed
from headstart.budget import work
from headstart.checking import apply
from headstart.checkup import check
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.prepare import open_accelerator
from headstart.recipe import Term
from headstart.record import Record, read_record, remarks
from headstart.report import report
from headstart.results import _marks, _test_print
from headstart.run import run, run_signature
from headstart.runfolder import alone_in, refuse_taken
from headstart.selection import Selection
from headstart.stages import base_of, open_teacher
from headstart.steps import distil
from headstart.student import make_student
from headstart.train import Progress
from headstart.tune import Trial
from world import LABELS, ROWS, world, write_base

if TYPE_CHECKING:
    from headstart.recipe import Recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def out(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "run"
    run(recipe, folder)
    return folder


def test_the_record_tells_all(out: Path) -> None:
    record = read_record(out / "record.json")
    assert record.labels == LABELS
    assert set(record.scores["student"]["test"]) == {"aa", "bb", "cc"}
    assert set(record.scores["student"]["dev"]) == {"aa", "bb"}
    assert set(record.summary["student"]["zero_shot"]) == {"accuracy", "macro_f1"}
    assert record.costs["tokens"] > 0
    assert record.costs["teacher_seconds"] > 0
    assert [point["dev"] for point in record.teacher_curve][-1] > 0
    assert record.shape["student"]["total"] < record.shape["teacher"]["total"]
    plain = json.loads((out / "student" / "config.json").read_text(encoding="utf-8"))
    assert record.shape["student"]["work"] == round(work(family_of(plain), plain))
    assert record.shape["student"]["work"] < record.shape["teacher"]["work"]
    best = max((p["dev"] or 0, -(p["dev_loss"] or 0), p["step"]) for p in record.curve)
    assert record.best_step in (best[2], 0)
    assert not list(out.rglob("state"))
    assert (out / "recipe.yaml").read_text().startswith(f"# signature: {record.signature}\n")


def test_the_student_loads_with_stock_classes_and_predicts_as_recorded(out: Path) -> None:
    """Predictions kept on disk are those of the folder, example by example."""
    model = AutoModelForSequenceClassification.from_pretrained(out / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "student")
    kept = pq.read_table(out / "predictions" / "test.parquet").to_pydict()
    assert len(kept["id"]) == 3 * ROWS["test"]
    record = read_record(out / "record.json")
    right: dict[str, list[bool]] = {}
    for language, gold, predicted in zip(
        kept["language"], kept["gold"], kept["predicted"], strict=True
    ):
        right.setdefault(language, []).append(gold == predicted)
    for language, hits in right.items():
        assert np.mean(hits) == pytest.approx(
            record.scores["student"]["test"][language]["accuracy"]
        )
    assert model.config.id2label == dict(enumerate(LABELS))
    teacher = [g == t for g, t in zip(kept["gold"], kept["teacher"], strict=True)]
    scores = record.scores["teacher"]["test"].values()
    assert np.mean(teacher) == pytest.approx(np.mean([row["accuracy"] for row in scores]))
    texts = [f"{label[:2]} wake" for label in LABELS]
    with torch.no_grad():
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        assert model(**batch).logits.shape == (3, 3)
    assert Selection.from_json((out / "student" / "selection.json").read_text()).layers == (1, 3)


def test_a_finished_run_is_not_made_again(recipe: Recipe, out: Path) -> None:
    before = (out / "record.json").stat().st_mtime_ns
    assert run(recipe, out) == read_record(out / "record.json")
    assert (out / "record.json").stat().st_mtime_ns == before


def test_what_killed_processes_leave_is_taken_away(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    shutil.copytree(out, tmp_path / "run")
    for name in ("state", ".student.abc"):
        (tmp_path / "run" / name).mkdir()
    run(recipe, tmp_path / "run")
    left = {entry.name for entry in (tmp_path / "run").iterdir()}
    assert left == {entry.name for entry in out.iterdir()}


def test_a_half_written_first_file_does_not_lock_a_folder(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / ".recipe.yaml.123.partial").write_text("task")
    refuse_taken(tmp_path)
    (tmp_path / "thesis.partial").write_text("precious")
    with pytest.raises(HeadstartError, match="holds no run"):
        run(recipe, tmp_path)


def test_another_run_does_not_take_the_folder(recipe: Recipe, out: Path) -> None:
    with pytest.raises(HeadstartError, match="another run: seed is 0 there, 1 here"):
        run(apply(recipe, {"seed": 1}), out)
    four = {f"train.{key}": 0.5 for key in ("clip", "warmup", "epochs", "weight_decay")}
    with pytest.raises(HeadstartError, match=r"(train.*0\.5 here.*){3}, and 1 more"):
        run(apply(recipe, four), out)


def test_a_run_on_other_text_says_that_settings_are_the_same(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    assert recipe.data.folder is not None
    shutil.copytree(recipe.data.folder, tmp_path / "text")
    shutil.copytree(out, mine := tmp_path / "run")
    moved = apply(recipe, {"data.folder": str(tmp_path / "text")})
    file = next((tmp_path / "text").rglob("*.jsonl"))
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([*lines, lines[-1]]) + "\n", encoding="utf-8")
    with pytest.raises(HeadstartError, match="another run: the settings are the same; its text"):
        run(moved, mine)


@pytest.mark.parametrize(
    ("student", "teacher", "logits", "marks"),
    [
        (0.5, 0.9, [[1.0, 0.0], [0.0, 1.0]], ()),
        (0.4, 0.9, [[1.0, 0.0], [2.0, 1.0]], ("one-class", "below-majority")),
        (0.5, 0.4, [[1.0, 0.0], [0.0, math.nan]], ("nan", "teacher-below-majority")),
    ],
)
def test_runs_that_say_nothing_are_marked(
    student: float, teacher: float, logits: list[list[float]], marks: tuple[str, ...]
) -> None:
    text: Any = SimpleNamespace(corpus=SimpleNamespace(task="classification"), floor=0.4)
    scores: Any = {
        name: {"dev": {"aa": {"accuracy": score, "macro_f1": 0.0}}}
        for name, score in (("student", student), ("teacher", teacher))
    }
    assert _marks(text, np.array(logits, np.float32), scores) == marks


def test_the_print_of_test_rows_knows_neither_order_of_languages_nor_train(
    recipe: Recipe,
) -> None:
    def print_of(**settings: object) -> str:
        changes = {f"data.{key}": value for key, value in settings.items()}
        return _test_print(load_corpus(apply(recipe, changes).data, "classification"))

    first = print_of()
    assert print_of(languages=["bb", "aa"], examples_per_language=3) == first
    assert print_of(languages=["aa"], zero_shot=["cc", "bb"]) == first
    assert print_of(labels=[*LABELS[::-1], "more"]) == first
    assert print_of(test_per_language=3) != first
    assert recipe.data.folder is not None
    file = next(path for path in recipe.data.folder.rglob("*.jsonl"))
    content = file.read_text(encoding="utf-8")
    last = json.loads(content.splitlines()[-1])
    other = next(label for label in LABELS if label != last["label"])
    for change in ({"text": "another"}, {"label": other}):
        lines = [*content.splitlines()[:-1], json.dumps(last | change)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        assert print_of() != first
    file.write_text(content, encoding="utf-8")
    assert print_of() == first
    assert print_of(zero_shot=[]) != first


def test_a_study_s_folder_takes_no_run(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("task: tagging", encoding="utf-8")
    with pytest.raises(HeadstartError, match="holds a study"):
        run(recipe, tmp_path)


def test_a_strange_folder_is_left_alone(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(HeadstartError, match="holds no run"):
        run(recipe, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "fault", [{"student.layers": 9}, {"init.layers": [0, 7]}, {"teacher.model": "RENAMED"}]
)
def test_a_refused_run_leaves_its_folder_to_the_mended_one(
    recipe: Recipe, out: Path, fault: dict[str, object], tmp_path: Path
) -> None:
    (model,) = (out / "teachers").glob("*/model")
    shutil.copytree(model, tmp_path / "renamed")
    config = json.loads((model / "config.json").read_text())
    config["id2label"] = {"0": "x", "1": "y", "2": "z"}
    (tmp_path / "renamed" / "config.json").write_text(json.dumps(config))
    filled = {k: str(tmp_path / "renamed") if v == "RENAMED" else v for k, v in fault.items()}
    mended = apply(recipe, {"train.max_steps": 0})
    with pytest.raises(HeadstartError):
        run(apply(mended, filled), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists()
    assert not list((tmp_path / "run").glob("teachers/*/made.json"))  # found before that work
    run(mended, tmp_path / "run")
    with pytest.raises(HeadstartError, match="holds another run"):
        run(apply(mended, {"seed": 1}), tmp_path / "run")
    assert (tmp_path / "run" / "record.json").exists()


def _decisive(record: Record) -> object:
    return record.scores, [(p["step"], p["loss"], p["dev"]) for p in record.curve]


def test_the_same_recipe_gives_the_same_result(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    again = run(recipe, tmp_path / "again")
    assert _decisive(again) == _decisive(read_record(out / "record.json"))
    assert again.signature == read_record(out / "record.json").signature


def test_a_teacher_costs_its_trials_too(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trials = [Trial(rate, 0.5, 1.0, 9, 4.0) for rate in (1e-4, 3e-4, 1e-3)]
    monkeypatch.setattr("headstart.stages.learn", lambda *_, **__: (Progress(seconds=2.0), trials))
    assert open_teacher(recipe, tmp_path, open_accelerator()).seconds == 2.0 + 3 * 4.0


def test_a_second_run_pays_for_no_teacher(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    other = apply(recipe, {"init.source": "scratch", "train.learning_rate": "auto"})
    record = run(other, tmp_path / "other", shared=out)
    assert record.costs["teacher_pass_seconds"] == 0
    assert record.source == "scratch"
    rounds = [trial["steps"] for trial in record.learning_rate["tried"]]
    assert len(rounds) >= 3
    assert rounds[0] == max(rounds)  # the last round is the longest, and stands first
    assert record.costs["trial_seconds"] == pytest.approx(
        sum(trial["seconds"] for trial in record.learning_rate["tried"])
    )
    assert record.costs["trial_seconds"] > 0


def test_a_given_teacher_equals_the_one_made_here(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    """Cut from disk or from memory, by name or after fine-tuning: the same student."""
    (model,) = (out / "teachers").glob("*/model")
    given = apply(recipe, {"teacher.model": str(model)})
    record = run(given, tmp_path / "given")
    assert _decisive(record) == _decisive(read_record(out / "record.json"))
    assert record.signature != read_record(out / "record.json").signature


@pytest.mark.parametrize("source", ["base", "permuted"])
def test_every_source_runs(recipe: Recipe, out: Path, tmp_path: Path, source: str) -> None:
    record = run(apply(recipe, {"init.source": source}), tmp_path / source, shared=out)
    assert record.source == source


def test_a_student_may_learn_from_some_languages_only(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    """Rows of the others are neither learned from nor chosen on, and the teacher is the same."""
    whole = read_record(out / "record.json")
    record = run(apply(recipe, {"train.languages": ["bb"]}), tmp_path / "out", shared=out)
    assert record.learned_from == ("bb",)
    assert record.languages == whole.languages
    assert {*record.scores["student"]["dev"]} == {*record.scores["teacher"]["dev"]} == {"bb"}
    assert {*record.scores["student"]["test"]} == {"aa", "bb", "cc"}
    assert record.fingerprints["teacher"] == whole.fingerprints["teacher"]
    assert record.curve[-1]["tokens"] < whole.curve[-1]["tokens"]
    assert "Labelled rows of bb alone: no label of another language was seen." in remarks(record)
    taught = run(
        apply(recipe, {"teacher.finetune.languages": ["aa"], "train.max_steps": 0}),
        tmp_path / "other",
    )
    assert taught.fingerprints["teacher"] != whole.fingerprints["teacher"]
    for key in ("train.languages", "teacher.finetune.languages"):
        with pytest.raises(HeadstartError, match=r"xx are not in data\.languages"):
            apply(recipe, {key: ["aa", "xx"]})


def test_tagging_runs(tmp_path: Path) -> None:
    recipe = world(tmp_path / "world", task="tagging")
    record = run(recipe, tmp_path / "out")
    assert record.labels == ("B-PER", "O") or record.labels[0] == "O"
    kept = pq.read_table(tmp_path / "out" / "predictions" / "test.parquet").to_pydict()
    words = [len(tags) for tags in kept["gold"]]
    assert words == [len(tags) for tags in kept["predicted"]] == [len(x) for x in kept["logits"]]


def test_labels_of_another_teacher_are_refused(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    (model,) = (out / "teachers").glob("*/model")
    other = apply(recipe, {"teacher.model": str(model), "data.labels": LABELS[::-1]})
    with pytest.raises(HeadstartError, match="order"):
        run(other, tmp_path / "out")


def test_a_student_from_memory_equals_the_one_from_disk(out: Path) -> None:
    (folder,) = (out / "teachers").glob("*/model")
    loaded = AutoModelForSequenceClassification.from_pretrained(folder)
    left = make_student(loaded, shape={"layers": 2}).model.state_dict()
    right = make_student(folder, shape={"layers": 2}).model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert list(left) == list(right)


def test_a_tracker_gets_the_curve(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    followed = apply(recipe, {"train.tracker": "tensorboard"})
    record = run(followed, tmp_path / "followed", shared=out)
    assert list((tmp_path / "followed").rglob("events.out.tfevents.*"))
    assert record.signature == read_record(out / "record.json").signature


def test_a_recipe_of_many_runs_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="the recipe asks for 2 runs"):
        run(apply(recipe, {"seeds": [0, 1]}), tmp_path)


def test_a_recipe_object_takes_seed_and_settings(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    record = run(recipe, tmp_path, seed=5, overrides=["train.epochs=1"], shared=out)
    assert record.seed == 5
    assert len(record.curve) == 1


@pytest.mark.parametrize("file", ["tokenizer.json", "config.json", "model.safetensors"])
def test_the_signature_sees_what_lies_in_the_base(tmp_path: Path, file: str) -> None:
    """Also within one process: a base that was changed is another base."""
    recipe = world(tmp_path)
    before = run_signature(recipe, tmp_path / "out")
    path = Path(str(recipe.teacher.base)) / file
    if file == "model.safetensors":
        model = AutoModel.from_pretrained(path.parent)
        with torch.no_grad():
            next(iter(model.parameters())).add_(0.5)
        model.save_pretrained(path.parent)
    elif file == "config.json":
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"hidden_dropout_prob": 0.3}))
    else:
        path.write_text(path.read_text() + "\n")
    assert run_signature(recipe, tmp_path / "out") != before


def test_where_a_model_lies_does_not_decide(out: Path, recipe: Recipe, tmp_path: Path) -> None:
    (model,) = (out / "teachers").glob("*/model")
    base = str(recipe.teacher.base)
    for name, folder in (("teacher", model), ("base", base)):
        shutil.copytree(folder, tmp_path / name)

    def key(**named: str) -> str:
        given = {f"teacher.{part}": place for part, place in named.items()}
        return run_signature(apply(recipe, {"init.source": "base", **given}), tmp_path)

    moved = str(tmp_path / "teacher")
    assert key(model=str(model)) == key(model=moved) == key(model=moved, base=f"{tmp_path}/base")
    assert key(base=base) == key(base=f"{tmp_path}/base") != key(model=str(model))
    unread = apply(recipe, {"teacher.model": moved, "teacher.base": None})
    for place in (base, f"{tmp_path}/base"):
        idle = apply(unread, {"teacher.base": place})
        assert run_signature(idle, tmp_path) == run_signature(unread, tmp_path)


def test_a_teacher_whose_loss_is_no_number_is_not_kept(recipe: Recipe, tmp_path: Path) -> None:
    wild = {"teacher.finetune.learning_rate": 1e38, "teacher.finetune.warmup": 0.0}
    with pytest.raises(HeadstartError, match="the loss is no number") as caught:
        run(apply(recipe, wild), tmp_path / "run")
    assert caught.value.where == "teacher.finetune"
    assert not list(tmp_path.glob("run/teachers/*/made.json"))


def test_the_signature_sees_text_that_only_the_teacher_reads(tmp_path: Path) -> None:
    recipe = apply(world(tmp_path), {"data.examples_per_language": 6})
    more = apply(recipe, {"teacher.examples_per_language": 24})
    before = run_signature(more, tmp_path / "out")
    path = Path(str(recipe.data.folder)) / "aa.jsonl"
    lines = path.read_text().splitlines()
    lines[20] = lines[20].replace(" er", " at").replace(" me", " the").replace("r 20", "q 20")
    path.write_text("\n".join(lines) + "\n")
    assert run_signature(more, tmp_path / "out") != before
    assert run_signature(recipe, tmp_path / "out") != before


def test_the_signature_sees_the_base_of_a_given_teacher(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    (model,) = (out / "teachers").glob("*/model")
    base = write_base(tmp_path / "base")
    given = apply(recipe, {"teacher.model": str(model), "teacher.base": str(base)})
    from_base = apply(given, {"init.source": "base"})
    before = [run_signature(one, tmp_path) for one in (given, from_base)]
    config = base / "config.json"
    config.write_text(config.read_text() + "\n")
    after = [run_signature(one, tmp_path) for one in (given, from_base)]
    assert after[0] == before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_the_packed_base_can_read_all_that_any_run_reads(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher sees more rows than the student, and refit text of its own."""
    recipe = world(tmp_path / "world", task=task)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "cc.txt").write_text("habari yako\n", encoding="utf-8")
    changes = {"teacher.base": "quickstart", "data.examples_per_language": 3,
               "data.test_per_language": 2, "data.text": str(tmp_path / "text")}  # fmt: skip
    found: list[list[str]] = []
    hollows: list[bool] = []

    def write(_place: Path, texts: list[str], *, hollow: bool) -> str:
        found.append(list(texts))
        hollows.append(hollow)
        return "packed"

    monkeypatch.setattr(packed, "quickstart_base", write)
    place = Path(str(base_of(apply(recipe, changes), tmp_path)))
    assert place.parent == tmp_path / "base"
    hole = Path(str(base_of(apply(recipe, changes), tmp_path, hollow=True)))
    assert hole == tmp_path / "hollow" / place.name  # never taken for a whole one
    assert hollows == [False, True]
    assert base_of(apply(recipe, {**changes, "data.dev_per_language": 1}), tmp_path) == str(place)
    other = apply(recipe, {**changes, "data.languages": ["aa"]})  # text of its own, and pieces
    assert base_of(other, tmp_path) != str(place)
    wanted = {"habari yako"}
    for file in Path(str(recipe.data.folder)).iterdir():
        for row in map(json.loads, file.read_text().splitlines()):
            if file.stem != "cc" or row["split"] == "test":
                wanted.add(row.get("text") or " ".join(row["tokens"]))
    assert set(found[0]) == wanted


SHORT = {"data.max_length": 40}  # the tiny models have 48 positions


def more_text(folder: Path, *, rows: int = 40) -> Path:
    folder.mkdir()
    texts = "\n".join(json.dumps({"text": f"wake me at noon {i}"}) for i in range(rows))
    (folder / "cc.jsonl").write_text(texts + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("source", ["teacher", "base"])
def test_a_refit_comes_before_training_and_is_recorded(
    tmp_path: Path, source: str, task: str
) -> None:
    asked = {"source": source, "refit": {"tokens": 600}}
    recipe = world(tmp_path / "world", task=task, init=asked)
    more = {"train.max_steps": 0, "data.text": str(more_text(tmp_path / "more")), **SHORT}
    record = run(apply(recipe, more), tmp_path / "out")
    names = [str(one["name"]) for one in record.refit]
    assert any("layer.1" in name for name in names)
    assert ("classifier" in names) is (source == "teacher")
    assert any(one["ridge"] is not None for one in record.refit)
    assert record.costs["refit_seconds"] > 0
    assert record.scores["student"]["dev"] == record.scores["step0"]["dev"]  # nothing was trained
    assert not record.curve
    assert read_record(tmp_path / "out" / "record.json") == record


def test_a_student_without_training_is_its_teachers_copy(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    untrained = apply(recipe, {"train.max_steps": 0, "train.learning_rate": "auto"})
    record = run(untrained, tmp_path / "run", shared=out)
    assert record.learning_rate["tried"] == []
    assert record.costs["tokens"] == 0
    assert (
        record.scores["student"]["dev"] == read_record(out / "record.json").scores["step0"]["dev"]
    )


@pytest.mark.parametrize("objective", [{"mse": 1.0}, {"labels": 0.5, "relation": 0.5}])
def test_where_no_step_is_taken_the_teacher_is_asked_for_no_train_row(
    recipe: Recipe,
    out: Path,
    tmp_path: Path,
    objective: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = sys.modules["headstart.run"]  # the package's own `run` is the function
    monkeypatch.setattr(module, "Features", pytest.fail)  # the teacher at work
    model = str(next((out / "teachers").glob("*/model")))
    without = {"train.max_steps": 0, "train.objective": objective, "teacher.model": model}
    run(apply(recipe, without), tmp_path / "run")
    assert len([*(tmp_path / "run" / "passes").glob("*/meta.json")]) == 2  # dev and test


@pytest.mark.parametrize("asked", [{"init.refit": {"tokens": 50}}, {"data.text_per_language": 9}])
def test_the_signature_sees_unlabelled_text_that_is_read(
    tmp_path: Path, asked: dict[str, object]
) -> None:
    recipe = world(tmp_path / "world")
    folders = [
        more_text(tmp_path / name, rows=rows) for name, rows in (("a", 40), ("b", 40), ("c", 39))
    ]
    keys = [
        run_signature(apply(recipe, {"data.text": str(folder), **asked}), tmp_path)
        for folder in folders
    ]
    assert keys[0] == keys[1] != keys[2]
    unread = [run_signature(apply(recipe, {"data.text": str(f)}), tmp_path) for f in folders]
    assert len(set(unread)) == 1


def test_refits_own_text_decides_by_what_it_says_not_by_where_it_lies(tmp_path: Path) -> None:
    unranked = {"merge": False}  # nothing else looks at text
    train = {"max_steps": 0, "batch_tokens": 128}
    recipe = apply(world(tmp_path / "world", train=train, init=unranked), {"data.max_length": 40})
    folders = [
        more_text(tmp_path / name, rows=rows) for name, rows in (("a", 40), ("b", 40), ("c", 39))
    ]
    asked = [apply(recipe, {"init.refit": {"tokens": 400, "text": str(f)}}) for f in folders]
    keys = [run_signature(one, tmp_path) for one in asked]
    assert keys[0] == keys[1] != keys[2]
    beside = apply(asked[0], {"data.text": str(folders[2])})  # nothing reads it
    assert run_signature(beside, tmp_path) == keys[0]
    for one, name in zip(asked[:2], "xy", strict=True):
        run(one, tmp_path / name, shared=tmp_path / "shared")
    assert len([*(tmp_path / "shared" / "starts").glob("*/start.json")]) == 1


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_the_teacher_answers_unlabelled_text(tmp_path: Path, task: str) -> None:
    recipe = world(tmp_path / "world", task=task)
    settings = {
        "data.text": str(more_text(tmp_path / "more")),
        "data.text_per_language": 30,
        **SHORT,
    }
    record = run(apply(recipe, settings), tmp_path / "with", shared=tmp_path / "shared")
    without = run(recipe, tmp_path / "without", shared=tmp_path / "shared")
    assert record.costs["tokens"] > without.costs["tokens"]
    assert record.fingerprints["data"] == without.fingerprints["data"]
    assert not record.marks


def test_features_train_a_run_and_a_student_on_disk(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    asked = {"train.objective": {"labels": 1.0, "hidden": 1.0, "relation": 0.5}}
    record = run(apply(recipe, asked), tmp_path / "run", shared=out)
    assert record.objective == "labels+hidden+relation"
    assert not record.marks
    (teacher,) = (out / "teachers").glob("*/model")
    train = recipe.train.model_copy(
        update={"objective": {"hidden": Term(weight=1.0)}, "max_steps": 2}
    )
    student = str(tmp_path / "run" / "student")
    distil(
        student, str(teacher), tmp_path / "more", task=recipe.task, data=recipe.data, train=train
    )
    (tmp_path / "run" / "student" / "selection.json").unlink()
    with pytest.raises(HeadstartError, match=r"no selection\.json"):
        distil(
            student,
            str(teacher),
            tmp_path / "none",
            task=recipe.task,
            data=recipe.data,
            train=train,
        )


def test_measured_rules_look_at_the_text_of_a_run(
    recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    asked = {"init.ffn": "taylor", "init.heads": "activation", "student.hidden": 16}
    record = run(apply(recipe, {**asked, "train.max_steps": 0}), tmp_path / "run", shared=out)
    kept = json.loads((tmp_path / "run" / "student" / "selection.json").read_text())
    assert kept["rules"]["ffn"] == "taylor"
    assert record.shape["student"]["total"] > 0
    changed = apply(recipe, {**asked, "data.text": str(more_text(tmp_path / "more"))})
    assert run_signature(changed, out) != run_signature(apply(recipe, asked), out)


def test_a_run_without_training_has_a_page(recipe: Recipe, out: Path, tmp_path: Path) -> None:
    run(apply(recipe, {"train.max_steps": 0}), tmp_path / "run", shared=out)
    page = report(tmp_path / "run").read_text(encoding="utf-8")
    assert "nan" not in page[: page.index("<script>")].lower()


FAULTY_TEXTS = {
    "nowhere": ({"data.text": "/no-such-folder", "init.refit": {}, **SHORT}, "there is no folder"),
    "too little to refit on": ({"init.refit": {"tokens": 12}}, "init.refit"),
    "too little to measure on": (
        {"init.ffn": "taylor", "init.measure_tokens": 12}, "init.measure_tokens",
    ),
    "longer than the model": ({"data.text": "MORE", "init.refit": {}}, "has 48 positions"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTY_TEXTS)
def test_faults_of_unlabelled_text_are_found_before_any_work(tmp_path: Path, fault: str) -> None:
    recipe = world(tmp_path / "world")
    settings, words = FAULTY_TEXTS[fault]
    if settings.get("data.text") == "MORE":
        settings = {**settings, "data.text": str(more_text(tmp_path / "more"))}
    faulty = apply(recipe, settings)
    for attempt in (lambda: check(faulty), lambda: run(faulty, tmp_path / "out")):
        with pytest.raises(HeadstartError, match=words):
            attempt()
    assert not list((tmp_path / "out").rglob("made.json"))


def test_the_packed_base_knows_text_that_came_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "bb.txt").write_text("habari\n", encoding="utf-8")
    changes = {"teacher.base": "quickstart", "data.text": str(text)}
    recipe = apply(world(tmp_path / "world"), changes)
    monkeypatch.setattr(packed, "quickstart_base", lambda _place, _texts, **_: "packed")
    seen = [base_of(recipe, tmp_path)]
    for file in (text / "cc.txt", Path(str(recipe.data.folder)) / "aa.jsonl"):
        with file.open("a", encoding="utf-8") as more:
            more.write('{"split": "train", "text": "habari", "label": "alarm"}\n')
        seen += [base_of(recipe, tmp_path), base_of(recipe, tmp_path)]
    assert seen[1:] == [seen[1], seen[1], seen[3], seen[3]]
    assert len(set(seen)) == 3


def test_a_run_that_another_process_makes_is_left_to_it(recipe: Recipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with alone_in(out), pytest.raises(HeadstartError, match="another process makes this run"):
        run(apply(recipe, {"train.max_steps": 0}), out)
    assert not (out / "recipe.yaml").exists()
    run(apply(recipe, {"train.max_steps": 0}), out)  # let go again


def test_a_commit_is_that_of_its_own_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    file = tmp_path / "machine.py"
    for name in ("other.py", "machine.py"):
        (tmp_path / name).write_text("", encoding="utf-8")
    git("add", "other.py")
    git("commit", "-m", "theirs")
    monkeypatch.setattr(machine, "__file__", str(file))
    assert machine.commit() is None
    git("add", "machine.py")
    assert machine.commit() is not None
