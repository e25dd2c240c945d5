"""Two processes under torchrun give the result of one, within a stated tolerance.

Without dropout (its random numbers differ between processes), weights agree to 1e-4 of their
size after the whole training: gradients are added up in another order, nothing else differs.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from headstart.errors import HeadstartError
from headstart.loading import to_yaml
from headstart.study import study
from world import world

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    still = {"dropout": 0.0, "batch_tokens": 128, "learning_rate": 1e-3, "epochs": 2}
    base = str(tmp_path / "world" / "base")
    made = world(
        tmp_path / "world",
        train=still | {"objective": {"labels": 0.5, "kl": {"weight": 0.5, "temperature": 2.0}}},
        teacher={"base": base, "finetune": still},
    )
    recipe.write_text(to_yaml(made), encoding="utf-8")
    one = start(recipe, tmp_path / "one", processes=1)
    two = start(recipe, tmp_path / "two", processes=2)
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=TOLERANCE, rtol=TOLERANCE)


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
