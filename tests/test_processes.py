"""Two processes under torchrun give the result of one, within a stated tolerance.

In single precision and without dropout (its random numbers differ), weights agree to 1e-4 of their
size after the whole training: gradients are added up in another order, nothing else differs.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from headstart.checkpoint import save_model
from headstart.errors import HeadstartError
from headstart.loading import to_yaml
from headstart.study import study
from tiny import tiny_model, tiny_tokenizer
from world import LABELS, world

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from headstart.recipe import Recipe

TOLERANCE = 1e-4


def start(recipe: Path, out: Path, *, processes: int) -> dict[str, torch.Tensor]:
    """Run the command line, and give the student's weights."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, f"--nproc-per-node={processes}", "-m", "headstart"]
    if processes == 1:
        command = [sys.executable, "-m", "headstart"]
    done = subprocess.run(
        [*command, "run", str(recipe), str(out)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(out / "student" / "model.safetensors")


OBJECTIVES: Mapping[str, dict[str, object]] = {
    "answers": {"labels": 0.5, "kl": {"weight": 0.5, "temperature": 2.0}},
    "features": {"labels": 0.5, "hidden": 0.5, "relation": 0.1},
}
STILL = {
    "precision": "fp32",
    "dropout": 0.0,
    "batch_tokens": 128,
    "learning_rate": 1e-3,
    "epochs": 2,
}


def compare_processes(recipe: Recipe, folder: Path) -> None:
    """Hold two processes' student against one's."""
    file = folder / "recipe.yaml"
    file.write_text(to_yaml(recipe), encoding="utf-8")
    one = start(file, folder / "one", processes=1)
    two = start(file, folder / "two", processes=2)
    for name, weight in one.items():
        if not name.endswith("key.bias"):  # no loss depends on it, so that Adam moves it by noise
            torch.testing.assert_close(two[name], weight, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "task"),
    [*((objective, "classification") for objective in OBJECTIVES), ("features", "tagging")],
)
def test_two_processes_give_the_result_of_one(tmp_path: Path, objective: str, task: str) -> None:
    base = str(tmp_path / "world" / "base")
    made = world(
        tmp_path / "world",
        task=task,
        train=STILL | {"objective": OBJECTIVES[objective]},
        teacher={"base": base, "finetune": STILL},
    )
    compare_processes(made, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("directions", "merge"), [("kept", False), ("principal", True)])
def test_two_processes_refit_and_measure_as_one_does(
    directions: str, merge: bool, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    save_model(tiny_model("bert", labels=LABELS), tiny_tokenizer(), teacher)
    made = world(
        tmp_path / "world",
        teacher={"model": str(teacher)},
        student={"layers": 2, "hidden": 16},
        init={
            "refit": {"tokens": 400, "directions": directions},
            "ffn": "taylor",
            "heads": "activation",
            "merge": merge,
        },
        train=STILL | {"max_steps": 0},
    )
    compare_processes(made, tmp_path)


def test_a_study_is_not_started_under_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes would take different runs, and average the gradients of both."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(HeadstartError, match="started under torchrun"):
        study(world(tmp_path / "world", seeds=[0, 1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_processes_that_share_a_folder_make_each_thing_once(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    made = world(tmp_path / "world", seeds=[0, 1, 2])
    recipe.write_text(to_yaml(made), encoding="utf-8")
    command = [sys.executable, "-m", "headstart", "study", str(recipe), str(tmp_path / "out")]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert "".join(told).count("fine-tuning the teacher") == 1
    assert len(list((tmp_path / "out" / "runs").glob("*/record.json"))) == 3
