"""Make a student from its teacher: shape, selection, first weights, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.assembly import assemble, hollow
from headstart.budget import wanted_shape
from headstart.checkpoint import save_model
from headstart.cutting import Cut, checked, plan_cut
from headstart.errors import HeadstartError
from headstart.folders import claim
from headstart.layout import (
    entries,
    shape_of,
    traits_of,
)
from headstart.pieces import check_pieces, load_tokenizer
from headstart.reader import Named, Opened, open_model
from headstart.rules import Measured, Said, Scores, choose
from headstart.transplant import magnitudes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

    from headstart.fitting import Fit
    from headstart.selection import Selection

SELECTION = "headstart_selection"  # a student in memory knows what it keeps of its teacher


@dataclass(frozen=True, slots=True)
class Made:
    """A student before its training.

    Args:
        model: In evaluation mode, on the CPU.
        selection: What it keeps of its teacher.
        provenance: For each of its tensors, ``teacher:NAME``, ``base:NAME``, ``permuted:NAME``,
            ``fresh``, or ``tied:NAME``; several names, joined by ``+``, where layers are merged.
        unused: The teacher's tensors that no part of the student comes from.
    """

    model: PreTrainedModel
    selection: Selection
    provenance: dict[str, str]
    unused: tuple[str, ...]


def make_student(
    teacher: PreTrainedModel | Named,
    *,
    base: PreTrainedModel | Named | None = None,
    shape: Mapping[str, float | str | None] | None = None,
    rules: Mapping[str, Said] | None = None,
    source: str = "teacher",
    scores: Measured | None = None,
    seed: int = 0,
) -> Made:
    """Make a student of a given shape.

    Labels, problem type, dropout and all other settings are the teacher's, whatever the source.
    Which layers, channels, heads and neurons are kept does not depend on the source either:
    scores are always the teacher's.

    Args:
        teacher: A model, a folder (read tensor by tensor), or a model of the hub.
        base: The model that the teacher was fine-tuned from; for source ``base``.
        shape: Sizes or budgets, see `wanted_shape`.
        rules: Rules, see `choose`.
        source: ``teacher``: all weights are the teacher's. ``base``: the encoder is the base's,
            with what else it has under the same name; the rest of the head is fresh.
            ``scratch``: all weights are fresh. ``permuted``: the teacher's, shuffled within
            each tensor.
        scores: Of rules that look at text, see `measure`.
        seed: Of fresh weights, of shuffling, and of rule ``random``.

    Raises:
        HeadstartError: Shape, rules, teacher or base are at fault.
    """
    opened = open_model(teacher)
    found = checked(opened)
    selection = _chosen(opened, found, shape, rules, source=source, scores=scores, seed=seed)
    return _made(plan_cut(opened, found, selection, base=base, seed=seed), seed=seed)


def make_selected(
    teacher: PreTrainedModel | Named,
    selection: Selection,
    *,
    base: PreTrainedModel | Named | None = None,
    seed: int = 0,
) -> Made:
    """Make the student that a selection describes, its source included.

    Raises:
        HeadstartError: The selection was made for another teacher, or teacher or base are at
            fault.
    """
    opened = open_model(teacher)
    found = checked(opened)
    if shape_of(opened.family, opened.plain) != selection.teacher:
        raise HeadstartError(
            f"the selection is for a teacher of {selection.teacher}",
            where=opened.where,
            way_out="choose again for this teacher",
        )
    return _made(plan_cut(opened, found, selection, base=base, seed=seed), seed=seed)


def student_from(  # noqa: PLR0913 - all but one have defaults
    teacher: PreTrainedModel | Named,
    *,
    layers: int | None = None,
    hidden: int | None = None,
    heads: int | None = None,
    ffn: int | None = None,
    params: float | str | None = None,
    bytes: float | str | None = None,
    speedup: float | None = None,
    layer_rule: str | Sequence[int] = "even",
) -> PreTrainedModel:
    """Cut a student out of a teacher, ready to be trained anywhere.

    Args:
        teacher: A model, a folder, or a model of the hub.
        layers: How many layers it keeps.
        hidden: Width of its residual stream, a multiple of the head size.
        heads: How many heads it keeps; hidden / head size if not named.
        ffn: Neurons of its feed-forward blocks; in proportion to hidden if not named.
        params: At most so many parameters, such as 30e6 or "30M"; sizes that are not named are
            chosen within it.
        bytes: At most so many bytes in single precision.
        speedup: At least so many times as fast as the teacher, by estimate.
        layer_rule: Which layers, see `LAYER_RULES`, or their numbers.

    Raises:
        HeadstartError: The shape cannot be cut from this teacher.
    """
    sizes = {"layers": layers, "hidden": hidden, "heads": heads, "ffn": ffn}
    shape = {**sizes, "params": params, "bytes": bytes, "speedup": speedup}
    return make_student(teacher, shape=shape, rules={"layers": layer_rule}).model


def cut_checkpoint(
    teacher: Named,
    out: str | Path,
    *,
    base: Named | None = None,
    shape: Mapping[str, float | str | None] | None = None,
    rules: Mapping[str, Said] | None = None,
    source: str = "teacher",
    seed: int = 0,
) -> tuple[Selection, int]:
    """Cut a student from a teacher on disk and write its folder, tokenizer included.

    Neither model is held: tensors go from file to file. Where weights are fresh, shuffled, or of
    several types, the student is held once.

    Returns:
        What it keeps of its teacher, and its number of parameters.

    Raises:
        HeadstartError: As `make_student`; or the output folder holds something.
    """
    out = claim(out, teacher)
    opened = open_model(teacher)
    found = checked(opened)
    selection = _chosen(opened, found, shape, rules, source=source, seed=seed)
    done = plan_cut(opened, found, selection, base=base, seed=seed)
    if selection.source == "base" and base is not None:
        check_pieces(base, teacher, way_out="name the encoder that the teacher was tuned from")
    tokenizer, flow = load_tokenizer(teacher), done.flow()
    model = hollow(done.config, done.head, flow[2]) if flow else _made(done, seed=seed).model
    save_model(model, tokenizer, out, selection=selection, flow=flow)
    return selection, model.num_parameters()


def _scores(
    opened: Opened, found: Fit, rules: Mapping[str, Said]
) -> dict[str, Mapping[str, Scores]]:
    if "magnitude" not in rules.values():
        return {}
    family, plain = opened.family, opened.plain
    listed = entries(family, plain, opened.head)
    shape = shape_of(family, plain)
    return {"magnitude": magnitudes(opened.read, listed, shape, prefix=found.prefix)}


def _chosen(
    opened: Opened,
    found: Fit,
    shape: Mapping[str, float | str | None] | None,
    rules: Mapping[str, Said] | None,
    *,
    source: str,
    scores: Measured | None = None,
    seed: int,
) -> Selection:
    return choose(
        shape_of(opened.family, opened.plain),
        wanted_shape(opened.family, opened.plain, opened.head, shape or {}),
        rules=rules,
        source=source,
        scores={**_scores(opened, found, rules or {}), **(scores or {})},
        seed=seed,
        traits=traits_of(opened.family, opened.plain),
    )


def _made(done: Cut, *, seed: int) -> Made:
    """Put what is cut into a model; what is fresh is drawn."""
    model = assemble(done.config, done.head, done.tensors(), seed=seed)
    vars(model)[SELECTION] = done.selection
    return Made(model, done.selection, done.provenance, done.unused)
