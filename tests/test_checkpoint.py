"""Loading is whole or refused, heads are fresh under a seed, folders appear at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from headstart.checkpoint import (
    check_base,
    check_length,
    check_model,
    count_parameters,
    load_model,
    save_model,
    source_fingerprint,
    weights_fingerprint,
    with_head,
)
from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.pieces import load_tokenizer
from headstart.reader import open_model
from headstart.selection import Selection
from headstart.student import make_student
from tiny import HEADS, VARIANTS, answer, tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from headstart.layout import Head

LABELS = ("a", "b", "c")


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A fine-tuned BERT with its tokenizer."""
    save_model(tiny_model("bert"), tiny_tokenizer(), tmp_path / "model")
    return tmp_path / "model"


# --- saved and loaded is the same ---


def law_loaded_is_saved(
    save: Callable[[PreTrainedModel, Path], None], head: Head, folder: Path, variant: str
) -> None:
    model = tiny_model(variant, head)
    save(model, folder)
    labels = LABELS if head in ("classification", "tagging") else None
    loaded = load_model(folder, task=head, labels=labels)
    assert weights_fingerprint(loaded) == weights_fingerprint(model)
    loaded.set_attn_implementation(model.config._attn_implementation)  # a config leaves it open
    assert answer(loaded).equal(answer(model))
    assert not loaded.training


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("head", HEADS)
def test_loaded_is_saved(variant: str, head: Head, tmp_path: Path) -> None:
    law_loaded_is_saved(lambda m, f: save_model(m, None, f), head, tmp_path / "model", variant)


@torch.no_grad()
def rounded(model: PreTrainedModel, folder: Path) -> None:
    half = make_student(model).model.half()
    save_model(half, None, folder)


def other_labels(model: PreTrainedModel, folder: Path) -> None:
    copy = make_student(model).model
    copy.config.id2label = {0: "c", 1: "b", 2: "a"}
    save_model(copy, None, folder)


def test_the_law_of_loading_has_teeth(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        law_loaded_is_saved(rounded, "classification", tmp_path / "a", "bert")
    with pytest.raises(HeadstartError):
        law_loaded_is_saved(other_labels, "classification", tmp_path / "b", "bert")


# --- fresh heads ---


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_head_is_fresh_and_the_encoder_is_the_base_s(variant: str, task: Head) -> None:
    base = tiny_model(variant, "none")
    model = with_head(base, task=task, labels=("x", "y"), seed=0)
    prefix = family_of(model.config.to_dict()).prefix
    own = model.state_dict()
    shared = {n: t for n, t in base.state_dict().items() if prefix + n in own}
    assert all(own[prefix + name].equal(tensor) for name, tensor in shared.items())
    assert set(base.state_dict()) - set(shared) <= {"pooler.dense.weight", "pooler.dense.bias"}
    assert model.config.id2label == {0: "x", 1: "y"}
    assert model.config.label2id == {"x": 0, "y": 1}
    assert answer(model).shape[-1] == 2


def law_heads_are_decided_by_the_seed(make: Callable[[int], PreTrainedModel]) -> None:
    one, same, other = (make(seed).state_dict() for seed in (1, 1, 2))
    differing = {name for name in one if not one[name].equal(other[name])}
    assert all(one[name].equal(same[name]) for name in one)
    assert differing == {"classifier.weight"}  # biases start at nought


def test_heads_are_decided_by_the_seed_and_nothing_else() -> None:
    base = tiny_model("bert", "none")

    def make(seed: int) -> PreTrainedModel:
        torch.randn(3)  # the caller's generator has no say
        return with_head(base, task="classification", labels=LABELS, seed=seed)

    before = torch.get_rng_state()
    with_head(base, task="classification", labels=LABELS)
    assert torch.get_rng_state().equal(before)
    law_heads_are_decided_by_the_seed(make)


def test_the_law_of_seeds_has_teeth() -> None:
    base = tiny_model("bert", "none")

    def forgetful(_: int) -> PreTrainedModel:
        return with_head(base, task="classification", labels=LABELS)

    def stock(_: int) -> PreTrainedModel:
        return AutoModelForSequenceClassification.from_config(base.config)

    for mistake in (forgetful, stock):
        with pytest.raises(AssertionError):
            law_heads_are_decided_by_the_seed(mistake)


def test_a_head_keeps_what_the_base_has_under_its_name(tmp_path: Path) -> None:
    """As transformers does: BERT's pooler, the prediction layer of ModernBERT's masked head."""
    for variant, name in (
        ("bert", "bert.pooler.dense.weight"),
        ("modernbert", "head.dense.weight"),
    ):
        base = tiny_model(variant, "classification" if variant == "bert" else "mlm")
        base.save_pretrained(tmp_path / variant)
        model = with_head(tmp_path / variant, task="classification", labels=("x", "y"))
        stock = AutoModelForSequenceClassification.from_pretrained(
            tmp_path / variant, num_labels=2, ignore_mismatched_sizes=True
        )
        assert model.state_dict()[name].equal(base.state_dict()[name])
        assert model.state_dict()[name].equal(stock.state_dict()[name])


def test_the_labels_of_a_tuned_base_are_not_taken_over() -> None:
    tuned = tiny_model("bert")
    model = with_head(tuned, task="classification", labels=LABELS)
    assert not model.classifier.weight.equal(tuned.classifier.weight)


# --- tokenizers ---


def test_a_tokenizer_comes_back(stored: Path) -> None:
    text = ["wake me at nine", "The 7 é"]
    assert load_tokenizer(stored)(text)["input_ids"] == tiny_tokenizer()(text)["input_ids"]


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    save_model(tiny_model("bert"), None, tmp_path / "model")
    with pytest.raises(HeadstartError, match=r"tokenizer"):
        load_tokenizer(tmp_path / "model")


# --- saving ---


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_others_may_read_a_saved_folder(tmp_path: Path) -> None:
    save_model(tiny_model("bert"), tiny_tokenizer(), tmp_path / "out")
    places = [tmp_path / "out", *(tmp_path / "out").iterdir()]
    assert len(places) > 3
    assert all(place.stat().st_mode & 0o044 == 0o044 for place in places)


def test_a_saved_folder_holds_no_pickle_and_no_path(tmp_path: Path) -> None:
    made = make_student(tiny_model("bert"), shape={"layers": 2})
    save_model(made.model, tiny_tokenizer(), tmp_path / "out", selection=made.selection)
    assert {"config.json", "model.safetensors", "tokenizer.json"} < names_in(tmp_path / "out")
    text = (tmp_path / "out" / "selection.json").read_text()
    assert Selection.from_json(text) == made.selection
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    assert names_in(tmp_path) == {"out"}


def digests(folder: Path) -> dict[str, str]:
    """Hash each file: a difference of whole files would take minutes to print."""
    files = sorted(folder.iterdir())
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


class Broken:
    def save_pretrained(self, folder: Path) -> None:
        (Path(folder) / "tokenizer.json").write_text("{")
        raise OSError("disk full")


def law_saving_is_all_or_nothing(save: Callable[[Any, Any, Path], None], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_model(tiny_model("bert"), None, folder)
    before = digests(folder)
    with pytest.raises(OSError, match="disk full"):
        save(tiny_model("bert", seed=1), Broken(), folder)
    assert digests(folder) == before
    assert names_in(tmp_path) == {"model"}


def test_saving_is_all_or_nothing(tmp_path: Path) -> None:
    law_saving_is_all_or_nothing(save_model, tmp_path)


def test_the_law_of_saving_has_teeth(tmp_path: Path) -> None:
    def in_place(model: Any, tokenizer: Any, folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    with pytest.raises(AssertionError):
        law_saving_is_all_or_nothing(in_place, tmp_path)


def test_an_older_model_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    save_model(tiny_model("bert"), tiny_tokenizer(), folder)
    save_model(tiny_model("electra"), None, folder)
    assert open_model(folder).family.model_type == "electra"
    assert "tokenizer.json" not in names_in(folder)
    assert names_in(tmp_path / "deep") == {"model"}


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HeadstartError, match="holds something that is no model"):
        save_model(tiny_model("bert"), None, tmp_path)
    assert names_in(tmp_path) == {"notes.txt"}


# --- fingerprints and counts ---

Mark = Callable[[PreTrainedModel], str]


def law_a_fingerprint_sees_every_weight(mark: Mark) -> None:
    model = tiny_model("bert")
    first = mark(model)
    assert mark(tiny_model("bert")) == first
    assert len(first) == 64
    for weight in model.parameters():
        kept = weight.detach().clone()
        weight.data.view(-1)[-1] += 0.5
        assert mark(model) != first
        weight.data.copy_(kept)
    assert mark(model) == first
    assert mark(model.half()) != mark(model.float())


def test_a_fingerprint_sees_every_weight() -> None:
    law_a_fingerprint_sees_every_weight(weights_fingerprint)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda model: weights_fingerprint(model.bert),
        lambda model: weights_fingerprint(model)[:10],
        lambda _: f"{torch.randn(()).item():064.10f}",
    ],
    ids=["forgets the head", "too short", "not decided"],
)
def test_the_law_of_fingerprints_has_teeth(mistake: Mark) -> None:
    with pytest.raises(AssertionError):
        law_a_fingerprint_sees_every_weight(mistake)


def test_a_stored_model_s_fingerprint_follows_its_weights_and_config(stored: Path) -> None:
    first = source_fingerprint(stored)
    assert source_fingerprint(stored) == first
    place = stored / "config.json"
    place.write_text(place.read_text().replace('"hidden_act"', '"act"'))
    second = source_fingerprint(stored)
    save_model(tiny_model("bert", seed=1), None, stored)
    assert len({first, second, source_fingerprint(stored)}) == 3


def test_counts_are_a_model_s_own() -> None:
    model = tiny_model("bert", "mlm")
    counts = count_parameters(model)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    assert counts["vocabulary"] == 66 * 32


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_tokenizer_is_refused(content: str, stored: Path) -> None:
    (stored / "tokenizer.json").write_text(content)
    with pytest.raises(HeadstartError, match="tokenizer"):
        load_tokenizer(stored)


def test_a_stored_model_s_fingerprint_follows_its_tokenizer_and_dropout(stored: Path) -> None:
    marks = {source_fingerprint(stored)}
    for name, old, new in (
        ("tokenizer.json", '"Lowercase"', '"NFC"'),
        ("tokenizer_config.json", '"model_max_length": 40', '"model_max_length": 41'),
        ("config.json", '"hidden_dropout_prob": 0.1', '"hidden_dropout_prob": 0.2'),
    ):
        text = (stored / name).read_text()
        assert text.count(old) == 1
        (stored / name).write_text(text.replace(old, new))
        marks.add(source_fingerprint(stored))
    for name in ("vocab.txt", "merges.txt", "spiece.model", "added_tokens.json"):
        (stored / name).write_text("a")
        marks.add(source_fingerprint(stored))
    assert len(marks) == 8
    (stored / "README.md").write_text("a")
    assert source_fingerprint(stored) in marks


# --- positions ---

Check = Callable[[Any, int], None]
ENDLESS = {"modernbert", "modernbert/biased", "deberta-v2"}  # no table of positions


def law_the_longest_input_is_the_model_s_own(check: Check, variant: str) -> None:
    """A length passes if the model can read it, and one more if the model has no table."""
    model = tiny_model(variant)
    config = model.config.to_dict()
    allowed: list[int] = []
    for length in range(40, 56):
        ids = torch.full((1, length), 5)
        try:
            answer(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
        except (IndexError, RuntimeError):
            with pytest.raises(HeadstartError, match="positions"):
                check(config, length)
        else:
            check(config, length)
            allowed.append(length)
    assert (len(allowed) == 16) == (variant in ENDLESS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_longest_input_is_the_model_s_own(variant: str) -> None:
    law_the_longest_input_is_the_model_s_own(check_length, variant)


def test_the_law_of_lengths_has_teeth() -> None:
    def from_nought(config: Any, length: int) -> None:
        check_length({**config, "pad_token_id": -1}, length)

    def always_a_table(config: Any, length: int) -> None:
        check_length({**config, "position_biased_input": True}, length)

    for mistake, variant in ((from_nought, "xlm-roberta"), (always_a_table, "deberta-v2")):
        with pytest.raises((pytest.fail.Exception, HeadstartError)):
            law_the_longest_input_is_the_model_s_own(mistake, variant)


def test_a_length_s_fault_names_key_and_largest() -> None:
    with pytest.raises(HeadstartError) as fault:
        check_length(tiny_model("roberta").config.to_dict(), 47)
    assert fault.value.where == "recipe key data.max_length"
    assert fault.value.way_out == "set it to 46 or less"


# --- faults are found without reading a weight ---


def test_faults_are_found_before_weights_are_read(stored: Path, tmp_path: Path) -> None:
    opened = check_model(stored, task="classification", labels=LABELS)
    check_base(stored, task="tagging")
    check_base(stored, task="classification", teacher=opened)
    for task, labels in (("tagging", None), ("classification", ("a", "b"))):
        with pytest.raises(HeadstartError, match=r"head is 'classification'|the corpus lacks"):
            check_model(stored, task=task, labels=labels)
    save_model(tiny_model("electra", "none"), None, tmp_path / "electra")
    with pytest.raises(HeadstartError, match="the base is of type electra"):
        check_base(tmp_path / "electra", task="classification", teacher=opened)
    save_model(tiny_model("bert", "none", ffn=48), None, tmp_path / "narrow")
    with pytest.raises(HeadstartError, match="do not fit"):
        check_base(tmp_path / "narrow", task="classification", teacher=opened)
    place = stored / "config.json"
    place.write_text(
        place.read_text().replace('"intermediate_size": 64', '"intermediate_size": 48')
    )
    for check in (check_model, load_model):
        with pytest.raises(HeadstartError, match="do not fit"):
            check(stored, task="classification", labels=LABELS)
