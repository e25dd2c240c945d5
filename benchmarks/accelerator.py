"""Training steps on an accelerator: pieces a second, and their share of bare products' rate.

    python benchmarks/accelerator.py [--tokenizer FOLDER] [--seconds 3]

Students with random weights learn random answers to the packaged MASSIVE extract, as `headstart
run` trains them (rows of the table, no dropout, fused AdamW). The rate of bare products is that
of 8192 x 8192 x 8192 in bf16, the median of thirty; a step's work is six operations for each
weight of its matrices and each real piece. The first third of the steps is not timed: a kernel is
loaded when a batch of its shape first comes. Small batches leave an accelerator waiting for the
program that feeds it: the table shows from which size on it is fed, with steps started kernel by
kernel, and recorded as CUDA graphs (`headstart.replay`), as they are up to its `LARGEST`.
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
WARM = 20  # steps, at least, of each third


def steady(
    text: Text, shape: tuple[int, int], tokens: int, *, seconds: float, precision: str, plain: bool
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
    asked = Train.model_validate(
        {
            "objective": {"mse": 1.0},
            "learning_rate": 1e-5,
            "batch_tokens": tokens,
            "precision": precision,
        }
    )

    def order(epoch: int) -> NDArray[np.int64]:
        """Read each text many times, so that an epoch is some batches, even large ones."""
        return np.random.default_rng(epoch).permutation(np.tile(np.arange(len(answers)), 100))

    def run(steps: int) -> tuple[float, float]:
        """Take three times as many steps, and time the second and third part."""
        limited = asked.model_copy(update={"max_steps": 3 * steps, "eval_every": steps})
        job = job_for(text, limited, accelerator, seed=0, teacher=answers.astype(np.float32))
        job = replace(job, order=order, evaluate=lambda _: Dev(0.0, 0.0))
        with pytest.MonkeyPatch.context() as patched:
            if plain:
                patched.setattr(train, "recorded", lambda stride: stride)
            first, _, last = fit(model, job).curve
        spent = last["seconds"] - first["seconds"]
        return (last["tokens"] - first["tokens"]) / spent, 1e3 * spent / (2 * steps)

    _, guess = run(WARM)
    return run(max(round(1e3 * seconds / guess / 2), WARM))


def main() -> None:
    """Print a line for each shape, batch and precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer")
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    kind = Accelerator().device.type
    if kind == "cpu":
        print("there is no accelerator here")
        return
    text = texts(120, given.tokenizer)
    rate = products(kind)
    name = torch.cuda.get_device_name() if kind == "cuda" else kind
    print(f"{name}, {rate / 1e12:.0f} TFLOP/s in bf16, torch {torch.__version__}")
    sizes = [(shape, tokens, "bf16") for shape in SHAPES for tokens in BATCHES]
    sizes += [((6, 384), tokens, "fp32") for tokens in BATCHES[:3]]
    for shape, tokens, precision in sizes:
        for plain in (True, False) if kind == "cuda" and tokens <= LARGEST else (True,):
            asked = {"seconds": given.seconds, "precision": precision, "plain": plain}
            try:
                speed, step = steady(text, shape, tokens, **asked)
            except torch.OutOfMemoryError:
                print(f"{shape[0]} x {shape[1]}, {tokens:,} pieces a batch: too large a batch")
                continue
            work = 6 * 12 * shape[0] * shape[1] ** 2
            print(
                f"{shape[0]:>2} x {shape[1]}, {tokens:>6,} pieces a batch, {precision}, "
                f"{'one by one' if plain else 'recorded':10}: {step:6.1f} ms a step, "
                f"{speed:12,.0f} pieces/s, {work * speed / rate:5.1%} of the bf16 rate",
                flush=True,
            )


if __name__ == "__main__":
    main()
