"""A finished study on disk that nobody trained: records and predictions with known scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from headstart.metrics import score
from headstart.record import Record, retention, summarize, write_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LANGUAGES, ZERO_SHOT = ("de-DE", "sw-KE", "th-TH"), ("cy-GB", "fa-IR")
LABELS = tuple(f"intent {i}" for i in range(5))
TEACHER = {"de-DE": 0.9, "sw-KE": 0.8, "th-TH": 0.85, "cy-GB": 0.6, "fa-IR": 0.75}
SIZE = {
    "total": 100_000_000,
    "vocabulary": 80_000_000,
    "transformer": 19_000_000,
    "head": 1_000_000,
}


@dataclass(frozen=True)
class Arm:
    """One way: what share of the teacher it keeps, and by what settings it is told apart."""

    keeps: float
    source: str = "teacher"
    objective: str = "mse"
    refitted: bool = False
    settings: tuple[tuple[str, object], ...] = ()
    marks: tuple[str, ...] = ()


GRID = {
    f"{source}-{objective}": Arm(keeps + more, source, objective)
    for source, keeps in (("scratch", 0.5), ("base", 0.75), ("teacher", 0.9))
    for objective, more in (("labels", 0.0), ("mse", 0.05))
}


def write_study(
    out: Path,
    arms: Mapping[str, Arm] = GRID,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    examples: int = 200,
    predictions: bool = True,
    taught: Mapping[str, float] = {},
) -> Path:
    """Write a study's folder: what `headstart study` would leave, but for models."""
    rng = np.random.default_rng(0)
    gold = {code: rng.integers(0, len(LABELS), examples) for code in TEACHER}
    hard = {code: rng.random(examples) for code in TEACHER}  # an example's own difficulty
    right = {**TEACHER, **taught}
    answers = {code: _answers(gold[code], hard[code] < right[code]) for code in TEACHER}
    listed: list[tuple[str, str]] = []
    for i, (name, arm) in enumerate(arms.items()):
        for seed in seeds:
            luck = rng.normal(0, 0.01)
            given = {
                code: _answers(
                    gold[code],
                    hard[code] + rng.normal(0, 0.05, examples) < TEACHER[code] * (arm.keeps + luck),
                )
                for code in TEACHER
            }
            key = f"{i:08x}{seed:08x}"
            place = out / "runs" / key
            run = _record(key, f"{name}|seed={seed}", seed, arm, gold, given, answers)
            run.write(place / "record.json")
            listed.append((run.name, key))
            plain = {
                "name": run.name,
                "seed": seed,
                "init": {"source": arm.source},
                **dict(arm.settings),
            }
            (place / "recipe.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
            if predictions:
                _write(place / "predictions" / "test.parquet", gold, given, answers)
    write_runs(out / "runs.json", listed)
    (out / "study.yaml").write_text("task: classification\n", encoding="utf-8")
    return out


def _answers(gold: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.where(right, gold, (gold + 1) % len(LABELS))


def _write(path: Path, gold: Mapping, given: Mapping, taught: Mapping) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"gold": gold, "predicted": given, "teacher": taught}
    table = {name: np.concatenate([values[c] for c in TEACHER]) for name, values in columns.items()}
    count = len(next(iter(gold.values())))
    table["id"] = np.array([f"{c}-{i}" for c in TEACHER for i in range(count)])
    table["language"] = np.repeat([*TEACHER], count)
    pq.write_table(pa.table(table), path)


def _record(
    key: str, name: str, seed: int, arm: Arm, gold: Mapping, given: Mapping, taught: Mapping
) -> Record:
    scores = {
        model: {code: score("classification", gold[code], values[code], LABELS) for code in TEACHER}
        for model, values in (("student", given), ("teacher", taught))
    }
    dev = {model: {code: scores[model][code] for code in LANGUAGES} for model in scores}
    mean = float(np.mean([row["accuracy"] for row in dev["student"].values()]))
    start = mean * 0.2 if arm.source != "scratch" else 0.2
    steps = np.arange(100, 700, 100)
    return Record(
        signature=key,
        name=name,
        seed=seed,
        source=arm.source,
        objective=arm.objective,
        task="classification",
        labels=LABELS,
        languages=LANGUAGES,
        zero_shot=ZERO_SHOT,
        scores={
            **{m: {"dev": dev[m], "test": scores[m]} for m in scores},
            "step0": {"dev": {code: {"accuracy": start, "macro_f1": start} for code in LANGUAGES}},
        },
        summary={m: summarize(scores[m], LANGUAGES, ZERO_SHOT, metric="accuracy") for m in scores},
        retention=retention(scores["student"], scores["teacher"], metric="accuracy"),
        curve=tuple(
            {"step": int(s), "dev": start + (mean - start) * (1 - 0.5 ** (s / 50)),
             "seconds": s / 10, "loss": 1.0, "tokens": 10 * int(s), "dev_loss": 1.0}
            for s in steps
        ),
        learning_rate={"chosen": 3e-4, "tried": []},
        costs={"init_seconds": 1.0, "train_seconds": 60.0, "teacher_seconds": 100.0},
        shape={"teacher": SIZE, "student": {**SIZE, "total": 90_000_000, "transformer": 9_000_000}},
        versions={"python": "3.11", "torch": "2.13.0"},
        fingerprints={"data": "d", "teacher": "t"},
        hardware={"processor": "a processor", "cores": 2, "system": "Linux"},
        marks=arm.marks,
        refit=({"name": "a map"},) if arm.refitted else (),
    )  # fmt: skip
