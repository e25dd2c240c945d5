"""What makes training fast changes it by rounding only: losses on the way, and all weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from headstart import train
from headstart.encode import collate, unit_logits
from headstart.evaluate import predict
from headstart.prepare import RowEmbedding, half, optimizer_for
from headstart.train import fit
from test_train import drawn, fresh, job
from tiny import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from torch import Tensor

    from headstart.settings import Train
    from headstart.train import Job


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def trained(
    work: Job, task: str, variant: str = "bert", *, dtype: torch.dtype = torch.float64
) -> tuple[list[float], Mapping[str, Tensor]]:
    """Train fresh weights; give losses, of training and of dev, and all weights after it.

    In double precision: gradients that are zero but for rounding, those of biases of keys, are
    magnified by Adam otherwise.
    """
    model = fresh(task, variant).to(dtype)
    done = fit(model, work)
    losses = [float(point[name] or 0) for point in done.curve for name in ("loss", "dev_loss")]
    return losses, {name: value.clone() for name, value in model.state_dict().items()}


def close(one: Any, other: Any, *, loss: float, weight: float) -> None:
    np.testing.assert_allclose(one[0], other[0], rtol=loss)
    assert list(one[1]) == list(other[1])
    for name, value in one[1].items():
        gap = float((value.double() - other[1][name].double()).abs().max())
        assert gap < weight, (name, gap)


def descended(work: Job, task: str, variant: str) -> tuple[list[float], Mapping[str, Tensor]]:
    """Take one plain step down the gradient, whole: a factor, which AdamW would hide, is seen."""

    def plain(model: nn.Module, _: Train) -> torch.optim.SGD:
        return torch.optim.SGD([one for one in model.parameters() if one.requires_grad])

    once = {"max_steps": 1, "eval_every": None, "warmup": 0.0, "dropout": 0.0, "clip": 1e9}
    settings = work.settings.model_copy(update=once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "optimizer_for", plain)
        return trained(replace(work, settings=settings, learning_rate=1.0), task, variant)


# --- rows of the embedding, instead of the table ---


def law_rows_train_as_the_whole_table(
    accelerator: Accelerator, variant: str = "bert", task: str = "tagging"
) -> None:
    work = job(drawn(task=task), accelerator, eval_every=4, clip=0.5)
    rows = replace(work, settings=work.settings.model_copy(update={"word_embeddings": "rows"}))
    pair = (trained(one, task, variant) for one in (work, rows))
    close(*pair, loss=1e-6, weight=1e-7)


@pytest.mark.parametrize(
    ("variant", "task"), [*((name, "classification") for name in VARIANTS), ("bert", "tagging")]
)
def test_rows_train_as_the_whole_table(accelerator: Accelerator, variant: str, task: str) -> None:
    law_rows_train_as_the_whole_table(accelerator, variant, task)


def test_the_law_of_rows_has_teeth(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: rows are decayed, too."""

    def decayed(model: nn.Module, settings: Train) -> torch.optim.AdamW:
        made = optimizer_for(model, settings)
        made.param_groups[1]["weight_decay"] = settings.weight_decay
        return made

    monkeypatch.setattr(train, "optimizer_for", decayed)
    with pytest.raises(AssertionError):
        law_rows_train_as_the_whole_table(accelerator)


def law_rows_have_the_tables_gradients(
    accelerator: Accelerator, variant: str = "bert", task: str = "tagging"
) -> None:
    work = job(drawn(task=task), accelerator)
    rows = replace(work, settings=work.settings.model_copy(update={"word_embeddings": "rows"}))
    close(*(descended(one, task, variant) for one in (work, rows)), loss=1e-12, weight=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_have_the_tables_gradients(accelerator: Accelerator, variant: str) -> None:
    law_rows_have_the_tables_gradients(accelerator, variant, "classification")


def test_the_law_of_gradients_has_teeth(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: those of rows are larger by a tenth, which AdamW hides."""
    forward = RowEmbedding.forward

    def larger(rows: RowEmbedding, ids: Tensor) -> Tensor:
        found = forward(rows, ids)
        return 1.1 * found - 0.1 * found.detach()

    monkeypatch.setattr(RowEmbedding, "forward", larger)
    with pytest.raises(AssertionError):
        law_rows_have_the_tables_gradients(accelerator)


# --- the fused optimizer ---


def law_the_fused_optimizer_is_the_plain_one(
    accelerator: Accelerator, make: Callable[..., torch.optim.AdamW] = optimizer_for
) -> None:
    def plain(model: nn.Module, settings: Train) -> torch.optim.AdamW:
        groups = [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in optimizer_for(model, settings).param_groups
        ]
        return torch.optim.AdamW(groups, betas=settings.betas, foreach=False, fused=False)

    work, found = job(drawn(), accelerator, eval_every=4), []
    for maker in (make, plain):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "optimizer_for", maker)
            found.append(trained(work, "classification"))
    close(*found, loss=1e-6, weight=1e-7)


def test_the_fused_optimizer_is_the_plain_one(accelerator: Accelerator) -> None:
    law_the_fused_optimizer_is_the_plain_one(accelerator)


def test_the_law_of_the_optimizer_has_teeth(accelerator: Accelerator) -> None:
    """Planted: its second moment is another."""

    def other(model: nn.Module, settings: Train) -> torch.optim.AdamW:
        return optimizer_for(model, settings.model_copy(update={"betas": (0.9, 0.99)}))

    with pytest.raises(AssertionError):
        law_the_fused_optimizer_is_the_plain_one(accelerator, other)


# --- the teacher's answers, once for all epochs ---


def law_answers_once_teach_as_answers_at_each_step(
    accelerator: Accelerator, kept: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> None:
    """A student of kept answers is the student of a teacher that works along, step by step."""
    data = drawn(task="tagging")
    torch.manual_seed(1)
    teacher = fresh("tagging", "distilbert")
    with torch.no_grad():
        teacher.classifier.weight.normal_(0, 0.5)

    class Along:
        """Answers when it is asked, batch by batch."""

        def __getitem__(self, units: np.ndarray) -> np.ndarray:
            batch = collate(data, np.unique(data.unit_starts.searchsorted(units, "right") - 1))
            with torch.no_grad():
                logits = unit_logits(teacher(**batch.inputs).logits, batch)
            return logits.numpy()[np.asarray(batch.units).searchsorted(units)]

    work = job(data, accelerator, objective={"mse": 1.0}, eval_every=4, epochs=1)
    answers = kept(predict(teacher, data, accelerator))
    both: Any = (answers, Along())
    pair = (trained(replace(work, teacher=one), "tagging") for one in both)
    close(*pair, loss=1e-5, weight=1e-5)


def test_answers_once_teach_as_answers_at_each_step(accelerator: Accelerator) -> None:
    law_answers_once_teach_as_answers_at_each_step(accelerator)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda logits: logits.astype(np.float16).astype(np.float32),  # kept in half precision
        lambda logits: np.roll(logits, 1, axis=0),  # those of the word before
    ],
)
def test_the_law_of_answers_has_teeth(
    accelerator: Accelerator, mistake: Callable[[np.ndarray], np.ndarray]
) -> None:
    with pytest.raises(AssertionError):
        law_answers_once_teach_as_answers_at_each_step(accelerator, mistake)


# --- bf16: products alone; weights, their changes and losses stay in single precision ---


def law_bf16_trains_as_fp32(
    accelerator: Accelerator,
    variant: str = "bert",
    make: Callable[..., torch.optim.AdamW] = optimizer_for,
) -> None:
    """Losses within 1 %, and matrices move as far: by changes that bf16 would round away."""
    work = job(drawn(), accelerator, eval_every=4, dropout=0.0, precision="fp32")
    work = replace(work, learning_rate=1e-4)
    mixed = replace(work, settings=work.settings.model_copy(update={"precision": "bf16"}))
    before, found = fresh("classification", variant).state_dict(), []
    for one, maker in ((work, optimizer_for), (mixed, make)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train, "optimizer_for", maker)
            found.append(trained(one, "classification", variant, dtype=torch.float32))
    (losses, single), (others, halved) = found
    assert losses != others
    np.testing.assert_allclose(others, losses, rtol=0.01)
    for name, value in halved.items():
        assert value.dtype == before[name].dtype
        if value.ndim > 1 and float((single[name] - before[name]).abs().sum()) > 0:
            moved, far = (float((w - before[name]).abs().sum()) for w in (value, single[name]))
            assert moved == pytest.approx(far, rel=0.1), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_trains_as_fp32(accelerator: Accelerator, variant: str) -> None:
    law_bf16_trains_as_fp32(accelerator, variant)


def test_the_law_of_bf16_has_teeth(accelerator: Accelerator) -> None:
    """Planted: weights are rounded to bf16 after each step, as without masters in fp32."""

    def rounded(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.data.copy_(weight.data.bfloat16().float())

    def without_masters(model: nn.Module, settings: Train) -> torch.optim.AdamW:
        made = optimizer_for(model, settings)
        made.register_step_post_hook(rounded)
        return made

    with pytest.raises(AssertionError):
        law_bf16_trains_as_fp32(accelerator, make=without_masters)


# --- bf16 on a processor: attention as plain products, since the fused one is slow backward ---


class Called(TorchDispatchMode):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


def is_fused(context: AbstractContextManager[Any]) -> bool:
    states = torch.randn(2, 2, 5, 8, requires_grad=True)
    with Called() as called, context:
        F.scaled_dot_product_attention(states, states, states).float().sum().backward()
    return any("flash" in name for name in called.names)


def test_attention_in_bf16_is_products_on_a_processor() -> None:
    assert not is_fused(half("cpu", bf16=True))
    assert is_fused(half("cpu", bf16=False))
    assert is_fused(torch.autocast("cpu", torch.bfloat16))  # planted: it would be noticed


def test_half_makes_the_same_attention() -> None:
    states = torch.randn(2, 2, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[0, ..., 3:] = False
    found = []
    for bf16 in (False, True):
        q = states.clone().requires_grad_()
        with half("cpu", bf16=bf16):
            out = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        assert (out.dtype == torch.bfloat16) == bf16
        out.float().square().sum().backward()
        found.append((out.detach().float(), q.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=0.05, atol=0.05)
