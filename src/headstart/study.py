"""Many runs of one recipe: its arms, grid and seeds, with one teacher for all of them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from headstart.console import say
from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.loading import expand, load_recipe, to_yaml
from headstart.record import read_record, read_runs, write_runs
from headstart.run import SHARED, how_long, run, run_signature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headstart.recipe import Recipe
    from headstart.record import Record


def study(
    recipe: str | Path | Recipe, out: str | Path, *, overrides: Sequence[str] = ()
) -> list[Record]:
    """Make every run that is not done yet; several processes may share the folder.

    Args:
        recipe: A recipe with arms, grid or seeds; a file, or the name of a shipped one.
        out: The study's folder; runs lie in `runs/<signature>/`.
        overrides: `key.path=value` settings.

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
    if (out / "recipe.yaml").exists():
        raise HeadstartError(
            "the output folder holds a single run",
            where=str(out),
            way_out="choose another folder for the study",
        )
    known = {*SHARED, "runs"}
    if out.exists() and not (out / "study.yaml").exists():
        strange = [entry.name for entry in out.iterdir() if entry.name not in known]
        if strange:
            raise HeadstartError(
                f"the output folder holds {strange[0]}, and no study",
                where=str(out),
                way_out="choose an empty or a new folder",
            )
    atomic_write(out / "study.yaml", to_yaml(recipe))
    with FileLock(out / ".lock"):  # the base is written by one process
        named = [(name, one, run_signature(one, out)) for name, one in expand(recipe)]
        write_runs(out / "runs.json", [(one.name, key) for _, one, key in named])
    waiting = [(name, one, out / "runs" / key) for name, one, key in named]
    waiting = [entry for entry in waiting if not (entry[2] / "record.json").exists()]
    if waiting:
        time_left = how_long([one for _, one, _ in waiting], out)
        say(f"{len(waiting)} of {len(named)} runs to make: {time_left}")
    while waiting:
        left = [entry for entry in waiting if not _attempt(*entry, shared=out, of=len(named))]
        if len(left) == len(waiting):
            time.sleep(5)  # another process is at work on all that is left
        waiting = left
    return [
        replace(read_record(out / "runs" / key / "record.json"), name=one.name)
        for _, one, key in named
    ]


def _attempt(name: str, recipe: Recipe, place: Path, *, shared: Path, of: int) -> bool:
    """Make one run, unless it is done or another process is at it."""
    if (place / "record.json").exists():
        return True
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place.with_suffix(".lock"), timeout=0):
            keys = [key for _, key in read_runs(shared / "runs.json")]
            done = sum((place.parent / key / "record.json").exists() for key in keys)
            say(f"[{done + 1} of {of}] {name}")
            run(recipe, place, shared=shared)
    except Timeout:
        return False
    return True
