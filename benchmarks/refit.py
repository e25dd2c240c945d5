"""What a refit costs, beside a pass of the teacher over the same text, and its memory.

    python benchmarks/refit.py [TOKENS ...]    # 10000 where none is given: minutes
    python benchmarks/refit.py --count    # products, which other work cannot move

A random teacher of XLM-R-base's shape (12 x 768, 3,072 neurons; 5,000 pieces) reads random text.
Each line is a process of its own: seconds of ranking heads and neurons on 20,000 tokens, which
merging layers needs, of the refit, of a teacher pass over its text (the mean of two), of the solves
alone, and memory at its peak above the two models. Products are counted on little text in as many
batches as 50,000 tokens make.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from headstart.calibration import BATCH_TOKENS, HELD_OUT
from headstart.encode import Encoded, collate, pack
from headstart.measure import measure
from headstart.places import Place
from headstart.recipe import Init, Refit
from headstart.refit import refit
from headstart.student import Made, make_student
from headstart.walk import Sample

PIECES = 5_000
RANKED = 20_000  # tokens, the default of `init.measure_tokens`
SHAPES = {
    f"{layers} x {hidden}": {"layers": layers, "hidden": hidden}
    for layers in (12, 6, 3)
    for hidden in (768, 384)
}
WAYS = (  # student, directions, whether layers are merged
    ("6 x 384", "principal", True),
    ("6 x 384", "principal", False),
    ("6 x 384", "kept", False),
    ("6 x 768", "kept", True),
    ("6 x 768", "kept", False),
    ("3 x 768", "kept", True),
    ("12 x 384", "principal", True),
)
COUNTED = 2_900  # tokens; in batches of 128 they are as many batches as 50,000 are of 2,048


def text(tokens: int, batch: int = BATCH_TOKENS) -> Sample:
    """Draw texts of 8 to 32 random pieces."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 33, tokens // 20)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    none = np.zeros(len(lengths), np.int64)
    encoded = Encoded(
        task="classification", pad_id=1, ids=rng.integers(5, PIECES, starts[-1]).astype(np.int32),
        starts=starts, positions=none, unit_starts=np.arange(len(lengths) + 1), gold=none,
        unit_words=np.arange(len(lengths)), words=none, word_starts=np.arange(len(lengths) + 1),
        language_ids=none, languages=("xx",),
    )  # fmt: skip
    judges = np.arange(len(lengths)) % HELD_OUT == 0
    fit, held_out = (
        pack(encoded.lengths, np.flatnonzero(mask), tokens=batch) for mask in (~judges, judges)
    )
    return Sample(encoded, fit, held_out)


def peak() -> float:
    """Give this process' largest resident size so far, ranking included, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def size_now() -> float:
    """Give this process' resident size, in GB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 1e9


def held(model: PreTrainedModel) -> float:
    """Give the size of a model's weights, in GB."""
    return sum(one.numel() * one.element_size() for one in model.parameters()) / 1e9


def models(shape: str, *, merge: bool) -> tuple[XLMRobertaForSequenceClassification, Made, float]:
    """Make a random teacher, and cut a student from it; give the seconds of ranking, too."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=PIECES, hidden_size=768, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=3072, num_labels=60, max_position_embeddings=64,
    )  # fmt: skip
    teacher = XLMRobertaForSequenceClassification(config).eval()
    rules = Init(refit=Refit(), merge=merge).rules
    began = time.perf_counter()
    scores = measure(teacher, text(RANKED), ["taylor"], seed=0) if merge else {}
    ranking = time.perf_counter() - began
    return teacher, make_student(teacher, shape=SHAPES[shape], rules=rules, scores=scores), ranking


def one_pass(teacher: XLMRobertaForSequenceClassification, sample: Sample) -> None:
    """Let the teacher read the text."""
    with torch.inference_mode():
        for index in sample.batches:
            teacher(**collate(sample.encoded, index, device=torch.device("cpu")).inputs)


def counted(way: tuple[str, str, bool], tokens: int, batch: int) -> tuple[int, int]:
    """Count the products of a refit, less those of its solves, and those of a teacher pass."""
    shape, directions, merge = way
    (teacher, made, _), sample, solved = models(shape, merge=merge), text(tokens, batch), [0]
    settle = Place.settle

    def watched(place: Place, *rest: object) -> object:
        with FlopCounterMode(display=False) as counter:
            found = settle(place, *rest)  # type: ignore[arg-type]
        solved[0] += counter.get_total_flops()
        return found

    asked = Refit.model_validate({"directions": directions, "ridge": 0.01})
    with FlopCounterMode(display=False) as alone:
        one_pass(teacher, sample)
    Place.settle = watched  # type: ignore[method-assign,assignment]
    with FlopCounterMode(display=False) as whole:
        refit(made.model, teacher, made.selection, sample, asked=asked)
    Place.settle = settle  # type: ignore[method-assign,assignment]
    return whole.get_total_flops() - solved[0], alone.get_total_flops()


def count(way: tuple[str, str, bool]) -> float:
    """Count a refit's products in passes of the teacher: what twice the text adds to both."""
    less, more = (counted(way, k * COUNTED, k * 128) for k in (1, 2))
    return (more[0] - less[0]) / (more[1] - less[1])


def timed_once(tokens: int, shape: str, directions: str, *, merge: bool) -> dict[str, float]:
    """Refit once, and time its parts."""
    before, sample, solving = size_now(), text(tokens), [0.0]
    teacher, made, ranking = models(shape, merge=merge)
    settle = Place.settle

    def timed(place: Place, *rest: object) -> object:
        start = time.perf_counter()
        found = settle(place, *rest)  # type: ignore[arg-type]
        solving[0] += time.perf_counter() - start
        return found

    Place.settle = timed  # type: ignore[method-assign,assignment]
    start = time.perf_counter()
    asked = Refit.model_validate({"directions": directions})
    refit(made.model, teacher, made.selection, sample, asked=asked)
    whole, highest = time.perf_counter() - start, peak()
    start = time.perf_counter()
    one_pass(teacher, sample)
    one_pass(teacher, sample)
    passes = (time.perf_counter() - start) / 2
    return {
        "ranking": ranking,
        "refit": whole,
        "pass": passes,
        "solves": solving[0],
        "in passes": (whole - solving[0]) / passes,
        "memory": highest - before - sum(held(one) for one in (teacher, made.model)),
    }


def main() -> None:
    """Print a line for each amount of text and shape, or for each shape."""
    if sys.argv[1:] == ["--count"]:
        for way in WAYS:
            print(f"{told(way)}  {count(way):.2f} teacher passes, solves apart", flush=True)
        return
    if sys.argv[1:2] == ["--one"]:
        tokens, shape, directions, merge = sys.argv[2:]
        print(json.dumps(timed_once(int(tokens), shape, directions, merge=merge == "True")))
        return
    print("tokens  student                        ranking s  refit s  pass s  solves s  "
          "(refit - solves) / pass  peak GB above models")  # fmt: skip
    for tokens in map(int, sys.argv[1:] or (10_000,)):
        for way in WAYS:
            line = subprocess.run(
                [sys.executable, __file__, "--one", str(tokens), *map(str, way)],
                capture_output=True, text=True, check=True,
            ).stdout.splitlines()[-1]  # fmt: skip
            found: dict[str, float] = json.loads(line)
            print(f"{tokens:6}  {told(way)}  {found['ranking']:9.0f}  {found['refit']:7.0f}  "
                  f"{found['pass']:6.1f}  {found['solves']:8.1f}  {found['in passes']:23.2f}  "
                  f"{found['memory']:20.2f}", flush=True)  # fmt: skip


def told(way: tuple[str, str, bool]) -> str:
    """Write a way as the lines have it."""
    shape, directions, merge = way
    return f"{shape:8}  {directions:9}  {'merged' if merge else 'own':7}"


if __name__ == "__main__":
    main()
