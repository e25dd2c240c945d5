"""A study on a real Ray cluster of two workers gives the records that it gives without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headstart.board import Board
from headstart.checking import apply
from headstart.cluster import OnRay, _Driver
from headstart.errors import HeadstartError
from headstart.loading import to_yaml
from headstart.study import study
from headstart.tables import read_records
from world import world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headstart.recipe import Recipe
    from headstart.record import Record

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
ARMS = {
    "copied": {"init.source": "teacher"},
    "fresh": {"init.source": "scratch", "train.learning_rate": "auto"},
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two machines of one processor each, as far as Ray can tell."""
    from ray.cluster_utils import Cluster

    made: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "memory": 4 * 10**9})
    made.add_node(num_cpus=1, memory=4 * 10**9)
    yield made.address
    made.shutdown()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, list[Record]]:
    folder = tmp_path_factory.mktemp("plain")
    recipe = world(folder / "world", arms=ARMS, seeds=[0, 1])
    return recipe, study(recipe, folder / "out")


def without_times(record: Record) -> str:
    """Write a record without its seconds and peak memory, which no two makings have alike."""
    tree = json.loads(record.to_json())
    tree["costs"] = {name: tree["costs"][name] for name in ("tokens", "flops")}
    for point in [*tree["curve"], *(tree["teacher_curve"] or ()), *tree["learning_rate"]["tried"]]:
        point.pop("seconds")
    return json.dumps(tree, sort_keys=True)


def law_same_records(found: list[Record], expected: list[Record]) -> None:
    assert [without_times(r) for r in found] == [without_times(r) for r in expected]
    assert all(record.costs["tokens"] > 0 for record in found)


def test_a_cluster_gives_the_same_records(
    cluster: str,
    plain: tuple[Recipe, list[Record]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Paths are seen from the driver's folder, wherever a worker was started."""
    recipe, expected = plain
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near").symlink_to(str(recipe.data.folder))
    recipe = apply(recipe, {"data.folder": "near"})
    law_same_records(study(recipe, Path("out"), engine=OnRay(cluster)), expected)
    assert len(list((tmp_path / "out" / "teachers").glob("*/made.json"))) == 1


def test_the_law_has_teeth(plain: tuple[Recipe, list[Record]]) -> None:
    expected = plain[1]
    with pytest.raises(AssertionError):
        law_same_records([expected[1], expected[0], *expected[2:]], expected)


def test_a_run_that_no_machine_can_take_is_refused(
    cluster: str, plain: tuple[Recipe, list[Record]], tmp_path: Path
) -> None:
    with pytest.raises(HeadstartError, match="no machine of the cluster has 3 processors"):
        study(plain[0], tmp_path / "out", engine=OnRay(cluster, cpus=3))
    for cpus in (0, -1, float("nan")):
        with pytest.raises(HeadstartError, match="processors for a run"):
            study(plain[0], tmp_path / "out", engine=OnRay(cluster, cpus=cpus))


class FakeRay:
    """Says what a cluster has, and notes what a run asks for."""

    def __init__(self, **has: float) -> None:
        self.has, self.asked = has, dict[str, float]()

    def cluster_resources(self) -> dict[str, float]:
        return self.has

    def remote(self, **asked: float) -> Callable[[object], object]:
        self.asked = asked
        return lambda task: task


@pytest.mark.parametrize(
    ("gpus", "has", "slots", "share"),
    [
        (1, {"CPU": 16, "GPU": 1}, 1, 1),
        (0.1, {"CPU": 16, "GPU": 1}, 10, 0.1),
        (0.3, {"CPU": 16, "GPU": 2}, 6, 0.3),
        (0.1, {"CPU": 4, "GPU": 1}, 4, 0.1),
        (0.4, {"CPU": 16, "GPU": 2}, 4, 0.4),
        (0.1, {"CPU": 16}, 16, 0),
    ],
)
def test_runs_share_an_accelerator_as_they_are_told(
    gpus: float, has: dict[str, float], slots: int, share: float, tmp_path: Path
) -> None:
    ray = FakeRay(**has)
    assert _Driver(ray, 1, gpus, Board({}, {}), tmp_path).slots() == slots
    assert ray.asked["num_gpus"] == share


@pytest.mark.parametrize("gpus", [0, -0.5, 1.5, 2, float("nan")])
def test_a_share_that_is_none_is_refused(gpus: float, tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="of an accelerator for a run"):
        OnRay(None, gpus=gpus)([], Board({}, {}), tmp_path)


def test_a_fault_of_a_run_is_told_and_the_others_are_kept(
    cluster: str, plain: tuple[Recipe, list[Record]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    study(apply(plain[0], {"seeds": [0]}), out)
    (answers,) = [p for p in (out / "passes").glob("*/meta.json") if "24" in p.read_text()][:1]
    answers.write_text("{}")
    with pytest.raises(HeadstartError, match="stale teacher cache"):
        study(plain[0], out, engine=OnRay(cluster))
    assert len(list(out.glob("runs/*/record.json"))) >= 2


def test_no_cluster_is_a_fault(plain: tuple[Recipe, list[Record]], tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="no cluster can be reached"):
        study(plain[0], tmp_path / "out", engine=OnRay("127.0.0.1:9"))


def start(recipe: Path, out: Path, *address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headstart", "study", str(recipe), str(out), "--ray", *address]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def workers() -> list[int]:
    """Find the processes in which Ray makes runs."""
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    lines = found.stdout.splitlines()
    return [int(x.split()[0]) for x in lines if "ray::" in x and "seed=" in x]


def wait_for(what: Any, seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_what_is_killed_is_made_again(
    cluster: str, plain: tuple[Recipe, list[Record]], tmp_path: Path
) -> None:
    """Workers die twice, then the driver; the same command gives the same records."""
    recipe, expected = plain
    (tmp_path / "r.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    out = tmp_path / "out"
    driver = start(tmp_path / "r.yaml", out, cluster)
    for _ in range(2):
        for pid in wait_for(workers):
            os.kill(pid, signal.SIGKILL)
        time.sleep(2)
    wait_for(lambda: list(out.glob("runs/*/record.json")))
    driver.kill()
    driver.wait()
    assert len(list(out.glob("runs/*/record.json"))) < 4
    assert start(tmp_path / "r.yaml", out, cluster).wait() == 0
    law_same_records(study(recipe, out), expected)


@pytest.mark.slow
def test_without_an_address_a_cluster_is_started(
    plain: tuple[Recipe, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.yaml").write_text(to_yaml(plain[0]), encoding="utf-8")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as short:
        monkeypatch.setenv("RAY_TMPDIR", short)  # no other cluster is known there
        driver = start(tmp_path / "r.yaml", tmp_path / "out")
        try:
            assert driver.wait(timeout=300) == 0
        finally:
            driver.kill()
        assert list(Path(short).glob("ray/session_*/logs"))
    law_same_records(read_records(tmp_path / "out"), plain[1])
