"""Cut an untrained student again, from the best of all the layers that its layers stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from headstart.errors import HeadstartError
from headstart.layout import traits_of
from headstart.measure import measure, why_no_labels
from headstart.reader import open_model
from headstart.recipe import Init
from headstart.rules import choose
from headstart.student import SELECTION, make_selected

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

    from headstart.selection import Selection
    from headstart.walk import Sample

MEASURED_TOKENS = Init().measure_tokens
RULE = "taylor"


def merged(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    selection: Selection,
    draw: Callable[[int], Sample],
    *,
    asked: bool | None,
    seed: int = 0,
) -> Selection:
    """Give each layer the heads and neurons that `taylor` ranks highest in its group.

    Args:
        student: As it was cut; its weights are copied anew, in place.
        teacher: The model that it was cut from.
        selection: What the student keeps of it.
        draw: Gives text of so many tokens.
        asked: False leaves the student as it is; None, too, where `_why_not` has a reason.
        seed: Of the ranking.

    Returns:
        What the student keeps from now on.

    Raises:
        HeadstartError: It is asked for, and cannot be.
    """
    if asked is False or selection.student == selection.teacher:
        return selection
    reason = _why_not(student, teacher, selection)
    if asked and reason:
        raise HeadstartError(
            f"its layers cannot be merged: {reason}",
            where="refit",
            way_out="leave merging out, or cut the student again",
        )
    if reason:
        return selection
    opened = open_model(teacher)
    scores = measure(teacher, draw(MEASURED_TOKENS), (RULE,), seed=seed)
    chosen = choose(
        selection.teacher,
        selection.student,
        rules={"layers": selection.layers, "heads": RULE, "ffn": RULE, "merge": True},
        scores=scores,
        seed=seed,
        traits=traits_of(opened.family, opened.plain),
    )
    kept = {size: selection.rules[size] for size in ("layers", "hidden")}
    chosen = replace(chosen, hidden=selection.hidden, rules={**chosen.rules, **kept})
    student.load_state_dict(make_selected(teacher, chosen).model.state_dict())
    vars(student)[SELECTION] = chosen
    return chosen


def _why_not(
    student: PreTrainedModel, teacher: PreTrainedModel, selection: Selection
) -> str | None:
    """Say why a student cannot be cut again; None if it can."""
    if selection.source != "teacher":
        return f"it is a copy of the {selection.source}, and {RULE} ranks a teacher's answers"
    if reason := why_no_labels(teacher):
        return f"{RULE} ranks by labels, and {reason}"
    if {selection.rules[size] for size in ("heads", "ffn")} != {"uniform"}:
        return "its heads or neurons were chosen by another rule"
    if list(selection.layers) != sorted(selection.layers):
        return "its layers are not in the teacher's order"
    cut, ours = make_selected(teacher, selection).model.state_dict(), student.state_dict()
    if cut.keys() != ours.keys():
        return "its head is another than the teacher's"
    if not all(torch.equal(cut[name], ours[name].cpu()) for name in cut):
        return "its weights are no longer those that it was cut with"
    return None
