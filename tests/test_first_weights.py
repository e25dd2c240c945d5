"""The four sources of a student's first weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from headstart.checkpoint import weights_fingerprint
from headstart.selection import SOURCES
from headstart.student import make_student
from tiny import VARIANTS, tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import (
        PreTrainedModel,
    )

SMALL = {"layers": 2, "hidden": 16, "ffn": 20}


def tensors_of(model: PreTrainedModel) -> dict[str, Tensor]:
    return dict(model.named_parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuted_keeps_each_tensor_s_values_and_nothing_else(variant: str) -> None:
    teacher = tiny_model(variant, "mlm" if "untied" not in variant else "tagging")
    copied = tensors_of(make_student(teacher, shape=SMALL).model)
    mixed, other = (
        tensors_of(make_student(teacher, shape=SMALL, source="permuted", seed=seed).model)
        for seed in (0, 1)
    )
    assert mixed.keys() == copied.keys()
    for name, tensor in copied.items():
        assert mixed[name].flatten().sort().values.equal(tensor.flatten().sort().values)
        assert not mixed[name].equal(tensor)
        assert not mixed[name].equal(other[name])


def test_scratch_is_transformers_own_start_under_the_seed() -> None:
    teacher = tiny_model("bert")
    state = torch.get_rng_state()
    one, same, other = (
        make_student(teacher, shape=SMALL, source="scratch", seed=seed) for seed in (0, 0, 1)
    )
    assert torch.get_rng_state().equal(state)
    assert weights_fingerprint(one.model) == weights_fingerprint(same.model)
    assert weights_fingerprint(one.model) != weights_fingerprint(other.model)
    assert set(one.provenance.values()) == {"fresh"}
    words = one.model.get_input_embeddings().weight
    assert words[1].abs().max() == 0  # the row of the padding
    assert 0.018 < words.std() < 0.022
    gains = [p for n, p in one.model.named_parameters() if n.endswith("LayerNorm.weight")]
    assert all(gain.equal(torch.ones(16)) for gain in gains)


BASES = {
    "bare": ("none", {"classifier.weight", "classifier.bias"}),
    "masked": (
        "mlm",
        {
            "classifier.weight",
            "classifier.bias",
            "bert.pooler.dense.weight",
            "bert.pooler.dense.bias",
        },
    ),
    "tuned for another task": ("classification", {"classifier.weight", "classifier.bias"}),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("where", ["memory", "disk"])
def test_base_gives_the_encoder_and_no_label(base: str, where: str, tmp_path: Path) -> None:
    head, fresh = BASES[base]
    teacher, origin = tiny_model("bert"), tiny_model("bert", head, seed=9, labels=("x", "y"))
    named: Any = origin
    if where == "disk":
        origin.save_pretrained(named := tmp_path / "base")
    made = make_student(teacher, base=named, shape=SMALL, source="base")
    assert {n for n, source in made.provenance.items() if source == "fresh"} == fresh
    prefix = "" if head == "none" else "bert."
    found = made.provenance["bert.encoder.layer.1.output.dense.weight"]
    assert found == f"base:{prefix}encoder.layer.3.output.dense.weight"
    expected = origin.state_dict()[found.removeprefix("base:")]
    kept = made.selection
    cut = expected[list(kept.hidden)][:, list(kept.ffn[1])]
    assert tensors_of(made.model)["bert.encoder.layer.1.output.dense.weight"].equal(cut)
    assert made.model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert made.unused == tuple(teacher.state_dict())


def test_a_fresh_head_is_decided_by_the_seed() -> None:
    teacher, base = tiny_model("bert"), tiny_model("bert", "none", seed=9)
    heads = [
        tensors_of(make_student(teacher, base=base, source="base", seed=seed).model)
        for seed in (0, 0, 1)
    ]
    assert heads[0]["classifier.weight"].equal(heads[1]["classifier.weight"])
    assert not heads[0]["classifier.weight"].equal(heads[2]["classifier.weight"])
    assert heads[0]["bert.pooler.dense.weight"].equal(heads[2]["bert.pooler.dense.weight"])


def test_the_selection_does_not_depend_on_the_source() -> None:
    teacher, base = tiny_model("bert"), tiny_model("bert", "none", seed=9)
    rules = {"hidden": "magnitude", "heads": "magnitude", "ffn": "random"}
    chosen = [
        make_student(teacher, base=base, shape=SMALL, rules=rules, source=source).selection
        for source in SOURCES
    ]
    assert [one.source for one in chosen] == list(SOURCES)
    assert all(replace(one, source="teacher") == chosen[0] for one in chosen)
