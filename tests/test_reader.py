"""A checkpoint is read tensor by tensor, or refused with its fault."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart import reader
from headstart.checkpoint import (
    check_model,
    labels_of,
    load_model,
    save_model,
    weights_fingerprint,
)
from headstart.errors import HeadstartError
from headstart.layout import entries
from headstart.reader import find_folder, open_model, read_config
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = ("a", "b", "c")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A fine-tuned BERT with its tokenizer."""
    save_model(tiny_model("bert"), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


# --- faults of a checkpoint ---


def write_config(folder: Path, **changes: Any) -> None:
    place = folder / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | changes))


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def without_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny_model("bert").save_pretrained(folder, max_shard_size="30KB")
    next(iter(sorted(folder.glob("model-0*.safetensors")))).unlink()


def quantized(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] = tensors["classifier.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["bert.pooler.dense.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (
        only_a_pickle,
        r"(?s)no model\.safetensors, only pytorch_model\.bin.*save_pretrained",
    ),
    "nothing": (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors\n"),
    "cut short": (cut_short, r"(?s)cannot read the weights.*model\.safetensors.*again"),
    "no shard": (without_a_shard, r"(?s)cannot read the weights.*model-00001-of"),
    "no config": (lambda f: (f / "config.json").unlink(), r"cannot read config\.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), r"cannot read config\.json"),
    "listed config": (lambda f: (f / "config.json").write_text("[1]"), r"cannot read config\.json"),
    "unknown family": (lambda f: write_config(f, model_type="gpt2"), r"(?s)'gpt2'.*FAMILIES"),
    "other depth": (lambda f: write_config(f, num_hidden_layers=5), r"layer\.4\..* is missing"),
    "other width": (lambda f: write_config(f, intermediate_size=70), r"has shape \(64, 32\)"),
    "fewer layers": (
        lambda f: write_config(f, num_hidden_layers=3),
        r"layer\.3\..*not in the table",
    ),
    "quantized": (quantized, r"(?s)classifier\.weight is stored as I8.*quantization"),
    "a tensor less": (without_a_tensor, r"bert\.pooler\.dense\.bias is missing"),
    "other head": (
        lambda f: write_config(f, architectures=["BertForTokenClassification"]),
        r"(?s)head is 'tagging', not 'classification'.*teacher\.base",
    ),
    "unknown head": (
        lambda f: write_config(f, architectures=["BertForQuestionAnswering"]),
        r"head is 'none', not 'classification'",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_checkpoint_is_refused(fault: str, stored: Path) -> None:
    spoil, message = FAULTS[fault]
    spoil(stored)
    with pytest.raises(HeadstartError, match=message):
        load_model(stored, task="classification")


@pytest.mark.parametrize(
    ("labels", "message"),
    [(("b", "a", "c"), "order"), (("a", "b"), "b"), (("a", "b", "d"), "d")],
)
def test_other_labels_or_another_order_are_refused(
    labels: tuple[str, ...], message: str, stored: Path
) -> None:
    with pytest.raises(HeadstartError, match=message):
        load_model(stored, task="classification", labels=labels)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_a_model_that_chooses_no_label_is_refused_where_it_is_judged(
    problem: str, stored: Path
) -> None:
    place = stored / "config.json"
    config = json.loads(place.read_text(encoding="utf-8")) | {"problem_type": problem}
    place.write_text(json.dumps(config), encoding="utf-8")
    load_model(stored, task="classification")  # to be cut, say
    labels = ("a", "b", "c")
    with pytest.raises(HeadstartError, match=f"chooses no label: it has 3, and is for {problem}"):
        load_model(stored, task="classification", labels=labels)
    with pytest.raises(HeadstartError, match="chooses no label"):
        check_model(stored, task="classification", labels=labels)


def test_a_tagger_s_problem_type_says_nothing(tmp_path: Path) -> None:
    model = tiny_model("bert", "tagging", problem_type="multi_label_classification")
    save_model(model, tiny_tokenizer(), tmp_path / "tagger")
    opened = check_model(tmp_path / "tagger", task="tagging", labels=labels_of(model.config))
    assert opened.head == "tagging"


def test_a_name_that_is_no_model_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("offline")

    monkeypatch.setattr(reader._HUB, "snapshot_download", offline)
    with pytest.raises(HeadstartError, match=r"(?s)no model of the hub: offline.*not-a/name"):
        find_folder("not-a/name")
    for path in ("./none", "/none", "not/a/name"):
        with pytest.raises(HeadstartError, match=rf"(?s)there is no such folder.*{path}"):
            find_folder(path)
    with pytest.raises(HeadstartError, match="did you mean 'quickstart', the packaged base"):
        find_folder("quikstart")
    with pytest.raises(HeadstartError, match="a recipe's only"):
        find_folder("quickstart")
    with pytest.raises(HeadstartError, match=r"check the path$"):
        find_folder("./quickstart")
    for name in ("my-teacher", "my-texts"):
        (tmp_path / name).mkdir()
    (tmp_path / "my-teacher" / "config.json").touch()
    meant = re.escape(f"path; did you mean {tmp_path}/my-teacher")
    with pytest.raises(HeadstartError, match=meant):
        find_folder(tmp_path / "my-teachr")
    with pytest.raises(HeadstartError, match=r"check the path$"):
        find_folder(tmp_path / "my-text")  # no model
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HeadstartError, match=r"connection.*; did you mean my-teacher"):
        find_folder("mi-teacher")

    def closed(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "glob", closed)
    with pytest.raises(HeadstartError, match=r"check the path$"):
        find_folder(tmp_path / "my-teachr")


def test_a_hub_name_fetches_no_pickle(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    class Hub:
        @staticmethod
        def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
            assert name == "some/model"
            asked.append(allow_patterns)
            return str(stored)

    monkeypatch.setattr(reader, "_HUB", Hub)
    assert open_model("some/model").head == "classification"
    assert read_config("some/model").model_type == "bert"
    assert asked[1] == ["config.json"]
    assert not any(".bin" in pattern or pattern == "*" for pattern in asked[0])


def test_a_folder_is_read_tensor_by_tensor(stored: Path) -> None:
    opened = open_model(stored)
    config = opened.plain
    names = {e.name("bert.") for e in entries(opened.family, config, "classification")}
    assert set(opened.shapes) == names
    assert opened.read("classifier.bias").equal(tiny_model("bert").classifier.bias)


def test_old_names_of_layer_norms_are_read(stored: Path) -> None:
    """BERT's first checkpoints say gamma and beta."""
    before = weights_fingerprint(load_model(stored, task="classification"))
    tensors = load_file(stored / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, stored / "model.safetensors", metadata={"format": "pt"})
    assert weights_fingerprint(load_model(stored, task="classification")) == before


def test_the_home_folder_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_model(tiny_model("bert", "none"), tiny_tokenizer(), tmp_path / "base")
    assert find_folder("~/base") == tmp_path / "base"
    assert read_config("~/base").model_type == "bert"
