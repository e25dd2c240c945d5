"""A study on a Ray cluster: each run is a task, and its record the same as elsewhere.

All machines must see the study's folder at the same place. A worker that dies is replaced, and
its run goes on from the state that it left; a driver that dies is started again with the same
command.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from filelock import FileLock

from headstart.board import shown
from headstart.document import parse
from headstart.errors import HeadstartError
from headstart.loading import load_recipe, to_yaml
from headstart.plan import plan_sizes
from headstart.reader import first_line
from headstart.record import read_record
from headstart.run import run
from headstart.stages import base_of
from headstart.study import came_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.board import Board
    from headstart.study import Planned

REACH = 5.0  # seconds to wait for a cluster; Ray itself tries for minutes
RETRIES = 3  # of a run whose worker died
ROOM = 1_500_000_000  # bytes that a run takes beside its models: libraries, text, activations
ROUNDING = 1e-6  # ten tenths are one
COPIES = 5  # of a student's weights in training: gradients, two moments, the best so far


@dataclass(frozen=True, slots=True)
class OnRay:
    """Makes the runs of a study on a cluster; give it to `study` as its engine.

    Args:
        address: Of a running cluster; None starts one on this machine.
        cpus: Processors of each run, which are its threads.
        gpus: Share of an accelerator that each run gets, where the cluster has any: one run does
            not fill a large one, and 0.1 lets ten share it.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float = 1

    def __call__(self, waiting: Sequence[Planned], board: Board, shared: Path) -> None:
        """Make the runs that are not done.

        Raises:
            HeadstartError: Ray is not installed, or no machine can take a run; else the first
                fault of any run, when all that had begun are done.
        """
        if not self.cpus > 0:
            raise HeadstartError(
                f"{self.cpus:g} processors for a run", where="--cpus", way_out="give 1 or more"
            )
        if not 0 < self.gpus <= 1:
            raise HeadstartError(
                f"{self.gpus:g} of an accelerator for a run",
                where="--gpus",
                way_out="give a share of one, such as 0.1, or 1",
            )
        ray = _connect(self.address)
        try:
            with shown(board):
                _Driver(ray, self.cpus, self.gpus, board, shared).work([*waiting])
        finally:
            ray.shutdown()


class _Driver:
    """Hands runs to the cluster, as many at a time as it has room for."""

    def __init__(
        self,
        ray: Any,  # noqa: ANN401
        cpus: float,
        gpus: float,
        board: Board,
        shared: Path,
    ) -> None:
        self.ray, self.cpus, self.board, self.shared = ray, cpus, board, shared
        self.gpus = gpus if ray.cluster_resources().get("GPU", 0) else 0
        self.task = ray.remote(num_cpus=cpus, num_gpus=self.gpus, max_retries=RETRIES)(_make)

    def work(self, waiting: list[Planned]) -> None:
        fault: HeadstartError | None = None
        tasks: dict[Any, Planned] = {}
        while tasks or (waiting and fault is None):
            ready = [one for one in waiting if one.is_ready]
            while ready and fault is None and len(tasks) < self.slots():
                waiting.remove(one := ready.pop(0))
                try:
                    tasks[self.submit(one)] = one
                except HeadstartError as found:
                    fault = found
            if tasks:
                (done, *_), _ = self.ray.wait([*tasks], num_returns=1)
                fault = self.settle(tasks.pop(done), done) or fault
        if fault is not None:
            raise fault

    def settle(self, one: Planned, done: Any) -> HeadstartError | None:  # noqa: ANN401
        """Tell the board what came out, or give the fault."""
        try:
            seconds = self.ray.get(done)
        except HeadstartError as found:
            return getattr(found, "cause", found)
        except self.ray.exceptions.RayTaskError as found:
            return _broken(one, found.cause)
        except self.ray.exceptions.RayError as found:
            return _lost(one, found)
        record = read_record(one.place / "record.json")
        self.board.finish(one.name, came_out(record), seconds)
        return None

    def slots(self) -> int:
        """Count the runs that the cluster has room for at once, and tell the board."""
        has = self.ray.cluster_resources()
        room = has.get("CPU", 0) // self.cpus
        if self.gpus:
            room = min(room, has.get("GPU", 0) * int(1 / self.gpus + ROUNDING))  # none on two cards
        self.board.workers = max(int(room), 1)
        return self.board.workers

    def submit(self, one: Planned) -> Any:  # noqa: ANN401
        named = one.recipe.teacher.model or str(base_of(one.recipe, self.shared))
        teacher, student = plan_sizes(one.recipe, named)
        memory = teacher.bytes + COPIES * student.bytes + ROOM
        self.check_room(memory)
        self.board.start(one.name)
        return self.task.options(name=one.name, memory=memory).remote(
            to_yaml(one.recipe),
            str(one.place.absolute()),
            one.rate_from and str(one.rate_from.absolute()),
            str(self.shared.absolute()),
            str(Path.cwd()),
        )

    def check_room(self, memory: int) -> None:
        """Refuse a run that would wait for ever."""
        machines = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": memory}
        if not any(all(m.get(k, 0) >= v for k, v in wanted.items()) for m in machines):
            most = max((m.get("memory", 0) for m in machines), default=0)
            raise HeadstartError(
                f"no machine of the cluster has {self.cpus:g} processors, {self.gpus:g} "
                f"accelerators and {memory / 1e9:.1f} GB for a run; the largest memory is "
                f"{most / 1e9:.1f} GB",
                where="headstart study --ray",
                way_out="ask for less with --cpus or --gpus, or add a larger machine",
            )


def _make(recipe: str, place: str, rate_from: str | None, shared: str, here: str) -> float:
    """Make one run in a worker, as seen from the driver's folder; return its seconds."""
    began = time.monotonic()
    os.chdir(here)
    with FileLock(Path(place).with_suffix(".lock")):
        if not (Path(place) / "record.json").exists():
            tree = cast("dict[str, object]", parse(recipe, where=place))
            told = None if rate_from is None else Path(rate_from)
            run(load_recipe(tree), place, shared=Path(shared), rate_from=told)
    return time.monotonic() - began


def _connect(address: str | None) -> Any:  # noqa: ANN401
    """Load Ray, and reach a cluster."""
    if find_spec("ray") is None:
        raise HeadstartError(
            "Ray is not installed",
            where="headstart study --ray",
            way_out="pip install 'headstart[cluster]'",
        )
    host, _, port = (address or "").rpartition(":")
    try:
        if host and port.isdigit() and "://" not in host:
            socket.create_connection((host, int(port)), timeout=REACH).close()
        ray = import_module("ray")
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as fault:
        raise HeadstartError(
            f"no cluster can be reached: {first_line(fault)}",
            where=f"address {address}",
            way_out="start one with `ray start --head`, or leave the address out",
        ) from fault
    return ray


def _broken(one: Planned, cause: Exception) -> HeadstartError:
    return HeadstartError(
        f"run {one.name} ended in {type(cause).__name__}: {cause}",
        where=str(one.place),
        way_out="mend that, then start the study again; what is done is kept",
    )


def _lost(one: Planned, fault: Exception) -> HeadstartError:
    return HeadstartError(
        f"run {one.name} was lost {RETRIES + 1} times: {first_line(fault)}",
        where=str(one.place),
        way_out="look whether its machine has enough memory, then start the study again",
    )
