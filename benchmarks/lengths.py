"""What one answer costs by its length: how much of it does not depend on the text at all.

    python benchmarks/lengths.py [--threads N]

A 12 x 384 model with random weights answers one text at a time, without a tokenizer. What is left
at few pieces is reading the weights, and starting the operations; the least of twelve counts.
"""

from __future__ import annotations

import argparse
import time

import torch
from transformers import BertConfig, BertForSequenceClassification

LENGTHS, TIMES = (5, 17, 32, 64, 128), 12


def main() -> None:
    """Print a line for each length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    config = BertConfig(
        vocab_size=5_000, hidden_size=384, num_hidden_layers=12, num_attention_heads=12,
        intermediate_size=1536, num_labels=60,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    read = sum(p.numel() for p in model.bert.encoder.parameters()) * 4 / 1e6
    print(f"{read:.0f} MB of weights beside the table, {torch.get_num_threads()} threads")
    for length in LENGTHS:
        ids = torch.full((1, length), 7)
        seconds: list[float] = []
        with torch.inference_mode():
            for _ in range(TIMES):
                start = time.perf_counter()
                model(input_ids=ids, attention_mask=torch.ones_like(ids))
                seconds.append(time.perf_counter() - start)
        print(f"{length:4} pieces {min(seconds) * 1e3:6.1f} ms")


if __name__ == "__main__":
    main()
