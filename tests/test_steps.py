"""Steps find their faults before any work, and leave alone what is there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from headstart import checkup, forecast, prepare, speed, steps
from headstart.checkpoint import save_model
from headstart.checkup import check, told
from headstart.errors import HeadstartError
from headstart.forecast import describe, estimate, how_long
from headstart.loading import apply
from headstart.pieces import load_tokenizer
from headstart.run import run
from headstart.steps import distil, evaluate_model, finetune
from headstart.student import cut_checkpoint, make_student
from headstart.study import plan_runs, to_time
from headstart.tokenized import open_text
from tiny import tiny_model, tiny_tokenizer
from world import LABELS, ROWS, world, write_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from headstart.recipe import Recipe


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe, and a fine-tuned model that fits its text."""
    folder = tmp_path_factory.mktemp("world")
    recipe = world(folder)
    save_model(tiny_model("bert", labels=LABELS), tiny_tokenizer(), folder / "tuned")
    return recipe, folder / "tuned"


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


# --- where the result goes ---


def tune(recipe: Recipe, out: Path, **changed: Any) -> None:
    train = recipe.teacher.finetune.model_copy(update={"max_steps": 1, **changed})
    base = str(recipe.teacher.base)
    finetune(base, out, task=recipe.task, data=recipe.data, train=train)


def distilled(recipe: Recipe, tuned: Path, out: Path, **changed: Any) -> None:
    train = recipe.train.model_copy(update={"max_steps": 1, **changed})
    distil(str(tuned), str(tuned), out, task=recipe.task, data=recipe.data, train=train)


def test_a_taken_folder_is_refused_before_any_work(
    made: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, tuned = made
    base = Path(str(recipe.teacher.base))
    before = {folder: names_in(folder) for folder in (tuned, base)}
    for name in ("open_accelerator", "open_text", "learn"):
        monkeypatch.delattr(steps, name)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for out, what in (
        (base, "would take the place"),
        (base / ".." / "base", "would take the place"),
        (tuned, "holds something"),  # an older model, too
        (tmp_path / "file", "is a file"),
        (tmp_path / "full", "holds something"),
    ):
        with pytest.raises(HeadstartError, match=what):
            tune(recipe, out)
    with pytest.raises(HeadstartError, match=r"would take the place(.|\n)*empty folder"):
        distilled(recipe, tuned, tuned)
    assert {folder: names_in(folder) for folder in (tuned, base)} == before
    assert names_in(tmp_path) == {"file", "full"}


def test_an_empty_folder_is_taken_and_a_tracker_writes_beside_it(
    made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    recipe, tuned = made
    (tmp_path / "empty").mkdir()
    tune(recipe, tmp_path / "empty", tracker="tensorboard")
    distilled(recipe, tuned, tmp_path / "new", tracker="tensorboard")
    folders = {"empty", "new"}
    assert names_in(tmp_path) == folders | {f"{name}-tracker" for name in folders}
    for name in folders:
        assert {"config.json", "model.safetensors"} < names_in(tmp_path / name)
        assert [f for f in (tmp_path / f"{name}-tracker").rglob("*tfevents*") if f.stat().st_size]


# --- inputs that are longer than the model's positions ---


def short(folder: Path) -> Path:
    """Write a model of 8 positions."""
    model = tiny_model("bert", labels=LABELS, max_position_embeddings=8)
    save_model(model, tiny_tokenizer(), folder)
    return folder


def test_where_no_step_is_taken_a_teacher_is_not_asked(
    made: tuple[Recipe, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("answers to train rows")

    monkeypatch.setattr(steps, "predict", asked)
    with pytest.raises(AssertionError, match="train rows"):
        distilled(made[0], made[1], tmp_path / "one")
    distilled(made[0], made[1], tmp_path / "none", max_steps=0)
    assert (tmp_path / "none" / "config.json").exists()


def test_inputs_beyond_the_positions_are_refused(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, tuned = made
    few, task, data = short(tmp_path / "few"), recipe.task, recipe.data
    based = apply(recipe, {"teacher.base": str(few)})
    for attempt in (
        lambda: tune(based, tmp_path / "out"),
        lambda: distilled(recipe, few, tmp_path / "out"),
        lambda: distil(
            str(tuned), str(few), tmp_path / "out", task=task, data=data, train=recipe.train
        ),
        lambda: evaluate_model(str(few), task=task, data=data),
        lambda: check(based),
        lambda: check(apply(recipe, {"teacher.model": str(few)})),
    ):
        with pytest.raises(HeadstartError, match="the bert has 8 positions") as fault:
            attempt()
        assert fault.value.where == "recipe key data.max_length"
    cut = data.model_copy(update={"max_length": 8})
    scores = evaluate_model(str(few), task=task, data=cut)
    assert set(scores) == {"aa", "bb", "cc"}
    assert evaluate_model(str(few), task=task, data=cut.model_dump(mode="json")) == scores
    with pytest.raises(HeadstartError, match="did you mean 'languages'"):
        evaluate_model(str(few), task=task, data={"corpus": "local", "langages": ["aa"]})


def test_a_model_that_knows_its_labels_is_scored_on_test_rows_alone(
    made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, tuned = made
    scores = evaluate_model(str(tuned), task=recipe.task, data=recipe.data)
    folder = tmp_path / "texts"
    shutil.copytree(Path(str(recipe.data.folder)), folder)
    for path in folder.glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(line for line in lines if '"test"' in line), encoding="utf-8")
    alone = recipe.data.model_copy(update={"folder": folder})
    assert evaluate_model(str(tuned), task=recipe.task, data=alone) == scores
    unnamed = tmp_path / "unnamed"
    labels = [f"LABEL_{i}" for i in range(len(LABELS))]
    save_model(tiny_model("bert", labels=labels), tiny_tokenizer(), unnamed)
    with pytest.raises(HeadstartError, match="no train rows"):
        evaluate_model(str(unnamed), task=recipe.task, data=alone)


# --- check finds every fault ---


def test_a_sound_recipe_is_checked_fast(made: tuple[Recipe, Path]) -> None:
    recipe, tuned = made
    arms = {"copied": {}, "given": {"teacher.model": str(tuned)}, "base": {"init.source": "base"}}
    arms["both"] = {"teacher.model": str(tuned), "init.source": "base"}
    whole = apply(recipe, {"arms": arms, "seeds": [0, 1]})
    check(recipe)  # measures the machine once
    start = time.perf_counter()
    found = check(whole)
    assert time.perf_counter() - start < 2
    assert found.runs == 8
    assert found.rows == {"train": 48, "dev": 24, "test": 36}
    assert [size.layers for size in found.sizes] == [4, 2]


def pickled(folder: Path) -> Path:
    model = tiny_model("bert", "none")
    save_model(model, tiny_tokenizer(), folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def misfit(folder: Path) -> Path:
    save_model(tiny_model("bert", labels=LABELS), tiny_tokenizer(), folder)
    place = folder / "config.json"
    place.write_text(
        place.read_text().replace('"intermediate_size": 64', '"intermediate_size": 48')
    )
    return folder


def bare(folder: Path) -> Path:
    save_model(tiny_model("bert", "none"), None, folder)
    return folder


def relabelled(folder: Path) -> Path:
    save_model(tiny_model("bert", labels=LABELS[::-1]), tiny_tokenizer(), folder)
    return folder


def other_family(folder: Path) -> Path:
    save_model(tiny_model("electra", "none"), tiny_tokenizer(), folder)
    return folder


def headless(folder: Path) -> Path:
    save_model(tiny_model("bert", "none"), tiny_tokenizer(), folder)
    return folder


# A fault: the folder that has it, the settings that lead there, and what is said.
FAULTS: dict[str, tuple[Callable[[Path], Path], dict[str, str], str]] = {
    "pickle": (pickled, {"teacher.base": "{}"}, "no model.safetensors, only pytorch_model.bin"),
    "pickled teacher": (pickled, {"teacher.model": "{}"}, "no model.safetensors"),
    "misfit base": (misfit, {"teacher.base": "{}"}, "do not fit the config"),
    "misfit": (misfit, {"teacher.model": "{}"}, "do not fit the config"),
    "no tokenizer": (bare, {"teacher.base": "{}"}, "has no tokenizer"),
    "labels": (relabelled, {"teacher.model": "{}"}, "same labels, other order"),
    "head": (headless, {"teacher.model": "{}"}, "the model's head is 'none'"),
    "base of source base": (
        other_family,
        {"teacher.model": "TUNED", "teacher.base": "{}", "init.source": "base"},
        "the base is of type electra",
    ),
    "pickled base of source base": (
        pickled,
        {"teacher.model": "TUNED", "teacher.base": "{}", "init.source": "base"},
        "no model.safetensors",
    ),
    "too deep": (headless, {"teacher.base": "{}", "student.layers": "9"}, "layers"),
}


def changes(fault: str, made: tuple[Recipe, Path], folder: Path) -> dict[str, object]:
    write, settings, _ = FAULTS[fault]
    place = str(write(folder / fault.replace(" ", "-")))
    filled = {k: v.format(place).replace("TUNED", str(made[1])) for k, v in settings.items()}
    return {k: int(v) if v.isdigit() else v for k, v in filled.items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_late_arm_is_found(
    fault: str, made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    arms = {"sound": {}, "other": changes(fault, made, tmp_path)}
    with pytest.raises(HeadstartError, match=FAULTS[fault][2]):
        check(apply(made[0], {"arms": arms}))


def test_all_faults_are_told_at_once(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    arms = {f"arm{i}": changes(fault, made, tmp_path) for i, fault in enumerate(FAULTS)}
    arms["data"] = {"data.folder": str(tmp_path / "qq")}
    with pytest.raises(HeadstartError) as told:
        check(apply(made[0], {"arms": arms}))
    for words in ("there is no folder", *(what for _, _, what in FAULTS.values())):
        assert words in str(told.value)


def test_all_faults_of_one_arm_are_told_at_once(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Text, model, shape and tracker do not hide one another, nor one language another's text."""
    texts = write_texts(tmp_path / "texts", languages=("aa", "bb", "dd"))
    row = '{"split": "train", "text": " ", "label": "alarm"}\n'
    (texts / "aa.jsonl").write_text(row + (texts / "aa.jsonl").read_text())
    (texts / "bb.jsonl").write_text((texts / "bb.jsonl").read_text().replace("music", "musik", 1))
    kept = [line for line in (texts / "dd.jsonl").read_text().splitlines() if '"dev"' not in line]
    (texts / "dd.jsonl").write_text("\n".join(kept) + "\n")
    faulty = {
        "data.folder": str(texts),
        "data.languages": ["aa", "bb", "dd", "ee"],
        "data.zero_shot": ["ff"],
        "data.labels": [*reversed(LABELS)],
        "teacher.model": str(made[1]),
        "student": {"layers": 9, "hidden": 99, "ffn": 999},
        "train.tracker": "tensorbord",
    }
    with pytest.raises(HeadstartError) as told:
        check(apply(made[0], faulty))
    for words in (
        "10 faults", "aa.jsonl, row 1", "unknown label 'musik'", "'dd' has no dev rows",
        "no language 'ee'", "no language 'ff'", "other order", "layers = 9", "hidden = 99",
        "ffn = 999", "'tensorbord'",
    ):  # fmt: skip
        assert words in str(told.value)
    (texts / "bb.jsonl").write_text((texts / "bb.jsonl").read_text() + "{\n")
    with pytest.raises(HeadstartError, match=r"bb\.jsonl, line 49[\s\S]*aa\.jsonl, row 1"):
        check(apply(made[0], faulty))


def test_a_grid_point_without_files_is_found(made: tuple[Recipe, Path]) -> None:
    (made[1].parent / "empty").mkdir(exist_ok=True)
    grid = {"data.folder": [str(made[0].data.folder), str(made[1].parent / "empty")]}
    with pytest.raises(HeadstartError, match="no language 'aa'"):
        check(apply(made[0], {"grid": grid}))


def at_rate(monkeypatch: pytest.MonkeyPatch, fp32: float, *, bf16: float = 1e9) -> None:
    """Let the machine do so many operations a second, whatever they are."""

    def layer(hidden: int, _: int, ffn: int, precision: str, learns: bool) -> float:
        work = 4 * hidden**2 + 2 * hidden * ffn + 1_000 * hidden
        return (6 if learns else 2) * work / {"fp32": fp32, "bf16": bf16}[precision]

    monkeypatch.setattr(speed, "matrix_rate", lambda: fp32)
    monkeypatch.setattr(speed, "layer_seconds", layer)


def test_timing_a_layer_leaves_the_program_as_it_was() -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    for precision in ("fp32", "bf16"):
        for learns in (True, False):
            assert speed.layer_seconds.__wrapped__(24, 5, 48, precision, learns) > 0
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()


def _learned(stepping: Callable[[list[Any], float], Callable[[], None]]) -> torch.Tensor:
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 3)
    step, rows = stepping([*layer.parameters()], 0.1), torch.randn(7, 5)
    for _ in range(4):
        (layer(rows) * 9).square().mean().backward()
        step()
    return torch.cat([one.detach().flatten() for one in layer.parameters()])


def _adamw(parameters: list[Any], rate: float) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(parameters, lr=rate, fused=True)

    def step() -> None:
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def test_the_step_that_is_timed_is_the_optimizers() -> None:
    assert torch.equal(_learned(speed._stepping), _learned(_adamw))
    assert not torch.equal(_learned(speed._stepping), _learned(lambda p, r: _adamw(p, 2 * r)))


def test_timing_does_without_pytorchs_compiler() -> None:
    time_it = "import sys; from headstart.speed import layer_seconds as time; "
    time_it += "time(24, 4, 48, 'bf16', True); print({'torch._dynamo', 'sympy'} & {*sys.modules})"
    command = [sys.executable, "-c", time_it]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


@pytest.mark.parametrize(("slower", "told"), [(0.6, 0.6), (9.0, 1.0)])
def test_threads_that_wait_for_each_other_are_not_believed(
    monkeypatch: pytest.MonkeyPatch, slower: float, told: float
) -> None:
    now = [0.0]
    threads = [2]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(speed.torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(speed.torch, "set_num_threads", lambda count: threads.__setitem__(0, count))

    def work() -> None:
        now[0] += 1.0 if threads[0] == 1 else slower

    assert speed._best(work, 0.1) == pytest.approx(told)
    assert threads == [2]


def test_a_start_that_arms_share_is_counted_once(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the refit takes under a second here, so that the sentence gives the refits' time."""
    at_rate(monkeypatch, 1e9)
    recipe = apply(
        made[0],
        {"init.refit": {"tokens": 10**8}, "teacher.model": str(made[1]), "data.text": str(made[1])},
    )
    text = open_text(recipe.data, recipe.task, tiny_tokenizer())

    def told(*runs: Recipe) -> str:
        whole = describe(estimate(runs, str(made[1]), text))
        (said,) = re.findall(r"refit ([\d.]+ \w+)", whole)
        return said

    def measuring(*runs: Recipe) -> list[float]:
        return [round(one["measuring"], 6) for one in estimate(runs, str(made[1]), text)]

    shapes = [apply(recipe, {"student.layers": count, "init.ffn": "taylor"}) for count in (1, 2)]
    ((first,), both) = measuring(shapes[0]), measuring(*shapes)
    assert both == [first, 0.0]
    assert first > 0

    more = [apply(recipe, {"train.max_steps": 0, "seed": seed}) for seed in (0, 1)]
    assert told(recipe) == told(recipe, recipe, more[0]) != told(recipe, more[1])
    fewer = apply(recipe, {"data.examples_per_language": 2})  # read by the refit, too
    assert told(recipe, more[1]) == told(recipe, fewer)


@pytest.mark.parametrize(
    ("start", "given", "share"),
    [
        ("teacher", {}, 3.5 * 0.1),
        ("refitted", {}, 4.5 * 0.1),
        ("scratch", {}, 3 * (0.1 + 0.2 + 0.4)),  # of labels and answers
        ("scratch", {"train.objective": {"labels": 1.0}}, 3 * (0.1 + 0.2)),
        ("scratch", {"train.objective": {"mse": 1.0}}, 3 * (0.1 + 0.2)),
        ("scratch", {"train.objective": {"labels": 0.0, "mse": 1.0}}, 3 * (0.1 + 0.2)),
        ("scratch", {"train.trial_fraction": 0.6}, 3 * (0.6 + 1.0)),  # none is longer
        ("scratch", {"train.trial_fraction": 1.0}, 3.0),  # and none comes after it
        ("base", {"train.learning_rates": [1e-3]}, 0.1 + 0.2 + 0.4),
        ("scratch", {"train.learning_rate": 1e-3}, 0.0),
    ],
)
def test_trials_of_fresh_weights_are_counted_as_they_are_repeated(
    made: tuple[Recipe, Path], start: str, given: dict[str, object], share: float
) -> None:
    auto = {"train.learning_rate": "auto", "train.trial_fraction": 0.1}
    recipe = apply(made[0], {**auto, **given})
    without = apply(recipe, {"train.learning_rate": 1e-3, "train.learning_rates": None})
    whole, alone = (forecast._passes(one.train, 1000, start) for one in (recipe, without))
    assert whole / alone == pytest.approx(1 + share)


def test_text_is_tokenized_once_for_each_tokenizer(made: tuple[Recipe, Path]) -> None:
    data, task = made[0].data, made[0].task
    first = open_text(data, task, tiny_tokenizer())
    used = tiny_tokenizer()
    used("a b", truncation=True, max_length=3)  # a call's own settings are no other way to split
    for same in (tiny_tokenizer(), used):
        assert open_text(data, task, same) is first
    assert open_text(data.model_copy(update={"max_length": 4}), task, tiny_tokenizer()) is not first
    other, left = tiny_tokenizer(), tiny_tokenizer()
    other.add_tokens(["zzz"])
    left.truncation_side = "left"
    for tokenizer in (other, left):
        again = open_text(data, task, tokenizer)
        assert again is not first
        assert again.corpus is first.corpus


def test_an_estimate_says_that_it_counts_on_the_processor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert speed.busy() == ""
    monkeypatch.setattr(speed.torch.accelerator, "is_available", lambda: True)
    assert forecast.describe([{"student": 30.0}]) == (
        "about 30 s on this machine (student 30 s), if its processor did it; the first run shows "
        "how fast its accelerator is"
    )


def test_a_teacher_answers_only_what_is_asked_and_once(made: tuple[Recipe, Path]) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    one = {"teacher.examples_per_language": 9}  # of which all runs' teacher is tuned
    labels, mse = (
        apply(made[0], {"train.objective": {name: 1.0}, **one}) for name in ("labels", "mse")
    )
    fewer = apply(mse, {"data.examples_per_language": 2})  # other rows of train alone

    def passes(*runs: Recipe) -> list[float]:
        return [one["teacher pass"] for one in estimate(runs, str(made[1]), text)]

    judged, whole = (passes(one)[0] for one in (labels, mse))
    train = whole - judged
    assert 0 < train < whole
    assert passes(labels, mse, mse, labels) == pytest.approx([judged, train, 0, 0])
    assert passes(apply(mse, {"train.max_steps": 0})) == pytest.approx([judged])  # learns nothing
    assert passes(mse, fewer) == pytest.approx([whole, train])  # of the same text here
    more = {"data.text": str(made[1]), "data.text_per_language": 3}
    by_seed = [apply(mse, {**more, "seed": seed}) for seed in (0, 1)]
    drawn = passes(by_seed[0])[0] - judged
    assert passes(*by_seed) == pytest.approx([judged + drawn, drawn])
    other = apply(mse, {"teacher.finetune.epochs": 9.0})
    assert passes(mse, other, other) == pytest.approx([whole, whole, 0])
    alone = apply(mse, {"train.languages": list(mse.data.languages[:1])})
    assert passes(mse, alone)[1] > train  # dev is narrowed, too


def test_each_teacher_is_counted_once(made: tuple[Recipe, Path]) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    one = made[0]
    fewer = apply(one, {"data.examples_per_language": 2})
    kept = apply(fewer, {"teacher.examples_per_language": one.data.examples_per_language or 9})

    def tuned(*runs: Recipe, there: Collection[str] = ()) -> list[bool]:
        each = estimate(runs, str(made[1]), text, there=there)
        return [stages["teacher"] > 0 for stages in each]

    assert tuned(one, one, fewer, fewer) == [True, False, True, False]
    assert tuned(kept, apply(kept, {"seed": 5})) == [True, False]
    assert tuned(one, fewer, there=["teacher"]) == [False, False]
    assert tuned(apply(one, {"teacher.model": str(made[1])})) == [False]


def test_check_and_study_tell_one_time(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    more = {"train.learning_rate": "auto", "train.epochs": 300, "seeds": [0, 1, 2]}
    recipe = apply(made[0], {**more, "grid": {"data.examples_per_language": [2, 3]}})
    told = how_long(to_time(plan_runs(recipe, tmp_path / "out")), tmp_path / "out")
    assert check(recipe).time.partition(";")[0] == describe(told).partition(";")[0]


def test_no_more_text_is_counted_than_there_is(made: tuple[Recipe, Path]) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    most = int(text.splits["train"].lengths.sum())
    told = [
        estimate([apply(made[0], {"init.refit": {"tokens": n}})], str(made[1]), text)[0]["refit"]
        for n in (most // 2, most, 9 * most)
    ]
    assert told[0] < 0.6 * told[1]
    assert told[1] == pytest.approx(told[2])


def test_a_small_folder_of_text_is_not_counted_for_more_than_it_is(
    made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    train = int(text.splits["train"].lengths.sum())

    def told(**changed: object) -> float:
        recipe = apply(made[0], {"init.refit": {"tokens": 10**9}, **changed})
        return estimate([recipe], str(made[1]), text)[0]["refit"]

    bare = told()
    assert told(**{"data.text": str(tmp_path)}) == pytest.approx(bare)  # nothing is there
    (tmp_path / "aa.txt").write_text("x" * 3000, encoding="utf-8")
    (tmp_path / "zz.txt").write_text("x" * 9000, encoding="utf-8")  # of no language named
    assert told(**{"data.text": str(tmp_path)}) == pytest.approx(bare * (train + 1500) / train)
    own = {"init.refit.text": str(tmp_path), "data.text": str(tmp_path)}
    assert told(**own) == pytest.approx(bare * 1500 / train)  # no training row


def test_text_of_other_languages_is_not_counted(made: tuple[Recipe, Path]) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    train, names = text.splits["train"], made[0].data.languages

    def told(changed: dict[str, Any]) -> float:
        recipe = apply(made[0], {"init.refit": {"tokens": 10**8}, **changed})
        return estimate([recipe], str(made[1]), text)[0]["refit"]

    pieces = [int(train.lengths[train.language_ids == i].sum()) for i in range(len(names))]
    for name, count in zip(names, pieces, strict=True):
        share = told({"init.refit.languages": [name]}) / told({})
        assert share == pytest.approx(count / sum(pieces))


def test_check_tells_how_much_text_there_is_and_what_lacks_it(
    made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    (tmp_path / "aa.txt").write_text("wake me\n" * 400, encoding="utf-8")
    asked = {"init.refit": {"tokens": 600}, "teacher.model": str(made[1])}
    seeds = {"seeds": [0, 1], "data.zero_shot": ["cc"], "data.languages": ["aa", "bb"],
             "data.max_length": 40}  # fmt: skip
    (line, second) = check(apply(made[0], {**asked, **seeds, "data.text": str(tmp_path)})).looked
    assert second.startswith("text for init.measure_tokens: ")
    found = re.fullmatch(
        r"text for init\.refit: (\d+) of 600 tokens(, since some languages have less)?.*; "
        r"none in cc: put a file of it into data\.text", line,
    )  # fmt: skip
    assert found is not None
    assert (found[2] is not None) == (int(found[1]) < 540)
    (line, _) = check(apply(made[0], {**asked, "init.refit.tokens": 10**6})).looked
    assert ", since some languages have less than their share" in line
    assert check(made[0]).looked == ()


def test_train_rows_that_are_in_test_have_a_way_out(made: tuple[Recipe, Path]) -> None:
    found = replace(check(made[0]), leaks=3)
    assert "train too: 3 (data.drop_leaks=true leaves them out of train)" in told(found, made[0])[2]
    dropping = apply(made[0], {"data.drop_leaks": True})
    assert told(found, dropping)[2].endswith("train too: 3, left out of train")
    assert told(replace(found, leaks=0), made[0])[2].endswith("train too: 0")


def test_runs_that_read_the_same_texts_are_checked_once(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Recipe] = []
    monkeypatch.setattr(checkup, "check_texts", lambda one, _: looked.append(one) or [])
    grid = {"train.max_steps": [1, 2, 3], "init.refit.tokens": [200, 300]}
    check(apply(made[0], {"seeds": [0, 1], "init.refit": {}, "grid": grid}))
    assert [one.init.refit and one.init.refit.tokens for one in looked] == [200, 300]


def test_check_leaves_nothing_behind(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "tuned")
    before = names_in(tmp_path / "tuned")
    check(apply(made[0], {"teacher.model": str(tmp_path / "tuned")}))
    assert names_in(tmp_path) == {"tuned"}
    assert names_in(tmp_path / "tuned") == before


def test_a_processor_without_bf16_units_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare.torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(prepare.time, "perf_counter", pytest.fail)
    has_fast = prepare.has_fast_bf16.__wrapped__  # past what is remembered
    assert not has_fast("cpu")
    monkeypatch.setattr(prepare.torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    ticks = iter([0, 1] * 3 + [0, 2] * 3)  # bf16, then fp32: so fast by this clock
    monkeypatch.setattr(prepare.time, "perf_counter", ticks.__next__)
    assert has_fast("cpu")


def test_a_long_study_measures_the_machine_once(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    speed._own_precision.cache_clear()
    monkeypatch.setattr(speed, "has_fast_bf16", lambda kind: bool(asked.append(kind)))
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    estimate([apply(made[0], {"seed": seed}) for seed in range(5)], str(made[1]), text)
    speed._own_precision.cache_clear()
    assert asked == ["cpu"]


def test_bf16_makes_training_sooner_and_answering_not(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rate(monkeypatch, 1e9, bf16=3e9)
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    recipe = apply(made[0], {"train.eval_every": 10**6, "init.refit": {"tokens": 100}})
    rival = {"init.source": "base", "init.refit": None, "init.general": {"steps": 1}}
    given = (apply(recipe, {"train.precision": kind}) for kind in ("fp32", "bf16"))
    fp32, bf16 = (estimate([one], str(made[1]), text)[0] for one in given)
    for stage in ("teacher pass", "evaluation"):
        assert bf16[stage] == fp32[stage] > 0
    assert fp32["refit"] / 3 < bf16["refit"] < fp32["refit"]  # its sums are in single precision
    assert fp32["student"] / 3 < bf16["student"] < fp32["student"]  # judged in it, too
    judged = (apply(recipe, {**rival, "train.precision": kind}) for kind in ("fp32", "bf16"))
    fp32, bf16 = (estimate([one], str(made[1]), text)[0] for one in judged)
    assert bf16["general"] > 0.9 * fp32["general"] > 0  # one step, and judging all around it


def test_a_teacher_beside_a_loss_on_states_is_in_single_precision(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_rate(monkeypatch, 1e9, bf16=1e15)  # what is in bf16 costs nothing
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())

    def student(objective: dict[str, float], kind: str) -> float:
        asked = {"train.objective": objective, "train.precision": kind, "train.eval_every": 10**6}
        return estimate([apply(made[0], asked)], str(made[1]), text)[0]["student"]

    mse, relation = {"mse": 1.0}, {"mse": 1.0, "relation": 1.0}
    theirs = student(relation, "bf16") - student(mse, "bf16")
    assert theirs > 0.1 * student(relation, "fp32")


def test_a_teacher_of_fewer_rows_is_tuned_for_less(made: tuple[Recipe, Path]) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    assert made[0].data.examples_per_language is None

    def seconds(count: int | None) -> float:
        (one,) = estimate(
            [apply(made[0], {"teacher.examples_per_language": count})], str(made[1]), text
        )
        return one["teacher"]

    whole, half = seconds(None), seconds(ROWS["train"] // 2)
    assert seconds(10**6) == whole
    assert 0.4 * whole < half < 0.75 * whole


def test_each_teachers_refit_is_counted(made: tuple[Recipe, Path]) -> None:
    text = open_text(made[0].data, made[0].task, tiny_tokenizer())
    one = apply(made[0], {"init.refit": {"tokens": 400}})
    other = apply(one, {"teacher.seed": 5})
    refits = [stages["refit"] for stages in estimate([one, one, other], str(made[1]), text)]
    assert refits[0] == refits[2] > refits[1] == 0


def test_swapped_models_are_refused(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, tuned = made
    small = make_student(str(tuned), shape={"layers": 1}).model
    save_model(small, load_tokenizer(str(tuned)), tmp_path / "small")
    with pytest.raises(HeadstartError, match="student is larger than its teacher"):
        distil(
            str(tuned), str(tmp_path / "small"), tmp_path / "out",
            task=recipe.task, data=recipe.data, train=recipe.train,
        )  # fmt: skip


def shuffled(folder: Path, base: Path) -> Path:
    """Copy a base whose tokenizer has the same pieces under other numbers."""
    shutil.copytree(base, folder)
    file = folder / "tokenizer.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    pieces = tree["model"]["vocab"]
    tree["model"]["vocab"] = [*pieces[:4], *reversed(pieces[4:])]
    file.write_text(json.dumps(tree), encoding="utf-8")
    return folder


def test_a_base_that_numbers_its_pieces_otherwise_is_refused(
    made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, tuned = made
    base = Path(str(recipe.teacher.base))
    other = shuffled(tmp_path / "other", base)
    given = {"teacher.model": str(tuned), "train.max_steps": 0}
    for more in ({"init.source": "base"}, {"init.general": {"steps": 1}}):
        wrong = apply(recipe, {**given, **more, "teacher.base": str(other)})
        for attempt in (lambda one=wrong: check(one), lambda one=wrong: run(one, tmp_path / "out")):
            with pytest.raises(HeadstartError, match="its pieces are not the teacher's"):
                attempt()
        check(apply(wrong, {"teacher.base": str(base)}))
    check(apply(recipe, {**given, "teacher.base": str(other)}))  # whose weights nobody reads
    cut = {"shape": {"layers": 1}, "source": "base"}
    with pytest.raises(HeadstartError, match="its pieces are not the teacher's"):
        cut_checkpoint(str(tuned), tmp_path / "cut", base=str(other), **cut)
    cut_checkpoint(str(tuned), tmp_path / "cut", base=str(base), **cut)


def test_a_folder_of_text_that_is_not_there_is_told_with_the_rest(
    made: tuple[Recipe, Path], tmp_path: Path
) -> None:
    wrong = {"data.text": str(tmp_path / "unlabeled"), "data.zero_shot": ["qq"]}
    with pytest.raises(HeadstartError) as told:
        check(apply(made[0], {**wrong, "init.refit": {"tokens": 9}}))
    assert f"there is no folder {tmp_path / 'unlabeled'}" in str(told.value)
    assert "no language 'qq'" in str(told.value)


def test_a_fault_names_the_first_point_that_has_it(made: tuple[Recipe, Path]) -> None:
    grid = {"student.layers": [1, 9], "train.epochs": [1.0, 2.0]}
    with pytest.raises(HeadstartError) as told:
        check(apply(made[0], {"grid": grid, "seeds": [0, 1]}))
    said = " ".join(str(told.value).split())
    assert said.count("arms or grid, run layers=9|epochs=1.0: recipe key") == 1
    assert "epochs=2.0" not in said
