"""What every row of a corpus must be: one text with one label, or words with one tag each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headstart.errors import HeadstartError, combine, nearest
from headstart.sources import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from headstart.sources import Raw

IOB2 = re.compile(r"O|[BI]-.+")
STRING = pa.string()
STRINGS = pa.list_(STRING)
SHOWN = 5  # rows, or names, that a message lists


@dataclass(frozen=True, slots=True)
class Leak:
    """Text of one language that is in train and in another split."""

    language: str
    split: str
    """`dev` or `test`."""
    rows: int
    """Rows of that split whose exact text is in train."""
    conflicts: int
    """Those of them whose label no train copy has."""


def check_rows(
    raw: Raw, task: str, labels: Sequence[str] | None, *, numbers: bool = False
) -> pa.Table:
    """Check rows, and bring them into one form.

    Args:
        raw: Rows of one language and split.
        task: `classification` or `tagging`.
        labels: The names that may occur; None allows any, but tags must be IOB2.
        numbers: Whether their numbers, from 0, may stand for them.

    Returns:
        Columns id and text, label (strings) or tokens, tags (lists of strings). A source without
        ids gets the rows' numbers.

    Raises:
        HeadstartError: All faults: an empty text or word, a missing or unknown label, words and
            tags of different number; or a column of the wrong type.
    """
    kind = STRINGS if task == "tagging" else STRING
    texts, answers = (_typed(raw, name, kind) for name in COLUMNS[task])
    if labels is not None and numbers:
        answers = pa.array(_from_numbers(answers.to_pylist(), labels), kind)
    look = _check_words if task == "tagging" else _check_texts
    if faults := [*look(raw, texts.to_pylist(), answers.to_pylist(), labels)]:
        raise combine(faults, where=raw.where)
    text, answer = COLUMNS[task]
    return pa.table({"id": _ids(raw), text: texts, answer: answers})


def _ids(raw: Raw) -> pa.Array:
    numbers: Any = raw.table["row"].to_pylist()
    names: Any = raw.table["id"].to_pylist() if "id" in raw.table.column_names else numbers
    pairs = zip(names, numbers, strict=True)
    return pa.array([str(row if name is None else name) for name, row in pairs], STRING)


def _typed(raw: Raw, name: str, wanted: pa.DataType) -> Any:  # noqa: ANN401 (an Arrow column)
    column = raw.table[name].combine_chunks()
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise HeadstartError(
            f"column {name!r} holds {column.type}, not {wanted}",
            where=raw.where,
            way_out="name another column under data.columns, or the right `task`",
        ) from error


def _from_numbers(answers: Sequence[Any], labels: Sequence[str]) -> Sequence[Any]:
    """Put names in the place of their numbers, where all rows have numbers and no name is one.

    What is missing, and numbers below 0, which say the same elsewhere, stay for the rows' check.
    """
    parts = (row if isinstance(row, list) else [row] for row in answers)
    every = {str(name or "").strip().removeprefix("-") for name in chain.from_iterable(parts)}
    if any(name.isdecimal() for name in labels) or not all(x.isdecimal() for x in every - {""}):
        return answers
    names = {str(i): name for i, name in enumerate(labels)}
    return [
        [names.get(tag, tag) for tag in row] if isinstance(row, list) else names.get(row, row)
        for row in answers
    ]


def _check_texts(
    raw: Raw,
    texts: Sequence[str | None],
    answers: Sequence[str | None],
    labels: Sequence[str] | None,
) -> Iterator[HeadstartError]:
    empty = (place for place, text in enumerate(texts) if not (text or "").strip())
    yield from _faults(raw, empty, "an empty text", "take the row out")
    bare = [place for place, label in enumerate(answers) if not (label or "").strip()]
    yield from _faults(raw, bare, "no label", "give the row one, or take it out")
    if labels is not None:
        given = [() if not (label or "").strip() else (label,) for label in answers]
        yield from _unknown(raw, given, labels)


def _check_words(
    raw: Raw,
    texts: Sequence[Sequence[str | None] | None],
    answers: Sequence[Sequence[str | None] | None],
    labels: Sequence[str] | None,
) -> Iterator[HeadstartError]:
    empty = (place for place, words in enumerate(texts) if not words)
    yield from _faults(raw, empty, "no tokens", "take the row out")
    pairs = [(words or (), tags or ()) for words, tags in zip(texts, answers, strict=True)]
    uneven = (i for i, (words, tags) in enumerate(pairs) if words and len(words) != len(tags))
    yield from _faults(
        raw, uneven, "tokens and tags of different number", "give each token one tag"
    )
    bare = (
        place
        for place, (words, _) in enumerate(pairs)
        if not all(word and word.strip() for word in words)
    )
    yield from _faults(raw, bare, "an empty token", "take it out, with its tag")
    tags = [tags for _, tags in pairs]
    if labels is not None:
        yield from _unknown(raw, tags, labels)
        return
    valid = {tag for tag in chain.from_iterable(tags) if tag and IOB2.fullmatch(tag)}
    way_out = (
        "IOB2 tags are O, B-<type> and I-<type>; if these are a model's class numbers, list its "
        "labels in their order as data.labels"
    )
    yield from _unknown(raw, tags, valid, way_out=way_out)


def _unknown(
    raw: Raw, answers: Sequence[Sequence[str | None]], known: Iterable[str], *, way_out: str = ""
) -> Iterator[HeadstartError]:
    allowed, found = frozenset[str | None](known), dict[str | None, list[int]]()
    for place, names in enumerate(answers):
        for name in dict.fromkeys(names):
            if name not in allowed:
                found.setdefault(name, []).append(place)
    more = f"; there are {len(found) - SHOWN:,} more such" if len(found) > SHOWN else ""
    for name in [*found][:SHOWN]:
        mend = way_out or (
            "mend the row; or, if it is a class of its own, list all in data.labels, and "
            f"take a model that has them, if one is named; {nearest(str(name), known)}"
        )
        yield from _faults(raw, found[name], f"unknown label {name!r}", mend + more)


def _faults(raw: Raw, places: Iterable[int], what: str, way_out: str) -> Iterator[HeadstartError]:
    """Give one fault for all places that have it, with the rows' numbers in their file."""
    if found := [*places]:
        rows = ", ".join(str(raw.table["row"][place]) for place in found[:SHOWN])
        more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        where = f"{raw.where}, row{'s' * (len(found) > 1)} {rows}{more}"
        yield HeadstartError(what, where=where, way_out=way_out)


Pairs = list[tuple[Any, Any]]
"""Each row's text and label, in a form that can be compared and counted."""


def pairs_of(table: pa.Table, task: str) -> Pairs:
    """Give the text and label of each row, words and tags as tuples."""
    texts, answers = (table[name].to_pylist() for name in COLUMNS[task])
    freeze = tuple if task == "tagging" else str
    return [(freeze(text), freeze(label)) for text, label in zip(texts, answers, strict=True)]


def find_leaks(
    language: str, train: Pairs, judged: Mapping[str, Pairs]
) -> tuple[list[Leak], list[bool]]:
    """Look for texts of dev and test in train.

    Args:
        language: Of all the rows.
        train: What is trained on.
        judged: The other splits.

    Returns:
        A leak for each split that has one, and for each train row whether it is in no other
        split.
    """
    answers: dict[object, set[object]] = {}
    for text, label in train:
        answers.setdefault(text, set()).add(label)
    leaks: list[Leak] = []
    leaked: set[object] = set()
    for split, rows in judged.items():
        found = [(text, label) for text, label in rows if text in answers]
        texts = {text for text, _ in found}
        conflicts = sum(label not in answers[text] for text, label in found)
        if found:
            leaks.append(Leak(language, split, len(found), conflicts))
        leaked |= texts
    return leaks, [text not in leaked for text, _ in train]


def count_stray_inside(tags: Sequence[str]) -> int:
    """Count the `I-` tags of a sentence that continue no entity of their type."""
    before = chain(["O"], tags)
    return sum(
        tag.startswith("I-") and last[2:] != tag[2:]
        for last, tag in zip(before, tags, strict=False)
    )
