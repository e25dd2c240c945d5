"""How seconds grow with layers, width, vocabulary, examples, languages and arms.

    python benchmarks/scaling.py [--threads N] [--picture docs/pictures/scaling.svg]

Random weights and random texts of 6 to 24 pieces; a training step reads 512 of them. Every point is
the best of three, taken in turns. A line is fitted to each axis (a power for the width).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import torch
from accelerate import Accelerator
from transformers import BertConfig, BertForSequenceClassification

from headstart.encode import Encoded
from headstart.evaluate import predict, score_languages
from headstart.loading import load_recipe
from headstart.settings import Train
from headstart.study import study
from headstart.train import Dev, Job, fit

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from world import world

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS, PIECES, STEPS, ROUNDS = 60, 10_000, 4, 3
ACCELERATOR = Accelerator(cpu=True)


@dataclass(frozen=True)
class Axis:
    """What grows, and what is timed for it."""

    name: str
    timed: str
    values: tuple[int, ...]
    seconds: Callable[[int], float]
    is_power: bool = False


def texts(examples: int, languages: int = 1) -> Encoded:
    """Draw texts, the same number of each language, over 5,000 pieces of whatever vocabulary."""
    rng = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(rng.integers(6, 25, examples))])
    units = np.arange(examples + 1)
    gold = rng.integers(LABELS, size=examples)
    return Encoded(
        task="classification", pad_id=0, ids=rng.integers(5, 5_000, starts[-1]).astype(np.int32),
        starts=starts, positions=np.zeros(examples, np.int64), unit_starts=units, gold=gold,
        unit_words=np.arange(examples), words=gold, word_starts=units,
        language_ids=np.arange(examples) % languages,
        languages=tuple(f"l{i}" for i in range(languages)),
    )  # fmt: skip


def model(layers: int, hidden: int, pieces: int = PIECES) -> BertForSequenceClassification:
    """Make one with random weights."""
    return BertForSequenceClassification(BertConfig(
        vocab_size=pieces, hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=max(hidden // 32, 1), intermediate_size=4 * hidden, num_labels=LABELS,
    ))  # fmt: skip


def step(layers: int, hidden: int, pieces: int = PIECES, embeddings: str = "rows") -> float:
    """Time a training step."""
    data = texts(400)
    settings = Train.model_validate(
        {"objective": {"mse": 1.0}, "max_steps": STEPS, "learning_rate": 1e-4, "batch_tokens": 512,
         "eval_every": STEPS, "precision": "fp32", "word_embeddings": embeddings,
         "dropout": "kept"}
    )  # fmt: skip
    answers = np.zeros((len(data), LABELS), np.float32)
    job = Job(data=data, settings=settings, order=lambda _: np.arange(len(data)),
              evaluate=lambda _: Dev(0.0, 0.0), accelerator=ACCELERATOR, learning_rate=1e-4,
              seed=0, teacher=answers)  # fmt: skip
    return fit(model(layers, hidden, pieces), job).seconds / STEPS


def ask(examples: int) -> float:
    """Time a teacher pass."""
    teacher, data = model(12, 384).eval(), texts(examples)
    start = time.perf_counter()
    predict(teacher, data, ACCELERATOR)
    return time.perf_counter() - start


def score(languages: int) -> float:
    """Time the scores of 500 answers in each language."""
    data = texts(500 * languages, languages)
    logits = np.random.default_rng(0).normal(size=(len(data), LABELS)).astype(np.float32)
    start = time.perf_counter()
    score_languages(data, logits, [str(i) for i in range(LABELS)])
    return time.perf_counter() - start


def make(arms: int) -> float:
    """Time a study of tiny students, two steps each, the teacher included."""
    with tempfile.TemporaryDirectory() as folder:
        made = {f"arm-{i}": {"train.weight_decay": 0.01 * i} for i in range(arms)}
        recipe = world(Path(folder) / "world", arms=made)
        recipe = load_recipe(recipe, ["train.max_steps=2", "train.learning_rate=0.001"])
        start = time.perf_counter()
        study(recipe, Path(folder) / "out")
        return time.perf_counter() - start


AXES = (
    Axis("layers, 384 wide", "a training step", (1, 3, 6, 9, 12), lambda n: step(n, 384)),
    Axis("width, 6 layers", "a training step", (96, 192, 384, 768), partial(step, 6), True),
    Axis("vocabulary in thousands, rows that occur", "a training step", (10, 50, 250),
         lambda n: step(6, 384, 1000 * n)),
    Axis("vocabulary in thousands, whole table", "a training step", (10, 50, 250),
         lambda n: step(6, 384, 1000 * n, "train")),
    Axis("examples, 12 x 384", "a teacher pass", (250, 500, 1000, 2000), ask),
    Axis("languages x 500 answers", "scores", (5, 10, 20, 50), score),
    Axis("arms", "a study of tiny runs", (2, 4, 8, 16), make),
)  # fmt: skip


def curve(axis: Axis, found: list[float]) -> tuple[str, list[float]]:
    """Fit a line, or a power; say it, and give its values."""
    if axis.is_power:
        power, scale = np.polyfit(np.log(axis.values), np.log(found), 1)
        drawn = [float(math.exp(scale) * value**power) for value in axis.values]
        return f"to the power {power:.2f}", drawn
    # relative errors count, so that small points are not drowned by large ones
    slope, fixed = np.polyfit(axis.values, found, 1, w=1 / np.array(found))
    drawn = [float(fixed + slope * value) for value in axis.values]
    return f"{1000 * fixed:,.1f} ms + {1000 * slope:,.2f} ms each", drawn


def draw(rows: list[dict[str, object]], place: Path) -> None:
    """Plot points and fits, an axis a panel."""
    base = alt.Chart(alt.Data(values=rows)).encode(
        alt.X("value:Q", title=None), alt.Y("seconds:Q", title="seconds")
    )
    dots = base.mark_point(filled=True, size=50)
    lines = base.mark_line(opacity=0.5).encode(alt.Y("fitted:Q"))
    panel = (dots + lines).properties(width=200, height=130)
    place.parent.mkdir(parents=True, exist_ok=True)
    chart = panel.facet(facet=alt.Facet("axis:N", title=None), columns=3)
    chart.resolve_scale(x="independent", y="independent").save(place)


def main() -> None:
    """Take all points in turns, print them with their fits, and plot them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    points = [(axis, value) for axis in AXES for value in axis.values]
    best = dict.fromkeys(points, math.inf)
    for _ in range(ROUNDS):
        for axis, value in points:
            best[axis, value] = min(best[axis, value], axis.seconds(value))
    print(f"{torch.get_num_threads()} threads\n")
    print("| what grows | what is timed | seconds | fit | worst miss |")
    print("| --- | --- | --- | --- | --- |")
    rows: list[dict[str, object]] = []
    for axis in AXES:
        found = [best[axis, value] for value in axis.values]
        said, drawn = curve(axis, found)
        miss = max(abs(fit / true - 1) for fit, true in zip(drawn, found, strict=True))
        told = ", ".join(f"{v:,}: {s:.3g}" for v, s in zip(axis.values, found, strict=True))
        print(f"| {axis.name} | {axis.timed} | {told} | {said} | {miss:.0%} |")
        rows += [
            {"axis": f"{axis.timed}: {axis.name}", "value": v, "seconds": s, "fitted": f}
            for v, s, f in zip(axis.values, found, drawn, strict=True)
        ]
    if given.picture:
        draw(rows, given.picture)


if __name__ == "__main__":
    main()
