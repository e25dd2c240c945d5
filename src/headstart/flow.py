"""How activations run through a family's model, as far as refit must know it.

A flow is plain data: which maps read the same input, where their output joins the residual
stream, and which norms follow. Paths are those of modules, with ``{p}`` and ``{i}`` as in weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Tap:
    """A place where activations can be read: what goes into a module, or what comes out."""

    path: str
    side: Literal["input", "output"]

    def at(self, prefix: str, layer: int | None) -> Tap:
        """Fill in prefix and layer."""
        return Tap(self.path.format(p=prefix, i=layer), self.side)


@dataclass(frozen=True, slots=True)
class Solve:
    """Linear maps that read the same input.

    Args:
        maps: Their paths.
        total: Where their output, added to the residual stream, can be read: it is to equal the
            teacher's there. None where the maps' own outputs are.
    """

    maps: tuple[str, ...]
    total: Tap | None = None


@dataclass(frozen=True, slots=True)
class Rescale:
    """A LayerNorm whose gain and shift are fitted, so that its output equals the teacher's."""

    norm: str


Step = Solve | Rescale


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The order in which a forward pass reaches what refit solves for.

    Args:
        block: Path of a layer; it gets the residual stream first, and returns it (first).
        before: Steps ahead of the layers.
        layer: Steps of one layer.
        after: Steps between the layers and the head.
        heads: Steps of each task head.
    """

    block: str
    before: tuple[Step, ...] = ()
    layer: tuple[Step, ...]
    after: tuple[Step, ...] = ()
    heads: Mapping[str, tuple[Step, ...]]


def into(path: str) -> Tap:
    """Read what goes into a module."""
    return Tap(path, "input")


def out_of(path: str) -> Tap:
    """Read what comes out of a module."""
    return Tap(path, "output")


def one_by_one(*paths: str) -> tuple[Step, ...]:
    """Give a step to each of some maps that follow one another."""
    return tuple(Solve((path,)) for path in paths)


def after_norm(
    queries: tuple[str, ...], attended: str, attended_norm: str, up: str, down: str, norm: str
) -> tuple[Step, ...]:
    """Give the steps of a layer that normalizes the sum of each block and its input.

    Args:
        queries: Paths of query, key and value.
        attended: The map from the heads to the residual stream.
        attended_norm: The norm of that sum.
        up: The map to the neurons.
        down: The map from the neurons.
        norm: The norm of that sum.
    """
    return (
        Solve(queries),
        Solve((attended,), into(attended_norm)),
        Rescale(attended_norm),
        Solve((up,)),
        Solve((down,), into(norm)),
        Rescale(norm),
    )
