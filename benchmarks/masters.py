"""A training step with weights kept in bf16 beside fp32 copies, and under autocast, which casts.

    python benchmarks/masters.py [--rounds 5] [--threads N]

Three ways take steps on the same random texts of 16 pieces in turn: autocast, as headstart trains
in bf16; autocast with linear maps whose weights are in bf16 beside fp32 copies that the optimizer
moves, which gives autocast's numbers; and all of the model in bf16, norms and sums too, beside
fp32 copies. A round is four steps; ratios are the median (least to most) of a way's seconds over
autocast's in the same round.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from transformers import BertConfig, BertForSequenceClassification

from headstart.prepare import half

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ((6, 384), (6, 192), (12, 768))
STEPS, LONG, PIECES, LABELS, RATE = 4, 16, 3000, 60, 1e-5
WAYS = ("autocast", "maps in bf16", "all in bf16")


def fresh(layers: int, hidden: int) -> BertForSequenceClassification:
    """Make a model with random weights, the same each time, without dropout."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=PIECES, hidden_size=hidden, num_hidden_layers=layers, num_labels=LABELS,
        num_attention_heads=hidden // 32, intermediate_size=4 * hidden, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def stepping(
    way: str, model: BertForSequenceClassification, texts: int
) -> tuple[Callable[[], None], list[torch.Tensor]]:
    """Give a function that takes one step in a way, and what the optimizer moves."""
    ids = torch.randint(5, PIECES, (texts, LONG), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[:, -2:] = 0
    wanted = torch.randn(texts, LABELS, generator=torch.Generator().manual_seed(2))
    masters: dict[nn.Parameter, torch.Tensor] = {}
    for module in model.modules():
        if way == "all in bf16" or (way == "maps in bf16" and isinstance(module, nn.Linear)):
            for part in module.parameters(recurse=False):
                masters[part] = part.detach().clone().requires_grad_()
                part.data = part.data.bfloat16()
    moved = [masters.get(part, part) for part in model.parameters()]
    optimizer = torch.optim.AdamW(moved, lr=RATE, fused=True)

    def step() -> None:
        with half("cpu", bf16=True), torch.autocast("cpu", enabled=way != "all in bf16"):
            logits = model(input_ids=ids, attention_mask=mask).logits
        (logits.float() - wanted).square().mean().backward()
        for part, master in masters.items():
            master.grad, part.grad = part.grad.float(), None
        clip_grad_norm_(moved, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if masters:
            with torch.no_grad():
                torch._foreach_copy_([*masters], [*masters.values()])

    return step, moved


def main() -> None:
    """Print a line for each shape and batch."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| student | pieces a batch |", " | ".join(f"{w}, ms" for w in WAYS), "| ratios |")
    for layers, hidden in SHAPES:
        for texts in (32, 64):
            ways = [stepping(way, fresh(layers, hidden), texts) for way in WAYS]
            spent: list[list[float]] = [[] for _ in WAYS]
            for round_ in range(given.rounds + 1):
                for (step, _), found in zip(ways, spent, strict=True):
                    start = time.perf_counter()
                    for _ in range(STEPS):
                        step()
                    if round_:  # the first is to warm up
                        found.append((time.perf_counter() - start) / STEPS)
            pairs = zip(ways[0][1], ways[1][1], strict=True)
            apart = max(float((a - b).abs().max().detach()) for a, b in pairs)
            told = []
            for found in spent[1:]:
                ratios = [a / b for a, b in zip(found, spent[0], strict=True)]
                told.append(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
            times = " | ".join(f"{1e3 * median(found):.0f}" for found in spent)
            print(
                f"| {layers} x {hidden} | {texts * LONG:,} | {times} | {', '.join(told)}; "
                f"weights of the first two ways apart by {apart:.0e} |", flush=True,
            )  # fmt: skip


if __name__ == "__main__":
    main()
