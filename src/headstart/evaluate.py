"""Logits of a whole split, and what they are worth in each language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from headstart import metrics
from headstart.console import track
from headstart.encode import collate, pack, to_device, unit_logits, word_predictions
from headstart.lastlayer import first_piece

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.encode import Encoded

    Floats = NDArray[np.float32]

# Padded pieces of one forward pass without gradients: a processor's caches hold the neurons of so
# many, and more are slower (docs/performance.md); an accelerator wants to be filled.
BATCH_TOKENS = {"cpu": 1024}
ELSEWHERE = 16384
SPARE = 16  # a batch ends where its padding would be more than the budget over this


def predict(
    model: PreTrainedModel, encoded: Encoded, accelerator: Accelerator, *, label: str = "predicting"
) -> Floats:
    """Run a model over a split, longest batches first, shared out among the processes.

    Args:
        model: Gives `logits`; put into eval mode, and back into its mode afterwards.
        encoded: The split.
        accelerator: Knows the device and the other processes.
        label: What the bar says.

    Returns:
        Logits, shape (units, classes), the same on every process.
    """
    tokens = BATCH_TOKENS.get(accelerator.device.type, ELSEWHERE)
    order = np.argsort(-encoded.lengths, kind="stable")
    batches = pack(encoded.lengths, order, tokens=tokens, spare=tokens // SPARE)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    logits = torch.zeros(
        len(encoded.gold), number_of_labels(model), device=accelerator.device
    )  # fetched once, at the end
    was_training = model.training
    model.eval()
    brief = first_piece(model, encoded.task)
    with brief, torch.inference_mode(), track(label, len(mine), "batches") as advance:
        for index in mine:
            batch = collate(encoded, index, device=accelerator.device)
            output = unit_logits(model(**batch.inputs).logits, batch)
            logits[to_device(batch.units, logits.device)] = output.float()
            advance()
    model.train(was_training)
    if accelerator.num_processes > 1:  # every unit is zero on all processes but one
        logits = cast("torch.Tensor", accelerator.reduce(logits))
    return logits.cpu().numpy()


def number_of_labels(model: PreTrainedModel) -> int:
    """Count the classes or tags that a model tells apart."""
    return int(cast("int", model.config.num_labels))


def score_languages(
    encoded: Encoded, logits: Floats, labels: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Score every language of a split on its own.

    Args:
        encoded: The split.
        logits: Shape (units, classes).
        labels: Names of the classes or tags, in the order of their ids.

    Returns:
        Metric values under language and metric name; languages without examples are left out.
    """
    predicted = word_predictions(encoded, logits, absent=absent_label(labels))
    scores: dict[str, dict[str, float]] = {}
    for code, language in enumerate(encoded.languages):
        rows = np.flatnonzero(encoded.language_ids == code)
        if len(rows):
            gold, guess = _sequences(encoded, rows, encoded.words, predicted)
            scores[language] = metrics.score(encoded.task, gold, guess, labels)
    return scores


def absent_label(labels: Sequence[str]) -> int:
    """Find what is predicted for a word that was cut off: `O`."""
    return labels.index("O") if "O" in labels else 0


def _sequences(
    encoded: Encoded, rows: NDArray[np.int64], *values: NDArray[np.int64]
) -> tuple[Any, ...]:
    """Cut flat word values by example: lists of arrays when tagging, one flat array otherwise."""
    starts = encoded.word_starts
    if encoded.task != "tagging":
        return tuple(value[starts[rows]] for value in values)
    return tuple([value[starts[row] : starts[row + 1]] for row in rows] for value in values)


def mean_score(scores: Mapping[str, Mapping[str, float]], task: str) -> float:
    """Average the main metric over languages with equal weight."""
    return float(np.mean([values[metrics.main_metric(task)] for values in scores.values()]))


def cross_entropy(encoded: Encoded, logits: Floats) -> float:
    """Mean negative log likelihood of the gold labels over units, in nats."""
    gold = torch.from_numpy(encoded.gold)
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits).float(), gold))
