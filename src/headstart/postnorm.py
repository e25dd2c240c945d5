"""Families that normalize the sum of each block and its input: BERT and what came of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from headstart.flow import Flow, Rescale, after_norm, one_by_one
from headstart.layout import Axis, Condition, Config, Family, Weight, dense, flag, given, norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.flow import Step

_WORDS = "{p}embeddings.word_embeddings.weight"
_BUFFERS = (r"embeddings\.position_ids$", r"embeddings\.token_type_ids$")


def _embeddings(width: Axis) -> tuple[Weight, ...]:
    return (
        Weight(_WORDS, ("vocab", width)),
        Weight("{p}embeddings.position_embeddings.weight", ("position", width)),
        Weight("{p}embeddings.token_type_embeddings.weight", ("segment", width)),
    )


def _bert_layer(names: Sequence[str], *more: Weight) -> tuple[Weight, ...]:
    at = "{p}encoder.layer.{i}"
    return (
        *(w for x in names for w in dense(f"{at}.attention.self.{x}", "attention", "hidden")),
        *more,
        *dense(f"{at}.attention.output.dense", "hidden", "attention"),
        *norm(f"{at}.attention.output.LayerNorm"),
        *dense(f"{at}.intermediate.dense", "ffn", "hidden"),
        *dense(f"{at}.output.dense", "hidden", "ffn"),
        *norm(f"{at}.output.LayerNorm"),
    )


_QKV = ("query", "key", "value")


def _bert_flow(
    names: Sequence[str], heads: Mapping[str, tuple[Step, ...]], *more_norms: str
) -> Flow:
    at = "{p}encoder.layer.{i}"
    return Flow(
        block=at,
        before=tuple(Rescale(path) for path in ("{p}embeddings.LayerNorm", *more_norms)),
        layer=after_norm(
            tuple(f"{at}.attention.self.{x}" for x in names),
            f"{at}.attention.output.dense",
            f"{at}.attention.output.LayerNorm",
            f"{at}.intermediate.dense",
            f"{at}.output.dense",
            f"{at}.output.LayerNorm",
        ),
        heads=heads,
    )


def _bert_mlm(width: Axis) -> tuple[Weight, ...]:
    at = "cls.predictions"
    return (
        Weight(f"{at}.bias", ("vocab",)),
        *dense(f"{at}.transform.dense", width, "hidden"),
        *norm(f"{at}.transform.LayerNorm", width),
        Weight(f"{at}.decoder.weight", ("vocab", width), tied=_WORDS),
        Weight(f"{at}.decoder.bias", ("vocab",), tied=f"{at}.bias"),
    )


_POOLER = dense("{p}pooler.dense", "hidden", "hidden")
_CLASSIFIER = dense("classifier", "labels", "hidden")
_TWO_STEPS = (
    *dense("classifier.dense", "hidden", "hidden"),
    *dense("classifier.out_proj", "labels", "hidden"),
)

BERT = Family(
    model_type="bert",
    prefix="bert.",
    stem=(*_embeddings("hidden"), *norm("{p}embeddings.LayerNorm")),
    layer=_bert_layer(("query", "key", "value")),
    heads={
        "classification": (*_POOLER, *_CLASSIFIER),
        "tagging": _CLASSIFIER,
        "mlm": _bert_mlm("hidden"),
        "none": _POOLER,
    },
    flow=_bert_flow(_QKV, {
        "classification": one_by_one("{p}pooler.dense", "classifier"),
        "tagging": one_by_one("classifier"),
        "mlm": (*one_by_one("cls.predictions.transform.dense"),
                Rescale("cls.predictions.transform.LayerNorm")),
        "none": one_by_one("{p}pooler.dense"),
    }),
    leftovers=(*_BUFFERS, r"pooler\.", r"cls\."),
)  # fmt: skip

_TWO_MORE = one_by_one("classifier.dense", "classifier.out_proj")
XLM_ROBERTA = replace(
    BERT,
    model_type="xlm-roberta",
    prefix="roberta.",
    heads={
        "classification": _TWO_STEPS,
        "tagging": _CLASSIFIER,
        "mlm": (
            Weight("lm_head.bias", ("vocab",)),
            *dense("lm_head.dense", "hidden", "hidden"),
            *norm("lm_head.layer_norm"),
            Weight("lm_head.decoder.weight", ("vocab", "hidden"), tied=_WORDS),
            Weight("lm_head.decoder.bias", ("vocab",), tied="lm_head.bias"),
        ),
        "none": _POOLER,
    },
    flow=_bert_flow(
        _QKV,
        {
            "classification": _TWO_MORE,
            "tagging": one_by_one("classifier"),
            "mlm": (*one_by_one("lm_head.dense"), Rescale("lm_head.layer_norm")),
            "none": one_by_one("{p}pooler.dense"),
        },
    ),
    leftovers=(*_BUFFERS, r"pooler\.", r"lm_head\."),
)

ROBERTA = replace(XLM_ROBERTA, model_type="roberta")
CAMEMBERT = replace(XLM_ROBERTA, model_type="camembert")

_D = "{p}transformer.layer.{i}"
DISTILBERT = Family(
    model_type="distilbert",
    prefix="distilbert.",
    stem=(*_embeddings("hidden")[:2], *norm("{p}embeddings.LayerNorm")),  # it has no segments
    layer=(
        *(w for x in "qkv" for w in dense(f"{_D}.attention.{x}_lin", "attention", "hidden")),
        *dense(f"{_D}.attention.out_lin", "hidden", "attention"),
        *norm(f"{_D}.sa_layer_norm"),
        *dense(f"{_D}.ffn.lin1", "ffn", "hidden"),
        *dense(f"{_D}.ffn.lin2", "hidden", "ffn"),
        *norm(f"{_D}.output_layer_norm"),
    ),
    heads={
        "classification": (*dense("pre_classifier", "hidden", "hidden"), *_CLASSIFIER),
        "tagging": _CLASSIFIER,
        "mlm": (
            *dense("vocab_transform", "hidden", "hidden"),
            *norm("vocab_layer_norm"),
            Weight("vocab_projector.weight", ("vocab", "hidden"), tied=_WORDS),
            Weight("vocab_projector.bias", ("vocab",)),
        ),
        "none": (),
    },
    flow=Flow(
        block=_D,
        before=(Rescale("{p}embeddings.LayerNorm"),),
        layer=after_norm(
            tuple(f"{_D}.attention.{x}_lin" for x in "qkv"),
            f"{_D}.attention.out_lin",
            f"{_D}.sa_layer_norm",
            f"{_D}.ffn.lin1",
            f"{_D}.ffn.lin2",
            f"{_D}.output_layer_norm",
        ),
        heads={
            "classification": one_by_one("pre_classifier", "classifier"),
            "tagging": one_by_one("classifier"),
            "mlm": (*one_by_one("vocab_transform"), Rescale("vocab_layer_norm")),
            "none": (),
        },
    ),
    leftovers=(*_BUFFERS, r"vocab_(transform|layer_norm|projector)\."),
    keys={"layers": "n_layers", "hidden": "dim", "heads": "n_heads", "ffn": "hidden_dim"},
)


def _projects(config: Config) -> bool:
    """Say whether the word embeddings have a width of their own."""
    hidden = config["hidden_size"]
    return bool(config.get("embedding_size", hidden) != hidden)


ELECTRA = replace(
    BERT,
    model_type="electra",
    prefix="electra.",
    stem=(
        *_embeddings("embedding"),
        *norm("{p}embeddings.LayerNorm", "embedding"),
        *given(_projects, *dense("{p}embeddings_project", "hidden", "embedding")),
    ),
    heads={
        "classification": _TWO_STEPS,
        "tagging": _CLASSIFIER,
        "mlm": (
            *norm("generator_predictions.LayerNorm", "embedding"),
            *dense("generator_predictions.dense", "embedding", "hidden"),
            Weight("generator_lm_head.weight", ("vocab", "embedding"), tied=_WORDS),
            Weight("generator_lm_head.bias", ("vocab",)),
        ),
        "none": (),
    },
    flow=_bert_flow(
        _QKV,
        {
            "classification": _TWO_MORE,
            "tagging": one_by_one("classifier"),
            "mlm": (
                *one_by_one("generator_predictions.dense"),
                Rescale("generator_predictions.LayerNorm"),
            ),
            "none": (),
        },
    ),
    leftovers=(*_BUFFERS, r"(discriminator|generator)_predictions\.", r"generator_lm_head\."),
)


def _has_table_norm(config: Config) -> bool:
    return "layer_norm" in str(config.get("norm_rel_ebd", "none")).lower()


def _own_position(kind: str) -> Condition:
    """Hold where positions have a projection of their own, not that of the words."""

    def holds(config: Config) -> bool:
        shared = not config.get("relative_attention") or config.get("share_att_key")
        return not shared and kind in (config.get("pos_att_type") or ())

    return holds


_A = "{p}encoder.layer.{i}.attention.self"
_M = "lm_predictions.lm_head"
_LEGACY, _CONV = flag("legacy", default=True), flag("conv_kernel_size", default=False)
_WORD, _POSITION, _SEGMENT = _embeddings("embedding")
DEBERTA_V2 = Family(
    model_type="deberta-v2",
    prefix="deberta.",
    stem=(
        _WORD,
        *given(flag("position_biased_input", default=True), _POSITION),
        *given(flag("type_vocab_size", default=False), _SEGMENT),
        Weight("{p}embeddings.embed_proj.weight", ("hidden", "embedding"), _projects),
        *norm("{p}embeddings.LayerNorm"),
        # One table of relative positions serves all layers.
        *given(
            flag("relative_attention", default=False),
            Weight("{p}encoder.rel_embeddings.weight", ("relative", "hidden")),
        ),
        *given(_has_table_norm, *norm("{p}encoder.LayerNorm")),
        # It follows the first layer only, hence keep_first.
        *given(
            _CONV,
            Weight("{p}encoder.conv.conv.weight", ("hidden", "hidden", "kernel")),
            Weight("{p}encoder.conv.conv.bias", ("hidden",)),
            *norm("{p}encoder.conv.LayerNorm"),
        ),
    ),
    layer=_bert_layer(
        ("query_proj", "key_proj", "value_proj"),
        *given(_own_position("c2p"), *dense(f"{_A}.pos_key_proj", "attention", "hidden")),
        *given(_own_position("p2c"), *dense(f"{_A}.pos_query_proj", "attention", "hidden")),
    ),
    heads={
        "classification": (*dense("pooler.dense", "hidden", "hidden"), *_CLASSIFIER),
        "tagging": _CLASSIFIER,
        "mlm": (
            *given(_LEGACY, *_bert_mlm("embedding")),
            *given(
                lambda config: not _LEGACY(config),
                Weight(f"{_M}.bias", ("vocab",)),
                *dense(f"{_M}.dense", "hidden", "hidden"),
                *norm(f"{_M}.LayerNorm"),
            ),
        ),
        "none": (),
    },
    flow=_bert_flow(
        ("query_proj", "key_proj", "value_proj"),
        {
            "classification": one_by_one("pooler.dense", "classifier"),
            "tagging": one_by_one("classifier"),
            "mlm": (*one_by_one("cls.predictions.transform.dense", f"{_M}.dense"),
                    Rescale("cls.predictions.transform.LayerNorm"), Rescale(f"{_M}.LayerNorm")),
            "none": (),
        },
        "{p}encoder.LayerNorm",
    ),
    # DeBERTa-v3's checkpoints hold a position table that its config switches off.
    leftovers=(*_BUFFERS, r"pooler\.", r"cls\.", r"(lm|mask)_predictions\.",
               r"embeddings\.position_embeddings\."),
    keep_first=_CONV,
)  # fmt: skip
