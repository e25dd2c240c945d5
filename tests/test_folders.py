"""Stock classes load every student; from disk as from memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from headstart.checkpoint import save_model, weights_fingerprint
from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.layout import Dim, Head, entries, lengths
from headstart.pieces import load_tokenizer
from headstart.rules import choose
from headstart.selection import SOURCES
from headstart.student import Made, cut_checkpoint, make_student
from tiny import HEADS, VARIANTS, answer, tiny_batch, tiny_model, tiny_tokenizer

EVERY = [(variant, head) for variant in VARIANTS for head in HEADS]
STOCK: Mapping[Head, Any] = {
    "classification": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "mlm": AutoModelForMaskedLM,
    "none": AutoModel,
}
SMALL = {"layers": 2, "hidden": 16, "ffn": 20}


# --- a student's size ---


def kept_lengths(made: Made, teacher: PreTrainedModel, head: Head) -> int:
    """Add up, over the weights, the product of what is kept of each dimension."""
    family, plain = family_of(teacher.config.to_dict()), teacher.config.to_dict()
    sizes = lengths(family, plain)

    def length(dim: Dim, layer: int | None) -> int:
        kept = made.selection.keep(dim, layer, sizes)
        return len(kept) if kept is not None else sizes[dim]  # type: ignore[index]

    listed = entries(family, made.model.config.to_dict(), head)
    return sum(prod(length(dim, e.layer) for dim in e.axes) for e in listed if not e.tied)


def law_parameters_are_kept_lengths(made: Made, teacher: PreTrainedModel, head: Head) -> None:
    found = sum(p.numel() for p in made.model.parameters())
    assert found == kept_lengths(made, teacher, head)
    assert found < sum(p.numel() for p in teacher.parameters())


def test_the_law_of_parameters_has_teeth() -> None:
    teacher = tiny_model("bert")
    made = make_student(teacher, shape=SMALL)
    wider = make_student(teacher, shape=SMALL | {"ffn": 21})
    with pytest.raises(AssertionError):
        law_parameters_are_kept_lengths(replace(made, model=wider.model), teacher, "classification")
    with pytest.raises(AssertionError):
        law_parameters_are_kept_lengths(make_student(teacher), teacher, "classification")


# --- stock classes load every student ---

Save = Callable[[Made, Path], None]


def plainly(made: Made, folder: Path) -> None:
    save_model(made.model, None, folder)


def law_stock_classes_load_it(made: Made, head: Head, folder: Path, save: Save = plainly) -> None:
    save(made, folder)
    loaded, report = STOCK[head].from_pretrained(
        folder, output_loading_info=True, attn_implementation=made.model.config._attn_implementation
    )
    assert {key: list(names) for key, names in report.items() if names} == {}
    assert weights_fingerprint(loaded) == weights_fingerprint(made.model)
    assert answer(loaded).equal(answer(made.model))
    mine, theirs = made.model.config.to_dict(), loaded.config.to_dict()
    assert {k: v for k, v in mine.items() if theirs.get(k) != v} == {"_name_or_path": ""} | {
        k: v for k, v in mine.items() if k == "architectures" and v is None
    }
    tied = {id(p): n for n, p in loaded.named_parameters(remove_duplicate=False)}
    assert len(tied) == len({id(p) for p in made.model.parameters()})


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_stock_classes_load_every_student(variant: str, head: Head, tmp_path: Path) -> None:
    teacher = tiny_model(variant, head)
    for source in SOURCES if head == "classification" else ("teacher",):
        base = tiny_model(variant, "none", seed=5)
        made = make_student(teacher, base=base, shape=SMALL, source=source)
        law_stock_classes_load_it(made, head, tmp_path / source)
        law_parameters_are_kept_lengths(made, teacher, head)


def shallow_config(made: Made, folder: Path) -> None:
    plainly(made, folder)
    config = made.model.config.__class__.from_pretrained(folder)
    config.num_hidden_layers = 1
    config.save_pretrained(folder)


def deep_config(made: Made, folder: Path) -> None:
    plainly(made, folder)
    config = made.model.config.__class__.from_pretrained(folder)
    config.num_hidden_layers = 3
    config.save_pretrained(folder)


def forgotten_labels(made: Made, folder: Path) -> None:
    plainly(made, folder)
    config = made.model.config.__class__.from_pretrained(folder)
    config.id2label = {0: "x", 1: "y", 2: "z"}
    config.save_pretrained(folder)


@pytest.mark.parametrize("mistake", [shallow_config, deep_config, forgotten_labels])
def test_the_law_of_loading_has_teeth(mistake: Save, tmp_path: Path) -> None:
    made = make_student(tiny_model("bert"), shape=SMALL)
    with pytest.raises(AssertionError):
        law_stock_classes_load_it(made, "classification", tmp_path / "out", mistake)


def test_a_norm_that_the_first_layer_has_no_place_for_is_listed(tmp_path: Path) -> None:
    teacher = tiny_model("modernbert", layers=7)
    made = make_student(teacher, shape={"layers": 3}, rules={"layers": (1, 3, 5)})
    assert "model.layers.1.attn_norm.weight" in made.unused
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    assert made.model.config.layer_types == kinds
    law_stock_classes_load_it(made, "classification", tmp_path / "out")


def test_strided_heads_are_cut_across_and_still_load(tmp_path: Path) -> None:
    made = make_student(tiny_model("bert"), shape=SMALL, rules={"heads": "strided"})
    assert made.selection.attention[0] == tuple(range(0, 32, 2))
    law_stock_classes_load_it(made, "classification", tmp_path / "out")


def test_an_older_modernbert_keeps_its_pattern(tmp_path: Path) -> None:
    """Published configs give a period, from which the layers' kinds follow."""
    teacher = tiny_model("modernbert", layers=7)
    teacher.save_pretrained(tmp_path / "teacher")
    place = tmp_path / "teacher" / "config.json"
    plain = json.loads(place.read_text())
    del plain["layer_types"], plain["rope_parameters"]
    place.write_text(json.dumps(plain | {"global_attn_every_n_layers": 3}))
    made = make_student(tmp_path / "teacher", shape={"layers": 4})
    assert made.selection.layers == (0, 2, 4, 6)
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert made.model.config.layer_types == kinds
    law_stock_classes_load_it(made, "classification", tmp_path / "out")


# --- from disk as from memory ---


def stored(teacher: PreTrainedModel, folder: Path, *, shard: str = "50GB") -> Path:
    teacher.save_pretrained(folder, max_shard_size=shard)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


Route = Callable[[Path, Path], object]


def law_disk_is_memory(
    route: Route, teacher: PreTrainedModel, tmp_path: Path, *, shard: str = "50GB"
) -> None:
    folder = stored(teacher, tmp_path / "teacher", shard=shard)
    assert len(list(folder.glob("*.safetensors"))) > 1 or shard == "50GB"
    made = make_student(teacher, shape=SMALL, rules={"ffn": "magnitude", "heads": "random"})
    save_model(made.model, load_tokenizer(folder), tmp_path / "memory", selection=made.selection)
    route(folder, tmp_path / "disk")
    assert contents(tmp_path / "disk") == contents(tmp_path / "memory")


def from_disk(folder: Path, out: Path) -> None:
    cut_checkpoint(folder, out, shape=SMALL, rules={"ffn": "magnitude", "heads": "random"})


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_disk_gives_the_bytes_of_memory(variant: str, head: Head, tmp_path: Path) -> None:
    law_disk_is_memory(from_disk, tiny_model(variant, head), tmp_path)


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_shards_give_the_bytes_of_memory(variant: str, head: Head, tmp_path: Path) -> None:
    law_disk_is_memory(from_disk, tiny_model(variant, head), tmp_path, shard="30KB")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_in_single_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    teacher = tiny_model("bert").to(dtype)
    law_disk_is_memory(from_disk, teacher, tmp_path)
    assert make_student(tmp_path / "teacher").model.dtype == torch.float32


def one_bit(folder: Path, out: Path) -> None:
    """Read one number as the next one that there is."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        gains = model.bert.encoder.layer[1].output.LayerNorm.weight
        gains[0] = torch.nextafter(gains[0], torch.tensor(9.0))
    model.save_pretrained(folder)
    from_disk(folder, out)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda folder, out: cut_checkpoint(folder, out, shape=SMALL),
        lambda folder, out: cut_checkpoint(
            folder, out, shape=SMALL, rules={"ffn": "magnitude", "heads": "random"}, seed=1
        ),
        one_bit,
    ],
    ids=["other rule", "other seed", "one bit"],
)
def test_the_law_of_disk_has_teeth(mistake: Route, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        law_disk_is_memory(mistake, tiny_model("bert"), tmp_path)


def test_a_student_does_not_take_its_teacher_s_place(tmp_path: Path) -> None:
    folder = stored(tiny_model("bert"), tmp_path / "teacher")
    before = contents(folder)
    with pytest.raises(HeadstartError, match=r"would take the place of .*teacher"):
        cut_checkpoint(folder, tmp_path / "x" / ".." / "teacher", shape=SMALL)
    assert contents(folder) == before


def test_nothing_that_lies_there_is_lost(tmp_path: Path) -> None:
    folder = stored(tiny_model("bert"), tmp_path / "teacher")
    mine = tmp_path / "mine"
    cut_checkpoint(folder, mine, shape=SMALL)
    (mine / "thesis.txt").write_text("mine")
    before = contents(mine)
    with pytest.raises(HeadstartError, match="the folder holds something already"):
        cut_checkpoint(folder, mine, shape=SMALL)
    assert contents(mine) == before


def test_a_student_of_a_student_is_a_student(tmp_path: Path) -> None:
    """A folder that was cut is a teacher like any other."""
    first = make_student(tiny_model("bert"), shape={"layers": 3})
    save_model(first.model, tiny_tokenizer(), tmp_path / "first", selection=first.selection)
    second = make_student(tmp_path / "first", shape={"layers": 1})
    assert second.selection.layers == (2,)
    assert choose(second.selection.teacher, second.selection.student) == second.selection
    assert answer(second.model, tiny_batch(rows=1)).shape == (1, 3)
