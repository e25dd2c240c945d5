"""Least squares toward what is there: normal equations, batch by batch, in double precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCKS = 4  # of columns: products of the half below the diagonal take five eighths of the time
SHOWN = 5  # names that are told
LEAST = 1e-30  # of a ridge's weight, where all inputs are zero
TOLD = 1e-5  # share of the variance from which on a gain is more than rounding of the products


def double_device(device: torch.device) -> torch.device:
    """Say where double precision is at hand."""
    return torch.device("cpu") if device.type == "mps" else device


class Sums:
    """What least squares needs to know of any number of rows; its size does not grow with them.

    Args:
        inputs: Columns of the input.
        outputs: Columns of the output.
        bias: Whether the map has one; it is fitted as one more input that is always 1.
        device: Where the sums are kept.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool, device: torch.device) -> None:
        """Start with no rows."""
        self.bias = bias
        wide, device = inputs + bias, double_device(device)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64, device=device)

        self.rows = zeros(1)
        self.xx = zeros(wide, wide)  # kept at and below the diagonal; `inputs` gives all of it
        self.is_whole = True
        self.xe = zeros(wide, outputs)
        self.ee = zeros(1)
        self.t = zeros(outputs)
        self.tt = zeros(outputs)

    def add(self, x: Tensor, error: Tensor, target: Tensor) -> None:
        """Add rows.

        Args:
            x: Inputs of the map, shape (rows, inputs).
            error: The target less what is there; all that is there but the map's own part, where
                `less` follows. Shape (rows, outputs).
            target: What is wanted, shape (rows, outputs).
        """
        x, error, target = (part.to(self.xx.device) for part in (x, error, target))
        if self.bias:
            x = torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        self.rows += len(x)
        self.is_whole = False
        for i in range(0, x.shape[1], wide := -(-x.shape[1] // BLOCKS)):
            # A batch's products are the models' precision, their sums are double.
            self.xx[i:, i : i + wide] += x[:, i:].T @ x[:, i : i + wide]
        self.xe += x.T @ error
        self.ee += error.double().square().sum()
        self.t += target.sum(0, dtype=torch.float64)
        self.tt += target.double().square().sum(0)

    def joined(self, add: Callable[[Tensor], Tensor]) -> Sums:
        """Sum over processes, in place."""
        self.is_whole = False
        for name in ("rows", "xx", "xe", "ee", "t", "tt"):
            setattr(self, name, add(getattr(self, name)))
        return self

    def inputs(self) -> Tensor:
        """Give the sums of products of inputs, (inputs [+ 1], inputs [+ 1])."""
        if not self.is_whole:
            self.xx = self.xx.tril() + self.xx.tril(-1).T
            self.is_whole = True
        return self.xx

    def less(self, given: Tensor) -> None:
        """Take what a map gives from what is lacking; the map itself need not be run for that.

        Args:
            given: The map, shape (inputs [+ 1], outputs), in double precision.
        """
        gives = self.inputs() @ given
        self.ee += (given * (gives - 2 * self.xe)).sum()
        self.xe = self.xe - gives

    def change(self, ridge: float) -> Tensor:
        """Solve for the change of the map that leaves the least error.

        Args:
            ridge: Weight of the squared change, in units of the mean of the inputs' squares;
                a bias is free. One that is too small for the sums' rounding is raised tenfold until
                it is not.

        Returns:
            Shape (inputs [+ 1], outputs), to be added to the transposed weight (and bias).

        Raises:
            HeadstartError: A sum is not finite.
        """
        xx = self.inputs()
        if not bool(xx.isfinite().all() and self.xe.isfinite().all()):
            raise HeadstartError(
                "an activation is infinite or no number",
                where="refit",
                way_out="look at the teacher's weights, or set train.precision to fp32",
            )
        squares = xx.diagonal()[: len(xx) - self.bias]
        weight = max(float(squares.mean()) * ridge, LEAST)
        while True:
            penalty = torch.full_like(xx[0], weight)
            if self.bias and float(self.rows) > 0:
                penalty[-1] = 0.0
            factor, failed = torch.linalg.cholesky_ex(xx + penalty.diag())
            if not int(failed):
                return torch.cholesky_solve(self.xe, factor)
            weight *= 10  # few rows: rounding has left the sums with directions below zero

    def unexplained(self, change: Tensor | None = None) -> float:
        """Give the share of the target's variance that a change of the map leaves unexplained.

        Args:
            change: As `change` gives it; None for the map as it is.
        """
        error = self.ee.sum()
        if change is not None:
            error = error - 2 * (change * self.xe).sum() + (change * (self.inputs() @ change)).sum()
        spread = (self.tt - self.t**2 / self.rows.clamp(min=1)).sum()
        return float(error.clamp(min=0) / spread.clamp(min=1e-30))


class Scales:
    """The same for one gain and one shift a channel, as a norm has them.

    Args:
        channels: Of the norm.
        bias: Whether the norm has a shift.
        device: Where the sums are kept.
    """

    def __init__(self, channels: int, *, bias: bool, device: torch.device) -> None:
        """Start with no rows."""
        self.bias = bias
        self.sums = torch.zeros(8, channels, dtype=torch.float64, device=double_device(device))

    def add(self, x: Tensor, error: Tensor, target: Tensor) -> None:
        """Add rows of the norm's output, of what it lacks, and of what is wanted."""
        x, e, t = (part.to(self.sums.device).double() for part in (x, error, target))
        parts = (torch.ones_like(x), x, e, x * x, x * e, e * e, t, t * t)
        self.sums += torch.stack([part.sum(0) for part in parts])

    def joined(self, add: Callable[[Tensor], Tensor]) -> Scales:
        """Sum over processes, in place."""
        self.sums = add(self.sums)
        return self

    def change(self, ridge: float) -> Tensor:
        """Give the relative change of the gain and the change of the shift, (2, channels)."""
        n, x, e, xx, xe = self.sums[:5]
        penalty = xx.mean() * ridge
        if not self.bias:
            return torch.stack([xe / (xx + penalty), torch.zeros_like(x)])
        gain = (xe - x * e / n) / (xx - x * x / n + penalty)
        return torch.stack([gain, (e - gain * x) / n])

    def unexplained(self, change: Tensor | None = None) -> float:
        """Give the share of the target's variance that is left unexplained."""
        n, x, e, xx, xe, error, t, tt = self.sums
        if change is not None:
            a, c = change
            error = error - 2 * (a * xe + c * e) + a * a * xx + 2 * a * c * x + n * c * c
        spread = (tt - t**2 / n.clamp(min=1)).sum()
        return float(error.sum().clamp(min=0) / spread.clamp(min=1e-30))


@dataclass(frozen=True, slots=True)
class Fitted:
    """One map, refitted or left as it was.

    Shares are of the target's variance, left unexplained.
    """

    name: str
    ridge: float | None  # None: no change made held-out text better, so none was made
    before: float
    after: float
    held_out_before: float
    held_out_after: float


def describe(fitted: Sequence[Fitted]) -> str:
    """Say how many maps and norms were changed, and which were left."""
    left = [one.name for one in fitted if one.ridge is None]
    told = f"{len(fitted) - len(left)} of {len(fitted)} maps and norms changed"
    if not left or len(left) == len(fitted):
        return told
    more = f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""
    names = ", ".join(left[:SHOWN])
    return f"{told}; left as they were, since no change made held-out text better: {names}{more}"


def best_change(
    name: str, fit: Sums | Scales, held_out: Sums | Scales, ridges: Sequence[float]
) -> tuple[Tensor | None, Fitted]:
    """Choose the ridge that leaves the least error on held-out text, or no change at all.

    On all maps looked at (docs/log.md) that error falls and then rises as the ridge grows, so the
    walk from the middle ends where both neighbours are worse.

    Args:
        name: Of the map.
        fit: Sums of the rows that are fitted.
        held_out: Sums of the rows that judge.
        ridges: Candidates, ascending.
    """
    before, held_before = fit.unexplained(), held_out.unexplained()
    tried: dict[int, tuple[float, Tensor]] = {}

    def error(i: int) -> float:
        if i not in tried:
            change = fit.change(ridges[i])
            tried[i] = held_out.unexplained(change), change
        return tried[i][0]

    i, best = -1, len(ridges) // 2
    while i != best:
        i = best
        best = min(range(max(i - 1, 0), min(i + 2, len(ridges))), key=error)
    held_after, change = tried[i]
    if not held_after < held_before - TOLD:
        return None, Fitted(name, None, before, before, held_before, held_before)
    after = fit.unexplained(change)
    return change, Fitted(name, ridges[i], before, after, held_before, held_after)
