"""How much faster a shape is here: measured on fresh weights, before anything is made."""

from __future__ import annotations

import copy
import time
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from headstart.assembly import assemble
from headstart.bench import BATCH, sentences
from headstart.console import track

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from headstart.layout import Head

ROUNDS = 5
PIECES = 1_000  # of a vocabulary: looking a piece up takes as long in a larger one
LETTERS = 4  # of a piece, about


def pace(configs: Sequence[Mapping[str, Any]], head: Head) -> list[float]:
    """Measure how many times as fast as the first each shape is.

    Models take turns at batches of 32 texts, as long as the packaged sentences are.

    Args:
        configs: As plain data, one for each model.
        head: Of all of them.

    Returns:
        Ratios of median seconds, the first 1.0; weights do not matter to them.
    """
    models = [_fresh(config, head) for config in configs]
    lengths = [2 + max(len(text) // LETTERS, 1) for text in sentences(None, count=2 * BATCH)]
    batches = [_batch(lengths[i : i + BATCH]) for i in range(0, len(lengths), BATCH)]
    spent: list[list[float]] = [[] for _ in models]
    with track("timing shapes", ROUNDS, "rounds") as advance:
        for round_ in range(ROUNDS + 1):
            for model, seconds in zip(models, spent, strict=True):
                taken = _seconds(model, batches)
                if round_:  # the first is to warm up
                    seconds.append(taken)
            advance(int(round_ > 0))
    return [median(spent[0]) / median(seconds) for seconds in spent]


def _fresh(plain: Mapping[str, Any], head: Head) -> PreTrainedModel:
    config: PreTrainedConfig = copy.deepcopy(AutoConfig.for_model(**plain))
    named = [getattr(config, f"{kind}_token_id", None) or 0 for kind in ("pad", "bos", "eos")]
    config.vocab_size = max(PIECES, *(1 + i for i in named))
    return assemble(config, head, {}, seed=0)


def _batch(lengths: Sequence[int]) -> dict[str, Tensor]:
    """Make texts of some lengths, padded to the longest."""
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": torch.full(mask.shape, 5), "attention_mask": mask.long()}


def _seconds(model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> float:
    start = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            model(**batch)
    return time.perf_counter() - start
