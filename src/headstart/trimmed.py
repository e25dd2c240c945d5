"""A base that is trimmed to the pieces of some texts, and written for transformers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from headstart.folders import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
TEXTS_AT_ONCE = 4096
WORDS = "embeddings.word_embeddings.weight"


class Weight(NamedTuple):
    """One that is read only where it is asked for."""

    shape: tuple[int, ...]
    read: Callable[[], Floats]


@dataclass(frozen=True, slots=True)
class Base:
    """A model of BERT's architecture with a Unigram tokenizer, ready to be cut."""

    name: str
    """What the hub calls it."""
    origin: str
    """What the folder's README says of the weights."""
    config: Mapping[str, object]
    tokenizer: Tokenizer
    """Without truncation and padding."""
    shell: Mapping[str, Any]
    """tokenizer.json, parsed; of its pieces the special ones are enough."""
    vocab: Sequence[Sequence[Any]]
    """Pieces and their scores."""
    weights: Mapping[str, Weight]
    """All but the word embeddings, by transformers' names."""
    words: Callable[[Ints], Floats]
    """Rows of the word embeddings: (pieces,) ids to (pieces, hidden)."""


def write_base(base: Base, out: Path, texts: Iterable[str] | None, *, hollow: bool = False) -> None:
    """Write a base as a folder for transformers; its config comes last.

    Args:
        base: The model.
        out: A folder, made if need be.
        texts: Keeps the pieces that these use, single characters and special pieces; None keeps
            all.
        hollow: Leave a hole where the weights would be.
    """
    keep = np.arange(len(base.vocab))
    if texts is not None:
        keep = used_pieces(base.tokenizer, base.vocab, texts)
    tokenizer = with_pieces(base.shell, [base.vocab[old] for old in keep.tolist()])
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
    atomic_write(out / "README.md", f"# {base.name}\n\n{base.origin}\n{len(keep):,} pieces.\n")
    weights = _hole if hollow else _whole
    weights(base, keep, out / "model.safetensors")
    atomic_write(out / "tokenizer.json", json.dumps(tokenizer, ensure_ascii=False))
    atomic_write(out / "tokenizer_config.json", json.dumps(settings, indent=2) + "\n")
    atomic_write(out / "config.json", json.dumps(config, indent=2) + "\n")


def _whole(base: Base, keep: Ints, path: Path) -> None:
    """Write the weights."""
    weights = {WORDS: base.words(keep), **{name: one.read() for name, one in base.weights.items()}}
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    atomic_write(path, save(tensors, {"format": "pt"}))


def _hole(base: Base, keep: Ints, path: Path) -> None:
    """Write a file of the weights' names and shapes, whose content is a hole."""
    shapes = {WORDS: (len(keep), cast("int", base.config["hidden_size"]))}
    shapes |= {name: one.shape for name, one in base.weights.items()}
    header: dict[str, object] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    start = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(start).to_bytes(8, "little") + start)
        file.truncate(8 + len(start) + end)


def used_pieces(tokenizer: Tokenizer, vocab: Sequence[Sequence[Any]], texts: Iterable[str]) -> Ints:
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


def with_pieces(shell: Mapping[str, Any], vocab: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Give a Unigram tokenizer other pieces.

    Args:
        shell: tokenizer.json, parsed; its special pieces must be among `vocab`.
        vocab: Pieces and their scores, in the order of their ids.

    Returns:
        What to write as tokenizer.json.
    """
    ids = {piece: i for i, (piece, _) in enumerate(vocab)}
    model, form = shell["model"], shell["post_processor"]
    unknown = model["vocab"][model["unk_id"]][0]
    special = {
        name: {**token, "ids": [ids[piece] for piece in token["tokens"]]}
        for name, token in form["special_tokens"].items()
    }
    return {
        **shell,
        "model": {**model, "vocab": vocab, "unk_id": ids[unknown]},
        "added_tokens": [{**one, "id": ids[one["content"]]} for one in shell["added_tokens"]],
        "post_processor": {**form, "special_tokens": special},
    }
