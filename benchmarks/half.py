"""A training step in bf16 on a processor, beside single precision: what attention costs there.

    python benchmarks/half.py [--rounds 5] [--threads N]

Students with random weights learn random answers to the packaged MASSIVE extract, as `headstart
run` trains them. Three ways take the same batches in turn: fp32; bf16 with the attention that
PyTorch chooses, whose backward pass is slow in that precision; and bf16 with attention as plain
products, as headstart has it. A round is an epoch; seconds are the median's, ratios the median
(least to most) of a way's seconds over those of fp32 in the same round. Where a processor has no
products in bf16, `train.precision: auto` does not choose it.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from distil import LABELS, texts
from transformers import BertConfig, BertForSequenceClassification

from headstart import stride
from headstart.lastlayer import first_piece
from headstart.prepare import half, has_fast_bf16, optimizer_for, set_rate, trainable
from headstart.settings import Train
from headstart.stages import job_for
from headstart.train import batches_of, stride_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from headstart.tokenized import Text

SHAPES = ((6, 384), (6, 192), (12, 768))
WAYS = ("fp32", "bf16, fused attention", "bf16")


def fused(kind: str, *, bf16: bool) -> AbstractContextManager[None]:
    """Leave attention to PyTorch."""
    return torch.autocast(kind, torch.bfloat16, enabled=bf16)


def seconds(text: Text, shape: tuple[int, int], tokens: int, rounds: int) -> list[list[float]]:
    """Time the steps of each way: seconds of a step, by round."""
    layers, hidden = shape
    train = text.splits["train"]
    pieces = torch.from_numpy(np.unique(np.append(train.ids, train.pad_id)).astype(np.int64))
    answers = np.random.default_rng(0).normal(size=(len(train), LABELS)).astype(np.float32)
    config = BertConfig(
        vocab_size=1 + int(train.ids.max()), hidden_size=hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 32, intermediate_size=4 * hidden, num_labels=LABELS,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    asked = {"objective": {"mse": 1.0}, "learning_rate": 1e-5, "batch_tokens": tokens}
    settings = Train.model_validate(asked)
    accelerator = Accelerator(cpu=True)
    job = job_for(text, settings, accelerator, seed=0, teacher=answers)
    batches, found = batches_of(job, 0), [[] for _ in WAYS]
    with trainable(model, settings, pieces), first_piece(model, "classification"):
        optimizer = optimizer_for(model, settings)
        set_rate(optimizer, 1e-5)
        prepared = accelerator.prepare(model, optimizer)
        for round_ in range(rounds + 1):
            for way, spent in zip(WAYS, found, strict=True):
                step = stride_of(job, *prepared, bf16=way != "fp32")
                with pytest.MonkeyPatch.context() as patched:
                    patched.setattr(stride, "half", half if way == WAYS[-1] else fused)
                    start = time.perf_counter()
                    for index in batches:
                        step(index)
                if round_:  # the first is to warm up
                    spent.append((time.perf_counter() - start) / len(batches))
    return found


def main() -> None:
    """Print a line for each shape and batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    text = texts(40)
    fast = "bf16" if has_fast_bf16("cpu") else "fp32"
    print(f"threads: {given.threads}; precision: auto is {fast} here")
    print("| student | pieces a batch |", " | ".join(f"{w}, ms" for w in WAYS), "| ratios |")
    for shape in SHAPES:
        for tokens in (512, 1024):
            found = seconds(text, shape, tokens, given.rounds)
            told = []
            for spent in found[1:]:
                ratios = [a / b for a, b in zip(spent, found[0], strict=True)]
                told.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            times = " | ".join(f"{1e3 * median(spent):.0f}" for spent in found)
            ratios = ", ".join(told)
            print(f"| {shape[0]} x {shape[1]} | {tokens:,} | {times} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
