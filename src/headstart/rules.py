"""Rules that choose what a student keeps, from sizes, scores and a seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from headstart.errors import HeadstartError, combine, nearest
from headstart.layout import Shape, Traits
from headstart.selection import SIZES, SOURCES, Picks, Selection, groups, named_origins

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
Said = str | bool | Sequence[int]
DEFAULT_RULES: Mapping[str, Said] = {
    "layers": "even",
    "hidden": "uniform",
    "heads": "uniform",
    "ffn": "uniform",
    "merge": False,
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
            across, or names hidden size and heads that do not agree; all of it at once.
    """
    named = {size: count for size, count in wanted.items() if count is not None}
    faults = [fault for size in named if (fault := _misfit(size, named[size], teacher))]
    faulty = {fault.where.rpartition(".")[2] for fault in faults}
    hidden = named.get("hidden", named.get("heads", teacher.heads) * teacher.head_size)
    heads = named.get("heads", hidden // teacher.head_size)
    if not faulty & {"hidden", "heads"} and hidden != heads * teacher.head_size:
        what = f"hidden = {hidden} is not {heads} heads of {teacher.head_size} channels"
        way_out = f"heads stay whole: choose a multiple of {teacher.head_size} channels"
        way_out += ", and leave heads out" * ("heads" in named and "hidden" in named)
        faults.append(HeadstartError(what, where="recipe key student.hidden", way_out=way_out))
    if faults:
        raise combine(faults, where="recipe key student")
    ffn = named.get("ffn", max(1, round(teacher.ffn * hidden / teacher.hidden)))
    return Shape(named.get("layers", teacher.layers), hidden, heads, ffn)


def _misfit(size: str, count: object, teacher: Shape) -> HeadstartError | None:
    """Say what is wrong with one size on its own."""
    where = f"recipe key student.{size}"
    if size not in SIZES:
        what, way_out = f"a student has no size {size!r}", nearest(size, SIZES)
        return HeadstartError(what, where=where, way_out=way_out)
    most = int(getattr(teacher, size))
    if isinstance(count, bool) or not isinstance(count, int):
        what = f"{size} = {count!r} is no whole number"
    elif not 1 <= count <= most:
        what = f"a student with {size} = {count} cannot be cut from a teacher with {most}"
    else:
        return None
    return HeadstartError(what, where=where, way_out=f"choose from 1 to {most}")


def choose(
    teacher: Shape,
    student: Shape,
    *,
    rules: Mapping[str, Said] | None = None,
    source: str = "teacher",
    scores: Measured | None = None,
    seed: int = 0,
    traits: Traits | None = None,
) -> Selection:
    """Choose what a student keeps.

    Args:
        teacher: The teacher's shape.
        student: The student's, as `student_shape` gives it.
        rules: Rule of each size; what is not named has its default. ``layers`` may be a list.
            ``merge``: whether a layer's heads and neurons are chosen among those of all layers
            since the one kept before it, not of the kept layer alone.
        source: One of `SOURCES`; noted, it changes no choice.
        scores: For the rules that are `SCORED`.
        seed: Of rule ``random``; each layer draws its own heads and neurons.
        traits: How the teacher's layers differ: where the first is unlike the others, the named
            layer rules keep it as the student's first; heads of unlike layers are not merged.

    Raises:
        HeadstartError: A rule or source is unknown, a layer list does not fit, or scores are
            missing.
    """
    said = {**DEFAULT_RULES, **(rules or {})}
    traits = traits or Traits()
    merges = bool(said.pop("merge"))
    _check_names(said, source)
    layers = _layers(teacher.layers, student.layers, said["layers"], traits.keep_first)
    name = {size: rule if isinstance(rule, str) else "list" for size, rule in said.items()}
    pools = [(layer,) for layer in layers]
    if merges:
        pools = groups(layers)
        name |= {size: f"{name[size]}, merged" for size in ("heads", "ffn")}
    pick = _Pick(teacher, student, said, scores or {}, np.random.default_rng(seed))
    hidden = pick.hidden()
    alike = [_alike(pool, traits.kinds) for pool in pools]
    attention, attention_of = zip(*map(pick.heads, alike), strict=True)
    ffn, ffn_of = zip(*map(pick.ffn, pools), strict=True)
    return Selection(
        teacher=teacher,
        layers=layers,
        hidden=hidden,
        attention=attention,
        ffn=ffn,
        attention_of=named_origins(attention_of, layers),
        ffn_of=named_origins(ffn_of, layers),
        source=source,
        rules=name,
    )


def _alike(pool: Picks, kinds: Sequence[str]) -> Picks:
    """Leave out layers whose attention is of another kind than that of the last."""
    return tuple(i for i in pool if not kinds or kinds[i] == kinds[pool[-1]])


@dataclass(frozen=True, slots=True)
class _Pick:
    """Applies the rules to one size after the other, in the order in which they draw."""

    teacher: Shape
    student: Shape
    said: Mapping[str, Said]
    scores: Measured
    rng: np.random.Generator

    def hidden(self) -> Picks:
        """Choose the channels of the residual stream."""
        return self._chosen("hidden", self.teacher.hidden, self.student.hidden, None)

    def heads(self, pool: Picks) -> tuple[Picks, Picks]:
        """Choose heads among some layers: channels, and the layer of each."""
        size, strided = self.teacher.head_size, self.said["heads"] == "strided"
        unit = 1 if strided else size
        length = self.teacher.heads * size // unit
        chosen = self._chosen("heads", length, self.student.heads * size // unit, pool)
        return (
            tuple(i % length * unit + k for i in chosen for k in range(unit)),
            tuple(pool[i // length] for i in chosen for _ in range(unit)),
        )

    def ffn(self, pool: Picks) -> tuple[Picks, Picks]:
        """Choose neurons among some layers: numbers, and the layer of each."""
        length = self.teacher.ffn
        chosen = self._chosen("ffn", length, self.student.ffn, pool)
        return tuple(i % length for i in chosen), tuple(pool[i // length] for i in chosen)

    def _chosen(self, size: str, length: int, count: int, pool: Picks | None) -> Picks:
        """Choose units, counted through the layers of a pool."""
        whole = length * len(pool or (0,))
        if whole == count:
            return tuple(range(whole))
        rule = str(self.said[size])
        scores = np.empty(0)
        if rule in SCORED:
            known = _scores(self.scores.get(rule, {}), rule, size)
            scores = known if pool is None else np.concatenate([known[i] for i in pool])
        chosen: Rule = _TABLES[size][rule]
        return chosen(whole, count, scores, self.rng)


def _layers(length: int, count: int, rule: Said, keep_first: bool) -> Picks:
    if isinstance(rule, str):
        picks = LAYER_RULES[rule](length, count)
        return (0, *picks[1:]) if keep_first else picks
    picks = tuple(cast("Sequence[int]", rule))
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


def _scores(known: Mapping[str, Scores], rule: str, size: str) -> Scores:
    if size not in known:
        raise HeadstartError(
            f"rule {rule} needs scores for {size}",
            where=f"recipe key init.{size}",
            way_out="use it in a recipe, where there is text to measure on, or hand in scores",
        )
    return known[size]


def _check_names(rules: Mapping[str, Said], source: str) -> None:
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
