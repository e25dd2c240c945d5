"""Normal equations give what a direct solve gives, whatever the batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from headstart.errors import HeadstartError
from headstart.ridge import Fitted, Scales, Sums, best_change, describe

if TYPE_CHECKING:
    from torch import Tensor

CPU = torch.device("cpu")


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Draw inputs, what a map lacks, and what is wanted; all correlated, none centered."""
    lacking = torch.randn(5, 3, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=rng, dtype=torch.float64) + 1.0
    error = x @ lacking + 0.7
    error += torch.randn(count, 3, generator=rng, dtype=torch.float64)
    return x, error, error + x[:, :3]


def summed(count: int, *, bias: bool, cuts: tuple[int, ...] = (), seed: int = 0) -> Sums:
    sums = Sums(5, 3, bias=bias, device=CPU)
    x, error, target = rows(count, seed)
    for start, stop in zip((0, *cuts), (*cuts, count), strict=True):
        sums.add(x[start:stop], error[start:stop], target[start:stop])
    return sums


def direct(x: np.ndarray, error: np.ndarray, ridge: float, *, bias: bool) -> np.ndarray:
    """Solve the same problem as one tall least squares."""
    wide = np.hstack([x, np.ones((len(x), 1))]) if bias else x
    penalty = np.eye(wide.shape[1])[: x.shape[1]] * np.sqrt(ridge * (x * x).sum(0).mean())
    tall = np.vstack([wide, penalty])
    wanted = np.vstack([error, np.zeros((x.shape[1], error.shape[1]))])
    return np.linalg.lstsq(tall, wanted, rcond=None)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 1.0, 100.0])
def test_the_change_equals_a_direct_solve(ridge: float, bias: bool) -> None:
    x, error, _ = rows(40)
    expected = direct(x.numpy(), error.numpy(), ridge, bias=bias)
    found = summed(40, bias=bias).change(ridge).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def test_a_direct_solve_knows_a_wrong_ridge() -> None:
    x, error, _ = rows(40)
    expected = direct(x.numpy(), error.numpy(), 2e-2, bias=True)
    found = summed(40, bias=True).change(1e-2).numpy()
    assert np.abs(found - expected).max() > 1e-4


@pytest.mark.parametrize("cuts", [(1,), (13, 29), (39,)])
def test_batches_change_nothing(cuts: tuple[int, ...]) -> None:
    whole, parts = summed(40, bias=True), summed(40, bias=True, cuts=cuts)
    assert torch.allclose(whole.change(0.1), parts.change(0.1), rtol=1e-11)
    assert whole.unexplained() == pytest.approx(parts.unexplained(), rel=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_what_a_map_gives_need_not_be_run(bias: bool) -> None:
    """Taken from the sums afterwards, it leaves those of what the map lacks."""
    x, wanted, target = rows(40)
    given = torch.randn(5 + bias, 3, generator=torch.Generator().manual_seed(1)).double()
    wide = torch.cat([x, x.new_ones(40, 1)], dim=1) if bias else x
    after, direct = (Sums(5, 3, bias=bias, device=CPU) for _ in range(2))
    after.add(x, wanted, target)
    direct.add(x, wanted - wide @ given, target)
    assert not torch.allclose(after.change(0.1), direct.change(0.1), rtol=1e-3)
    after.less(given)
    assert torch.allclose(after.change(0.1), direct.change(0.1), rtol=1e-9)
    assert after.unexplained() == pytest.approx(direct.unexplained(), rel=1e-9)


def test_two_processes_give_what_one_gives() -> None:
    x, error, target = rows(40)
    halves = [Sums(5, 3, bias=True, device=CPU) for _ in range(2)]
    halves[0].add(x[:17], error[:17], target[:17])
    halves[1].add(x[17:], error[17:], target[17:])
    names = iter(("rows", "xx", "xe", "ee", "t", "tt"))
    joined = halves[0].joined(lambda tensor: tensor + getattr(halves[1], next(names)))
    assert torch.allclose(joined.change(0.1), summed(40, bias=True).change(0.1), rtol=1e-11)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [1e-6, 1e-1, 10.0])
def test_what_is_left_unexplained_is_what_the_change_leaves(ridge: float, bias: bool) -> None:
    sums = summed(40, bias=bias)
    x, error, target = rows(40)
    change = sums.change(ridge)
    left = error - x @ change[:5] - (change[5] if bias else 0)
    spread = ((target - target.mean(0)) ** 2).sum()
    assert sums.unexplained(change) == pytest.approx(float((left**2).sum() / spread), rel=1e-9)
    assert sums.unexplained() == pytest.approx(float((error**2).sum() / spread), rel=1e-9)
    assert sums.unexplained(change) < sums.unexplained()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [1e-9, 1e-1])
def test_gains_and_shifts_equal_a_direct_solve(ridge: float, bias: bool) -> None:
    x, error, target = rows(40)
    x = x[:, :3]
    scales = Scales(3, bias=bias, device=CPU)
    scales.add(x, error, target)
    change = scales.change(ridge)
    penalty = np.sqrt(ridge * float((x * x).sum(0).mean()))
    for i in range(3):
        column = x[:, i : i + 1].numpy()
        tall = np.vstack([np.hstack([column, np.ones((40, 1))]), [[penalty, 0]]])
        tall = tall if bias else tall[:, :1]
        wanted = np.append(error[:, i].numpy(), 0.0)
        expected = np.linalg.lstsq(tall, wanted, rcond=None)[0]
        np.testing.assert_allclose(change[: 1 + bias, i].numpy(), expected, rtol=1e-8)
    left = error - x * change[0] - change[1]
    spread = ((target - target.mean(0)) ** 2).sum()
    assert scales.unexplained(change) == pytest.approx(float((left**2).sum() / spread), rel=1e-9)


def test_no_row_and_no_number_end() -> None:
    """Neither sums of nothing nor sums of rubbish make the search for a ridge go on for ever."""
    empty = Sums(3, 2, bias=True, device=torch.device("cpu"))
    assert not empty.change(1e-4).any()
    empty.add(torch.full((4, 3), torch.nan), torch.zeros(4, 2), torch.zeros(4, 2))
    with pytest.raises(HeadstartError, match="infinite or no number"):
        empty.change(1e-4)


def test_fewer_rows_than_inputs_are_solved_with_a_ridge_that_holds() -> None:
    draw = torch.Generator().manual_seed(3)
    x, e = torch.randn(5, 40, generator=draw) * 1e3, torch.randn(5, 4, generator=draw)
    sums = Sums(40, 4, bias=True, device=torch.device("cpu"))
    sums.add(x, e, e)
    change = sums.change(1e-14)
    assert change.isfinite().all()
    assert sums.unexplained(change) < 0.01


def test_held_out_rows_choose_the_ridge() -> None:
    few, many = summed(7, bias=True), summed(400, bias=True, seed=1)
    judged = {ridge: many.unexplained(few.change(ridge)) for ridge in (1e-9, 1e-1, 10.0)}
    _, fitted = best_change("map", few, many, tuple(judged))
    assert fitted.ridge == min(judged, key=judged.__getitem__)
    assert fitted.held_out_after == min(judged.values())


@pytest.mark.parametrize("few", range(6, 46, 4))
def test_the_walk_ends_at_the_best_of_all_ridges(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few rows to fit the best ridge is large, with many it is small; all are not solved."""
    ridges = tuple(10.0**power for power in range(-9, 4))
    fit, held_out = summed(few, bias=True), summed(400, bias=True, seed=1)
    every = [held_out.unexplained(fit.change(ridge)) for ridge in ridges]
    solved: list[float] = []
    change = Sums.change

    def counted(sums: Sums, ridge: float) -> torch.Tensor:
        solved.append(ridge)
        return change(sums, ridge)

    monkeypatch.setattr(Sums, "change", counted)
    _, fitted = best_change("map", fit, held_out, ridges)
    assert fitted.held_out_after == min(every)
    assert len(solved) == len(set(solved)) < len(ridges)


def test_a_change_that_helps_no_held_out_row_is_not_made() -> None:
    fit = summed(40, bias=True)
    x, error, target = rows(40)
    held_out = Sums(5, 3, bias=True, device=CPU)
    held_out.add(x, -error, target)  # the opposite is wanted
    change, fitted = best_change("map", fit, held_out, (1e-3, 1.0))
    assert change is None
    assert fitted.ridge is None
    assert (fitted.before, fitted.held_out_before) == (fitted.after, fitted.held_out_after)


def test_maps_that_were_left_are_named() -> None:
    def fitted(*ridges: float | None) -> list[Fitted]:
        return [Fitted(f"m{i}", ridge, 1.0, 1.0, 1.0, 1.0) for i, ridge in enumerate(ridges)]

    assert describe(fitted(0.1, 0.1)) == "2 of 2 maps and norms changed"
    assert describe(fitted(None, None)) == "0 of 2 maps and norms changed"  # a full copy
    told = describe(fitted(0.1, None, None))
    assert told == (
        "1 of 3 maps and norms changed; left as they were, since no change made held-out text "
        "better: m1, m2"
    )
    assert describe(fitted(0.1, *[None] * 7)).endswith("m1, m2, m3, m4, m5 and 2 more")
