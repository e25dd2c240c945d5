"""What the student learns inside: the teacher's states and relations, from the teacher at work.

Copying makes both free of anything to learn: the student's channels and layers are some of the
teacher's own, by the selection's numbers.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.assembly import prefix_of
from headstart.errors import HeadstartError
from headstart.flow import Solve, Tap, out_of
from headstart.layout import lengths, shape_of
from headstart.objectives import FEATURES
from headstart.reader import open_model
from headstart.walk import Walk

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from torch import nn
    from transformers import PreTrainedModel

    from headstart.encode import Batch
    from headstart.layout import Axis, Head
    from headstart.selection import Selection
    from headstart.settings import Term
    from headstart.walk import Read

PARTS = 3  # queries, keys and values of a layer
COPIES = ("teacher", "base")  # sources whose heads are some of the teacher's own


def hidden(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance between states, mean over channels.

    Args:
        student: Shape (tokens, channels).
        teacher: Same shape, the kept channels; receives no gradient.

    Returns:
        For each token, float32, shape (tokens,), >= 0; 0 where the two agree.

    Source:
        Jiao et al. (2020), arXiv:1909.10351, equation 8, with the identity for its learned map.
    """
    return (student.float() - teacher.detach().float()).square().mean(dim=-1)


def relation(student: Tensor, teacher: Tensor, mask: Tensor, *, heads: int) -> Tensor:
    """How far the student's relations between tokens lie from the teacher's: KL(teacher ‖ student).

    Args:
        student: Queries, keys or values, shape (examples, positions, width).
        teacher: The same of the teacher, of any width; receives no gradient.
        mask: True on tokens, shape (examples, positions).
        heads: Relation heads; both widths are multiples of it.

    Returns:
        Nats for each token, mean over heads, float32, shape (tokens,), >= 0.

    Source:
        Wang et al. (2021), arXiv:2012.15828, section 3.1.
    """

    def relations(states: Tensor) -> Tensor:
        parts = states.float().unflatten(-1, (heads, -1)).transpose(1, 2)
        scores = parts @ parts.transpose(-1, -2) / parts.shape[-1] ** 0.5
        return F.log_softmax(scores.masked_fill(~mask[:, None, None, :], -1e9), dim=-1)

    far = F.kl_div(relations(student), relations(teacher.detach()), log_target=True,
                   reduction="none")  # fmt: skip
    return far.sum(-1).mean(1)[mask]


@dataclass(frozen=True, slots=True)
class Features:
    """What to compare a student with, besides logits.

    Args:
        teacher: In evaluation mode; it reads every batch that the student reads.
        selection: What the student keeps of it.
        terms: The whole objective; terms that read logits are not looked at here.
    """

    teacher: PreTrainedModel
    selection: Selection
    terms: Mapping[str, Term]

    def bind(self, student: PreTrainedModel) -> Bound:
        """Find the places to compare in both models.

        Raises:
            HeadstartError: The student was not cut from this teacher.
        """
        return Bound(self, student)


class Bound:
    """Features of one student in training."""

    def __init__(self, features: Features, student: PreTrainedModel) -> None:
        """Find the places to compare in both models."""
        opened = open_model(student)
        family, selection = opened.family, features.selection
        self.weights = {name: t.weight for name, t in features.terms.items() if name in FEATURES}
        theirs = open_model(features.teacher)
        shape = shape_of(theirs.family, theirs.plain)
        if theirs.family != family or shape != selection.teacher:
            raise HeadstartError(
                f"the student was cut from {selection.teacher}, and the teacher is {shape}",
                where="train.objective",
                way_out="distil from the model that it was cut from, or leave hidden and relation",
            )
        if "hidden" in self.weights and selection.rules["hidden"] == "principal":
            raise HeadstartError(
                "hidden compares channels, but the student's stream runs along directions",
                where="train.objective",
                way_out="leave hidden out, or refit with directions: kept",
            )
        last = len(selection.layers) - 1
        step = next(s for s in family.flow.layer if isinstance(s, Solve))
        # Its own heads, each in the layer that it comes from; else, since a head keeps its width
        # and both widths are multiples of what the counts share, as many parts of each.
        ours = shape_of(family, opened.plain).heads
        self.own = selection.source in COPIES
        self.heads = ours if self.own else gcd(ours, shape.heads)
        donors = selection.donors(("attention",), last) if self.own else (selection.layers[last],)

        def taps(
            model: nn.Module, head: Head, layers: Sequence[int], donors: Sequence[int | None]
        ) -> tuple[Walk, Places]:
            prefix = prefix_of(family, head)
            blocks = [out_of(family.flow.block).at(prefix, layer) for layer in layers]
            maps = [[out_of(path).at(prefix, at) for at in donors] for path in step.maps]
            return Walk(model, [tap.path for tap in blocks]), Places(blocks, maps)

        self.student, self.ours = taps(student, opened.head, range(last + 1), [last])
        self.teacher, self.theirs = taps(features.teacher, theirs.head, selection.layers, donors)
        self.stop = selection.layers.index(max(selection.layers))
        self.kept = torch.tensor(selection.hidden, device=student.device)
        self.parts = PARTS // len(step.maps)  # a fused map gives all three
        axes: tuple[Axis, ...] = ("attention",) * self.parts
        sizes = lengths(family, theirs.plain)
        kept = [selection.keep(axes, last, sizes, donor) for donor in donors]
        self.columns = [torch.tensor(columns, device=student.device) for columns in kept]
        places = [i for donor in donors for i in selection.places(axes, last, donor)]
        self.order = torch.tensor(places, device=student.device).argsort()

    @contextmanager
    def watch(self) -> Generator[Read]:
        """Read the student's places while a block runs."""
        with self.student.watching(self.ours.taps(self.weights)) as found:
            yield found

    def loss(self, found: Read, batch: Batch) -> Tensor:
        """Give the weighted sum of the feature losses, summed over the batch's tokens."""
        there = self.teacher.read(batch.inputs, self.theirs.taps(self.weights), stop=self.stop)
        mask = batch.inputs["attention_mask"].bool()
        parts: list[Tensor] = []
        if "hidden" in self.weights:
            pairs = zip(self.ours.blocks, self.theirs.blocks, strict=True)
            far = [self._states(found[a][0], there[b][0], mask) for a, b in pairs]
            parts.append(self.weights["hidden"] * torch.stack(far).mean())
        if "relation" in self.weights:
            pairs = zip(self.ours.maps, self.theirs.maps, strict=True)
            far = [
                self._relations(found[a][0], [there[b][0].clone() for b in each], mask)
                for (a,), each in pairs
            ]
            parts.append(self.weights["relation"] * torch.stack(far).sum() / PARTS)
        return torch.stack(parts).sum()

    def _states(self, ours: Tensor, theirs: Tensor, mask: Tensor) -> Tensor:
        theirs = theirs.clone()[mask]  # what was read in inference mode cannot enter a gradient
        return hidden(ours[mask], theirs[:, self.kept]).sum()

    def _relations(self, ours: Tensor, theirs: Sequence[Tensor], mask: Tensor) -> Tensor:
        whole = theirs[0]
        if self.own:
            pairs = zip(theirs, self.columns, strict=True)
            whole = torch.cat([part[..., columns] for part, columns in pairs], -1)[..., self.order]
        pairs = zip(ours.chunk(self.parts, -1), whole.chunk(self.parts, -1), strict=True)
        return torch.stack([relation(a, b, mask, heads=self.heads).sum() for a, b in pairs]).sum()


@dataclass(frozen=True, slots=True)
class Places:
    """Where features are read in one model."""

    blocks: list[Tap]  # after each kept layer
    maps: list[list[Tap]]  # what gives queries, keys, values: each in every layer of its heads

    def taps(self, terms: Mapping[str, float]) -> list[Tap]:
        """List what some terms need."""
        return [
            *(self.blocks if "hidden" in terms else ()),
            *(tap for each in self.maps if "relation" in terms for tap in each),
        ]
