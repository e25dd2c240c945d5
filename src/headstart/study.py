"""Many runs of one recipe: its arms, grid and seeds, with one teacher for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from headstart.board import DONE, ELSEWHERE, LEFT, Board, shown
from headstart.console import say
from headstart.errors import HeadstartError
from headstart.folders import atomic_write, check_folder, is_partial, make_folder
from headstart.forecast import describe, how_long, rated
from headstart.groundwork import text_fingerprints
from headstart.loading import expand, load_recipe, to_yaml
from headstart.metrics import main_metric
from headstart.record import read_record, read_runs, write_runs
from headstart.run import run, run_signature
from headstart.runfolder import LOCK, SHARED, clear
from headstart.stages import base_of
from headstart.tune import searches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.recipe import Recipe
    from headstart.record import Record


def study(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    engine: Engine | None = None,
) -> list[Record]:
    """Make every run that is not done yet; several processes may share the folder.

    Args:
        recipe: A recipe with arms, grid or seeds; a file, or the name of a shipped one.
        out: The study's folder; runs lie in `runs/<signature>/`.
        overrides: `key.path=value` settings.
        engine: Makes the runs that are not done, and tells the board; None makes one after the
            other here.

    Returns:
        The records of all runs, in the order of the recipe.

    Raises:
        HeadstartError: As `run` does.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise HeadstartError(
            "a study was started under torchrun",
            where="headstart study",
            way_out="start plain processes on the same folder; each takes runs that no other has",
        )
    recipe = load_recipe(recipe, overrides)
    out = Path(out)
    _refuse_taken(out)
    make_folder(out)
    with FileLock(out / LOCK):  # packed bases are written by one process
        for _, one in expand(recipe):
            base_of(one, out)
    planned = plan_runs(recipe, out)
    with FileLock(out / LOCK):
        _refuse_others(out, {one.key for one in planned})
        atomic_write(out / "study.yaml", to_yaml(recipe))
        write_runs(out / "runs.json", [(one.recipe.name, one.key) for one in planned])
    for one in planned:
        if one.is_done:
            clear(one.place)
    # Seed by seed: all ways can be compared early, and few processes wait for another's rate.
    turns = {seed: turn for turn, seed in enumerate(recipe.seeds)}
    waiting = [one for one in planned if not one.is_done]
    waiting.sort(key=lambda one: turns.get(one.recipe.seed, 0))
    if waiting:
        times = how_long(to_time(waiting), out)
        say(f"{len(waiting)} of {len(planned)} runs to make: {describe(times)}")
        spent = {one.name: sum(t.values()) for one, t in zip(waiting, times, strict=True)}
        states = {one.name: DONE if one.is_done else LEFT for one in planned}
        (engine or one_by_one)(waiting, Board(states, spent), out)
    return [
        replace(read_record(one.place / "record.json"), name=one.recipe.name) for one in planned
    ]


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a study, made or not."""

    name: str
    recipe: Recipe
    key: str
    place: Path
    rate_from: Path | None = None  # the arm's first seed, which chooses the learning rate

    @property
    def is_ready(self) -> bool:
        """Whether the run that chooses its learning rate is done."""
        return self.rate_from is None or (self.rate_from / "record.json").exists()

    @property
    def is_done(self) -> bool:
        """Whether its record is there."""
        return (self.place / "record.json").exists()


Engine = Callable[["Sequence[Planned]", Board, Path], None]
"""Makes runs: gets those that are not done, the board to tell, and the study's folder."""


def one_by_one(waiting: Sequence[Planned], board: Board, shared: Path) -> None:
    """Make the runs that no other process makes, one after the other; wait for the others."""
    left = [*waiting]
    with shown(board):
        while left:
            # From the front each time: what others have made, or left, since then is seen.
            made = next((one for one in left if _attempt(one, board, shared=shared)), None)
            if made is None:
                time.sleep(5)  # another process is at work on all that is left
            else:
                left.remove(made)


def plan_runs(recipe: Recipe, out: Path, *, bases: Path | None = None) -> list[Planned]:
    """List the runs of a study, in the recipe's order; a packed base is written to `bases`.

    A learning rate is a way's own, not a seed's: its first seed chooses it for the others.
    """
    planned: list[Planned] = []
    first: Planned | None = None
    read: Any = cache(text_fingerprints)  # runs share their text
    for i, (name, one) in enumerate(expand(recipe)):
        chooses = i % max(len(recipe.seeds), 1) == 0 or not searches(one.train)
        rate_of = first.key if first and not chooses else None
        key = run_signature(one, bases or out, rate_of=rate_of, read=read)
        place = out / "runs" / key
        planned.append(Planned(name, one, key, place, first.place if first and rate_of else None))
        first = planned[-1] if chooses else first
    return planned


def outlook(recipe: Recipe, out: Path) -> list[str]:
    """Say what a study would make, and how long that takes; nothing is written to its folder.

    Args:
        recipe: With arms, grid or seeds.
        out: The study's folder, whether it is there or not.
    """
    names = [name for name, _ in expand(recipe)]
    try:
        with TemporaryDirectory() as folder:
            planned = plan_runs(recipe, out, bases=Path(folder))
            waiting = [one for one in planned if not one.is_done]
            told = "nothing to make"
            if waiting:
                told = describe(how_long(to_time(waiting), out, bases=Path(folder)))
    except HeadstartError as fault:
        return [*names, f"time: not known: {fault.what} ({fault.where})"]
    states = [f"{one.name}  done" if one.is_done else one.name for one in planned]
    return [*states, f"{len(waiting)} of {len(planned)} runs to make: {told}"]


def to_time(waiting: Sequence[Planned]) -> list[Recipe]:
    """Give the runs' recipes, those that need no trials with a rate."""
    return [rated(one.recipe) if one.rate_from else one.recipe for one in waiting]


def _refuse_taken(out: Path) -> None:
    """Refuse a file, and a folder that holds something else."""
    check_folder(out)
    if (out / "recipe.yaml").exists():
        raise HeadstartError(
            "the output folder holds a single run",
            where=str(out),
            way_out="choose another folder for the study",
        )
    known = {*SHARED, "runs", LOCK}
    if out.exists() and not (out / "study.yaml").exists():
        names = (entry.name for entry in out.iterdir())
        if strange := [name for name in names if not (name in known or is_partial(name))]:
            raise HeadstartError(
                f"the output folder holds {strange[0]}, and no study",
                where=str(out),
                way_out="choose an empty or a new folder",
            )


def _refuse_others(out: Path, keys: set[str]) -> None:
    """Refuse to take the place of a study whose finished runs are all others than these."""
    listed = read_runs(out / "runs.json") if (out / "runs.json").exists() else []
    finished = {key for _, key in listed if (out / "runs" / key / "record.json").exists()}
    if finished and not finished & keys:
        raise HeadstartError(
            f"the folder holds {len(finished)} finished runs, and none is of this recipe",
            where=str(out),
            way_out="choose another folder for this study: its text, teacher, settings or first "
            "seed are others, or another version of headstart made those runs",
        )


def _attempt(one: Planned, board: Board, *, shared: Path) -> bool:
    """Make one run, unless it is done or another process is at it."""
    if one.is_done:
        if board.states[one.name] != DONE:
            board.states[one.name] = DONE
            board.notes[one.name] = ELSEWHERE
        return True
    if not one.is_ready:
        return False
    one.place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(one.place.with_suffix(".lock"), timeout=0):
            board.start(one.name)
            say(f"[{[*board.states.values()].count(DONE) + 1} of {len(board.states)}] {one.name}")
            record = run(one.recipe, one.place, shared=shared, rate_from=one.rate_from)
            board.finish(one.name, came_out(record))
    except Timeout:
        board.start_elsewhere(one.name)
        return False
    return True


def came_out(record: Record) -> str:
    """Say a run's score on test: of the languages trained on, and of zero-shot ones."""
    metric = main_metric(record.task)
    kinds = (record.summary["student"][kind] for kind in ("trained_on", "zero_shot"))
    return " / ".join(f"{100 * scores[metric]:.1f}" for scores in kinds if scores)
