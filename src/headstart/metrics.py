"""What predictions are worth: accuracy, macro-F1, entity F1 on words.

Answers are ids: one class per example, or one sequence of tags per sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError

Ints = NDArray[np.int64]
Ids = Sequence[int] | NDArray[np.integer[Any]]
Answers = Ids | Sequence[Ids]
Scores = dict[str, float]

SEPARATOR = -1  # stands after each sentence, so that no entity runs into the next one


def classification_scores(gold: Ids, predicted: Ids) -> Scores:
    """Score one class per example.

    Args:
        gold: Class ids, shape (examples,).
        predicted: Class ids, same shape.

    Returns:
        `accuracy`, and `macro_f1`: the mean of F1, with equal weight, over the classes that
        occur in gold or predicted.

    Raises:
        HeadstartError: Different numbers of answers, or none.

    Source:
        scikit-learn, `f1_score(average="macro")`, whose choice of classes this is.
    """
    truth, guess = _flat(gold, predicted)
    size = int(max(truth.max(), guess.max())) + 1
    hits = np.bincount(truth[truth == guess], minlength=size)
    sums = np.bincount(truth, minlength=size) + np.bincount(guess, minlength=size)
    occurs = sums > 0
    f1 = 2 * hits[occurs] / sums[occurs]
    return {"accuracy": float((truth == guess).mean()), "macro_f1": float(f1.mean())}


def entity_scores(gold: Sequence[Ids], predicted: Sequence[Ids], labels: Sequence[str]) -> Scores:
    """Score tagged words by the entities that the tags spell.

    An entity is right when its first word, last word and type are. Tags that break IOB2 are read
    as conlleval reads them: an `I-` that continues nothing starts an entity.

    Args:
        gold: Tag ids, one sequence per sentence, one id per word.
        predicted: The same shape; a word that the model did not see is there too, as `O`.
        labels: Tag names in the order of their ids: `O`, `B-…`, `I-…`.

    Returns:
        `f1`, `precision`, `recall` over the entities of all types together, each 0 where it has
        nothing to divide by, and `token_accuracy`, the share of words with the right tag.

    Raises:
        HeadstartError: Different numbers of sentences or words, or none.

    Source:
        seqeval, default mode, micro average.
    """
    truth, guess = _joined(gold, predicted)
    there, found = _entities(truth, labels), _entities(guess, labels)
    hits = len(np.intersect1d(there, found, assume_unique=True))
    words = truth != SEPARATOR
    return {
        "f1": 2 * hits / max(len(there) + len(found), 1),
        "precision": hits / max(len(found), 1),
        "recall": hits / max(len(there), 1),
        "token_accuracy": float((truth == guess)[words].mean()),
    }


def _classes(gold: Answers, predicted: Answers, _: Sequence[str]) -> Scores:
    return classification_scores(cast("Ids", gold), cast("Ids", predicted))


def _tags(gold: Answers, predicted: Answers, labels: Sequence[str]) -> Scores:
    return entity_scores(cast("Sequence[Ids]", gold), cast("Sequence[Ids]", predicted), labels)


METRICS: Mapping[str, Callable[[Answers, Answers, Sequence[str]], Scores]] = {
    "classification": _classes,
    "tagging": _tags,
}
"""How each task is scored; the first score is its main metric."""
MAIN: Mapping[str, str] = {"classification": "accuracy", "tagging": "f1"}


def score(task: str, gold: Answers, predicted: Answers, labels: Sequence[str]) -> Scores:
    """Score answers with the metrics of a task.

    Args:
        task: `classification` or `tagging`.
        gold: Class ids, or one sequence of tag ids per sentence.
        predicted: The same shape.
        labels: Names of the classes or tags, in the order of their ids.

    Returns:
        Values from 0 to 1 under the names that `classification_scores` or `entity_scores` give.

    Raises:
        HeadstartError: Different numbers of answers, or none.
    """
    return METRICS[task](gold, predicted, labels)


def main_metric(task: str) -> str:
    """Name the score that decides: accuracy (classification) or entity F1 (tagging)."""
    return MAIN[task]


def example_counts(
    task: str, gold: Answers, predicted: Answers, labels: Sequence[str]
) -> tuple[Ints, Ints]:
    """Say what each example adds to the main metric.

    Args:
        task: `classification` or `tagging`.
        gold: As `score` takes it.
        predicted: The same shape.
        labels: Names of the classes or tags, in the order of their ids.

    Returns:
        Two arrays, shape (examples,): the main metric is the sum of the first over that of the
        second. Right answers and ones; or twice the right entities, and those there and found.

    Raises:
        HeadstartError: Different numbers of answers, or none.
    """
    if task == "classification":
        truth, guess = _flat(cast("Ids", gold), cast("Ids", predicted))
        return (truth == guess).astype(np.int64), np.ones(len(truth), np.int64)
    truth, guess = _joined(_as_rows(gold), _as_rows(predicted))
    there, found = _entities(truth, labels), _entities(guess, labels)
    kinds = len({name[2:] for name in labels if name != "O"})
    ends = np.flatnonzero(truth == SEPARATOR)

    def per_row(entities: Ints) -> Ints:
        starts = entities // (kinds + 1) // (len(truth) + 1)
        return np.bincount(np.searchsorted(ends, starts), minlength=len(ends))

    hits = np.intersect1d(there, found, assume_unique=True)
    return 2 * per_row(hits), per_row(there) + per_row(found)


def _as_rows(answers: Answers) -> list[Ints]:
    return [np.atleast_1d(np.asarray(row, np.int64)) for row in answers]


def _flat(gold: Ids, predicted: Ids) -> tuple[Ints, Ints]:
    truth, guess = np.asarray(gold, np.int64), np.asarray(predicted, np.int64)
    _check_sizes([len(truth)], [len(guess)])
    return truth, guess


def _joined(gold: Sequence[Ids], predicted: Sequence[Ids]) -> tuple[Ints, Ints]:
    """Put all sentences into one array, each followed by a separator."""
    truth, guess = _as_rows(gold), _as_rows(predicted)
    _check_sizes([len(row) for row in truth], [len(row) for row in guess])
    end = np.array([SEPARATOR])
    return (
        np.concatenate([part for row in truth for part in (row, end)]),
        np.concatenate([part for row in guess for part in (row, end)]),
    )


def _check_sizes(gold: list[int], predicted: list[int]) -> None:
    if gold != predicted:
        place = next(
            (i for i, (a, b) in enumerate(zip(gold, predicted, strict=False)) if a != b), 0
        )
        raise HeadstartError(
            f"{sum(gold)} gold answers in {len(gold)} rows, {sum(predicted)} predicted in "
            f"{len(predicted)}; they first differ at row {place}",
            where="arguments gold and predicted",
            way_out="give one prediction for every example, or for every word of every sentence",
        )
    if not sum(gold):
        raise HeadstartError(
            "there is nothing to score",
            where="arguments gold and predicted",
            way_out="leave out languages and splits without examples",
        )


def _entities(tags: Ints, labels: Sequence[str]) -> Ints:
    """Find the entities in a joined array of tags: a distinct number for each place and type."""
    kinds = sorted({name[2:] for name in labels if name != "O"})
    # the last entry is what SEPARATOR (-1) looks up
    kind_of = np.array([0 if n == "O" else kinds.index(n[2:]) + 1 for n in (*labels, "O")])
    begins = np.array([name.startswith("B-") for name in (*labels, "O")])[tags]
    kind = kind_of[tags]
    before = np.concatenate([[0], kind[:-1]])
    is_start = (kind > 0) & (begins | (before != kind))
    starts = np.flatnonzero(is_start)
    stops = np.flatnonzero(is_start | (kind == 0))
    ends = stops[np.searchsorted(stops, starts, side="right")]
    return (starts * (len(tags) + 1) + ends) * (len(kinds) + 1) + kind[starts]
