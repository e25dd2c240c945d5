"""How much faster narrower and shallower students are: the estimate of budgets, and the clock.

    python benchmarks/shapes.py [--threads N]

The teacher is 12 x 384 with heads of 32 channels. Models have fresh weights, and take turns at
batches of 32 texts as long as the packaged sentences are.
"""

from __future__ import annotations

import argparse

import torch

from headstart.budget import work
from headstart.families import family_of
from headstart.pace import pace

SHAPES = (
    (12, 384), (8, 320), (6, 384), (6, 288), (7, 224), (4, 320), (3, 384), (12, 192), (6, 192),
    (3, 192), (12, 96), (1, 384),
)  # fmt: skip


def main() -> None:
    """Print estimated and measured ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads or torch.get_num_threads())
    configs = [
        {
            "model_type": "bert", "vocab_size": 1000, "hidden_size": hidden,
            "num_hidden_layers": layers, "num_attention_heads": hidden // 32,
            "intermediate_size": 4 * hidden, "max_position_embeddings": 512, "type_vocab_size": 2,
            "num_labels": 60,
        }
        for layers, hidden in SHAPES
    ]  # fmt: skip
    family = family_of(configs[0])
    costs = [work(family, config) for config in configs]
    print(f"{torch.get_num_threads()} threads")
    for shape, cost, found in zip(SHAPES, costs, pace(configs, "classification"), strict=True):
        told = costs[0] / cost
        print(
            f"{shape[0]:>3} x {shape[1]:<4} estimated {told:5.1f} x, measured {found:5.1f} x "
            f"({told / found - 1:+.0%})"
        )


if __name__ == "__main__":
    main()
