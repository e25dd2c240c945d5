"""Keep what a study found: records, recipes, and predictions without their logits.

    python tools/keep.py STUDY DEST [PATH=NAME ...]

A small part of the study's folder, from which `headstart compare DEST:A DEST:B` and
`headstart report DEST` give the same numbers. Each PATH in a recipe becomes NAME.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pyarrow.parquet as pq

from headstart.evidence import PREDICTIONS
from headstart.record import read_runs


def keep(run: Path, dest: Path, names: dict[str, str]) -> None:
    """Keep one run."""
    dest.joinpath(*PREDICTIONS).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "record.json", dest)
    rename(run / "recipe.yaml", dest / "recipe.yaml", names)
    table = pq.read_table(run.joinpath(*PREDICTIONS))
    kept = table.select([name for name in table.column_names if name != "logits"])
    pq.write_table(kept, dest.joinpath(*PREDICTIONS), compression="zstd", compression_level=19)


def rename(recipe: Path, dest: Path, names: dict[str, str]) -> None:
    """Copy a recipe without the paths of this machine."""
    text = recipe.read_text(encoding="utf-8")
    for path, name in names.items():
        text = text.replace(path, name)
    dest.write_text(text, encoding="utf-8")


def main() -> None:
    """Keep all finished runs of a study."""
    study, dest = Path(sys.argv[1]), Path(sys.argv[2])
    names = dict(pair.split("=", 1) for pair in sys.argv[3:])
    for _, key in read_runs(study / "runs.json"):
        if (study / "runs" / key / "record.json").exists():
            keep(study / "runs" / key, dest / "runs" / key, names)
    shutil.copy(study / "runs.json", dest)
    if (study / "study.yaml").exists():
        rename(study / "study.yaml", dest / "study.yaml", names)


if __name__ == "__main__":
    main()
