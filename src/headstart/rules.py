"""Rules that choose what a student keeps, from sizes, scores and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError, nearest
from headstart.layout import Shape
from headstart.selection import SIZES, SOURCES, Picks, Selection

Scores = NDArray[np.float64]
Measured = Mapping[str, Mapping[str, Scores]]
"""Under the name of a rule: ``hidden``, shape (hidden,); ``heads``, (layers, heads); ``ffn``,
(layers, ffn). The highest are kept."""


def _uniform(length: int, count: int) -> Picks:
    """Space picks evenly, from the first on, as weight selection does.

    Source:
        Xu et al. (2024), arXiv:2311.18823, "uniform selection"; where `count` does not divide
        `length`, rounded even spacing from the first to the last, as in the authors' code.
    """
    if length % count == 0:
        return tuple(range(0, length, length // count))
    return tuple(int(i) for i in np.rint(np.linspace(0, length - 1, count)))


LAYER_RULES: Mapping[str, Callable[[int, int], Picks]] = {
    "even": lambda length, count: tuple((i + 1) * length // count - 1 for i in range(count)),
    "even-first": lambda length, count: tuple(i * length // count for i in range(count)),
    "first": lambda _, count: tuple(range(count)),
    "last": lambda length, count: tuple(range(length - count, length)),
}
"""Layers: the last of each group, the first of each group, the first ones, the last ones."""

Rule = Callable[[int, int, Scores, np.random.Generator], Picks]


def _top(scores: Scores, count: int) -> Picks:
    return tuple(sorted(int(i) for i in np.argsort(-scores, kind="stable")[:count]))


def _drawn(length: int, count: int, rng: np.random.Generator) -> Picks:
    return tuple(sorted(int(i) for i in rng.choice(length, size=count, replace=False)))


_RULES: Mapping[str, Rule] = {
    "uniform": lambda length, count, _, __: _uniform(length, count),
    "first": lambda _, count, __, ___: tuple(range(count)),
    "random": lambda length, count, _, rng: _drawn(length, count, rng),
    "magnitude": lambda _, count, scores, __: _top(scores, count),
    "activation": lambda _, count, scores, __: _top(scores, count),
}
MEASURED = ("activation", "taylor")  # rules that look at text
SCORED = ("magnitude", *MEASURED)
HIDDEN_RULES: Mapping[str, Rule] = _RULES
FFN_RULES: Mapping[str, Rule] = {**_RULES, "taylor": _RULES["activation"]}
HEAD_RULES: Mapping[str, Rule] = {**FFN_RULES, "strided": _RULES["uniform"]}
"""``strided`` spaces channels evenly across heads, which cuts every head; only to reproduce."""
DEFAULT_RULES: Mapping[str, str | Sequence[int]] = {
    "layers": "even",
    "hidden": "uniform",
    "heads": "uniform",
    "ffn": "uniform",
}
_TABLES: Mapping[str, Mapping[str, Any]] = {
    "layers": LAYER_RULES,
    "hidden": HIDDEN_RULES,
    "heads": HEAD_RULES,
    "ffn": FFN_RULES,
}


def student_shape(teacher: Shape, wanted: Mapping[str, int | None]) -> Shape:
    """Complete a wanted shape.

    What is not named is as the teacher has it, but for two sizes that follow the hidden size:
    heads keep their width, so that hidden = heads x head size (either names the other), and the
    feed-forward block shrinks in proportion.

    Args:
        teacher: The teacher's shape.
        wanted: Any of ``layers``, ``hidden``, ``heads``, ``ffn``; None counts as not named.

    Raises:
        HeadstartError: The student is larger than the teacher, smaller than one, cuts a head
            across, or names hidden size and heads that do not agree.
    """
    named = {size: count for size, count in wanted.items() if count is not None}
    for size, count in named.items():
        if size not in SIZES:
            raise HeadstartError(
                f"a student has no size {size!r}",
                where=f"recipe key student.{size}",
                way_out=nearest(size, SIZES),
            )
        most = int(getattr(teacher, size))
        if isinstance(count, bool) or not isinstance(count, int):  # pyright: ignore
            raise HeadstartError(
                f"{size} = {count!r} is no whole number",
                where=f"recipe key student.{size}",
                way_out=f"choose from 1 to {most}",
            )
        if not 1 <= count <= most:
            raise HeadstartError(
                f"a student with {size} = {count} cannot be cut from a teacher with {most}",
                where=f"recipe key student.{size}",
                way_out=f"choose from 1 to {most}",
            )
    hidden = named.get("hidden", named.get("heads", teacher.heads) * teacher.head_size)
    heads = named.get("heads", hidden // teacher.head_size)
    if hidden != heads * teacher.head_size:
        raise HeadstartError(
            f"hidden = {hidden} is not {heads} heads of {teacher.head_size} channels",
            where="recipe key student.hidden",
            way_out=f"heads stay whole: name one of the two, hidden a multiple of "
            f"{teacher.head_size}",
        )
    ffn = named.get("ffn", max(1, round(teacher.ffn * hidden / teacher.hidden)))
    return Shape(named.get("layers", teacher.layers), hidden, heads, ffn)


def choose(
    teacher: Shape,
    student: Shape,
    *,
    rules: Mapping[str, str | Sequence[int]] | None = None,
    source: str = "teacher",
    scores: Measured | None = None,
    seed: int = 0,
    keep_first: bool = False,
) -> Selection:
    """Choose what a student keeps.

    Args:
        teacher: The teacher's shape.
        student: The student's, as `student_shape` gives it.
        rules: Rule of each size; what is not named has its default. ``layers`` may be a list.
        source: One of `SOURCES`; noted, it changes no choice.
        scores: For the rules that are `SCORED`.
        seed: Of rule ``random``; each layer draws its own heads and neurons.
        keep_first: The named layer rules keep layer 0 as the student's first.

    Raises:
        HeadstartError: A rule or source is unknown, a layer list does not fit, or scores are
            missing.
    """
    said = {**DEFAULT_RULES, **(rules or {})}
    _check_names(said, source)
    layers = _layers(teacher.layers, student.layers, said["layers"], keep_first)
    rng = np.random.default_rng(seed)
    name = {size: rule if isinstance(rule, str) else "list" for size, rule in said.items()}

    def picks(size: str, length: int, count: int, layer: int | None = None) -> Picks:
        if length == count:
            return tuple(range(length))
        known = (scores or {}).get(name[size], {})
        score = _scores(known, name[size], size, layer) if name[size] in SCORED else np.empty(0)
        rule: Rule = _TABLES[size][name[size]]
        return rule(length, count, score, rng)

    return Selection(
        teacher=teacher,
        layers=layers,
        hidden=picks("hidden", teacher.hidden, student.hidden),
        attention=tuple(_channels(picks, name["heads"], teacher, student, i) for i in layers),
        ffn=tuple(picks("ffn", teacher.ffn, student.ffn, i) for i in layers),
        source=source,
        rules=name,
    )


def _channels(
    picks: Callable[[str, int, int, int], Picks],
    rule: str,
    teacher: Shape,
    student: Shape,
    layer: int,
) -> Picks:
    size = teacher.head_size
    if rule == "strided":
        return picks("heads", teacher.heads * size, student.heads * size, layer)
    kept = picks("heads", teacher.heads, student.heads, layer)
    return tuple(head * size + i for head in kept for i in range(size))


def _layers(length: int, count: int, rule: str | Sequence[int], keep_first: bool) -> Picks:
    if isinstance(rule, str):
        picks = LAYER_RULES[rule](length, count)
        return (0, *picks[1:]) if keep_first else picks
    picks = tuple(rule)
    if (
        len(picks) != count
        or list(picks) != sorted(set(picks))
        or not 0 <= picks[0] <= picks[-1] < length
    ):
        raise HeadstartError(
            f"layers {list(picks)} are not {count} rising numbers from 0 to {length - 1}",
            where="recipe key init.layers",
            way_out="list as many layers as student.layers says, from the first to the last",
        )
    return picks


def _scores(known: Mapping[str, Scores], rule: str, size: str, layer: int | None) -> Scores:
    if size not in known:
        raise HeadstartError(
            f"rule {rule} needs scores for {size}",
            where=f"recipe key init.{size}",
            way_out="use it in a recipe, where there is text to measure on, or hand in scores",
        )
    return known[size] if layer is None else known[size][layer]


def _check_names(rules: Mapping[str, str | Sequence[int]], source: str) -> None:
    for size, rule in rules.items():
        table = _TABLES.get(size)
        if table is None:
            raise HeadstartError(
                f"no rule chooses {size!r}",
                where=f"recipe key init.{size}",
                way_out=nearest(size, SIZES),
            )
        if rule not in table if isinstance(rule, str) else size != "layers":
            raise HeadstartError(
                f"no rule {rule!r} for {size}",
                where=f"recipe key init.{size}",
                way_out=nearest(str(rule), table),
            )
    if source not in SOURCES:
        raise HeadstartError(
            f"no source {source!r}",
            where="recipe key init.source",
            way_out=nearest(source, SOURCES),
        )
