"""How much of a gain the initialization brought, and how much the distillation.

From a student from scratch on labels to a teacher's copy on the teacher's answers, two things
change. Each is given its mean effect over both orders of changing them; the first falls apart
into steps: pre-training (scratch to base), fine-tuning (base to teacher), repair (refit).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from headstart.stats import shapley

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from headstart.stats import Bootstrap, Estimate

    Floats = NDArray[np.float64]

LABELS = "labels"
CHAIN = (("scratch", False), ("base", False), ("teacher", False), ("teacher", True))
STEPS = {
    ("base", False): "pre-training",
    ("teacher", False): "fine-tuning",
    ("teacher", True): "refit",
}


@dataclass(frozen=True, slots=True)
class Way:
    """One way of making a student, apart from its seed.

    Args:
        name: Of the arm, with its point of the grid.
        source: Of its first weights.
        refitted: Whether they were repaired in closed form.
        objective: labels, or parts of the loss that ask the teacher, with what weighs them.
        setting: What the recipe says besides initialization and objective, as one text.
        init: How what is copied was chosen, and how it was repaired; nothing where nothing was.
    """

    name: str
    source: str
    refitted: bool
    objective: str
    setting: str
    init: str = ""

    @property
    def arm(self) -> str:
        """Give its name without the point of the grid."""
        return self.name.partition("|")[0]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the gain: over trained-on and zero-shot languages, and in each."""

    name: str
    of: str | None  # the part that it is a step of
    trained_on: Estimate
    zero_shot: Estimate | None
    by_language: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Attribution:
    """What each part brought, from the first way to the last.

    Args:
        first: From scratch, on labels.
        last: From the teacher, refitted or not, distilled.
        ways: All that were read.
        parts: Initialization, its steps, distillation.
        whole: The gain that they sum to.
        setting: Of all of them.
    """

    first: Way
    last: Way
    ways: tuple[Way, ...]
    parts: tuple[Part, ...]
    whole: Part
    setting: str

    def part(self, name: str) -> Part:
        """Find a part by its name."""
        return next(part for part in self.parts if part.name == name)


def attribute(
    ways: Sequence[Way], bootstrap: Bootstrap, zero_shot: Sequence[str]
) -> list[Attribution]:
    """Share out every gain that the ways allow: of each setting, objective, and way of copying.

    Where a copy was refitted, its gain comes first, and after it that of the plain copy.

    Args:
        ways: In the recipe's order; copies that were chosen or repaired otherwise are told apart,
            of equals the first is read.
        bootstrap: Knows their scores, by name.
        zero_shot: Languages that were not trained on.

    Source:
        Shapley (1953) for two factors; the steps are means over both objectives.
    """
    known: list[Mapping[tuple[str, bool], tuple[Way, Way]]] = []
    for setting, objective in dict.fromkeys((w.setting, w.objective) for w in ways):
        if objective == LABELS:
            continue
        pairs = _pairs([way for way in ways if way.setting == setting], objective)
        inits = [[init for start, init in pairs if start == one] or [None] for one in CHAIN]
        plain, repaired = inits[1] if inits[2] == [None] else inits[2], inits[3]
        for copied, refitted in product(plain, repaired):
            for repair in (refitted, None):
                chain = zip(CHAIN, ("", copied, copied, repair), strict=True)
                have = {key[0]: pairs[key] for key in chain if key in pairs}
                whole = CHAIN[0] in have and [*have][-1][0] == "teacher"
                if len(have) > 1 and whole and have not in known:
                    known.append(have)
    return [_attribution(have, bootstrap, zero_shot) for have in known]


def _pairs(
    ways: Sequence[Way], objective: str
) -> dict[tuple[tuple[str, bool], str | None], tuple[Way, Way]]:
    """Find what was trained with both objectives: by start, and how it was chosen and repaired."""
    cells: dict[tuple[str, tuple[str, bool], str], Way] = {}
    for way in ways:
        cells.setdefault((way.objective, (way.source, way.refitted), way.init), way)
    return {
        (start, init): (way, cells[objective, start, init])
        for (told, start, init), way in cells.items()
        if told == LABELS and (objective, start, init) in cells
    }


def _attribution(
    have: Mapping[tuple[str, bool], tuple[Way, Way]],
    bootstrap: Bootstrap,
    zero_shot: Sequence[str],
) -> Attribution:
    starts, pairs = list(have), list(have.values())
    ways = [way for pair in pairs for way in pair]
    names = [way.name for way in ways]

    def cell(scores: Sequence[Floats], start: int, told: int) -> Floats:
        return scores[2 * start + told]

    def factor(which: int) -> Callable[..., Floats]:
        def share(*scores: Floats) -> Floats:
            both = (False, True)
            ends = {(last, told): cell(scores, -last, told) for last in both for told in both}
            return shapley(ends)[which]

        return share

    def step(i: int) -> Callable[..., Floats]:
        return lambda *scores: np.mean(
            [cell(scores, i, told) - cell(scores, i - 1, told) for told in (0, 1)], axis=0
        )

    def part(name: str, of: str | None, gain: Callable[..., Floats]) -> Part:
        return _part(name, of, names, gain, bootstrap, zero_shot)

    steps = [
        part(_step(starts[i - 1], starts[i]), "initialization", step(i))
        for i in range(1, len(starts))
    ]
    return Attribution(
        first=pairs[0][0],
        last=pairs[-1][1],
        ways=tuple(ways),
        parts=(
            part("initialization", None, factor(0)), *steps, part("distillation", None, factor(1)),
        ),
        whole=part("whole", None, lambda *scores: cell(scores, -1, 1) - cell(scores, 0, 0)),
        setting=pairs[0][0].setting,
    )  # fmt: skip


def _step(before: tuple[str, bool], after: tuple[str, bool]) -> str:
    """Name what changes between two starts; what was not tried on the way counts in."""
    passed = CHAIN[CHAIN.index(before) + 1 : CHAIN.index(after) + 1]
    return " and ".join(STEPS[start] for start in passed)


def _part(
    name: str,
    of: str | None,
    names: Sequence[str],
    gain: Callable[..., Floats],
    bootstrap: Bootstrap,
    zero_shot: Sequence[str],
) -> Part:
    """Estimate a part of the gain, over both kinds of languages and in each."""
    languages = bootstrap.languages
    unseen = np.array([language in zero_shot for language in languages])

    def over(rows: NDArray[np.bool_]) -> Estimate:
        return bootstrap.estimate(names, lambda *scores: gain(*scores)[rows].mean(axis=0))[0]

    each = bootstrap.estimate(names, gain)
    zero = over(unseen) if unseen.any() else None
    return Part(name, of, over(~unseen), zero, dict(zip(languages, each, strict=True)))
