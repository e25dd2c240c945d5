"""Pieces, units and batches: what a model reads, and where its answers are taken from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from headstart import encode as room
from headstart.encode import Encoded, collate, encode, pack, unit_logits, word_predictions
from headstart.errors import HeadstartError
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEXTS = ["wake me", "the zebra sings", "a", "wake the zebra at noon er"]
TOKENS = [["wake", "me"], ["the", "zebra", "sings", "at", "noon"], ["a"], ["zebra", "er"]]
LANGUAGES = ("xx", "yy")


def texts(max_length: int = 40) -> Encoded:
    table = pa.table({"language": ["xx", "xx", "yy", "yy"], "text": TEXTS, "label": [0, 1, 2, 1]})
    return encode(
        table, tiny_tokenizer(), task="classification", languages=LANGUAGES, max_length=max_length
    )


def tagged(max_length: int = 40) -> Encoded:
    tags = [[0] * len(words) for words in TOKENS]
    table = pa.table({"language": ["xx", "xx", "yy", "yy"], "tokens": TOKENS, "tags": tags})
    return encode(
        table, tiny_tokenizer(), task="tagging", languages=LANGUAGES, max_length=max_length
    )


def test_pieces_are_the_tokenizers_own() -> None:
    encoded, tokenizer = texts(), tiny_tokenizer()
    for i, text in enumerate(TEXTS):
        own = encoded.ids[encoded.starts[i] : encoded.starts[i + 1]].tolist()
        assert own == tokenizer(text)["input_ids"]
    assert encoded.language_ids.tolist() == [0, 0, 1, 1]
    assert len(encoded) == 4


def test_a_words_unit_is_its_first_piece() -> None:
    encoded, tokenizer = tagged(), tiny_tokenizer()
    for i, words in enumerate(TOKENS):
        pieces = encoded.ids[encoded.starts[i] : encoded.starts[i + 1]]
        places = encoded.positions[encoded.unit_starts[i] : encoded.unit_starts[i + 1]]
        heads = tokenizer.convert_ids_to_tokens(pieces[places].tolist())
        assert len(heads) == len(words)
        assert all(f"▁{word}".startswith(head) for head, word in zip(heads, words, strict=True))


@pytest.mark.parametrize("longest", [3, 4, 5, 6, 7, 40])
def test_texts_that_are_shortened_are_counted(longest: int) -> None:
    """One that just fits is not shortened."""
    whole = [len(tiny_tokenizer()(text)["input_ids"]) for text in TEXTS]
    assert texts(longest).truncated == sum(length > longest for length in whole)


def test_truncated_words_are_errors_not_absent() -> None:
    whole, cut = tagged(), tagged(max_length=6)
    assert whole.truncated == 0
    assert cut.truncated > 0
    assert len(cut.words) == len(whole.words)
    logits = np.tile(np.array([[0.0, 1.0]], np.float32), (len(cut.gold), 1))
    predicted = word_predictions(cut, logits, absent=0)
    assert (predicted == 0).sum() == cut.truncated
    assert (predicted == 1).sum() == len(cut.gold)


@pytest.mark.parametrize("make", [texts, tagged])
def test_a_batch_gives_each_example_its_own_logits(make: type) -> None:
    """Logits of units from a padded batch are those of every example alone."""
    encoded: Encoded = make()
    model = tiny_model("bert", encoded.task).double()
    batch = collate(encoded, np.array([2, 0, 3, 1]))
    with torch.no_grad():
        together = unit_logits(model(**batch.inputs).logits, batch)
        alone = []
        for i in (2, 0, 3, 1):
            one = collate(encoded, np.array([i]))
            assert one.inputs["attention_mask"].all()
            alone.append(unit_logits(model(**one.inputs).logits, one))
    torch.testing.assert_close(together, torch.cat(alone))
    assert batch.gold.tolist() == encoded.gold[batch.units].tolist()


def test_units_point_at_their_rows() -> None:
    encoded = tagged()
    batch = collate(encoded, np.array([1, 3]))
    expected = [*range(encoded.unit_starts[1], encoded.unit_starts[2])]
    expected += range(encoded.unit_starts[3], encoded.unit_starts[4])
    assert batch.units.tolist() == expected


def test_padding_is_the_tokenizers_own() -> None:
    batch = collate(texts(), np.array([0, 3]))
    assert (batch.inputs["input_ids"][batch.inputs["attention_mask"] == 0] == 1).all()


def test_one_long_example_has_a_batch_of_its_own() -> None:
    lengths = np.array([5, 900, 5, 5])
    batches = pack(lengths, np.arange(4), tokens=64)
    assert sorted(len(b) for b in batches) == [1, 3]


@pytest.mark.parametrize("spare", [0, 7, 64, None])
def test_batches_hold_every_example_and_keep_to_budget_and_padding(spare: int | None) -> None:
    lengths = np.random.default_rng(1).integers(3, 30, 500)
    batches = pack(lengths, np.arange(500), tokens=256, spare=spare)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    padded = np.array([lengths[b].max() * len(b) for b in batches])
    real = np.array([lengths[b].sum() for b in batches])
    assert padded.max() <= 256
    assert (padded - real).max() <= (256 if spare is None else spare)
    if spare == 7:
        assert (padded - real).max() > 0


def test_epochs_are_cut_into_other_batches() -> None:
    lengths = np.random.default_rng(0).integers(3, 30, 400)
    first, second = (
        pack(lengths, np.random.default_rng(seed).permutation(400), tokens=256) for seed in (0, 1)
    )
    assert [sorted(b.tolist()) for b in first] != [sorted(b.tolist()) for b in second]


def test_a_tokenizer_without_padding_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    table = pa.table({"language": ["xx"], "text": ["a"], "label": [0]})
    with pytest.raises(HeadstartError, match="no padding piece"):
        encode(table, tokenizer, task="classification", languages=("xx",), max_length=8)


# --- words one by one have the pieces of running text ---

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
SENTENCES = [["a", "b", "a"], ["wake", "the", "zebra", "at", "noon"], ["今天", "天气"], ["the"]]


def trained(core: Tokenizer, trainer: type, alphabet: list[str]) -> PreTrainedTokenizerFast:
    """Train some pieces, and add special ones in the manner of RoBERTa."""
    made = trainer(vocab_size=330, special_tokens=SPECIALS, initial_alphabet=alphabet)
    core.train_from_iterator([" ".join(words) for words in SENTENCES] * 3, made)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")


def byte_level(*, adds: bool = False) -> PreTrainedTokenizerFast:
    """As RoBERTa and ModernBERT have it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=adds)
    return trained(core, trainers.BpeTrainer, pre_tokenizers.ByteLevel.alphabet())


def gemma_like() -> PreTrainedTokenizerFast:
    """As mmBERT has it: blanks become marks before the text is split."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # no piece of two words
    made = trained(core, trainers.BpeTrainer, ["▁"])
    made.backend_tokenizer.normalizer = normalizers.Replace(" ", "▁")
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return made


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT has it; each Chinese character is a word of its own."""
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.normalizer = normalizers.BertNormalizer()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return trained(core, trainers.WordPieceTrainer, [])


def marked_first() -> PreTrainedTokenizerFast:
    """As newer SentencePiece models have it."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return trained(core, trainers.BpeTrainer, ["▁"])


TOKENIZERS: Mapping[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte level": byte_level,
    "byte level, marks the first": lambda: byte_level(adds=True),
    "Gemma": gemma_like,
    "WordPiece": word_piece,
    "SentencePiece": tiny_tokenizer,
    "SentencePiece, first": marked_first,
}


def law_words_are_those_of_running_text(tokenizer: PreTrainedTokenizerFast) -> None:
    tags = [[0] * len(words) for words in SENTENCES]
    table = pa.table({"language": ["xx"] * len(tags), "tokens": SENTENCES, "tags": tags})
    encoded = encode(table, tokenizer, task="tagging", languages=("xx",), max_length=60)
    assert encoded.truncated == 0
    for i, words in enumerate(SENTENCES):
        pieces = encoded.ids[encoded.starts[i] : encoded.starts[i + 1]].tolist()
        assert pieces == tokenizer(" ".join(words))["input_ids"]
        places = encoded.positions[encoded.unit_starts[i] : encoded.unit_starts[i + 1]].tolist()
        before = [
            len(tokenizer(" ".join(words[:n]))["input_ids"]) - 1 for n in range(1, len(words))
        ]
        assert places == [1, *before]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_words_one_by_one_are_those_of_running_text(kind: str) -> None:
    law_words_are_those_of_running_text(TOKENIZERS[kind]())


def test_the_law_of_words_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_keeps_pieces", lambda *_: True)
    for kind in ("byte level", "Gemma"):
        with pytest.raises(AssertionError):
            law_words_are_those_of_running_text(TOKENIZERS[kind]())


def test_a_tokenizer_that_never_splits_is_refused() -> None:
    ids = {name: i for i, name in enumerate([*SPECIALS, "a"])}
    core = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    whole = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")
    table = pa.table({"language": ["xx"], "tokens": [["a", "a"]], "tags": [[0, 0]]})
    with pytest.raises(HeadstartError, match="other pieces than in running text"):
        encode(table, whole, task="tagging", languages=("xx",), max_length=8)
