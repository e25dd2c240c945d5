"""Tiny models of every family and head, with sharp random weights, and a tiny tokenizer."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from headstart.assembly import class_for, seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.layout import Head

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
PIECES = (
    *(f"▁{letter}" for letter in string.ascii_lowercase),
    *string.ascii_lowercase,
    *("▁", "▁the", "▁wake", "▁me", "ing", "er", "0", "1", ".", "'"),
)
VOCABULARY = len(SPECIALS) + len(PIECES)
HEADS: tuple[Head, ...] = ("classification", "tagging", "mlm", "none")
# What a variant's config has beyond its sizes; the family is what stands before the slash.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "bert": {},
    "xlm-roberta": {"type_vocab_size": 1},
    "roberta": {"type_vocab_size": 1},
    "camembert": {"type_vocab_size": 1},
    "distilbert": {},
    "electra": {"embedding_size": 32},
    "electra/projected": {"embedding_size": 12},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "max_relative_positions": 16,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "pooler_hidden_size": 32,
    },
    "deberta-v2/own keys": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": False,
        "type_vocab_size": 2,
        "conv_kernel_size": 3,
        "conv_act": "gelu",
        "embedding_size": 12,
    },
    "deberta-v2/new head": {"legacy": False},
    "modernbert": {"local_attention": 4},
    "modernbert/biased": {
        "attention_bias": True,
        "mlp_bias": True,
        "norm_bias": True,
        "classifier_bias": True,
        "decoder_bias": False,
    },
    "bert/untied": {"tie_word_embeddings": False},
}


def tiny_config(
    family: str,
    *,
    layers: int = 4,
    hidden: int = 32,
    heads: int = 4,
    ffn: int = 64,
    labels: Sequence[str] = ("a", "b", "c"),
    **more: Any,
) -> PreTrainedConfig:
    """Configure a family, or one of its variants."""
    name = family.split("/")[0]
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "hidden_dim" if name == "distilbert" else "intermediate_size": ffn,
    }
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    if name == "modernbert":
        ids |= {"cls_token_id": 0, "sep_token_id": 2}
    names = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}}
    settings: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 48}
    return AutoConfig.for_model(name, **(settings | sizes | ids | names | VARIANTS[family] | more))


def tiny_model(
    family: str,
    head: Head = "classification",
    *,
    layers: int = 4,
    hidden: int = 32,
    heads: int = 4,
    ffn: int = 64,
    labels: Sequence[str] = ("a", "b", "c"),
    seed: int = 0,
    sharp: bool = True,
    **more: Any,
) -> PreTrainedModel:
    """Make a model in evaluation mode; sharp weights make every unit matter."""
    config = tiny_config(
        family, layers=layers, hidden=hidden, heads=heads, ffn=ffn, labels=labels, **more
    )
    # ModernBERT's eager softmax is in single precision, where a row of masks is not a number.
    attention = "sdpa" if family.startswith("modernbert") else "eager"
    with seeded(seed):
        model = class_for(config, head)._from_config(config, attn_implementation=attention)
        if sharp:
            _sharpen(model)
    return model.eval()


@torch.no_grad()
def _sharpen(model: PreTrainedModel) -> None:
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            center = 1.0 if name.endswith("weight") else 0.0  # a gain, or a bias
            weight.normal_(center, 0.3)
        elif "embeddings" in name:
            weight.normal_(0.0, 1.0)
        else:
            weight.normal_(0.0, 1.5 / weight[0].numel() ** 0.5)


def tiny_batch(*, rows: int = 3, length: int = 14, seed: int = 0) -> dict[str, torch.Tensor]:
    """Draw pieces; every row but the first ends in padding."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (rows, length), generator=rng)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        ids[row, length - 2 * row :], mask[row, length - 2 * row :] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}


def answer(model: PreTrainedModel, batch: Mapping[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Give logits, or the last hidden states of a bare encoder, without the padding."""
    batch = tiny_batch() if batch is None else batch
    with torch.no_grad():
        out = model(**batch)
    given = out.logits if "logits" in out else out.last_hidden_state
    return given[batch["attention_mask"].bool()] if given.dim() == 3 else given


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Make a Unigram tokenizer in the manner of XLM-R: pad id 1, pieces of words."""
    scored = [(piece, -float(len(PIECES) - 10 * len(piece))) for piece in PIECES]
    core = Tokenizer(models.Unigram([(s, 0.0) for s in SPECIALS] + scored, unk_id=3))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=40,
    )
