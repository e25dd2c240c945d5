"""The command line: each verb does its work, and faults are told without a traceback."""

from __future__ import annotations

import errno
import importlib
import json
import subprocess
import sys
from pathlib import Path
from shlex import split
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from fake import Arm, write_study
from headstart import show
from headstart.cli import app, command_name, main
from headstart.document import parse
from headstart.errors import HeadstartError, of_the_disk
from headstart.layout import Shape
from headstart.loading import expand, json_schema, load_recipe, shipped, template, to_yaml
from headstart.machine import versions
from headstart.selection import full
from headstart.show import next_steps
from headstart.tables import read_records
from world import world

if TYPE_CHECKING:
    from collections.abc import Callable

    from headstart.recipe import Recipe

Command = "Callable[..., tuple[int, str, str]]"


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command line; give exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["headstart", *map(str, words)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("verb", [["check"], ["plan"], ["run", "out"], ["study", "out"]])
def test_a_fault_of_the_recipe_does_not_wait_for_torch(verb: list[str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("task: classification\ntraim: {}\n", encoding="utf-8")
    words = ["headstart", verb[0], "bad.yaml", *verb[1:]]
    tell = (
        f"import sys; sys.argv = {words}; from headstart.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", tell], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "unknown key 'traim'" in done.stderr
    assert done.stdout.split()[-2:] == ["2", "False"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A tiny recipe, and the file that it is in."""
    folder = tmp_path_factory.mktemp("world")
    arms = {"copied": {}, "scratch": {"init.source": "scratch"}}
    recipe = world(folder, arms=arms, baseline="scratch")
    file = folder / "tiny.yaml"
    file.write_text(to_yaml(recipe), encoding="utf-8")
    return recipe, file


VERBS = (
    "run", "study", "report", "compare", "check", "plan", "init", "refit", "finetune", "distil",
    "eval", "bench", "recipes",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(verb: str, command: Command) -> None:
    code, out, _ = command(verb, "--help")
    assert code == 0
    assert "Usage: headstart" in out
    assert verb in command("--help")[1]


def test_the_verbs_are_all_there_are() -> None:
    named = {info.name or info.callback.__name__ for info in app.registered_commands}
    assert named | {"recipes"} == set(VERBS)


def test_the_version_is_told(command: Command) -> None:
    code, out, _ = command("--version")
    assert code == 0
    assert out.strip() == versions().get("headstart", "not installed")


def test_recipes_are_listed_shown_and_described(command: Command) -> None:
    listed = command("recipes")[1]
    assert listed == command("recipes", "list")[1]
    assert [line.split()[0] for line in listed.splitlines()] == list(shipped())
    _, shown, _ = command("recipes", "show", "quickstart", "--set", "train.epochs=9")
    assert load_recipe(parse(shown, where="shown")) == load_recipe("quickstart", ["train.epochs=9"])
    assert json.loads(command("recipes", "--schema")[1]) == json_schema()


def test_a_template_is_a_recipe(command: Command) -> None:
    code, out, _ = command("recipes", "template")
    assert code == 0
    assert load_recipe(parse(out, where="template")).student.layers == 6
    commented = out.replace("  # text:", "  text:").replace("  # columns:", "  columns:")
    more = load_recipe(parse(commented, where="template"))
    assert more.init.refit is not None
    assert more.data.text is not None
    above, _, ways = out.partition("# arms:")
    several = above + "arms:" + ways.replace("\n# ", "\n").replace("\n#", "\n")
    assert len(expand(load_recipe(parse(several, where="template")))) == 18


def test_the_next_command_can_be_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for called, told in (
        (tmp_path / ".venv" / "bin" / "headstart", ".venv/bin/headstart"),
        ("/x/headstart/__main__.py", "python -m headstart"),
    ):
        monkeypatch.setattr(sys, "argv", [str(called)])
        assert command_name() == told
    found = tmp_path / "headstart"
    found.write_text("#!/bin/sh")
    found.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(found)])
    assert command_name() == "headstart"


def test_the_next_steps_fit_what_was_made(tmp_path: Path) -> None:
    grid, one = write_study(tmp_path / "a"), write_study(tmp_path / "b", {"x": Arm(0.9)}, seeds=[1])
    told = next_steps("headstart", ["study", "quickstart"], (), grid, read_records(grid))
    assert [line.split()[:2] for line in told[:2]] == [["another", "shape"], ["your", "teacher,"]]
    records = read_records(grid)
    told = next_steps("headstart", ["study", "r.yaml"], ["seeds=[0, 1]"], grid, records)
    assert [line.split()[0] for line in told] == ["another", "two", "size"]
    assert f"study r.yaml {grid}-3 --set 'seeds=[0, 1]' --set student.layers=3" in told[0]
    assert told[1].endswith(f"compare {grid}:scratch-labels {grid}:teacher-mse")
    told = next_steps("headstart", ["run", "r.yaml", "--seed", "1"], (), one, read_records(one))
    assert [line.split()[0] for line in told] == ["another", "how", "size"]
    assert f"run r.yaml {one}-3 --seed 1 --set student.layers=3" in told[0]
    assert told[-1].endswith(f"bench {one / 'student'}")


def test_the_next_steps_name_another_shape_the_teacher_and_the_best(tmp_path: Path) -> None:
    grid = write_study(tmp_path / "a")
    records = read_records(grid)
    best = max(records, key=lambda r: r.summary["student"]["trained_on"]["accuracy"])
    student = grid / "runs" / best.signature / "student"
    (grid / "teachers" / "key" / "model").mkdir(parents=True)
    first = grid / "runs" / records[0].signature / "student"
    first.mkdir()
    shape = Shape(12, 24, 4, 48)
    chosen = full(shape).to_json()
    (first / "selection.json").write_text(chosen, encoding="utf-8")
    asked = ("student.layers=12", "seeds=[0]")
    told = next_steps("headstart", ["study", "r.yaml"], asked, grid, records)
    assert told[0].endswith(f"study r.yaml {grid}-6 --set 'seeds=[0]' --set student.layers=6")
    made = grid / "teachers" / "key" / "model"
    assert told[-1].endswith(f"bench {made} {student}")
    recipe = student.parent / "recipe.yaml"
    recipe.write_text("teacher: {model: my/teacher}\n", encoding="utf-8")
    told = next_steps("headstart", ["study", "r.yaml"], asked, grid, records)
    assert told[-1].endswith(f"bench my/teacher {student}")


def test_a_study_can_be_listed_before_it_is_made(command: Command, tmp_path: Path) -> None:
    code, out, _ = command("study", "paper-massive", tmp_path / "out", "--dry")
    assert code == 0
    assert len(out.splitlines()) == 18 + 1
    assert out.startswith("scratch-labels|seed=44\n")
    assert "time: not known: " in out  # its text is on the hub
    assert not (tmp_path / "out").exists()


def law_a_fault_is_told(run: Callable[[], tuple[int, str, str]]) -> None:
    code, out, err = run()
    assert (code, out) == (2, "")
    assert "did you mean 'quickstart'" in err
    assert "where: quikstart" in err
    assert "Traceback" not in err


def test_a_fault_is_told_without_a_traceback(command: Command, tmp_path: Path) -> None:
    law_a_fault_is_told(lambda: command("run", "quikstart", tmp_path))


def test_the_law_has_teeth(command: Command) -> None:
    def bare() -> tuple[int, str, str]:
        try:
            load_recipe("quikstart")
        except HeadstartError as error:
            return 1, "", f"Traceback: {error}"
        return 0, "", ""

    with pytest.raises(AssertionError):
        law_a_fault_is_told(bare)
    with pytest.raises(AssertionError):
        law_a_fault_is_told(lambda: command("recipes"))


def test_after_ctrl_c_it_says_how_to_go_on(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("headstart.run"), "run", stopped)
    code, _, err = command("run", "quickstart", tmp_path / "out")
    assert code == 130
    assert "stopped" in err
    assert [show.told_stopped(verb) for verb in ("study", "eval")] == [
        "stopped; the same command goes on from here",
        "stopped; nothing of it is kept",
    ]


def test_a_fault_is_framed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(force_terminal=True, record=True, width=70)
    monkeypatch.setattr(show, "console", lambda **_: screen)
    show.show_fault(HeadstartError("[red]x[/red] is y", where="here", way_out="go"))
    text = screen.export_text()
    assert "fault" in text
    assert "[red]x[/red] is y" in text  # what users write is never markup
    assert "way out: go" in text


def test_options_of_a_step_are_checked_like_a_recipe(command: Command, tmp_path: Path) -> None:
    code, _, err = command("eval", "model", "--languages", "de,de", "--task", "taging")
    assert code == 2
    for words in ("'taging' should be", "named twice: de", "needs the folder"):
        assert words in err
    code, _, err = command(
        "finetune", "model", tmp_path / "o", "--languages", "de", "--folder", tmp_path
    )
    assert code == 2
    assert "give --task classification or --task tagging" in err
    code, _, err = command("init", "teacher", tmp_path / "out", "--set", "init.layers=evn")
    assert code == 2
    assert "did you mean 'even'" in err


def test_steps_lead_from_a_base_to_a_judged_student(
    command: Command, tiny: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, _ = tiny
    told = ("--folder", recipe.data.folder, "--languages", "aa,bb")  # a teacher tells its task
    data = (*told, "--task", recipe.task)
    quick = ("--set", "train.epochs=1", "--set", "train.learning_rate=1e-3")
    teacher, student, distilled = (tmp_path / name for name in ("teacher", "student", "distilled"))
    assert command("finetune", recipe.teacher.base, teacher, *data, *quick)[0] == 0
    code, out, _ = command("init", teacher, student, "--layers", 2, "--set", "init.layers=first")
    assert code == 0
    assert "parameters" in out
    selection = json.loads((student / "selection.json").read_text(encoding="utf-8"))
    assert selection["layers"] == [0, 1]
    code, out, _ = command("distil", student, teacher, distilled, *told, *quick)
    assert code == 0
    assert "best score on dev" in out
    scores = tmp_path / "scores.json"
    code, out, _ = command("eval", distilled, *data, "--zero-shot", "cc", "--out", scores)
    assert code == 0
    assert list(json.loads(scores.read_text(encoding="utf-8"))) == ["aa", "bb", "cc"]
    assert [line.split()[0] for line in out.splitlines()[:4]] == ["language", "aa", "bb", "cc"]
    assert out.splitlines()[3].startswith("cc (zero-shot)")
    assert [line.split("  ")[0] for line in out.splitlines()[4:]] == [
        "mean, trained on",
        "mean, zero-shot",
    ]


def test_a_recipe_is_checked_planned_run_and_reported(
    command: Command, tiny: tuple[Recipe, Path], tmp_path: Path
) -> None:
    _, file = tiny
    code, out, _ = command("check", file)
    assert code == 0
    assert out.startswith("no fault: 2 runs")
    code, out, _ = command("plan", file)
    assert code == 0
    assert out.splitlines()[-1].startswith("time: about ")
    assert [line.split()[:2] for line in out.splitlines()[1:-2]] == [
        ["teacher", "4"],
        ["student", "2"],
    ]
    code, out, _ = command("plan", file, "--set", "data.folder=nowhere")
    assert code == 0
    assert "time: not known" in out
    code, out, _ = command("plan", file, "--measure")
    assert code == 0
    assert out.splitlines()[0].split()[-1] == "measured"
    assert out.splitlines()[1].split()[-2:] == ["1.0", "x"]
    quick = ("--set", "train.epochs=1", "--set", "teacher.finetune.epochs=1")
    code, out, _ = command("study", file, tmp_path / "study", *quick)
    assert code == 0
    assert out.splitlines()[0] == "accuracy on test, percent"
    assert out.splitlines()[1].split() == [
        "language",
        "teacher",
        "(reference)",
        "copied",
        "scratch",
    ]
    assert "mean, zero-shot" in out
    code, out, _ = command("report", tmp_path / "study")
    assert code == 0
    assert Path(out.strip()).is_file()
    code, _, fault = command("run", file, tmp_path / "run", *quick)
    assert code == 2
    assert "the recipe asks for 2 runs" in fault
    alone = ("--set", "arms={}", "--set", "baseline=null")
    code, out, _ = command("run", file, tmp_path / "run", *quick, *alone, "--seed", 3)
    assert code == 0
    assert "report.html" in out
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["seed"] == 3


def test_init_refuses_to_refit(command: Command, tmp_path: Path) -> None:
    code, _, err = command("init", tmp_path, tmp_path / "out", "--set", "init.refit.tokens=5")
    assert code == 2
    assert "run headstart refit" in err


def test_commands_with_blanks_in_their_names_can_be_copied(tmp_path: Path) -> None:
    grid = write_study(tmp_path / "my out", {"x": Arm(0.9)}, seeds=[1])
    told = next_steps("headstart", ["run", "my r.yaml"], (), grid, read_records(grid))
    assert f"run 'my r.yaml' '{grid}-3' --set" in told[0]
    assert all(len(split(line)) == len(split(line.replace("my ", "my"))) for line in told)


def test_scores_are_not_written_over_a_folder(command: Command, tmp_path: Path) -> None:
    asked = ("--languages", "aa", "--task", "tagging", "--out", tmp_path)
    code, out, err = command("eval", "no-model", *asked)
    assert (code, out) == (2, "")
    assert "it is a folder" in err


def test_a_fault_of_the_disk_is_told(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "r.yaml").write_text(template(), encoding="utf-8")
    code, _, err = command("run", tmp_path / "r.yaml", tmp_path / "file" / "out")
    assert code == 2
    assert "the system says: Not a directory" in err
    assert "make room" not in err
    full = of_the_disk(OSError(errno.ENOSPC, "No space left on device", "x"))
    assert full is not None
    assert "make room" in full.way_out
    assert of_the_disk(OSError(errno.ENOENT, "no such file", "x")) is None  # may be our own


def test_what_takes_seconds_is_said_on_a_terminal(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grid = str(write_study(tmp_path / "a"))
    assert "writing the page" not in command("report", grid)[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "writing the page …\r" in command("report", grid)[2]


def test_what_was_found_is_looked_into_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grid, asked = write_study(tmp_path / "a"), []
    for room in ("headstart.insight", "headstart.report"):
        at = sys.modules[room]
        look = at.look_into  # type: ignore[attr-defined]
        monkeypatch.setattr(at, "look_into", lambda out, look=look: asked.append(out) or look(out))
    lines = show.told_end("headstart", ["study", "r.yaml"], (), grid, read_records(grid))
    assert asked == [grid]
    assert lines[0] == ""
    assert "Next:" in lines


@pytest.mark.parametrize(
    ("verb", "key", "read"),
    [
        (("init", "no-model", "out"), "train.epochs=3", "init and student"),
        (("distil", "a", "b", "out", "--languages", "aa"), "student.layers=1", "data and train"),
        (("finetune", "a", "out", "--languages", "aa"), "init.source=scratch", "data and train"),
        (("eval", "a", "--languages", "aa"), "train.epochs=1", "settings of data;"),
    ],
)
def test_a_step_refuses_settings_that_it_does_not_read(
    command: Command, verb: tuple[str, ...], key: str, read: str
) -> None:
    task = () if verb[0] == "init" else ("--task", "tagging")
    code, _, err = command(*verb, *task, "--set", key)
    assert code == 2
    assert f"this step does not read {key.partition('=')[0]}" in err
    assert read in " ".join(err.split())
