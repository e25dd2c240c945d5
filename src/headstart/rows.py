"""What every row of a corpus must be: one text with one label, or words with one tag each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from headstart.errors import HeadstartError, nearest
from headstart.sources import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from headstart.sources import Raw

IOB2 = re.compile(r"O|[BI]-.+")
STRING = pa.string()
STRINGS = pa.list_(STRING)


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


def check_rows(raw: Raw, task: str, labels: Sequence[str] | None) -> pa.Table:
    """Check rows, and bring them into one form.

    Args:
        raw: Rows of one language and split.
        task: `classification` or `tagging`.
        labels: The names that may occur; None allows any, but tags must be IOB2.

    Returns:
        Columns id and text, label (strings) or tokens, tags (lists of strings). A source without
        ids gets the rows' numbers.

    Raises:
        HeadstartError: The first fault: an empty text or word, a missing or unknown label, a
            column of the wrong type, words and tags of different number.
    """
    kind = STRINGS if task == "tagging" else STRING
    texts, answers = (_typed(raw, name, kind) for name in COLUMNS[task])
    if task == "tagging":
        _check_words(raw, texts.to_pylist(), answers.to_pylist(), labels)
    else:
        _check_texts(raw, texts.to_pylist(), answers.to_pylist(), labels)
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


def _check_texts(
    raw: Raw,
    texts: Sequence[str | None],
    answers: Sequence[str | None],
    labels: Sequence[str] | None,
) -> None:
    empty = (place for place, text in enumerate(texts) if not (text or "").strip())
    _refuse(raw, empty, "an empty text", "take the row out")
    missing = (place for place, label in enumerate(answers) if not (label or "").strip())
    _refuse(raw, missing, "no label", "give the row one, or take it out")
    if labels is not None:
        _refuse_unknown(raw, [(label,) for label in answers], labels)


def _check_words(
    raw: Raw,
    texts: Sequence[Sequence[str | None] | None],
    answers: Sequence[Sequence[str | None] | None],
    labels: Sequence[str] | None,
) -> None:
    empty = (place for place, words in enumerate(texts) if not words)
    _refuse(raw, empty, "no tokens", "take the row out")
    pairs = [(words or (), tags or ()) for words, tags in zip(texts, answers, strict=True)]
    uneven = (place for place, (words, tags) in enumerate(pairs) if len(words) != len(tags))
    _refuse(raw, uneven, "tokens and tags of different number", "give each token one tag")
    bare = (
        place
        for place, (words, _) in enumerate(pairs)
        if not all(word and word.strip() for word in words)
    )
    _refuse(raw, bare, "an empty token", "take it out, with its tag")
    tags = [tags for _, tags in pairs]
    if labels is not None:
        _refuse_unknown(raw, tags, labels)
    valid = {tag for tag in chain.from_iterable(tags) if tag and IOB2.fullmatch(tag)}
    _refuse_unknown(raw, tags, valid, way_out="IOB2 tags are O, B-<type> and I-<type>")


def _refuse_unknown(
    raw: Raw, answers: Sequence[Sequence[str | None]], known: Iterable[str], *, way_out: str = ""
) -> None:
    allowed = frozenset[str | None](known)
    for place, names in enumerate(answers):
        for name in names:
            if name not in allowed:
                mend = (
                    "mend the row; or, if it is a class of its own, list all in data.labels, and "
                    f"take a model that has them, if one is named; {nearest(str(name), known)}"
                )
                _refuse(raw, [place], f"unknown label {name!r}", way_out or mend)


def _refuse(raw: Raw, places: Iterable[int], what: str, way_out: str) -> None:
    """Raise for the first of some places, with the row's number in its file."""
    place = next(iter(places), None)
    if place is not None:
        where = f"{raw.where}, row {raw.table['row'][place]}"
        raise HeadstartError(what, where=where, way_out=way_out)


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
