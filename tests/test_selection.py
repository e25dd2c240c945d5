"""Selections survive JSON and compose; broken ones cannot be made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart import selection
from headstart.errors import HeadstartError
from headstart.layout import Shape
from headstart.rules import choose
from headstart.selection import Selection, full

if TYPE_CHECKING:
    from collections.abc import Callable

TEACHER = Shape(layers=6, hidden=48, heads=6, ffn=96)
SMALLER = Shape(layers=4, hidden=24, heads=3, ffn=40)
SMALLEST = Shape(layers=2, hidden=16, heads=2, ffn=10)


@st.composite
def origins(draw: st.DrawFn, teacher: Shape, student: Shape) -> dict[str, Any]:
    """Draw the layer that each head and neuron is of; none gives to two of the student's."""

    def row(count: int, j: int) -> tuple[int, ...]:
        givers = st.sampled_from(range(j, teacher.layers, student.layers))
        return tuple(draw(st.lists(givers, min_size=count, max_size=count)))

    heads = [row(student.heads, j) for j in range(student.layers)]
    return {
        "attention_of": tuple(tuple(np.repeat(of, teacher.head_size).tolist()) for of in heads),
        "ffn_of": tuple(row(student.ffn, j) for j in range(student.layers)),
    }


@st.composite
def selections(draw: st.DrawFn, teacher: Shape, student: Shape) -> Selection:
    """Draw any selection with whole heads, in any order."""
    size = teacher.head_size

    def some(length: int, count: int) -> tuple[int, ...]:
        return tuple(draw(st.permutations(range(length)))[:count])

    heads = [some(teacher.heads, student.heads) for _ in range(student.layers)]
    return Selection(
        teacher=teacher,
        layers=some(teacher.layers, student.layers),
        hidden=some(teacher.hidden, student.hidden),
        attention=tuple(tuple(h * size + i for h in row for i in range(size)) for row in heads),
        ffn=tuple(some(teacher.ffn, student.ffn) for _ in range(student.layers)),
        **(draw(origins(teacher, student)) if draw(st.booleans()) else {}),
        rules=dict.fromkeys(selection.SIZES, "drawn"),
    )


@settings(max_examples=20, deadline=None)
@given(selections(TEACHER, SMALLER))
def test_a_selection_survives_json(made: Selection) -> None:
    assert Selection.from_json(made.to_json()) == made
    assert made.student == SMALLER


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"teacher": 3}'])
def test_broken_json_is_refused(text: str) -> None:
    with pytest.raises(HeadstartError, match="not a selection"):
        Selection.from_json(text)


def units(made: Selection, dim: Any, layer: int, sizes: Any) -> list[tuple[int, int]]:
    """List what a student's dimension is made of: layer and index in the teacher."""
    listed: dict[int, tuple[int, int]] = {}
    for donor in made.donors((dim,), layer):
        kept = made.keep(dim, layer, sizes, donor) or ()
        places = made.places(dim, layer, donor)
        listed |= {i: (donor, k) for i, k in zip(places, kept, strict=True)}
    return [listed[i] for i in range(len(listed))]


def law_composing_is_cutting_twice(
    compose: Callable[[Selection, Selection], Selection], outer: Selection, inner: Selection
) -> None:
    both = compose(outer, inner)
    sizes: Any = {"hidden": 48, "attention": 48, "ffn": 96}
    between: Any = {"hidden": 24, "attention": 24, "ffn": 40}
    assert both.layers == tuple(outer.layers[i] for i in inner.layers)
    for layer in range(len(inner.layers)):
        assert both.hidden == tuple(outer.hidden[i] for i in inner.hidden)
        for dim in ("attention", "ffn", ("attention", "attention"), ("ffn", "ffn")):
            found = [units(outer, dim, old, sizes) for old in range(4)]
            through = units(inner, dim, layer, between)
            assert units(both, dim, layer, sizes) == [found[old][i] for old, i in through]


@settings(max_examples=20, deadline=None)
@given(selections(TEACHER, SMALLER), selections(SMALLER, SMALLEST))
def test_two_cuts_are_one_composed_cut(outer: Selection, inner: Selection) -> None:
    law_composing_is_cutting_twice(Selection.compose, outer, inner)


def test_the_law_of_composing_has_teeth() -> None:
    outer = choose(TEACHER, SMALLER, rules={"ffn": "random"})
    inner = choose(SMALLER, SMALLEST)

    def forgets_the_layer(one: Selection, other: Selection) -> Selection:
        rows = tuple(tuple(one.ffn[0][i] for i in row) for row in other.ffn)
        return replace(one.compose(other), ffn=rows)

    def takes_inner_channels(one: Selection, other: Selection) -> Selection:
        return replace(one.compose(other), hidden=other.hidden)

    for mistake in (forgets_the_layer, takes_inner_channels):
        with pytest.raises(AssertionError):
            law_composing_is_cutting_twice(mistake, outer, inner)


def test_cuts_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(HeadstartError, match=r"cannot follow one that gives"):
        choose(TEACHER, SMALLEST).compose(choose(SMALLER, SMALLEST))


WHOLE = full(SMALLEST)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("layers", (0, 2), "layers must be different numbers from 0 to 1"),
        ("hidden", (0,) * 16, "hidden must be different numbers"),
        ("hidden", tuple(range(8)), "hidden channels must be as many"),
        ("attention", (tuple(range(16)),), "attention needs one list per kept layer"),
        ("ffn", (tuple(range(10)), tuple(range(9))), "all of one length"),
        ("ffn", (tuple(range(10)), tuple(range(1, 11))), "ffn must be different numbers"),
    ],
)
def test_a_broken_selection_cannot_be_made(field: str, value: Any, message: str) -> None:
    with pytest.raises(HeadstartError, match=message):
        replace(WHOLE, **{field: value})


def test_a_head_cut_to_half_is_no_student() -> None:
    half = tuple(range(12))
    with pytest.raises(HeadstartError, match="those of whole heads"):
        replace(WHOLE, hidden=half, attention=(half, half))
