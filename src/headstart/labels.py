"""Labels of text and model: the same names, in the same order, each met in training."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from headstart.document import dump
from headstart.errors import HeadstartError, combine
from headstart.rows import IOB2
from headstart.sources import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls a class that nobody named
SHOWN = 8  # labels that a message lists


def check_known(tables: Mapping[tuple[str, str], pa.Table], task: str) -> None:
    """Refuse a label of dev or test that no train row has: likely a slip of the pen.

    Args:
        tables: Checked rows by language and split.
        task: classification or tagging; of tags the kind counts, not how they begin.

    Raises:
        HeadstartError: There are such rows; the first of them are named.
    """
    answer = COLUMNS[task][1]

    def kinds(answers: Any) -> set[str]:  # noqa: ANN401
        return {tag[2:] for tag in answers} if task == "tagging" else {answers}

    trained = [rows[answer].to_pylist() for (_, split), rows in tables.items() if split == "train"]
    known = set[str]().union(*(kinds(row) for rows in trained for row in rows))
    faults = [
        HeadstartError(
            f"label {name!r} stands in no train row",
            where=f"{language}, split {split}, row {row_id}",
            way_out="mend it, or list all labels (your teacher's, for example) as data.labels",
        )
        for (language, split), rows in tables.items()
        for row_id, row in zip(rows["id"].to_pylist(), rows[answer].to_pylist(), strict=True)
        for name in sorted(kinds(row) - known)
    ]
    if trained and faults:
        first = list({fault.what: fault for fault in faults}.values())  # one of each label
        more = f", which has {len(first) - SHOWN} more of them" if len(first) > SHOWN else ""
        raise combine(first[:SHOWN], where=f"the corpus{more}")


def lacking(train: pa.Table, labels: Sequence[str], task: str) -> dict[str, list[str]]:
    """List labels that a language has no train row of, though another language has.

    Args:
        train: A corpus' train split.
        labels: Names in the order of their ids.
        task: classification or tagging; of tags the kind counts.
    """
    met: dict[str, set[str]] = {}
    answers = train[COLUMNS[task][1]].to_pylist()
    for language, answer in zip(train["language"].to_pylist(), answers, strict=True):
        ids: list[int] = answer if task == "tagging" else [answer]
        names = {labels[i][2:] if task == "tagging" else labels[i] for i in ids}
        met.setdefault(language, set()).update(names)
    every = set[str]().union(*met.values())
    return {language: sorted(every - known) for language, known in met.items() if every - known}


def check_tags(labels: Sequence[str], task: str) -> None:
    """Refuse tags that are not IOB2.

    Raises:
        HeadstartError: Some are not, or `O` is missing.
    """
    wrong = [name for name in labels if not IOB2.fullmatch(name)]
    if task == "tagging" and (wrong or "O" not in labels):
        raise HeadstartError(
            f"tags are not IOB2: {', '.join(wrong) or 'O is missing'}",
            where="the corpus, or recipe key data.labels",
            way_out="use O, B-<type> and I-<type>",
        )


def check_labels(wanted: Sequence[str], found: Sequence[str], *, where: str) -> None:
    """Refuse a model whose labels are not the corpus' own, in the same order.

    Args:
        wanted: Labels of the corpus, in the order of their ids.
        found: Labels of the model.
        where: The model.

    Raises:
        HeadstartError: The sets differ, or only their order does.
    """
    if tuple(wanted) == tuple(found):
        return
    both = f"corpus {_listed(wanted)}, model {_listed(found)}"
    if sorted(wanted) == sorted(found):
        raise HeadstartError(
            f"same labels, other order: {both}",
            where=where,
            way_out=f"set data.labels to the model's order: {_pasted(found)}",
        )
    extra, lacking = sorted(set(found) - set(wanted)), sorted(set(wanted) - set(found))
    if not lacking:
        raise HeadstartError(
            f"the model has labels that the corpus lacks: {_listed(extra)}",
            where=where,
            way_out=f"set data.labels to the model's: {_pasted(found)}",
        )
    only = [f"only the {side} has {_listed(names)}" for side, names in
            (("model", extra), ("corpus", lacking)) if names]  # fmt: skip
    what = f"other labels: {both}; {', '.join(only)}"
    raise HeadstartError(what, where=where, way_out=_way_out(extra, lacking, found))


def _way_out(extra: Sequence[str], lacking: Sequence[str], found: Sequence[str]) -> str:
    """Say what to do about labels that only the model, or only the corpus, has."""
    if all(UNNAMED.fullmatch(name) for name in found):
        return (
            "if these are the same classes, write their names into id2label and label2id of "
            "its config.json, in the order that it was trained with"
        )
    numbers = {str(i) for i in range(len(found))}
    named = not any(name.isdecimal() for name in found)
    if named and "0" in lacking and numbers.issuperset(lacking):
        return f"if the rows hold the model's class numbers, set data.labels to {_pasted(found)}"
    plain = {name.strip().casefold() for name in extra}
    alike = [name for name in lacking if name.strip().casefold() in plain]
    return (
        (f"{_listed(alike)} differ in case or blanks alone; " if alike else "")
        + "mend the rows, if these are slips (with data.labels set to the model's, check names "
        "them); else take a model that was fine-tuned on these labels, or fine-tune one here"
    )


def _pasted(labels: Sequence[str]) -> str:
    """Write labels as a recipe takes them, where `0` would be a number and `no: way` a mapping."""
    return dump([*labels], width=math.inf).strip()


def _listed(labels: Sequence[str]) -> str:
    """List the first labels; those with blanks at an end in quotes, so that these are seen."""
    few = ", ".join(repr(name) if name != name.strip() else name for name in labels[:SHOWN])
    return f"({few}, … {len(labels)} in all)" if len(labels) > SHOWN else f"({few})"
