"""Copies between splits are counted right, and broken tags too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from seqeval.scheme import IOB2, Entities

from headstart.rows import Leak, Pairs, count_stray_inside, find_leaks

Find = Callable[[str, Pairs, Mapping[str, Pairs]], tuple[list[Leak], list[bool]]]


def law_leaks_are_what_a_slow_count_finds(find: Find) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        train, dev, test = (
            [(f"t{rng.integers(12)}", f"l{rng.integers(3)}") for _ in range(rng.integers(1, 9))]
            for _ in range(3)
        )
        leaks, stays = find("de", train, {"dev": dev, "test": test})
        for split, rows in {"dev": dev, "test": test}.items():
            copied = [any(text == other for other, _ in train) for text, _ in rows]
            agreed = [row in train for row in rows]
            expected = Leak("de", split, sum(copied), sum(copied) - sum(agreed))
            assert [leak for leak in leaks if leak.split == split] == [expected] * any(copied)
        assert stays == [all(text != other for other, _ in dev + test) for text, _ in train]


def test_leaks_are_what_a_slow_count_finds() -> None:
    law_leaks_are_what_a_slow_count_finds(find_leaks)


MISTAKES: Mapping[str, Find] = {
    "counts each text once": lambda code, train, judged: (
        [
            replace(leak, rows=len({*dict(judged[leak.split])} & {*dict(train)}))
            for leak in find_leaks(code, train, judged)[0]
        ],
        find_leaks(code, train, judged)[1],
    ),
    "compares with one copy only": lambda code, train, judged: find_leaks(
        code, list(dict(train).items()), judged
    ),
    "drops what leaks into test only": lambda code, train, judged: (
        find_leaks(code, train, judged)[0],
        find_leaks(code, train, {"test": judged["test"]})[1],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_law_of_leaks_has_teeth(mistake: Find) -> None:
    with pytest.raises(AssertionError):
        law_leaks_are_what_a_slow_count_finds(mistake)


Count = Callable[[list[str]], int]


def law_no_stray_tag_means_valid_iob2(count: Count) -> None:
    """Where nothing is stray, strict and lenient reading find the same words in entities."""
    rng = np.random.default_rng(1)
    tags = np.array(["O", "B-X", "I-X", "B-Y", "I-Y"])
    for _ in range(300):
        sentence = [str(tag) for tag in rng.choice(tags, 6)]
        strict = Entities([sentence], scheme=IOB2).entities[0]
        inside = sum(entity.end - entity.start for entity in strict)
        marked = sum(tag != "O" for tag in sentence)
        assert (count(sentence) == 0) == (inside == marked)


def test_no_stray_tag_means_valid_iob2() -> None:
    law_no_stray_tag_means_valid_iob2(count_stray_inside)


WRONG_COUNTS: Mapping[str, Count] = {
    "looks for O before only": lambda tags: sum(
        tag[0] == "I" and last == "O" for last, tag in zip(["O", *tags], tags, strict=False)
    ),
    "asks for B- just before": lambda tags: sum(
        tag[0] == "I" and last != f"B{tag[1:]}"
        for last, tag in zip(["O", *tags], tags, strict=False)
    ),
    "forgets the first word": lambda tags: count_stray_inside(tags[1:]) if tags[1:] else 0,
}


@pytest.mark.parametrize("mistake", WRONG_COUNTS.values(), ids=WRONG_COUNTS)
def test_the_law_of_stray_tags_has_teeth(mistake: Count) -> None:
    with pytest.raises(AssertionError):
        law_no_stray_tag_means_valid_iob2(mistake)
