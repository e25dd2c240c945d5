"""What the student is asked for: one table of losses, each a sum over classes for every unit.

A unit is what carries one label: an example when classifying, a word when tagging. Losses know
nothing of padding: they see units only, so neither padding nor the split into batches can
change them. The caller divides by the number of units of the global batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch.nn import functional as F

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from headstart.settings import Term


UNLABELLED = -1  # stands where a unit has no gold label


class Loss(Protocol):
    """Student logits, teacher logits, gold labels, temperature -> one loss for each unit."""

    def __call__(
        self, student: Tensor, teacher: Tensor, gold: Tensor, *, temperature: float
    ) -> Tensor:
        """Return shape (units,)."""
        ...


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss, and what it reads besides the student's logits."""

    loss: Loss
    needs_teacher: bool


def labels(student: Tensor, teacher: Tensor, gold: Tensor, *, temperature: float) -> Tensor:
    """Cross-entropy to the gold labels.

    Args:
        student: Logits, floating, shape (units, classes).
        teacher: Not read.
        gold: Label ids, int64, shape (units,); `UNLABELLED` where there is none.
        temperature: Not read.

    Returns:
        Nats for each unit, float32, shape (units,); 0 for units of unlabelled text.
    """
    del teacher, temperature
    return F.cross_entropy(student.float(), gold, reduction="none", ignore_index=UNLABELLED)


def mse(student: Tensor, teacher: Tensor, gold: Tensor, *, temperature: float) -> Tensor:
    """Squared distance between the logits, summed over classes.

    Args:
        student: Logits, floating, shape (units, classes).
        teacher: Logits, same shape; receives no gradient.
        gold: Not read.
        temperature: Not read.

    Returns:
        Squared logits for each unit, float32, shape (units,), >= 0; 0 where the two agree.

    Source:
        Ba & Caruana (2014), arXiv:1312.6184, section 2.2.
    """
    del gold, temperature
    return (student.float() - teacher.detach().float()).square().sum(dim=-1)


def kl(student: Tensor, teacher: Tensor, gold: Tensor, *, temperature: float) -> Tensor:
    """How far the student's softened labels lie from the teacher's: T² · KL(p ‖ q).

    p = softmax(teacher / T), q = softmax(student / T); T² keeps gradients on one scale as T moves.

    Args:
        student: Logits, floating, shape (units, classes).
        teacher: Logits, same shape; receives no gradient.
        gold: Not read.
        temperature: T > 0, unitless.

    Returns:
        Nats times T² for each unit, float32, shape (units,), >= 0; 0 where the two agree.

    Source:
        Hinton, Vinyals & Dean (2015), arXiv:1503.02531, section 2.
    """
    del gold
    p = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    q = F.log_softmax(student.float() / temperature, dim=-1)
    return temperature**2 * F.kl_div(q, p, log_target=True, reduction="none").sum(dim=-1)


OBJECTIVES: Mapping[str, Objective] = {
    "labels": Objective(labels, needs_teacher=False),
    "mse": Objective(mse, needs_teacher=True),
    "kl": Objective(kl, needs_teacher=True),
}


FEATURES = ("hidden", "relation")  # objectives that read the teacher at work, see `features`


def needs_teacher(terms: Mapping[str, Term]) -> bool:
    """Whether any term of the sum reads the teacher's logits."""
    return any(OBJECTIVES[name].needs_teacher for name in terms if name in OBJECTIVES)


def needs_features(terms: Mapping[str, Term]) -> bool:
    """Whether any term of the sum reads what is inside the teacher."""
    return any(name in FEATURES for name in terms)


def weighted(
    terms: Mapping[str, Term], student: Tensor, teacher: Tensor | None, gold: Tensor
) -> Tensor:
    """Add up the weighted objectives, one value for each unit.

    Args:
        terms: Weight and temperature under names of `OBJECTIVES`; `FEATURES` are left out.
        student: Logits, shape (units, classes).
        teacher: Logits, same shape; None where no term needs them.
        gold: Label ids, int64, shape (units,).

    Returns:
        Loss for each unit, float32, shape (units,).

    Raises:
        HeadstartError: Teacher and student differ in their number of labels.
    """
    if teacher is not None and teacher.shape != student.shape:
        raise HeadstartError(
            f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}",
            where="train.objective",
            way_out="distil from a teacher with the student's labels",
        )
    target = student if teacher is None else teacher
    parts = [
        term.weight * OBJECTIVES[name].loss(student, target, gold, temperature=term.temperature)
        for name, term in terms.items()
        if name in OBJECTIVES
    ]
    total = parts[0] if parts else student.float().sum(-1) * 0.0
    for part in parts[1:]:
        total = total + part
    return total
