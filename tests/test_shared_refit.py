"""Processes that share a refit's text give what one gives, and all of them the same.

Here they are threads, a model each, whose sums are added up; `test_processes.py` starts real ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from threading import Barrier
from typing import TYPE_CHECKING, Any, cast

import pytest
import torch

from headstart.recipe import Refit
from headstart.refit import refit
from headstart.student import make_student
from test_refit import SMALL, sample
from tiny import tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from headstart.layout import Head

TOLERANCE = 2e-4  # sums are added up in another order; the same as for another order of batches
LONGEST = 60  # seconds that one waits for the others, so that a lost one cannot hang the tests


class Shared:
    """What processes that reduce a tensor share."""

    def __init__(self, count: int, join: Callable[[list[torch.Tensor]], torch.Tensor]) -> None:
        """Start with nothing to add up."""
        self.count, self.join = count, join
        self.barrier = Barrier(count, timeout=LONGEST)
        self.parts: dict[int, torch.Tensor] = {}


class Member:
    """One of several processes, as far as a refit asks about them."""

    def __init__(self, shared: Shared, rank: int) -> None:
        """Be the one of that rank."""
        self.shared, self.process_index, self.num_processes = shared, rank, shared.count

    def reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Add up what all of them have."""
        self.shared.parts[self.process_index] = tensor.clone()
        self.shared.barrier.wait()
        whole = self.shared.join([self.shared.parts[i] for i in range(self.num_processes)])
        self.shared.barrier.wait()
        return whole


def added(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).sum(0)


def refitted(
    variant: str, head: Head, asked: dict[str, Any], shared: Shared | None
) -> list[dict[str, torch.Tensor]]:
    """Refit in so many processes, and give each one's weights."""
    teacher = tiny_model(variant, head)
    rules = {"merge": True} if asked.get("merge") else {}
    made = make_student(
        teacher, shape=SMALL if not rules else {"layers": 2, "hidden": 16}, rules=rules
    )
    told = Refit(directions=asked.get("directions", "kept"))

    def one(rank: int) -> dict[str, torch.Tensor]:
        student = deepcopy(made.model)
        member = None if shared is None else cast("Any", Member(shared, rank))
        refit(
            student, deepcopy(teacher), made.selection, sample(head), asked=told, accelerator=member
        )
        return student.state_dict()

    count = 1 if shared is None else shared.count
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def law_processes_give_what_one_gives(
    variant: str,
    head: Head,
    asked: dict[str, Any],
    *,
    count: int = 2,
    join: Callable[[list[torch.Tensor]], torch.Tensor] = added,
) -> None:
    (alone,) = refitted(variant, head, asked, None)
    first, *others = refitted(variant, head, asked, Shared(count, join))
    for name, weight in alone.items():
        assert all(torch.equal(first[name], other[name]) for other in others), name
        torch.testing.assert_close(first[name], weight, atol=TOLERANCE, rtol=TOLERANCE)


CASES = [
    ("bert", "classification", {}),
    ("bert", "classification", {"directions": "principal", "merge": True}),
    ("xlm-roberta", "tagging", {"merge": True}),
    ("deberta-v2", "classification", {}),
    ("modernbert", "classification", {"merge": True}),
]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(("variant", "head", "asked"), CASES)
def test_processes_give_what_one_gives(
    variant: str, head: Head, asked: dict[str, Any], count: int
) -> None:
    law_processes_give_what_one_gives(variant, head, asked, count=count)


def test_the_law_of_processes_has_teeth() -> None:
    def the_first_alone(parts: list[torch.Tensor]) -> torch.Tensor:
        return parts[0]

    with pytest.raises(AssertionError):
        law_processes_give_what_one_gives("bert", "classification", {}, join=the_first_alone)
