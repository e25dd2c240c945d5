"""A student by what it may cost: of all shapes that are small and fast enough, the least lossy."""

from __future__ import annotations

from itertools import product
from math import log2, prod
from typing import TYPE_CHECKING, Any, cast

from headstart.errors import HeadstartError
from headstart.layout import (
    Shape,
    count_parameters,
    entries,
    lengths,
    shape_of,
    student_changes,
    tensor_shape,
)
from headstart.rules import student_shape
from headstart.settings import amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headstart.layout import Family, Head

EMBEDDINGS = "word embeddings count: a teacher with fewer pieces has smaller students"
BYTES = 4  # of a parameter in single precision
BUDGETS = ("params", "bytes", "speedup")
# A change of the numbers below changes what a budget gives: RESULT_VERSION goes up.
# Points of its teacher's score that a student loses when its layers, or its channels, are halved
# (times the square of how often they are halved): see docs/performance.md.
LAYERS_LOSE, CHANNELS_LOSE = 2.5, 7.0
# What an answer costs beside products of matrices, in multiply-adds: for each piece, and for each
# channel of a layer (attention, norms, activations): see docs/performance.md.
PER_PIECE, PER_CHANNEL = 300_000, 1_000
_LEAST = {
    "params": "the smallest has {:,.0f} parameters, and {:,.0f} are asked for",
    "bytes": "the smallest has {:,.0f} bytes, and {:,.0f} are asked for",
    "speedup": "the fastest is {:.2f} times as fast, and {:g} times is asked for",
}


def megabytes(count: float) -> str:
    """Write a number of bytes in millions, small ones with a decimal."""
    return f"{count / 1e6:,.0f}" if count >= 1e7 else f"{count / 1e6:.1f}"


def work(family: Family, config: Mapping[str, Any]) -> float:
    """Estimate what a model does for each piece of text, in multiply-adds.

    Args:
        family: The model's.
        config: The model's, as plain data.
    """
    sizes = lengths(family, config)
    matrices = sum(
        prod(tensor_shape(entry, sizes))
        for entry in entries(family, config, "none")
        if entry.layer is not None and len(entry.axes) > 1
    )
    shape = shape_of(family, config)
    return PER_PIECE + matrices + PER_CHANNEL * shape.layers * shape.hidden


def wanted_shape(
    family: Family,
    config: Mapping[str, Any],
    head: Head,
    wanted: Mapping[str, float | str | None],
) -> Shape:
    """Find the student's shape: the sizes that are named, or what fits a budget.

    Of all shapes within the budget it is the one that should lose least, where layers that are
    halved cost `LAYERS_LOSE` points and channels `CHANNELS_LOSE`, growing with the square.

    Args:
        family: The teacher's.
        config: The teacher's, as plain data.
        head: The student's.
        wanted: Sizes, as `student_shape` has them, which stay as they are named; and any of
            ``params`` (at most so many), ``bytes`` (at most so many, in single precision) and
            ``speedup`` (at least so many times the teacher's pieces a second, as `work` tells).

    Raises:
        HeadstartError: Sizes are at fault, or no student is within the budget.
    """
    teacher = shape_of(family, config)
    sizes = {k: v for k, v in wanted.items() if v is not None and k not in BUDGETS}
    named = cast("dict[str, int]", sizes)  # student_shape refuses what is no whole number
    budget = {k: _number(k, v) for k, v in wanted.items() if v is not None and k in BUDGETS}
    fixed = student_shape(teacher, named)
    if not budget:
        return fixed
    costs = {
        shape: cost
        for shape in _shapes(teacher, named)
        if (cost := _costs(family, config, head, shape))
    }
    if not costs:  # no width is possible but those that are named, and these are not
        student_changes(family, config, fixed, layers=tuple(range(fixed.layers)))
    fits = [shape for shape, cost in costs.items() if _within(cost, budget)]
    if not fits:
        raise _too_small(costs, budget)
    return min(fits, key=lambda shape: (_loss(teacher, shape), -shape.hidden))


def _number(key: str, value: object) -> float:
    """Read one budget, such as 30M.

    Raises:
        HeadstartError: It is no number, or too small to mean anything.
    """
    found = value if key == "speedup" or isinstance(value, bool) else amount(value)
    if isinstance(found, int | float) and not isinstance(found, bool):
        number = float(found)
        if number >= 1:
            return number
    raise HeadstartError(
        f"{key} = {value!r} is no budget",
        where=f"recipe key student.{key}",
        way_out="give a speed-up of 1 or more, or a number such as 30M",
    )


def _shapes(teacher: Shape, named: Mapping[str, int]) -> Iterator[Shape]:
    """Go through all shapes that leave named sizes as they are."""
    layers = [named["layers"]] if "layers" in named else range(1, teacher.layers + 1)
    widths = [{"heads": heads} for heads in range(1, teacher.heads + 1)]
    if "heads" in named or "hidden" in named:
        widths = [{}]
    for count, width in product(layers, widths):
        yield student_shape(teacher, {**named, "layers": count, **width})


def _costs(family: Family, config: Mapping[str, Any], head: Head, shape: Shape) -> dict[str, float]:
    """Say what a shape costs, in the units of a budget; nothing if there can be none."""
    layers = tuple(range(shape.layers))
    try:
        changed = {**config, **student_changes(family, config, shape, layers=layers)}
    except HeadstartError:  # a width that this family cannot have
        return {}
    params = count_parameters(family, changed, head)["total"]
    speedup = work(family, config) / work(family, changed)
    return {"params": params, "bytes": BYTES * params, "speedup": speedup}


def _within(cost: Mapping[str, float], budget: Mapping[str, float]) -> bool:
    return all(
        cost[key] >= most if key == "speedup" else cost[key] <= most for key, most in budget.items()
    )


def _loss(teacher: Shape, shape: Shape) -> float:
    """Guess the points of its teacher's score that an untrained student lacks."""
    layers, channels = log2(teacher.layers / shape.layers), log2(teacher.hidden / shape.hidden)
    return LAYERS_LOSE * layers**2 + CHANNELS_LOSE * channels**2


def _too_small(
    costs: Mapping[Shape, Mapping[str, float]], budget: Mapping[str, float]
) -> HeadstartError:
    """Say how far the smallest student is from the budget."""
    best = {
        key: (max if key == "speedup" else min)(cost[key] for cost in costs.values())
        for key in budget
    }
    missed = [k for k in budget if not _within({k: best[k]}, {k: budget[k]})] or [*budget]
    return HeadstartError(
        "no student is within the budget: "
        + ", ".join(_LEAST[key].format(best[key], budget[key]) for key in missed),
        where=f"recipe key student.{missed[0]}",
        way_out="allow more, or ask for less speed; and name no size beside it"
        + ("" if missed == ["speedup"] else f"; {EMBEDDINGS}"),
    )
