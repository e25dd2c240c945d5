"""A student is its teacher where they are alike, and says where each weight came from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from headstart.assembly import assemble
from headstart.checkpoint import weights_fingerprint
from headstart.errors import HeadstartError
from headstart.families import FAMILIES, family_of
from headstart.layout import Head, Weight, shape_of
from headstart.rules import choose
from headstart.selection import SOURCES, Selection, full
from headstart.student import make_selected, make_student, student_from
from tiny import HEADS, VARIANTS, answer, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import (
        PreTrainedModel,
    )

EVERY = [(variant, head) for variant in VARIANTS for head in HEADS]
SMALL = {"layers": 2, "hidden": 16, "ffn": 20}
SETTINGS: Mapping[str, Any] = {
    "problem_type": "multi_label_classification",
    "classifier_dropout": 0.25,
    "attention_dropout": 0.3,
    "hidden_dropout_prob": 0.05,
}


def selection_of(model: PreTrainedModel) -> Selection:
    plain = model.config.to_dict()
    return full(shape_of(family_of(plain), plain))


# --- a full-size copy is the teacher ---


def law_a_full_copy_is_the_teacher(
    copy: Callable[[PreTrainedModel], PreTrainedModel], teacher: PreTrainedModel
) -> None:
    student = copy(teacher)
    assert weights_fingerprint(student) == weights_fingerprint(teacher)
    assert answer(student).equal(answer(teacher))
    assert student.config._attn_implementation == teacher.config._attn_implementation
    shared = [one.data_ptr() for one in student.parameters()]
    assert not set(shared) & {one.data_ptr() for one in teacher.parameters()}


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_a_full_copy_is_the_teacher(variant: str, head: Head) -> None:
    law_a_full_copy_is_the_teacher(
        lambda teacher: make_student(teacher).model, tiny_model(variant, head)
    )


@torch.no_grad()
def one_bit_off(teacher: PreTrainedModel) -> PreTrainedModel:
    student = make_student(teacher).model
    student.get_input_embeddings().weight[9, 3].mul_(1 + 2**-22)
    return student


@pytest.mark.parametrize(
    "mistake",
    [
        one_bit_off,
        lambda teacher: make_student(teacher, source="permuted").model,
        lambda teacher: make_student(teacher, shape={"layers": 3}).model,
        lambda teacher: teacher,
    ],
    ids=["one bit", "shuffled", "a layer less", "the teacher itself"],
)
def test_the_law_of_the_full_copy_has_teeth(mistake: Any) -> None:
    with pytest.raises(AssertionError):
        law_a_full_copy_is_the_teacher(mistake, tiny_model("bert"))


# --- what is carried over ---


def law_all_else_is_the_teacher_s(
    make: Callable[[PreTrainedModel], PreTrainedModel], variant: str
) -> None:
    labels = ("z", "a", "m", "b")  # not in the order of the alphabet
    teacher = tiny_model(variant, labels=labels, **SETTINGS)
    student = make(teacher)
    mine, theirs = student.config.to_dict(), teacher.config.to_dict()
    sizes = set(family_of(theirs).keys.values())
    may_differ = {*sizes, "embedding_size", "pooler_hidden_size", "layer_types", "dtype"}
    assert {k for k in theirs if mine.get(k) != theirs[k]} <= may_differ | {"_name_or_path"}
    assert mine["id2label"] == dict(enumerate(labels))
    assert mine["problem_type"] == "multi_label_classification"
    assert student.get_input_embeddings().padding_idx == 1
    assert [m.p for m in student.modules() if isinstance(m, torch.nn.Dropout)][-1:] == [
        m.p for m in teacher.modules() if isinstance(m, torch.nn.Dropout)
    ][-1:]
    assert not student.training


@pytest.mark.parametrize(
    ("variant", "source"),
    [*((variant, "teacher") for variant in VARIANTS), *(("bert", source) for source in SOURCES)],
)
def test_all_else_is_the_teacher_s(variant: str, source: str) -> None:
    def make(teacher: PreTrainedModel) -> PreTrainedModel:
        base = tiny_model(variant, "none", seed=5)
        return make_student(teacher, base=base, shape=SMALL, source=source).model

    law_all_else_is_the_teacher_s(make, variant)


def rebuilt(teacher: PreTrainedModel) -> PreTrainedModel:
    """What peers do: a student from sizes and the number of labels."""
    kind = type(teacher.config)
    return type(teacher)(kind(vocab_size=66, hidden_size=16, num_hidden_layers=2, num_labels=4))


def without_padding(teacher: PreTrainedModel) -> PreTrainedModel:
    student = make_student(teacher, shape=SMALL).model
    student.get_input_embeddings().padding_idx = None
    return student


def in_training(teacher: PreTrainedModel) -> PreTrainedModel:
    return make_student(teacher, shape=SMALL).model.train()


@pytest.mark.parametrize("mistake", [rebuilt, without_padding, in_training])
def test_the_law_of_carrying_over_has_teeth(mistake: Any) -> None:
    with pytest.raises(AssertionError):
        law_all_else_is_the_teacher_s(mistake, "electra")


# --- layers, provenance, shared weights ---


def test_every_tensor_names_its_source_and_every_other_is_listed() -> None:
    teacher = tiny_model("bert", "mlm")
    made = make_student(teacher, shape={"layers": 2})
    assert made.provenance.keys() == made.model.state_dict().keys()
    sources = made.provenance
    assert sources["bert.encoder.layer.0.output.dense.bias"] == (
        "teacher:bert.encoder.layer.1.output.dense.bias"
    )
    assert sources["cls.predictions.decoder.bias"] == "tied:cls.predictions.bias"
    assert {name.split(".")[3] for name in made.unused} == {"0", "2"}
    assert len(made.unused) == 2 * 16


def test_a_first_layer_of_modernbert_stays_first() -> None:
    teacher = tiny_model("modernbert", layers=7)
    made = make_student(teacher, shape={"layers": 3})
    assert made.selection.layers == (0, 3, 6)
    assert made.model.config.layer_types == ["full_attention"] * 3
    assert not any("attn_norm" in name for name in made.unused if ".3." in name or ".6." in name)


def test_a_convolution_keeps_its_layer() -> None:
    made = make_student(tiny_model("deberta-v2/own keys"), shape={"layers": 2})
    plain = make_student(tiny_model("deberta-v2"), shape={"layers": 2})
    assert (made.selection.layers, plain.selection.layers) == ((0, 3), (1, 3))


def test_the_short_way_is_the_long_way() -> None:
    teacher = tiny_model("bert")
    short = student_from(teacher, layers=2, hidden=16, ffn=20, layer_rule="first")
    long = make_student(teacher, shape=SMALL, rules={"layers": "first"}).model
    assert weights_fingerprint(short) == weights_fingerprint(long)


def test_a_student_does_not_change_its_teacher() -> None:
    teacher = tiny_model("modernbert")
    before = weights_fingerprint(teacher), teacher.config.to_dict()
    make_student(teacher, shape=SMALL, source="permuted")
    assert (weights_fingerprint(teacher), teacher.config.to_dict()) == before


# --- faults ---


def bert_base(**more: Any) -> PreTrainedModel:
    return tiny_model("bert", "none", **more)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda: None, r"(?s)source base needs.*teacher\.base"),
        (
            lambda: tiny_model("electra", "none"),
            r"the base is of type electra, the teacher of type",
        ),
        (lambda: bert_base(ffn=60), r"(?s)has shape.*the very model that the teacher"),
        (lambda: bert_base(layers=3), r"layer\.3\..* is missing"),
        (lambda: bert_base(vocab_size=70), r"word_embeddings\.weight has shape \(70, 32\)"),
    ],
)
def test_a_base_that_is_not_the_teacher_s_is_refused(base: Any, message: str) -> None:
    with pytest.raises(HeadstartError, match=message):
        make_student(tiny_model("bert"), base=base(), source="base")


def test_a_selection_for_another_teacher_is_refused() -> None:
    other = selection_of(tiny_model("bert", layers=5))
    with pytest.raises(HeadstartError, match="the selection is for a teacher of"):
        make_selected(tiny_model("bert"), other)


def test_a_student_larger_than_its_teacher_is_refused() -> None:
    with pytest.raises(HeadstartError, match="layers = 5 cannot be cut from a teacher with 4"):
        make_student(tiny_model("bert"), shape={"layers": 5})


def test_a_student_that_loses_its_projection_is_refused() -> None:
    teacher = tiny_model("electra/projected", hidden=24, heads=6)
    with pytest.raises(HeadstartError, match="no projection between the two"):
        make_student(teacher, shape={"hidden": 12})


def test_a_table_that_transformers_does_not_share_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher = tiny_model("bert", "tagging")
    extra = replace(FAMILIES["bert"], stem=(*FAMILIES["bert"].stem, Weight("news", ("hidden",))))
    chosen = choose(selection_of(teacher).teacher, selection_of(teacher).teacher)
    monkeypatch.setitem(FAMILIES, "bert", extra)
    with pytest.raises(HeadstartError, match="news is missing"):
        make_selected(teacher, chosen)
    with pytest.raises(HeadstartError, match=r"(?s)installed transformers disagree.*news"):
        assemble(teacher.config, "tagging", {}, seed=0)
