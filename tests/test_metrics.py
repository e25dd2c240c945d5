"""Scores are those of scikit-learn and seqeval, on anything; and the simple answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pytest
from seqeval.metrics import f1_score as entity_f1
from seqeval.metrics import precision_score, recall_score
from sklearn.metrics import accuracy_score, f1_score

from headstart import metrics
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.metrics import Scores

TAGS = ("O", "B-PER", "I-PER", "I-ORG", "B-ORG", "B-LOC", "I-LOC")

Classes = Callable[[np.ndarray, np.ndarray], "Scores"]
Tags = Callable[[list[np.ndarray], list[np.ndarray]], "Scores"]


def law_classes_as_scikit_learn(score: Classes) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        classes, rows = rng.integers(1, 9), rng.integers(1, 30)
        gold = rng.integers(0, classes, rows) * 2  # odd classes are never gold, some never at all
        predicted = rng.integers(0, classes, rows)
        scores = score(gold, predicted)
        oracle = f1_score(gold, predicted, average="macro", zero_division=0)
        assert scores["macro_f1"] == pytest.approx(oracle, abs=1e-12)
        assert scores["accuracy"] == pytest.approx(accuracy_score(gold, predicted), abs=1e-12)


def test_classes_are_scored_as_scikit_learn_does() -> None:
    law_classes_as_scikit_learn(lambda g, p: metrics.score("classification", g, p, ()))


def _over_gold_classes(gold: np.ndarray, predicted: np.ndarray) -> Scores:
    scores = metrics.classification_scores(gold, predicted)
    macro = f1_score(gold, predicted, labels=np.unique(gold), average="macro", zero_division=0)
    return {**scores, "macro_f1": float(macro)}


def _over_all_classes(gold: np.ndarray, predicted: np.ndarray) -> Scores:
    scores = metrics.classification_scores(gold, predicted)
    macro = f1_score(gold, predicted, labels=range(20), average="macro", zero_division=0)
    return {**scores, "macro_f1": float(macro)}


WRONG_CLASSES: Mapping[str, Classes] = {
    "leaves out classes that are only predicted": _over_gold_classes,
    "counts classes that are nowhere": _over_all_classes,
    "weighs classes by size": lambda g, p: (
        metrics.classification_scores(g, p)
        | {"macro_f1": float(f1_score(g, p, average="weighted", zero_division=0))}
    ),
}


@pytest.mark.parametrize("mistake", WRONG_CLASSES.values(), ids=WRONG_CLASSES)
def test_the_law_of_classes_has_teeth(mistake: Classes) -> None:
    with pytest.raises(AssertionError):
        law_classes_as_scikit_learn(mistake)


def law_entities_as_seqeval(score: Tags) -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        gold = [rng.choice(len(TAGS), rng.integers(1, 9)) for _ in range(rng.integers(1, 6))]
        predicted = [np.where(rng.random(len(g)) < 0.5, g, rng.choice(7, len(g))) for g in gold]
        names = [[[TAGS[i] for i in row] for row in rows] for rows in (gold, predicted)]
        scores = score(gold, predicted)
        assert scores["f1"] == pytest.approx(entity_f1(*names, zero_division=0))
        assert scores["precision"] == pytest.approx(precision_score(*names, zero_division=0))
        assert scores["recall"] == pytest.approx(recall_score(*names, zero_division=0))
        right = np.concatenate(gold) == np.concatenate(predicted)
        assert scores["token_accuracy"] == pytest.approx(right.mean())


def test_entities_are_scored_as_seqeval_does_broken_tags_included() -> None:
    law_entities_as_seqeval(lambda g, p: metrics.score("tagging", g, p, TAGS))


def _runs_on(gold: list[np.ndarray], predicted: list[np.ndarray]) -> Scores:
    return metrics.entity_scores([np.concatenate(gold)], [np.concatenate(predicted)], TAGS)


def _needs_a_beginning(gold: list[np.ndarray], predicted: list[np.ndarray]) -> Scores:
    """Reads an `I-` that continues nothing as `O`, as strict scorers do."""

    def strict(rows: list[np.ndarray]) -> list[list[int]]:
        cleaned: list[list[int]] = []
        for row in rows:
            kept: list[int] = []
            for tag in row:
                before = TAGS[kept[-1]] if kept else "O"
                is_stray = TAGS[tag][0] == "I" and before[2:] != TAGS[tag][2:]
                kept.append(0 if is_stray else int(tag))
            cleaned.append(kept)
        return cleaned

    return metrics.entity_scores(strict(gold), strict(predicted), TAGS)


def _by_token(gold: list[np.ndarray], predicted: list[np.ndarray]) -> Scores:
    truth, guess = np.concatenate(gold), np.concatenate(predicted)
    value = float(f1_score(truth, guess, average="micro"))
    return metrics.entity_scores(gold, predicted, TAGS) | {"f1": value}


WRONG_TAGS: Mapping[str, Tags] = {
    "lets an entity run into the next sentence": _runs_on,
    "drops an I- without B-": _needs_a_beginning,
    "counts words, not entities": _by_token,
    "swaps precision and recall": lambda g, p: metrics.entity_scores(p, g, TAGS),
}


@pytest.mark.parametrize("mistake", WRONG_TAGS.values(), ids=WRONG_TAGS)
def test_the_law_of_entities_has_teeth(mistake: Tags) -> None:
    with pytest.raises(AssertionError):
        law_entities_as_seqeval(mistake)


def test_order_of_label_ids_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    gold, predicted = ([rng.choice(7, 20) for _ in range(30)] for _ in range(2))
    order = rng.permutation(7)
    renamed = [TAGS[old] for old in order]
    new = np.argsort(order)
    first = metrics.score("tagging", gold, predicted, TAGS)
    again = metrics.score("tagging", [new[g] for g in gold], [new[p] for p in predicted], renamed)
    assert first == again


@pytest.mark.parametrize("task", metrics.METRICS)
def test_the_main_metric_is_among_the_scores_and_one_for_the_truth(task: str) -> None:
    gold = [[1, 2, 0], [5]] if task == "tagging" else [1, 2, 0]
    scores = metrics.score(task, gold, gold, TAGS)
    assert set(scores.values()) == {1.0}
    assert metrics.main_metric(task) in scores
    assert metrics.MAIN.keys() == metrics.METRICS.keys()


def test_nothing_to_find_and_nothing_found_is_zero_not_one() -> None:
    scores = metrics.score("tagging", [[0, 0]], [[0, 0]], TAGS)
    assert scores == {"f1": 0.0, "precision": 0.0, "recall": 0.0, "token_accuracy": 1.0}


@pytest.mark.parametrize("task", metrics.METRICS)
def test_example_counts_sum_to_the_main_metric_of_any_part(task: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        sizes = rng.integers(1, 7, 20)
        gold, predicted = (
            rng.integers(0, len(TAGS), 20)
            if task == "classification"
            else [rng.integers(0, len(TAGS), size) for size in sizes]
            for _ in range(2)
        )
        hits, of = metrics.example_counts(task, gold, predicted, TAGS)
        assert hits.shape == of.shape == (20,)
        for part in (slice(0, 20), slice(3, 9)):
            scores = metrics.score(task, gold[part], predicted[part], TAGS)
            expected = scores[metrics.main_metric(task)]
            assert hits[part].sum() / max(of[part].sum(), 1) == pytest.approx(expected)


@pytest.mark.parametrize("task", metrics.METRICS)
def test_unequal_numbers_of_answers_are_refused(task: str) -> None:
    gold, predicted = ([[1, 2], [1]], [[1, 2], [1, 0]]) if task == "tagging" else ([1, 2], [1])
    with pytest.raises(HeadstartError, match="gold answers in") as caught:
        metrics.score(task, gold, predicted, TAGS)
    assert "one prediction for every" in caught.value.way_out
    if task == "tagging":
        assert "differ at row 1" in caught.value.what


@pytest.mark.parametrize("task", metrics.METRICS)
def test_no_answers_are_refused(task: str) -> None:
    with pytest.raises(HeadstartError, match="nothing to score"):
        metrics.score(task, [], [], TAGS)
