"""What is compared inside the models: zero at the teacher, the same for any padding and split."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from headstart.encode import collate
from headstart.errors import HeadstartError
from headstart.features import Features, hidden, relation
from headstart.flow import Solve
from headstart.objectives import FEATURES
from headstart.prepare import open_accelerator
from headstart.recipe import Refit
from headstart.selection import full
from headstart.settings import Term
from headstart.stream import after
from headstart.student import make_selected, make_student
from headstart.train import fit
from test_laws import reordered, selection_of
from test_refit import text
from test_train import drawn, job
from tiny import VARIANTS, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import PreTrainedModel

    from headstart.features import Bound
    from headstart.selection import Selection

BOTH = {"hidden": Term(weight=0.5), "relation": Term(weight=2.0)}


def loss_of(
    student: PreTrainedModel, bound: Bound, index: np.ndarray, *, longest: int | None = None
) -> float:
    batch = collate(text(), index)
    if longest is not None:
        wide = {
            k: torch.nn.functional.pad(v, (0, longest - v.shape[1]))
            for k, v in batch.inputs.items()
        }
        batch = replace(batch, inputs=wide)
    with torch.no_grad(), bound.watch() as seen:
        student(**batch.inputs)
    return float(bound.loss(seen, batch))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_full_copy_has_no_loss(variant: str) -> None:
    teacher = tiny_model(variant)
    made = make_student(teacher)
    bound = Features(teacher, made.selection, BOTH).bind(made.model)
    assert loss_of(made.model, bound, np.arange(9)) == 0.0


def law_a_reordered_copy_has_no_loss(
    variant: str,
    told: Callable[[Selection], Selection] = lambda chosen: chosen,
    terms: Mapping[str, Term] = BOTH,
) -> None:
    rotary = variant.startswith("modernbert")
    teacher = tiny_model(variant).double()
    chosen = reordered(selection_of(teacher), inside_heads=not rotary)
    student = make_selected(teacher, chosen).model.double()
    bound = Features(teacher, told(chosen), terms).bind(student)
    assert loss_of(student, bound, np.arange(9)) < 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reordered_copy_has_no_loss(variant: str) -> None:
    law_a_reordered_copy_has_no_loss(variant)


@pytest.mark.parametrize("variant", ["bert", "modernbert"])
def test_the_law_of_reordered_copies_has_teeth(variant: str) -> None:
    with pytest.raises(AssertionError):
        law_a_reordered_copy_has_no_loss(variant, lambda s: replace(s, hidden=s.hidden[::-1]))
    with pytest.raises(AssertionError):
        law_a_reordered_copy_has_no_loss(variant, lambda s: replace(s, layers=(0, 2, 1, 3)))
    relation = {"relation": Term()}
    with pytest.raises(AssertionError):  # heads paired by their places
        law_a_reordered_copy_has_no_loss(variant, lambda s: full(s.teacher), relation)


def heads_of(model: PreTrainedModel, variant: str, layer: int) -> list[list[torch.Tensor]]:
    """Queries, keys and values of a layer, by head: (examples, positions, width) each."""
    inside: dict[str, torch.Tensor] = {}
    named = dict(model.named_modules())
    if variant == "modernbert":
        paths = [f"model.layers.{layer}.attn.Wqkv"]
    else:
        paths = [
            f"bert.encoder.layer.{layer}.attention.self.{x}" for x in ("query", "key", "value")
        ]
    hooks = [
        named[path].register_forward_hook(lambda _m, _i, out, path=path: inside.update({path: out}))
        for path in paths
    ]
    with torch.no_grad():
        model(**collate(text(), np.arange(9)).inputs)
    for hook in hooks:
        hook.remove()
    parts = torch.cat([inside[path] for path in paths], -1).chunk(3, -1)
    width = parts[0].shape[-1] // model.config.num_attention_heads
    return [list(part.split(width, -1)) for part in parts]


@pytest.mark.parametrize("variant", ["bert", "modernbert"])
def test_each_head_is_held_against_its_own_in_its_own_layer(variant: str) -> None:
    """Of a merged student: the sum over its heads, picked by hand."""
    teacher = tiny_model(variant)
    whole = make_student(teacher, shape={"layers": 2, "hidden": 16, "ffn": 20}).selection
    width, last = whole.teacher.head_size, 1
    heads = range(len(whole.attention[last]) // width)
    columns = [(h + 1) % whole.teacher.heads * width + c for h in heads for c in range(width)]
    layers = [2 + h % 2 for h in heads for _ in range(width)]  # of 0 to 3; the student keeps 1, 3
    picked = replace(
        whole,
        attention=(whole.attention[0], tuple(columns)),
        attention_of=((1,) * len(whole.attention[0]), tuple(layers)),
    )
    made = make_selected(teacher, picked)
    donors = picked.donors(("attention",), last)
    assert donors == (2, 3)
    theirs = {layer: heads_of(teacher, variant, layer) for layer in donors if layer is not None}
    ours = heads_of(made.model, variant, last)
    mask = collate(text(), np.arange(9)).inputs["attention_mask"].bool()
    expected = 0.0
    for place, first in enumerate(picked.attention[last][::width]):
        layer = picked.attention_of[last][place * width]
        for part in range(3):
            pair = ours[part][place], theirs[layer][part][first // width]
            expected += float(relation(*pair, mask, heads=1).sum()) / 3 / len(ours[0])
    bound = Features(teacher, picked, {"relation": Term()}).bind(made.model)
    assert loss_of(made.model, bound, np.arange(9)) == pytest.approx(expected, rel=1e-4)


def test_fresh_heads_are_held_against_those_at_their_places() -> None:
    teacher = tiny_model("bert")
    made = make_student(teacher, shape={"hidden": 16}, source="scratch")
    bound = Features(teacher, made.selection, {"relation": Term()}).bind(made.model)
    ours, theirs = (heads_of(model, "bert", 3) for model in (made.model, teacher))
    mask = collate(text(), np.arange(9)).inputs["attention_mask"].bool()
    parts = zip(ours, theirs, strict=True)
    pairs = [(torch.cat(a, -1), torch.cat(b, -1)) for a, b in parts]
    expected = sum(float(relation(a, b, mask, heads=len(ours[0])).sum()) for a, b in pairs) / 3
    assert loss_of(made.model, bound, np.arange(9)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", FEATURES)
def test_neither_padding_nor_the_split_changes_it(variant: str, name: str) -> None:
    teacher = tiny_model(variant)
    made = make_student(teacher, shape={"layers": 2, "hidden": 16, "ffn": 20})
    bound = Features(teacher, made.selection, {name: Term()}).bind(made.model)
    index = np.arange(12)
    whole = loss_of(made.model, bound, index)
    assert whole > 0.1
    parts = sum(loss_of(made.model, bound, part) for part in (index[:1], index[1:5], index[5:]))
    assert parts == pytest.approx(whole, rel=1e-4)
    assert loss_of(made.model, bound, index, longest=20) == pytest.approx(whole, rel=1e-4)


def test_relations_equal_a_plain_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(2, 5, width, generator=rng) for width in (8, 12))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = relation(ours, theirs, mask, heads=2)
    expected: list[float] = []
    for row, length in ((0, 5), (1, 3)):
        for token in range(length):
            heads: list[float] = []
            for head in range(2):
                rows = []
                for states in (ours, theirs):
                    part = states[row, :length].chunk(2, -1)[head]
                    rows.append(torch.softmax(part @ part[token] / part.shape[-1] ** 0.5, 0))
                heads.append(float((rows[1] * (rows[1] / rows[0]).log()).sum()))
            expected.append(sum(heads) / 2)
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


def test_hidden_is_the_mean_square_over_channels() -> None:
    ours, theirs = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]])
    assert hidden(ours, theirs).tolist() == [2.5]


@pytest.mark.parametrize("family", sorted({name.split("/")[0] for name in VARIANTS}))
def test_the_first_step_of_a_layer_gives_queries_keys_and_values(family: str) -> None:
    from headstart.families import FAMILIES  # the table under test

    step = FAMILIES[family].flow.layer[0]
    assert isinstance(step, Solve)
    assert step.total is None
    assert len(step.maps) in (1, 3)


@pytest.mark.parametrize("name", FEATURES)
def test_training_brings_the_student_nearer(name: str) -> None:
    data, accelerator = drawn(), open_accelerator()
    teacher = tiny_model("bert")
    made = make_student(teacher, shape={"layers": 2})
    features = Features(teacher, made.selection, {name: Term()})
    before = loss_of(made.model, features.bind(made.model), np.arange(9))
    plan = job(data, accelerator, objective={name: 1.0}, epochs=6)
    progress = fit(made.model, replace(plan, features=features, learning_rate=3e-3))
    assert progress.curve[-1]["loss"] < 0.8 * progress.curve[0]["loss"]
    assert before > 0


def test_heads_that_do_not_divide_the_teachers_are_compared() -> None:
    teacher = tiny_model("bert")
    made = make_student(teacher, shape={"hidden": 24})
    bound = Features(teacher, made.selection, BOTH).bind(made.model)
    assert loss_of(made.model, bound, np.arange(4)) > 0


def test_states_along_directions_are_not_compared_with_channels() -> None:
    teacher = tiny_model("bert")
    made = make_student(teacher, shape={"hidden": 16})
    turned = after(made.selection, Refit(directions="principal"))
    with pytest.raises(HeadstartError, match="runs along directions"):
        Features(teacher, turned, BOTH).bind(made.model)
    relation = {"relation": BOTH["relation"]}
    assert loss_of(made.model, Features(teacher, turned, relation).bind(made.model), np.arange(4))


def test_states_of_layers_in_another_order_are_read() -> None:
    teacher = tiny_model("bert")
    turned = replace(make_student(teacher, shape={"layers": 2}).selection, layers=(3, 1))
    student = make_selected(teacher, turned).model
    assert np.isfinite(
        loss_of(student, Features(teacher, turned, BOTH).bind(student), np.arange(4))
    )


def test_another_teacher_is_refused() -> None:
    made = make_student(tiny_model("bert"), shape={"layers": 2})
    with pytest.raises(HeadstartError, match="the student was cut from"):
        Features(tiny_model("bert", layers=6), made.selection, BOTH).bind(made.model)
