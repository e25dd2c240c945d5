"""Training steps on an accelerator: pieces a second, and their share of bare products' rate.

    python benchmarks/accelerator.py [--tokenizer FOLDER] [--batches 1024 4096] [--recorded]

Students with random weights learn random answers to the packaged MASSIVE extract, as `headstart
run` trains them (rows of the table, no dropout, fused AdamW). The rate of bare products is that
of 8192 x 8192 x 8192 in bf16, the median of thirty; a step's work is six operations for each
real piece and each weight of the matrices that read it: of the last layer, whose answer for the
first piece alone is worked out, keys and values. Steps are timed in eight equal parts, of which the
median of the last five counts: a kernel is loaded when a batch of its shape first comes, and its
second is recorded, which takes many steps' time. Small batches leave an accelerator waiting for the
program that feeds it: the table shows from which size on it is fed, with steps started kernel by
kernel, and recorded as CUDA graphs (`headstart.replay`), as they are up to its `LARGEST`;
`--recorded` leaves the former out where the latter is there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from distil import LABELS, products, texts
from transformers import BertConfig, BertForSequenceClassification

from headstart import train
from headstart.replay import LARGEST
from headstart.settings import Train
from headstart.stages import job_for
from headstart.train import Dev, fit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headstart.tokenized import Text

SHAPES = ((6, 384), (12, 384), (12, 768))
BATCHES = (1024, 4096, 16384, 65536)
PARTS, COLD = 8, 3  # of the steps; those that are not counted


def steady(
    text: Text, shape: tuple[int, int], tokens: int, *, precision: str, plain: bool
) -> tuple[float, float]:
    """Give real pieces a second and milliseconds a step, once warm."""
    layers, hidden = shape
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=max(50_000, 1 + int(text.splits["train"].ids.max())), hidden_size=hidden,
        num_hidden_layers=layers, num_attention_heads=hidden // 64, intermediate_size=4 * hidden,
        num_labels=LABELS,
    )  # fmt: skip
    accelerator = Accelerator()
    model = BertForSequenceClassification(config).to(accelerator.device)
    answers = np.random.default_rng(0).normal(size=(len(text.splits["train"]), LABELS))
    part = 10 if plain else 60
    asked = {"objective": {"mse": 1.0}, "learning_rate": 1e-5, "precision": precision}
    limits = {"batch_tokens": tokens, "max_steps": PARTS * part, "eval_every": part}
    settings = Train.model_validate({**asked, **limits})

    def order(epoch: int) -> NDArray[np.int64]:
        """Read each text many times, so that an epoch is some batches, even large ones."""
        return np.random.default_rng(epoch).permutation(np.tile(np.arange(len(answers)), 100))

    job = job_for(text, settings, accelerator, seed=0, teacher=answers.astype(np.float32))
    job = replace(job, order=order, evaluate=lambda _: Dev(0.0, 0.0))
    with pytest.MonkeyPatch.context() as patched:
        if plain:
            patched.setattr(train, "recorded", lambda stride: stride)
        curve = fit(model, job).curve
    seconds = np.diff([point["seconds"] for point in curve])[COLD - 1 :]
    pieces = np.diff([point["tokens"] for point in curve])[COLD - 1 :]
    return float(np.median(pieces / seconds)), float(1e3 * np.median(seconds) / part)


def main() -> None:
    """Print a line for each shape, batch and precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--recorded", action="store_true")
    given = parser.parse_args()
    kind = Accelerator().device.type
    if kind == "cpu":
        print("there is no accelerator here")
        return
    text = texts(120, given.tokenizer)
    rate = products(kind, bf16=kind != "cpu")
    name = torch.cuda.get_device_name() if kind == "cuda" else kind
    print(f"{name}, {rate / 1e12:.0f} TFLOP/s in bf16, torch {torch.__version__}")
    sizes = [(shape, tokens, "bf16") for shape in SHAPES for tokens in given.batches]
    sizes += [((6, 384), tokens, "fp32") for tokens in given.batches if tokens < max(BATCHES)]
    for shape, tokens, precision in sizes:
        graphs = kind == "cuda" and tokens <= LARGEST
        for plain in (False,) * graphs + (True,) * (not (graphs and given.recorded)):
            try:
                speed, step = steady(text, shape, tokens, precision=precision, plain=plain)
            except torch.OutOfMemoryError:
                print(f"{shape[0]} x {shape[1]}, {tokens:,} pieces a batch: too large a batch")
                continue
            work = 6 * (12 * (shape[0] - 1) + 2) * shape[1] ** 2
            print(
                f"{shape[0]:>2} x {shape[1]}, {tokens:>6,} pieces a batch, {precision}, "
                f"{'one by one' if plain else 'recorded':10}: {step:6.1f} ms a step, "
                f"{speed:12,.0f} pieces/s, {work * speed / rate:5.1%} of the bf16 rate",
                flush=True,
            )


if __name__ == "__main__":
    main()
