"""Which way a refitted student's residual stream runs: in kept channels, or along directions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.flow import Rescale, Solve
from headstart.layout import entries
from headstart.reader import open_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel

    from headstart.layout import Entry, Family, Head
    from headstart.recipe import Refit
    from headstart.selection import Selection

PRINCIPAL = "principal"


def settled(asked: Refit, student: PreTrainedModel, selection: Selection) -> Refit:
    """Choose the directions where that is left to us.

    Principal ones, if the stream is narrower, the family lets it be turned, and its channels were
    not chosen by a rule of their own.

    Args:
        asked: Where `directions` is not auto, it stays as it is.
        student: As it was cut.
        selection: What it keeps.
    """
    if asked.directions != "auto":
        return asked
    opened = open_model(student)
    named = entries(opened.family, opened.plain, opened.head)
    turns = (
        _is_narrower(selection)
        and selection.rules["hidden"] == "uniform"
        and why_not(opened.family, named, opened.head) is None
    )
    return asked.model_copy(update={"directions": PRINCIPAL if turns else "kept"})


def after(selection: Selection, asked: Refit) -> Selection:
    """Give the selection of a refitted student: the rule `principal` where its stream is turned.

    Args:
        selection: Of the student as it was cut.
        asked: Settled.
    """
    if asked.directions != PRINCIPAL or not _is_narrower(selection):
        return selection
    return replace(selection, rules={**selection.rules, "hidden": PRINCIPAL})


def why_not(family: Family, named: Sequence[Entry], head: Head) -> str | None:
    """Say why a family's stream cannot be turned; None if it can.

    Args:
        family: Of student and teacher.
        named: The student's tensors.
        head: The student's.
    """
    layer = family.flow.layer
    ends = {step.norm for step in layer if isinstance(step, Rescale)}
    sums = {step.total for step in layer if isinstance(step, Solve) and step.total}
    axes = {axis for e in named if e.part != "head" for axis in e.axes}
    if not all(tap.path in ends for tap in sums) or axes & {"embedding", "kernel"}:
        return f"a {family.model_type} of this kind has no norm after each sum"
    if head == "mlm":
        return "a head that predicts pieces reads the stream through the word embeddings"
    return None


def _is_narrower(selection: Selection) -> bool:
    return len(selection.hidden) < selection.teacher.hidden
