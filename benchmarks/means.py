"""Each means of a fast training step on its own: what it saves or costs beside the step as it is.

    python benchmarks/means.py [--pieces 50000] [--batch 32] [--rounds 5] [--threads N]

A 6 x 384 student with random weights learns random answers to the packaged MASSIVE extract, in
fp32. The step as it is: batches by length, the rows of the table that occur, no dropout, fused
AdamW, transformers' sdpa attention, gradients freed, the last layer for its first piece alone
(where texts stand in one long row, it is whole: hold those against "the whole last layer"). In "the
teacher at each step" one of 12 x 768 answers each batch, and its answers are not kept; in "texts
one by one" Python makes the batch a text at a time. All ways take the same batches in turn, but
"batches at random", which pads as many texts to their longest; a round is an epoch, and what is
printed is the median over rounds of a way's seconds over those of the step as it is. The limit is
the products that a way makes of the student's matrices on real pieces, forward and backward, at the
rate of bare products. At the end, where the time of the step as it is goes, by operation.
"""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from distil import products, texts
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from transformers import AttentionInterface, BertConfig, BertForSequenceClassification

from headstart.encode import collate, pack
from headstart.lastlayer import first_piece
from headstart.prepare import trainable
from headstart.settings import Train

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from headstart.encode import Encoded

Model = BertForSequenceClassification
LABELS, OPERATIONS = 60, 12
RANDOM = "batches at random"


def padded(model: Model, text: Encoded, index: np.ndarray) -> Tensor:
    """Give logits of a padded batch."""
    return model(**collate(text, index).inputs).logits


@cache
def teacher(pieces: int) -> Model:
    """Make a 12 x 768 model with random weights."""
    return Model(BertConfig(vocab_size=pieces, num_labels=LABELS)).eval()


def asking(model: Model, text: Encoded, index: np.ndarray) -> Tensor:
    """Give logits after a teacher has given its own, which were not kept."""
    with torch.no_grad():
        padded(teacher(model.config.vocab_size), text, index)
    return padded(model, text, index)


def one_by_one(model: Model, text: Encoded, index: np.ndarray) -> Tensor:
    """Give logits of a padded batch that is made a text at a time."""
    rows = [text.ids[text.starts[i] : text.starts[i + 1]].tolist() for i in index]
    longest = max(map(len, rows))
    ids = [row + [text.pad_id] * (longest - len(row)) for row in rows]
    seen = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(seen)).logits


def one_row(model: Model, text: Encoded, index: np.ndarray, *, mask: bool) -> Tensor:
    """Give logits of texts in one long row; each sees itself alone, by a mask or by lengths."""
    ids = [text.ids[text.starts[i] : text.starts[i + 1]] for i in index]
    lengths = torch.tensor([len(one) for one in ids])
    place = torch.cat([torch.arange(len(one)) for one in ids])[None]
    owner = torch.repeat_interleave(torch.arange(len(ids)), lengths)
    seen = (owner[:, None] == owner)[None, None] if mask else None
    states = model.bert(
        input_ids=torch.from_numpy(np.concatenate(ids))[None], position_ids=place,
        attention_mask=seen, **({} if mask else {"lengths": lengths}),
    ).last_hidden_state  # fmt: skip
    first = states[0, torch.cumsum(lengths, 0) - lengths]
    return model.classifier(model.dropout(model.bert.pooler(first[:, None])))


def by_length(
    module: object, q: Tensor, k: Tensor, v: Tensor, mask: object, lengths: Tensor, **_: object
) -> tuple[Tensor, None]:
    """Attend within texts of one row: those of one length, which stand together, at once."""
    del module, mask
    made: list[Tensor] = []
    at, heads, size = 0, q.shape[1], q.shape[3]
    for length, count in zip(*torch.unique_consecutive(lengths, return_counts=True), strict=True):
        n, m = int(length), int(count)
        part = [x[0, :, at : at + n * m].view(heads, m, n, size) for x in (q, k, v)]
        made.append(F.scaled_dot_product_attention(*part).reshape(heads, n * m, size))
        at += n * m
    return torch.cat(made, 1).transpose(0, 1)[None], None


@dataclass(slots=True)
class Way:
    """A model with its optimizer, and how it steps."""

    model: Model
    optimizer: torch.optim.Optimizer
    forward: Callable[[Model, Encoded, np.ndarray], Tensor]
    kept: bool  # gradients are zeroed, not freed
    whole: bool  # the last layer is worked out for all pieces
    own: list[np.ndarray] | None = None  # its batches, where they are not those of all

    @property
    def matrices(self) -> int:
        """Count the values that a piece is multiplied with."""
        config, layers = self.model.config, self.model.bert.encoder
        left_out = config.hidden_size * (config.hidden_size + 2 * config.intermediate_size)
        return sum(p.numel() for p in layers.parameters() if p.dim() > 1) - (
            0 if self.whole else left_out
        )

    def epoch(self, text: Encoded, batches: list[np.ndarray], wanted: Tensor) -> float:
        """Take a step on each batch; return seconds."""
        start = time.perf_counter()
        for index in self.own or batches:
            loss = (self.forward(self.model, text, index) - wanted[index]).square().sum(-1).mean()
            self.optimizer.zero_grad(set_to_none=not self.kept)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        return time.perf_counter() - start


def way(  # noqa: PLR0913
    stack: ExitStack,
    text: Encoded,
    vocabulary: int,
    *,
    optimizer: str = "fused",
    attention: str = "sdpa",
    forward: Callable[[Model, Encoded, np.ndarray], Tensor] = padded,
    kept: bool = False,
    compiled: bool = False,
    whole: bool = False,
    **settings: object,
) -> Way:
    """Make a student that differs from the step as it is in one thing."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=384, num_hidden_layers=6, num_attention_heads=6,
        intermediate_size=1536, num_labels=LABELS,
    )  # fmt: skip
    config._attn_implementation = attention  # as from_pretrained sets it
    model = Model(config)
    asked = Train.model_validate({"objective": {"mse": 1.0}, **settings})
    pieces = torch.from_numpy(np.unique(np.append(text.ids, text.pad_id)).astype(np.int64))
    stack.enter_context(trainable(model, asked, pieces))
    if not whole:
        stack.enter_context(first_piece(model, "classification"))
    learned = [p for p in model.parameters() if p.requires_grad]
    kind = {} if optimizer == "loop" else {optimizer: True}
    made = torch.optim.AdamW(learned, lr=1e-5, **(kind or {"foreach": False}))
    if compiled:
        model.bert.encoder.compile(dynamic=True)
    return Way(model, made, forward, kept, whole)


WAYS: dict[str, dict[str, Any]] = {
    "the step as it is": {},
    "the whole last layer": {"whole": True},
    "the teacher at each step": {"forward": asking},
    RANDOM: {},
    "texts one by one": {"forward": one_by_one},
    "dropout": {"dropout": 0.1},
    "the whole table": {"word_embeddings": "train"},
    "AdamW, foreach": {"optimizer": "foreach"},
    "AdamW, one by one": {"optimizer": "loop"},
    "gradients kept": {"kept": True},
    "eager attention": {"attention": "eager"},
    "one long row, masked": {"forward": partial(one_row, mask=True), "whole": True},
    "one long row, by length": {
        "forward": partial(one_row, mask=False), "attention": "by_length", "whole": True
    },
    "torch.compile": {"compiled": True},
}  # fmt: skip


def main() -> None:
    """Run all ways in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pieces", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads or torch.get_num_threads())
    AttentionInterface.register("by_length", by_length)
    text = texts(40).splits["train"]
    tokens = round(given.batch * float(text.lengths.mean()))
    batches = pack(text.lengths, np.random.default_rng(0).permutation(len(text)), tokens=tokens)
    order = np.random.default_rng(1).permutation(len(text))
    wanted = torch.randn(len(text), LABELS)
    with ExitStack() as stack:
        ways = {name: way(stack, text, given.pieces, **some) for name, some in WAYS.items()}
        ways[RANDOM].own = np.array_split(order, len(batches))
        warm(ways, text, batches, wanted)
        rounds = [
            {name: one.epoch(text, batches, wanted) for name, one in ways.items()}
            for _ in range(given.rounds)
        ]
        first = next(iter(ways.values()))
        report(rounds, len(batches), int(text.lengths.sum()), ways)
        where(first, text, batches, wanted)


def warm(ways: dict[str, Way], text: Encoded, batches: list[np.ndarray], wanted: Tensor) -> None:
    """Hold the ways' logits against the first's, and take an epoch that does not count."""
    first = next(iter(ways.values()))
    same = first.forward(first.model.eval(), text, batches[0]).detach()
    for name, one in ways.items():
        logits = one.forward(one.model.eval(), text, batches[0]).detach()
        apart = float((logits - same).abs().max())
        one.model.train()
        spent = one.epoch(text, batches, wanted)
        print(f"{name:<26} logits differ by {apart:.0e}, first epoch {spent:.1f} s", flush=True)


def where(one: Way, text: Encoded, batches: list[np.ndarray], wanted: Tensor) -> None:
    """Print where a step's time goes, and what making its batch takes."""
    start = time.perf_counter()
    for index in batches:
        collate(text, index)
    data = (time.perf_counter() - start) / len(batches) * 1e3
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        one.epoch(text, batches, wanted)
    print(f"{'the data alone':<52}{data:6.1f} ms a step")
    found = sorted(profiled.key_averages(), key=lambda event: -event.self_cpu_time_total)
    for event in found[:OPERATIONS]:
        spent = event.self_cpu_time_total / len(batches) / 1e3
        print(f"{event.key[:50]:<52}{spent:6.1f} ms a step")


def report(rounds: list[dict[str, float]], steps: int, pieces: int, ways: dict[str, Way]) -> None:
    """Print each way beside the step as it is."""
    shipped = np.array([one["the step as it is"] for one in rounds])
    each = 6 * pieces / products()
    print(f"{steps} steps of {pieces / steps:.0f} pieces; {torch.get_num_threads()} threads")
    for name in rounds[0]:
        ratios = np.array([one[name] for one in rounds]) / shipped
        took = float(np.median([one[name] for one in rounds]))
        limit = each * ways[name].matrices
        print(
            f"{name:<26}{took / steps * 1e3:6.0f} ms a step, {float(np.median(ratios)):5.2f} x "
            f"({ratios.min():.2f} to {ratios.max():.2f}), {limit / took:4.0%} of the limit"
        )


if __name__ == "__main__":
    main()
