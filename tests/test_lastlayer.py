"""What a classifier's last layer leaves out changes no logit and no gradient beyond rounding."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.utils.flop_counter import FlopCounterMode

from headstart import evaluate, lastlayer, train
from headstart.budget import work
from headstart.evaluate import predict
from headstart.families import family_of
from headstart.features import Features
from headstart.forecast import _brief
from headstart.lastlayer import first_piece
from headstart.loading import load_recipe
from headstart.plan import Size
from headstart.settings import Term
from headstart.stride import Stride
from headstart.student import make_student
from headstart.train import fit
from test_fast_paths import close, descended, trained
from test_train import drawn, job
from tiny import VARIANTS, tiny_model

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROOMS = evaluate, train  # that leave something out


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


@pytest.fixture
def whole() -> Any:
    """Let nothing be left out."""

    def let(patch: pytest.MonkeyPatch) -> None:
        for room in ROOMS:
            patch.setattr(room, "first_piece", lambda *_: nullcontext())

    return let


def law_answers_are_the_whole_models(
    accelerator: Accelerator, whole: Any, model: PreTrainedModel, task: str
) -> None:
    data = drawn(task=task)
    answers = predict(model.double(), data, accelerator)
    with pytest.MonkeyPatch.context() as patch:
        whole(patch)
        np.testing.assert_allclose(answers, predict(model, data, accelerator), rtol=1e-6)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_the_whole_models(
    accelerator: Accelerator, whole: Any, variant: str, layers: int
) -> None:
    model = tiny_model(variant, layers=layers)
    law_answers_are_the_whole_models(accelerator, whole, model, "classification")


@pytest.mark.parametrize(
    ("variant", "head", "more"),
    [
        ("bert", "tagging", {}),
        ("modernbert", "classification", {"classifier_pooling": "mean"}),
        ("modernbert", "tagging", {}),
    ],
)
def test_heads_that_read_all_pieces_get_them(
    accelerator: Accelerator, whole: Any, variant: str, head: Any, more: dict[str, str]
) -> None:
    model = tiny_model(variant, head, **more)
    law_answers_are_the_whole_models(accelerator, whole, model, head)


@pytest.mark.parametrize("variant", VARIANTS)
def test_students_are_the_whole_models(accelerator: Accelerator, whole: Any, variant: str) -> None:
    """Without dropout, which draws other numbers where there are fewer pieces."""
    work = job(drawn(), accelerator, eval_every=4, dropout=0.0)
    brief = trained(work, "classification", variant)
    with pytest.MonkeyPatch.context() as patch:
        whole(patch)
        close(brief, trained(work, "classification", variant), loss=1e-6, weight=1e-7)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_the_whole_models(accelerator: Accelerator, whole: Any, variant: str) -> None:
    brief = descended(work := job(drawn(), accelerator), "classification", variant)
    with pytest.MonkeyPatch.context() as patch:
        whole(patch)
        close(brief, descended(work, "classification", variant), loss=1e-12, weight=1e-12)


def test_the_laws_have_teeth(
    accelerator: Accelerator, whole: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the last piece is kept."""

    def last(_: object, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (given[0][:, -1:], *given[1:])

    monkeypatch.setattr(lastlayer, "_first", last)
    with pytest.raises(AssertionError):
        test_answers_are_the_whole_models(accelerator, whole, "bert", 3)
    monkeypatch.setattr(evaluate, "first_piece", lambda *_: nullcontext())
    with pytest.raises(AssertionError):  # of steps alone
        test_students_are_the_whole_models(accelerator, whole, "bert")
    with pytest.raises(AssertionError):
        test_gradients_are_the_whole_models(accelerator, whole, "bert")


@pytest.mark.parametrize("variant", ["bert", "modernbert"])
def test_steps_that_compare_hidden_states_run_the_layer_whole(
    accelerator: Accelerator, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And others do not: the hooks are there while a step is taken."""
    seen: list[bool] = []
    real = Stride.take

    def look(stride: Stride, feed: Any) -> Tensor:
        seen.append(any(module._forward_pre_hooks for module in stride.model.modules()))
        return real(stride, feed)

    monkeypatch.setattr(Stride, "take", look)
    teacher = tiny_model(variant)
    made = make_student(teacher)
    work = job(drawn(), accelerator, objective={"hidden": 1.0}, max_steps=2)
    fit(made.model, replace(work, features=Features(teacher, made.selection, {"hidden": Term()})))
    assert seen == [False, False]
    fit(made.model, job(drawn(), accelerator, max_steps=2))
    assert seen[2:] == [True, True]


def test_a_model_is_whole_after_a_fault() -> None:
    model = tiny_model("bert", layers=2)
    with pytest.raises(KeyError), first_piece(model, "classification"):
        raise KeyError
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_a_feed_forward_in_chunks_of_pieces_is_left_as_it_is(
    accelerator: Accelerator, whole: Any
) -> None:
    model = tiny_model("bert", chunk_size_feed_forward=1)
    law_answers_are_the_whole_models(accelerator, whole, model, "classification")
    with first_piece(model, "classification"):
        assert all(not module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("variant", ["bert", "xlm-roberta", "distilbert", "electra", "modernbert"])
def test_the_estimate_knows_what_is_left_out(variant: str) -> None:
    """Of every piece but the first of each text, multiply and add."""
    model, ids = tiny_model(variant, layers=2), torch.full((4, 16), 5)
    plain = model.config.to_dict()
    size = Size("student", 2, 32, 4, 64, {}, work(family_of(plain), plain), plain)
    flops: list[int] = []
    for context in (nullcontext(), first_piece(model, "classification")):
        with context, FlopCounterMode(display=False) as counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        flops.append(counter.get_total_flops())
    recipe = load_recipe("quickstart")
    left_out = size.work - _brief(size, recipe)
    assert flops[0] - flops[1] == 2 * left_out * (ids.numel() - len(ids))
    assert _brief(size, recipe.model_copy(update={"task": "tagging"})) == size.work


@pytest.mark.parametrize("variant", VARIANTS)
def test_work_is_left_out_and_the_model_is_whole_afterwards(variant: str) -> None:
    model, ids = tiny_model(variant, layers=1), torch.full((4, 16), 5)
    counts = []
    for context in (first_piece(model, "classification"), nullcontext()):
        with context, FlopCounterMode(display=False) as counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
        counts.append(counter.get_total_flops())
    assert counts[0] < 0.8 * counts[1]
    assert all(not module._forward_pre_hooks for module in model.modules())
