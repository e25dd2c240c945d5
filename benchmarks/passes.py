"""The teacher pass: real pieces a second and the share of bare products, by pieces in a batch.

    python benchmarks/passes.py [--rows 40] [--rounds 3] [--threads N]

Random models answer the train rows of the packaged MASSIVE extract, in fp32, as a run does it
(`headstart.evaluate.predict`); batches of all sizes take turns, and the best of the rounds counts.
The limit is the products that a pass makes on real pieces (of the last layer queries, keys and
values; its first piece's others are not counted) at the rate of bare products, which is measured
before and after: the machine's own weather shows in how far the two are apart.
"""

from __future__ import annotations

import argparse
import time

import torch
from accelerate import Accelerator
from distil import models, products, texts

from headstart import evaluate

SIZES = (256, 512, 1024, 2048, 4096)


def main() -> None:
    """Run all sizes in turn, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    train, accelerator = texts(given.rows).splits["train"], Accelerator(cpu=True)
    pieces, before = int(train.lengths.sum()), products()
    print("| model | " + " | ".join(f"{size:,}" for size in SIZES) + " |")
    print("| --- " * (len(SIZES) + 1) + "|")
    for model in models(50_000):
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        for _ in range(given.rounds):
            for size in SIZES:
                evaluate.BATCH_TOKENS["cpu"] = size
                start = time.perf_counter()
                evaluate.predict(model, train, accelerator)
                times[size].append(time.perf_counter() - start)
        matrices = sum(p.numel() for n, p in model.bert.encoder.named_parameters() if p.ndim == 2)
        shape = model.config
        left_out = shape.hidden_size * (shape.hidden_size + 2 * shape.intermediate_size)
        limit = 2 * (matrices - left_out) * pieces / before
        cells = [f"{pieces / min(t):,.0f} ({limit / min(t):.2f})" for t in times.values()]
        name = f"{shape.num_hidden_layers} x {shape.hidden_size}"
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    print(f"{pieces:,} pieces, {torch.get_num_threads()} threads; bare products "
          f"{before / 1e9:.0f} GFLOP/s before, {products() / 1e9:.0f} after")  # fmt: skip


if __name__ == "__main__":
    main()
