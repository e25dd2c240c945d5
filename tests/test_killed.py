"""A study that is killed again and again ends with the records of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from headstart.loading import to_yaml
from headstart.study import study
from test_cluster import law_same_records
from world import world

ARMS = {
    "copied": {"init.source": "teacher"},
    "refitted": {"init.refit": {"tokens": 400}},
    "fresh": {"init.source": "scratch", "train.learning_rate": "auto"},
}
KILLS = 10


@pytest.mark.slow
def test_a_study_killed_at_ten_moments_gives_the_same_records(tmp_path: Path) -> None:
    recipe = world(tmp_path / "world", arms=ARMS, seeds=[0, 1])
    began = time.monotonic()
    expected = study(recipe, tmp_path / "undisturbed")
    whole = time.monotonic() - began
    (tmp_path / "r.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "headstart", "study", "r.yaml", "out"]
    rng, killed = np.random.default_rng(0), 0
    while killed < KILLS:
        made = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=-3)
        try:  # loading takes seconds, too: moments in all of a run's stages are wanted
            made.wait(timeout=4 + rng.random() * whole / 3)
        except subprocess.TimeoutExpired:
            os.kill(made.pid, signal.SIGKILL)
            made.wait()
            killed += 1
        else:  # the study was done: begin another in the same folder, from the next moment on
            for record in (tmp_path / "out" / "runs").glob("*/record.json"):
                record.unlink()
            shutil.rmtree(tmp_path / "out" / "teachers")
            shutil.rmtree(tmp_path / "out" / "passes")
    found = study(recipe, tmp_path / "out")
    assert killed == KILLS
    assert len(found) == len(ARMS) * 2
    law_same_records(found, expected)
    for record in expected:
        answers = Path("runs", record.signature, "predictions", "test.parquet")
        tables = [pq.read_table(tmp_path / name / answers) for name in ("out", "undisturbed")]
        assert tables[0].equals(tables[1])
