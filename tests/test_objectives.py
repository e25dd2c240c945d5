"""Losses: zero at the teacher, blind to padding and batch split, sums over classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.errors import HeadstartError
from headstart.objectives import FEATURES, OBJECTIVES, UNLABELLED, needs_teacher, weighted
from headstart.settings import OBJECTIVES as KNOWN
from headstart.settings import Term

Total = Callable[[Tensor, Tensor, Tensor], Tensor]
FROM_TEACHER = [name for name, entry in OBJECTIVES.items() if entry.needs_teacher]


def _draw(units: int = 64, classes: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(7)
    student, teacher = torch.randn(2, units, classes, generator=rng)
    return student, teacher, torch.randint(classes, (units,), generator=rng)


def _total(name: str, temperature: float = 1.0) -> Total:
    terms = {name: Term(temperature=temperature)}
    return lambda student, teacher, gold: weighted(terms, student, teacher, gold)


def test_recipes_know_the_table() -> None:
    assert (*OBJECTIVES, *FEATURES) == KNOWN


def law_zero_at_the_teacher(loss: Total) -> None:
    student, teacher, gold = _draw()
    assert loss(teacher, teacher, gold).abs().max() < 1e-6
    assert loss(student, teacher, gold).min() > 1e-4


@pytest.mark.parametrize("name", FROM_TEACHER)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distance_is_zero_at_the_teacher_only(name: str, temperature: float) -> None:
    law_zero_at_the_teacher(_total(name, temperature))


def test_kl_ignores_a_common_shift() -> None:
    student, teacher, gold = _draw()
    kl = _total("kl")
    assert kl(student + 3.0, teacher, gold) == pytest.approx(kl(student, teacher, gold), abs=1e-5)


def law_ignores_absent_classes(loss: Total) -> None:
    """Classes that neither model believes in must not dilute the loss."""
    student, teacher, gold = _draw()
    absent = torch.full((len(gold), 45), -1e4)
    wide = loss(torch.cat([student, absent], 1), torch.cat([teacher, absent], 1), gold)
    torch.testing.assert_close(wide, loss(student, teacher, gold))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_class_count_does_not_dilute(name: str) -> None:
    law_ignores_absent_classes(_total(name))


def law_adds_up_over_batches(loss: Total) -> None:
    """The sum over units is the same however the units are split."""
    student, teacher, gold = _draw()
    whole = loss(student, teacher, gold).sum()
    parts = [
        loss(s, t, g).sum()
        for s, t, g in zip(student.split(7), teacher.split(7), gold.split(7), strict=True)
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_batch_split_does_not_matter(name: str) -> None:
    law_adds_up_over_batches(_total(name))


def law_temperature_keeps_the_scale(loss: Callable[[float], Total]) -> None:
    """T² keeps the gradient's size as T grows (to within the softening itself)."""
    student, teacher, gold = _draw()
    norms: list[float] = []
    for temperature in (4.0, 16.0, 64.0):
        leaf = student.clone().requires_grad_()
        loss(temperature)(leaf, teacher, gold).sum().backward()
        assert leaf.grad is not None
        norms.append(float(leaf.grad.norm()))
    assert norms[2] == pytest.approx(norms[1], rel=0.1)
    assert norms[1] == pytest.approx(norms[0], rel=0.3)


def test_kl_keeps_its_gradient_as_temperature_moves() -> None:
    law_temperature_keeps_the_scale(lambda t: _total("kl", t))


def _entropy_forgotten(student: Tensor, teacher: Tensor, gold: Tensor) -> Tensor:
    del gold
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1)


def _mean_over_classes(student: Tensor, teacher: Tensor, gold: Tensor) -> Tensor:
    del gold
    return (student - teacher).square().mean(-1)


def _mean_over_batch(student: Tensor, teacher: Tensor, gold: Tensor) -> Tensor:
    del gold
    return F.mse_loss(student, teacher, reduction="mean").reshape(1)


def _no_square(temperature: float) -> Total:
    right = _total("kl", temperature)
    return lambda student, teacher, gold: right(student, teacher, gold) / temperature**2


MISTAKES: Mapping[str, Callable[[], None]] = {
    "the teacher's entropy forgotten": lambda: law_zero_at_the_teacher(_entropy_forgotten),
    "mean over classes": lambda: law_ignores_absent_classes(_mean_over_classes),
    "mean over the batch": lambda: law_adds_up_over_batches(_mean_over_batch),
    "no T squared": lambda: law_temperature_keeps_the_scale(_no_square),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_laws_have_teeth(mistake: Callable[[], None]) -> None:
    with pytest.raises(AssertionError):
        mistake()


def test_labels_equal_cross_entropy() -> None:
    student, teacher, gold = _draw()
    torch.testing.assert_close(
        _total("labels")(student, teacher, gold).mean(), F.cross_entropy(student, gold)
    )


def test_weights_add_up() -> None:
    student, teacher, gold = _draw()
    both = weighted({"labels": Term(weight=0.3), "mse": Term(weight=2.0)}, student, teacher, gold)
    alone = 0.3 * _total("labels")(student, teacher, gold) + 2 * _total("mse")(
        student, teacher, gold
    )
    torch.testing.assert_close(both, alone)


def test_the_teacher_receives_no_gradient() -> None:
    student, teacher, gold = _draw()
    teacher.requires_grad_()
    student.requires_grad_()
    weighted({"mse": Term(), "kl": Term()}, student, teacher, gold).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_what_needs_a_teacher() -> None:
    assert not needs_teacher({"labels": Term()})
    assert needs_teacher({"labels": Term(), "kl": Term()})


def test_label_sets_of_other_size_are_refused() -> None:
    student, teacher, gold = _draw()
    with pytest.raises(HeadstartError, match=r"student logits .* teacher logits"):
        weighted({"mse": Term()}, student, teacher[:, :4], gold)


def test_unlabelled_units_have_no_label_loss() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    gold = torch.tensor([0, UNLABELLED, 2, UNLABELLED])
    found = OBJECTIVES["labels"].loss(logits, logits, gold, temperature=1.0)
    assert found[[1, 3]].tolist() == [0.0, 0.0]
    assert (found[[0, 2]] > 0).all()
