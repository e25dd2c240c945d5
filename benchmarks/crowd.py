"""Where a recorded step's time goes on a CUDA card, and how many steps processes take together.

    python benchmarks/crowd.py [--processes 1 4 8 16 24] [--layers 6] [--hidden 384]
        [--precision fp32] [--tokenizer FOLDER]

A student with random weights learns random answers to the packaged MASSIVE extract in batches of
512 pieces, all of whose shapes are recorded first. One process: milliseconds of a step, of making
and padding its batch, of its recorded kernels alone, and these kernels by the card's time. Then so
many processes at once, three seconds each: steps a second, together. They share a card better where
NVIDIA's MPS runs (`nvidia-cuda-mps-control -d`).
"""

from __future__ import annotations

import argparse
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import Accelerator
from distil import LABELS, texts
from torch import multiprocessing
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertForSequenceClassification

from headstart.lastlayer import first_piece
from headstart.prepare import optimizer_for, set_rate, trainable
from headstart.replay import Replay, padded
from headstart.settings import Train
from headstart.stages import job_for
from headstart.train import batches_of, stride_of

if TYPE_CHECKING:
    from collections.abc import Generator
    from multiprocessing.synchronize import Barrier

    from headstart.replay import Feed

TOKENS, EPOCHS, SECONDS, AHEAD, SHOWN = 512, 3, 3.0, 16, 20


@dataclass(frozen=True, slots=True)
class Loop:
    """Steps that are recorded, and what they read."""

    replay: Replay
    feeds: list[Feed]

    def step(self, feed: Feed) -> None:
        """Take a step, as training does."""
        self.replay(feed)

    def played(self, feed: Feed) -> None:
        """Start its recorded kernels alone."""
        self.replay._known[tuple(feed.batch.inputs["input_ids"].shape)][1].replay()


@contextmanager
def warm(given: argparse.Namespace) -> Generator[Loop]:
    """Record the steps of every shape."""
    text = texts(120, given.tokenizer)
    train = text.splits["train"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=1 + int(train.ids.max()), hidden_size=given.hidden,
        num_hidden_layers=given.layers, num_attention_heads=given.hidden // 32,
        intermediate_size=4 * given.hidden, num_labels=LABELS,
    )  # fmt: skip
    accelerator = Accelerator()
    model = BertForSequenceClassification(config).to(accelerator.device)
    asked = {"objective": {"mse": 1.0}, "learning_rate": 1e-4, "batch_tokens": TOKENS}
    settings = Train.model_validate({**asked, "precision": given.precision})
    answers = np.random.default_rng(0).normal(size=(len(train), LABELS)).astype(np.float32)
    job = job_for(text, settings, accelerator, seed=0, teacher=answers)
    pieces = torch.from_numpy(np.unique(np.append(train.ids, train.pad_id)).astype(np.int64))
    with trainable(model, settings, pieces), first_piece(model, "classification"):
        optimizer = optimizer_for(model, settings)
        set_rate(optimizer, 1e-4)
        prepared = accelerator.prepare(model, optimizer)
        stride = stride_of(job, *prepared, bf16=given.precision == "bf16")
        ways = {"pad_id": train.pad_id, "tagging": False, "longest": train.longest}
        batches = [batch for epoch in range(EPOCHS) for batch in batches_of(job, epoch)]
        feeds = [padded(stride.feed(batch), **ways) for batch in batches]
        replay = Replay(stride.take, accelerator.device)
        for feed in feeds * 2:
            replay(feed)
        torch.cuda.synchronize()
        start = time.perf_counter()
        for batch in batches:
            padded(stride.feed(batch), **ways)
        if given.told:
            print(f"making a batch: {1e3 * (time.perf_counter() - start) / len(batches):.2f} ms")
        yield Loop(replay, feeds)


def alone(given: argparse.Namespace) -> None:
    """Print where the time of one process' step goes."""
    with warm(given) as loop:
        for name, act in (("a step", loop.step), ("its kernels alone", loop.played)):
            start = time.perf_counter()
            for feed in loop.feeds:
                act(feed)
            torch.cuda.synchronize()
            print(f"{name}: {1e3 * (time.perf_counter() - start) / len(loop.feeds):.2f} ms")
        some = loop.feeds[:SHOWN]
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            for feed in some:
                loop.played(feed)
            torch.cuda.synchronize()
        found = sorted(seen.key_averages(), key=lambda e: -e.self_device_time_total)
        print(f"{sum(e.count for e in found) / len(some):.0f} kernels a step, of them")
        for e in found[:SHOWN]:
            spent, count = e.self_device_time_total / len(some), e.count / len(some)
            print(f"  {spent:7.1f} us in {count:5.1f} of {e.key[:80]}")


def worker(given: argparse.Namespace, place: int, gate: Barrier, counts: list[int]) -> None:
    """Take steps with as many others as are asked for, round by round."""
    with warm(given) as loop:
        for processes in given.processes:
            gate.wait()
            start, taken = time.perf_counter(), 0
            while place < processes and time.perf_counter() - start < SECONDS:
                for feed in loop.feeds[:AHEAD]:
                    loop.step(feed)
                torch.cuda.synchronize()
                taken += AHEAD
            counts[place] = taken
            gate.wait()


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 4, 8, 16, 24])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--tokenizer")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA card here")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {given.precision}")
    given.told = True
    alone(given)
    given.told, most = False, max(given.processes)
    context = multiprocessing.get_context("spawn")
    gate, counts = context.Barrier(most + 1, timeout=300), context.Array("l", most)
    everyone = [
        context.Process(target=worker, args=(given, place, gate, counts)) for place in range(most)
    ]
    for one in everyone:
        one.start()
    for processes in given.processes:
        gate.wait()
        gate.wait()
        print(f"{processes} processes: {sum(counts) / SECONDS:.0f} steps a second", flush=True)
    for one in everyone:
        one.join()


if __name__ == "__main__":
    main()
