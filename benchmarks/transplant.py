"""Cutting 12 layers to 6 on disk, beside what a user does by hand: load, copy layers, save.

    python benchmarks/transplant.py

A random XLM-R of 12 x 384 with 50,000 pieces is made on the spot. Both sides write a folder.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import timeit
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from headstart.student import cut_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7


def make_teacher(folder: Path) -> None:
    """Write a random teacher with a small tokenizer."""
    config = XLMRobertaConfig(
        vocab_size=50_000,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
        num_labels=60,
    )
    XLMRobertaForSequenceClassification(config).save_pretrained(folder)
    core = Tokenizer(models.Unigram([("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]))
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)


def by_hand(teacher: Path, out: Path) -> None:
    """Do what the usual answer in a forum says."""
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = 6
    student = AutoModelForSequenceClassification.from_config(config)
    student.roberta.embeddings.load_state_dict(model.roberta.embeddings.state_dict())
    for new, old in enumerate(range(1, 12, 2)):
        layer = model.roberta.encoder.layer[old]
        student.roberta.encoder.layer[new].load_state_dict(layer.state_dict())
    student.classifier.load_state_dict(model.classifier.state_dict())
    student.save_pretrained(out)
    AutoTokenizer.from_pretrained(teacher).save_pretrained(out)


def race(ours: Callable[[], object], reference: Callable[[], object]) -> float:
    """Time both in turn; return the ratio of the medians."""
    ours()
    reference()
    pairs = [
        (timeit.timeit(ours, number=1), timeit.timeit(reference, number=1)) for _ in range(ROUNDS)
    ]
    return statistics.median(a for a, _ in pairs) / statistics.median(b for _, b in pairs)


def main() -> None:
    """Print the ratio."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_teacher(folder / "teacher")
        numbers = count()
        ratio = race(
            lambda: cut_checkpoint(
                folder / "teacher", folder / f"ours-{next(numbers)}", shape={"layers": 6}
            ),
            lambda: by_hand(folder / "teacher", folder / f"hand-{next(numbers)}"),
        )
    print(f"cut 12 layers to 6 on disk / by hand: {ratio:.2f}")


if __name__ == "__main__":
    main()
