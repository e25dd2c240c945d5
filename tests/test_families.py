"""A table is the stock model, name by name; a checkpoint fits its table or says why not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headstart.errors import HeadstartError
from headstart.families import FAMILIES, family_of
from headstart.fitting import fit
from headstart.layout import (
    Family,
    Head,
    Shape,
    Weight,
    always,
    count_parameters,
    entries,
    lengths,
    shape_of,
    student_changes,
    tensor_shape,
)
from tiny import HEADS, VARIANTS, tiny_config, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

EVERY = [(variant, head) for variant in VARIANTS for head in HEADS]
DOCS = Path(__file__).parents[1] / "docs" / "families.md"


@cache
def stock(variant: str, head: Head) -> PreTrainedModel:
    return tiny_model(variant, head, ffn=40)


def law_the_table_is_the_model(family: Family, model: PreTrainedModel, head: Head) -> None:
    config = model.config.to_dict()
    sizes = lengths(family, config)
    prefix = "" if head == "none" else family.prefix
    listed = entries(family, config, head)
    tensors = model.state_dict()
    assert {e.name(prefix): tensor_shape(e, sizes) for e in listed} == {
        name: tuple(tensor.shape) for name, tensor in tensors.items()
    }
    owned = {name for name, _ in model.named_parameters()}  # one name per shared parameter
    tied = [(tensors[e.name(prefix)], tensors[e.tied.format(p=prefix)]) for e in listed if e.tied]
    assert len(tied) == len(tensors) - len(owned)
    assert all(one.data_ptr() == other.data_ptr() for one, other in tied)


def law_counts_are_the_parameters(family: Family, model: PreTrainedModel, head: Head) -> None:
    counts = count_parameters(family, model.config.to_dict(), head)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    assert counts["total"] == counts["vocabulary"] + counts["transformer"] + counts["head"]
    assert counts["vocabulary"] == model.get_input_embeddings().weight.numel()


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_every_table_is_the_stock_model(variant: str, head: Head) -> None:
    model = stock(variant, head)
    law_the_table_is_the_model(family_of(model.config.to_dict()), model, head)
    law_counts_are_the_parameters(family_of(model.config.to_dict()), model, head)


def changed(family: Family, word: str, edit: Callable[[Weight], Weight | None]) -> Family:
    """Edit every weight whose name ends with a word."""

    def mended(weights: tuple[Weight, ...]) -> tuple[Weight, ...]:
        edited = (edit(w) if w.name.endswith(word) else w for w in weights)
        return tuple(w for w in edited if w is not None)

    return replace(
        family,
        stem=mended(family.stem),
        layer=mended(family.layer),
        heads={head: mended(weights) for head, weights in family.heads.items()},
    )


MISTAKES = {
    "forgets a bias": ("bert", "intermediate.dense.bias", lambda _: None),
    "turns a matrix": (
        "bert",
        "intermediate.dense.weight",
        lambda w: replace(w, axes=w.axes[::-1]),
    ),
    "forgets a tie": ("bert", "decoder.weight", lambda w: replace(w, tied="")),
    "fuses two parts, not three": (
        "modernbert",
        "Wqkv.weight",
        lambda w: replace(w, axes=(("attention", "attention"), "hidden")),
    ),
    "norms the first layer": (
        "modernbert",
        "attn_norm.weight",
        lambda w: replace(w, skips_first=False),
    ),
    "always projects embeddings": ("electra", "embeddings_project.weight", always),
    "takes embeddings for hidden": (
        "electra/projected",
        "word_embeddings.weight",
        lambda w: replace(w, axes=("vocab", "hidden")),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_law_of_tables_has_teeth(mistake: str) -> None:
    variant, word, edit = MISTAKES[mistake]
    if edit is always:
        variant, edit = "electra", lambda w: replace(w, when=always)
    model = stock(variant, "mlm")
    wrong = changed(family_of(model.config.to_dict()), word, edit)
    with pytest.raises(AssertionError):
        law_the_table_is_the_model(wrong, model, "mlm")


def test_the_law_of_counts_has_teeth() -> None:
    model = stock("bert", "mlm")
    wrong = changed(FAMILIES["bert"], "decoder.weight", lambda w: replace(w, tied=""))
    with pytest.raises(AssertionError):
        law_counts_are_the_parameters(wrong, model, "mlm")


def test_a_family_is_found_by_its_model_type() -> None:
    assert all(family_of({"model_type": name}) is family for name, family in FAMILIES.items())


def test_an_unknown_family_is_refused_with_the_way_to_add_it() -> None:
    with pytest.raises(HeadstartError, match=r"(?s)'bart'.*did you mean 'bert'.*FAMILIES"):
        family_of({"model_type": "bart"})
    with pytest.raises(HeadstartError, match=r"(?s)''.*choose from bert, camembert"):
        family_of({})


def test_the_docs_name_every_family() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in FAMILIES if f"`{name}`" not in text] == []


# --- what a student's config changes ---


def test_a_student_changes_sizes_and_what_repeats_them_only() -> None:
    config = tiny_config("deberta-v2").to_dict()
    changes = student_changes(FAMILIES["deberta-v2"], config, Shape(2, 16, 2, 30), layers=(1, 3))
    assert changes == {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 30,
        "pooler_hidden_size": 16,
    }


def test_kept_layers_take_their_kind_along() -> None:
    config = tiny_config("modernbert", layers=7).to_dict()
    changes = student_changes(FAMILIES["modernbert"], config, Shape(3, 32, 4, 64), layers=(0, 3, 5))
    full, sliding = "full_attention", "sliding_attention"
    assert changes["layer_types"] == [full, full, sliding]


@pytest.mark.parametrize(("variant", "follows"), [("electra", True), ("electra/projected", False)])
def test_an_embedding_size_follows_only_where_it_is_the_hidden_size(
    variant: str, follows: bool
) -> None:
    config = tiny_config(variant).to_dict()
    changes = student_changes(FAMILIES["electra"], config, Shape(4, 16, 2, 64), layers=(0, 1, 2, 3))
    assert ("embedding_size" in changes) == follows


def test_the_hidden_size_that_loses_a_projection_is_refused() -> None:
    config = tiny_config("electra/projected", hidden=24, heads=6).to_dict()
    with pytest.raises(HeadstartError, match=r"(?s)hidden = 12.*no projection"):
        student_changes(FAMILIES["electra"], config, Shape(4, 12, 3, 64), layers=(0, 1, 2, 3))


def test_shapes_are_read_by_the_family_s_own_keys() -> None:
    config = tiny_config("distilbert", layers=3, hidden=24, heads=3, ffn=50).to_dict()
    shape = shape_of(FAMILIES["distilbert"], config)
    assert (shape, shape.head_size) == (Shape(3, 24, 3, 50), 8)


# --- a checkpoint's fit ---

Shapes = dict[str, tuple[int, ...]]


def shapes_of(model: PreTrainedModel) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def fitted(shapes: Shapes, head: Head = "classification", *, base: bool = False):
    config = tiny_config("bert", ffn=40).to_dict()
    return fit(FAMILIES["bert"], config, head, shapes, where="here", base=base)


def test_a_checkpoint_fits_with_and_without_prefix() -> None:
    assert fitted(shapes_of(stock("bert", "classification"))).prefix == "bert."
    assert fitted(shapes_of(stock("bert", "none")), "none").prefix == ""


def test_a_base_may_lack_the_head_and_its_labels_are_never_wanted() -> None:
    bare = fitted(shapes_of(stock("bert", "none")), base=True)
    assert bare.absent == {"classifier.weight", "classifier.bias"}
    tuned = fitted(shapes_of(stock("bert", "classification")), base=True)
    assert tuned.absent == {"classifier.weight", "classifier.bias"}
    masked = fitted(shapes_of(stock("bert", "mlm")), base=True)
    assert "{p}pooler.dense.weight" in masked.absent


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("bert.embeddings.position_ids", "classification"),
        ("embeddings.position_ids", "none"),
        ("cls.predictions.transform.dense.weight", "classification"),
        ("cls.seq_relationship.weight", "tagging"),
        ("bert.pooler.dense.weight", "tagging"),
    ],
)
def test_known_leftovers_are_listed_and_do_no_harm(name: str, head: Head) -> None:
    shapes = shapes_of(stock("bert", head)) | {name: (1, 48)}
    assert fitted(shapes, head).unused == (name,)


FAULTS: dict[str, tuple[Callable[[Shapes], object], str]] = {
    "missing": (
        lambda s: s.pop("bert.encoder.layer.2.output.dense.bias"),
        r"1 tensors.*layer\.2\.output\.dense\.bias is missing",
    ),
    "shape": (
        lambda s: s.update({"classifier.bias": (5,)}),
        r"classifier\.bias has shape \(5,\), not \(3,\)",
    ),
    "stray": (
        lambda s: s.update({"bert.adapter.weight": (2, 2)}),
        r"bert\.adapter\.weight is not in the table of bert.*where: here.*save_pretrained",
    ),
    "many": (lambda s: s.clear(), r"\d\d tensors.*and \d\d more"),
    "other layers": (
        lambda s: s.update({"bert.encoder.layer.4.output.dense.bias": (32,)}),
        r"layer\.4\.output\.dense\.bias is not in the table",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_checkpoint_that_does_not_fit_is_refused(fault: str) -> None:
    spoil, message = FAULTS[fault]
    shapes = shapes_of(stock("bert", "classification"))
    spoil(shapes)
    with pytest.raises(HeadstartError, match="(?s)" + message):
        fitted(shapes)


def test_a_base_of_another_size_is_refused() -> None:
    shapes = shapes_of(tiny_model("bert", "none", ffn=44))
    with pytest.raises(HeadstartError, match=r"(?s)has shape.*the very model that the teacher"):
        fitted(shapes, base=True)
