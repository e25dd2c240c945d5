"""Cutting, shuffling and scoring of single tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.families import FAMILIES
from headstart.layout import Entry, Shape, entries, lengths, shape_of
from headstart.rules import choose
from headstart.selection import Selection, full
from headstart.transplant import cut, magnitudes, shuffled, transplant
from tiny import tiny_model

TEACHER = Shape(layers=3, hidden=8, heads=4, ffn=6)
SIZES: Any = {"hidden": 8, "attention": 8, "ffn": 6, "vocab": 5, "kernel": 3}
KEPT = replace(
    full(TEACHER),
    layers=(0, 2),
    hidden=(5, 1, 0, 3),
    attention=((2, 3, 6, 7), (0, 1, 4, 5)),
    ffn=((4, 0, 1), (5, 3, 2)),
)
Cut = Callable[[Tensor, Entry, Selection, Any], Tensor]


def counted(*shape: int) -> Tensor:
    return torch.arange(float(np.prod(shape))).reshape(shape)


def law_cut_keeps_what_the_selection_says(cutter: Cut) -> None:
    def kept(axes: tuple[Any, ...], tensor: Tensor, layer: int | None = None) -> Tensor:
        return cutter(tensor, Entry("x", layer, axes, "transformer"), KEPT, SIZES)

    hidden, heads, ffn = [5, 1, 0, 3], [0, 1, 4, 5], [5, 3, 2]
    words = counted(5, 8)
    assert kept(("vocab", "hidden"), words).equal(words[:, hidden])
    query = counted(8, 8)
    assert kept(("attention", "hidden"), query, 1).equal(query[heads][:, hidden])
    fused = counted(24, 8)
    rows = heads + [8 + i for i in heads] + [16 + i for i in heads]
    assert kept((("attention",) * 3, "hidden"), fused, 1).equal(fused[rows][:, hidden])
    gated = counted(12, 8)
    assert kept((("ffn", "ffn"), "hidden"), gated, 1).equal(
        gated[ffn + [6 + i for i in ffn]][:, hidden]
    )
    conv = counted(8, 8, 3)
    assert kept(("hidden", "hidden", "kernel"), conv).equal(conv[hidden][:, hidden])


def test_cut_keeps_what_the_selection_says() -> None:
    law_cut_keeps_what_the_selection_says(cut)


def first_part_only(tensor: Tensor, entry: Entry, selection: Selection, sizes: Any) -> Tensor:
    axes = tuple(axis[:1] if isinstance(axis, tuple) else axis for axis in entry.axes)
    return cut(tensor, replace(entry, axes=axes), selection, sizes)


def first_layer_s(tensor: Tensor, entry: Entry, selection: Selection, sizes: Any) -> Tensor:
    return cut(tensor, replace(entry, layer=entry.layer and 0), selection, sizes)


def in_order(tensor: Tensor, entry: Entry, selection: Selection, sizes: Any) -> Tensor:
    return cut(tensor, entry, replace(selection, hidden=tuple(sorted(selection.hidden))), sizes)


@pytest.mark.parametrize("mistake", [first_part_only, first_layer_s, in_order])
def test_the_law_of_cutting_has_teeth(mistake: Cut) -> None:
    with pytest.raises(AssertionError):
        law_cut_keeps_what_the_selection_says(mistake)


def test_a_cut_shares_no_memory_with_the_teacher() -> None:
    words = counted(5, 8)
    entry = Entry("x", None, ("vocab", "hidden"), "vocabulary")
    whole = cut(words, entry, full(TEACHER), SIZES)
    assert whole.equal(words)
    assert whole.data_ptr() != words.data_ptr()


# --- two cuts are one ---

Route = Callable[[dict[str, Tensor], Selection, Selection], dict[str, Tensor]]


def transplanted(tensors: dict[str, Tensor], chosen: Selection) -> dict[str, Tensor]:
    family = FAMILIES["bert"]
    config = tiny_model("bert").config.to_dict()
    keys = family.keys
    old = config | {keys[s]: getattr(chosen.teacher, s) for s in keys}
    new = config | {keys[s]: getattr(chosen.student, s) for s in keys}
    return transplant(
        tensors.__getitem__,
        entries(family, new, "classification"),
        chosen,
        sizes=lengths(family, old),
        source_prefix="bert.",
        target_prefix="bert.",
    )


def law_two_cuts_are_one(route: Route) -> None:
    model = tiny_model("bert")
    tensors = dict(model.state_dict())
    shape = shape_of(FAMILIES["bert"], model.config.to_dict())
    rule = {"hidden": "random", "heads": "random", "ffn": "random"}
    outer = choose(shape, Shape(3, 24, 3, 40), rules={**rule, "merge": True}, seed=1)
    inner = choose(Shape(3, 24, 3, 40), Shape(2, 8, 1, 10), rules=rule, seed=2)
    twice = transplanted(transplanted(tensors, outer), inner)
    once = route(tensors, outer, inner)
    assert once.keys() == twice.keys()
    assert all(once[name].equal(twice[name]) for name in twice)


def test_two_cuts_equal_one_composed_cut() -> None:
    law_two_cuts_are_one(lambda t, outer, inner: transplanted(t, outer.compose(inner)))


def test_the_law_of_two_cuts_has_teeth() -> None:
    def straight(tensors: dict[str, Tensor], outer: Selection, inner: Selection):
        return transplanted(tensors, choose(outer.teacher, inner.student))

    with pytest.raises(AssertionError):
        law_two_cuts_are_one(straight)


# --- shuffling ---

Shuffle = Callable[[str, Tensor, int], Tensor]


def law_shuffling_keeps_values_only(shuffle: Shuffle) -> None:
    tensor = torch.randn(20, 30, generator=torch.Generator().manual_seed(3))
    mixed = shuffle("a", tensor, 0)
    assert mixed.shape == tensor.shape
    assert mixed.flatten().sort().values.equal(tensor.flatten().sort().values)
    assert (mixed == tensor).float().mean() < 0.05
    rows = mixed.sort(dim=1).values
    assert not rows.equal(tensor.sort(dim=1).values)  # values leave their rows too
    assert shuffle("a", tensor, 0).equal(mixed)
    assert not shuffle("a", tensor, 1).equal(mixed)
    assert not shuffle("b", tensor, 0).equal(mixed)


def test_shuffling_keeps_values_only() -> None:
    law_shuffling_keeps_values_only(lambda name, tensor, seed: shuffled(name, tensor, seed=seed))


@pytest.mark.parametrize(
    "mistake",
    [
        lambda name, tensor, _: shuffled(name, tensor, seed=0),
        lambda _, tensor, seed: shuffled("", tensor, seed=seed),
        lambda name, tensor, seed: shuffled(name, tensor[0], seed=seed).expand_as(tensor),
        lambda name, tensor, seed: tensor[:, shuffled(name, torch.arange(30), seed=seed)],
    ],
    ids=["forgets the seed", "one order for all", "loses values", "stays in its row"],
)
def test_the_law_of_shuffling_has_teeth(mistake: Shuffle) -> None:
    with pytest.raises(AssertionError):
        law_shuffling_keeps_values_only(mistake)


def test_shuffling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    shuffled("a", torch.ones(9), seed=1)
    assert torch.get_rng_state().equal(before)


# --- magnitudes ---


def _grow(tensor: Tensor, dim: int, axis: Any, grown: dict[str, Any]) -> None:
    parts = axis if isinstance(axis, tuple) else (axis,)
    length = tensor.shape[dim] // len(parts)
    for start, part in enumerate(parts):
        for unit in grown.get(part, ()):
            tensor.select(dim, start * length + unit).mul_(9)


@pytest.mark.parametrize("variant", ["bert", "modernbert", "electra/projected", "deberta-v2"])
def test_magnitude_finds_the_units_that_were_made_large(variant: str) -> None:
    model = tiny_model(variant, sharp=False)
    family = FAMILIES[variant.split("/")[0]]
    config = model.config.to_dict()
    tensors = dict(model.state_dict())
    listed = entries(family, config, "classification")
    grown = {"hidden": (3, 17), "attention": range(8, 16), "ffn": (5, 60)}
    for entry in listed:
        for dim, axis in enumerate(entry.axes):
            _grow(tensors[entry.name(family.prefix)], dim, axis, grown)
    scores = magnitudes(tensors.__getitem__, listed, shape_of(family, config), prefix=family.prefix)
    assert set(np.argsort(scores["hidden"])[-2:]) == {3, 17}
    assert scores["heads"].argmax(axis=1).tolist() == [1] * 4
    assert all(set(np.argsort(row)[-2:]) == {5, 60} for row in scores["ffn"])


def test_a_magnitude_is_a_share_of_its_tensor_s_mean() -> None:
    """Two tensors by hand: a matrix (ffn, hidden) and a table (vocab, hidden)."""
    listed = [
        Entry("up", 0, ("ffn", "hidden"), "transformer"),
        Entry("words", None, ("vocab", "hidden"), "vocabulary"),
        Entry("gain", None, ("hidden",), "transformer"),
        Entry("head", None, ("labels", "hidden"), "head"),
    ]
    tensors = {
        "up": torch.tensor([[1.0, -3.0], [0.0, 0.0]]),  # mean 1
        "words": torch.tensor([[10.0, 30.0]]),  # mean 20
        "gain": torch.tensor([100.0, 0.0]),
        "head": torch.tensor([[100.0, 0.0]]),
    }
    scores = magnitudes(tensors.__getitem__, listed, Shape(1, 2, 1, 2), prefix="")
    assert scores["hidden"].tolist() == [0.5 + 0.5, 1.5 + 1.5]
    assert scores["ffn"].tolist() == [[2.0, 0.0]]
    assert scores["heads"].tolist() == [[0.0]]
