"""Reordering changes nothing, and two cuts are one, in every family and head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from headstart.assembly import prefix_of
from headstart.checkpoint import weights_fingerprint
from headstart.families import FAMILIES, family_of
from headstart.layout import Dim, Family, Head, Weight, entries, shape_of
from headstart.reader import open_model
from headstart.selection import Selection, full
from headstart.student import make_selected, make_student
from tiny import HEADS, VARIANTS, answer, tiny_model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import (
        PreTrainedModel,
    )

EVERY = [(variant, head) for variant in VARIANTS for head in HEADS]
SMALL = {"layers": 2, "hidden": 16, "ffn": 20}


def selection_of(model: PreTrainedModel) -> Selection:
    plain = model.config.to_dict()
    return full(shape_of(family_of(plain), plain))


# --- merged layers give each unit from its own layer ---


def scaled(model: PreTrainedModel) -> PreTrainedModel:
    """Give every layer the tensors of the second, doubled from each layer to the next."""
    opened = open_model(model)
    tensors, prefix = model.state_dict(), prefix_of(opened.family, opened.head)
    for entry in entries(opened.family, opened.plain, opened.head):
        second = entry.name(prefix, 1)
        if entry.layer not in (None, 1) and second in tensors:
            tensors[entry.name(prefix)].copy_(tensors[second] * 2.0 ** (entry.layer - 1))
    return model


def every_second(rows: Sequence[tuple[int, ...]], run: int) -> tuple[tuple[int, ...], ...]:
    """Let runs of units come from the first and second of two layers in turn."""
    return tuple(tuple(2 * j + i // run % 2 for i in range(len(r))) for j, r in enumerate(rows))


def law_units_come_from_their_layers(
    variant: str, head: Head, told: Callable[[Selection], Selection] = lambda chosen: chosen
) -> None:
    teacher = scaled(tiny_model(variant, head))
    plain = make_student(teacher, shape={"layers": 2, "hidden": 16}).selection
    of = {
        "attention": every_second(plain.attention, plain.teacher.head_size),
        "ffn": every_second(plain.ffn, 1),
    }
    merged = replace(plain, attention_of=of["attention"], ffn_of=of["ffn"])
    ours = make_selected(teacher, told(merged)).model.state_dict()
    copied = open_model(make_selected(teacher, plain).model)
    prefix = prefix_of(copied.family, head)
    for entry in entries(copied.family, copied.plain, head):
        tensor = copied.read(entry.name(prefix))
        for dim, axis in enumerate(entry.axes):
            parts = axis if isinstance(axis, tuple) else (axis,)
            if entry.layer is not None and parts[0] in of:
                layers = torch.tensor(of[parts[0]][entry.layer] * len(parts))
                factor = 2.0 ** (layers - plain.layers[entry.layer])
                tensor = tensor * factor.view([-1 if d == dim else 1 for d in range(tensor.dim())])
        assert torch.equal(ours[entry.name(prefix)], tensor), entry.template


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_units_come_from_their_layers(variant: str, head: Head) -> None:
    law_units_come_from_their_layers(variant, head)


@pytest.mark.parametrize("variant", ["bert", "modernbert"])
@pytest.mark.parametrize("mistake", ["attention_of", "ffn_of"])
def test_the_law_of_units_has_teeth(variant: str, mistake: str) -> None:
    def swapped(chosen: Selection) -> Selection:
        rows = tuple(tuple(reversed(row)) for row in getattr(chosen, mistake))
        return replace(chosen, **{mistake: rows})

    with pytest.raises(AssertionError):
        law_units_come_from_their_layers(variant, "classification", swapped)


# --- a consistent reordering changes nothing ---


def reordered(whole: Selection, *, inside_heads: bool) -> Selection:
    """Put channels, heads and neurons into another order; layers keep theirs."""
    rng = torch.Generator().manual_seed(11)

    def order(length: int) -> tuple[int, ...]:
        return tuple(torch.randperm(length, generator=rng).tolist())

    size = whole.teacher.head_size

    def heads() -> tuple[int, ...]:
        within = [order(size) if inside_heads else range(size) for _ in range(whole.teacher.heads)]
        return tuple(h * size + i for h in order(whole.teacher.heads) for i in within[h])

    return replace(
        whole,
        hidden=order(whole.teacher.hidden),
        attention=tuple(heads() for _ in whole.layers),
        ffn=tuple(order(whole.teacher.ffn) for _ in whole.layers),
    )


def law_a_reordering_changes_no_logit(teacher: PreTrainedModel) -> None:
    # Rotation by position couples channels within a head, in single precision whatever the model's.
    rotary = teacher.config.model_type == "modernbert"
    teacher = teacher.double()
    chosen = reordered(selection_of(teacher), inside_heads=not rotary)
    student = make_selected(teacher, chosen).model.double()
    expected, found = answer(teacher), answer(student)
    if expected.shape[-1] == len(chosen.hidden):  # a bare encoder gives the channels themselves
        expected = expected[..., list(chosen.hidden)]
    assert weights_fingerprint(student) != weights_fingerprint(teacher)
    assert (found - expected).abs().max() < (1e-4 if rotary else 1e-9)


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_a_reordering_changes_no_logit(variant: str, head: Head) -> None:
    law_a_reordering_changes_no_logit(tiny_model(variant, head))


def with_axes(family: Family, ending: str, axes: tuple[Dim, ...]) -> Family:
    """Give the weight whose name ends so other axes, of the same lengths."""

    def mended(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
        return tuple(replace(w, axes=axes) if w.name.endswith(ending) else w for w in weights)

    return replace(
        family,
        stem=mended(family.stem),
        layer=mended(family.layer),
        heads={head: mended(weights) for head, weights in family.heads.items()},
    )


# Heads and the stream are 32 wide, 64 neurons are 32 + 32: a wrong axis does not show in a shape.
WRONG_AXES: Mapping[str, tuple[str, str, tuple[Dim, ...]]] = {
    "value": ("bert", "self.value.weight", ("hidden", "hidden")),
    "output": ("xlm-roberta", "attention.output.dense.weight", ("hidden", "hidden")),
    "gain": ("bert", "attention.output.LayerNorm.weight", ("attention",)),
    "neurons": ("distilbert", "lin1.bias", (("hidden", "attention"),)),
    "fused": ("modernbert", "Wqkv.weight", (("attention", "hidden", "attention"), "hidden")),
    "gated": ("modernbert", "Wi.weight", (("hidden", "attention", "ffn"), "hidden")),
    "table": ("deberta-v2", "rel_embeddings.weight", ("relative", "attention")),
    "own key": ("deberta-v2/own keys", "pos_key_proj.weight", ("hidden", "hidden")),
    "conv": ("deberta-v2/own keys", "conv.conv.weight", ("attention", "hidden", "kernel")),
    "projection": ("electra/projected", "embeddings_project.bias", ("attention",)),
    "pooler": ("bert", "pooler.dense.weight", ("hidden", "attention")),
}


@pytest.mark.parametrize("mistake", WRONG_AXES)
def test_the_law_of_reordering_has_teeth(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variant, ending, axes = WRONG_AXES[mistake]
    name = variant.split("/")[0]
    monkeypatch.setitem(FAMILIES, name, with_axes(FAMILIES[name], ending, axes))
    with pytest.raises(AssertionError):
        law_a_reordering_changes_no_logit(tiny_model(variant))


# --- two cuts are one ---


Compose = Callable[[Selection, Selection], Selection]


def law_two_cuts_are_one(teacher: PreTrainedModel, compose: Compose = Selection.compose) -> None:
    rules = {"hidden": "random", "heads": "random", "ffn": "magnitude"}
    first = make_student(teacher, shape={"layers": 3, "hidden": 24, "ffn": 40}, rules=rules)
    second = make_student(first.model, shape=SMALL, rules=rules)
    once = make_selected(teacher, compose(first.selection, second.selection))
    assert weights_fingerprint(once.model) == weights_fingerprint(second.model)
    assert once.model.config.to_dict() == second.model.config.to_dict()


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_two_cuts_equal_one_composed_cut(variant: str, head: Head) -> None:
    law_two_cuts_are_one(tiny_model(variant, head))


def numbers_of_the_first_cut(field: str) -> Compose:
    """Take the second cut's numbers for the teacher's own."""

    def compose(first: Selection, second: Selection) -> Selection:
        return replace(first.compose(second), **{field: getattr(second, field)})

    return compose


@pytest.mark.parametrize("field", ["layers", "hidden", "attention", "ffn"])
def test_the_law_of_two_cuts_has_teeth(field: str) -> None:
    with pytest.raises(AssertionError):
        law_two_cuts_are_one(tiny_model("bert"), numbers_of_the_first_cut(field))
