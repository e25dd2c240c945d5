"""Families that normalize what goes into each block: ModernBERT."""

from __future__ import annotations

from dataclasses import replace

from headstart.flow import Flow, Rescale, Solve, into, out_of
from headstart.layout import Family, Weight, always, dense, flag, given, norm


def _plain_norm(path: str) -> tuple[Weight, ...]:
    gain, bias = norm(path)
    return gain, *given(flag("norm_bias", default=False), bias)


_B = "{p}layers.{i}"
_QKV, _QKV_BIAS = dense(f"{_B}.attn.Wqkv", ("attention", "attention", "attention"), "hidden")
_OUT, _OUT_BIAS = dense(f"{_B}.attn.Wo", "hidden", "attention")
_UP, _UP_BIAS = dense(f"{_B}.mlp.Wi", ("ffn", "ffn"), "hidden")
_DOWN, _DOWN_BIAS = dense(f"{_B}.mlp.Wo", "hidden", "ffn")
_HEAD, _HEAD_BIAS = dense("head.dense", "hidden", "hidden")
_PREDICTION = (
    _HEAD,
    *given(flag("classifier_bias", default=False), _HEAD_BIAS),
    *_plain_norm("head.norm"),
)
_CLASSIFIER = dense("classifier", "labels", "hidden")
_STEPS = (Solve(("head.dense",)), Rescale("head.norm"), Solve(("classifier",)))
_TOKENS = "{p}embeddings.tok_embeddings.weight"
MODERNBERT = Family(
    model_type="modernbert",
    prefix="model.",
    stem=(
        Weight(_TOKENS, ("vocab", "hidden")),
        *_plain_norm("{p}embeddings.norm"),
        *_plain_norm("{p}final_norm"),
    ),
    layer=(
        *(replace(weight, skips_first=True) for weight in _plain_norm(f"{_B}.attn_norm")),
        *_plain_norm(f"{_B}.mlp_norm"),
        *(_QKV, _OUT, _UP, _DOWN),
        *given(flag("attention_bias", default=False), _QKV_BIAS, _OUT_BIAS),
        *given(flag("mlp_bias", default=False), _UP_BIAS, _DOWN_BIAS),
    ),
    heads={
        "classification": (*_PREDICTION, *_CLASSIFIER),
        "tagging": (*_PREDICTION, *_CLASSIFIER),
        "mlm": (
            *_PREDICTION,
            Weight("decoder.weight", ("vocab", "hidden"), tied=_TOKENS),
            *given(flag("decoder_bias", default=True), Weight("decoder.bias", ("vocab",))),
        ),
        "none": (),
    },
    flow=Flow(
        block=_B,
        before=(Rescale("{p}embeddings.norm"),),
        layer=(  # the norms' gains are part of the maps that follow them
            Solve((f"{_B}.attn.Wqkv",)),
            Solve((f"{_B}.attn.Wo",), into(f"{_B}.mlp_norm")),
            Solve((f"{_B}.mlp.Wi",)),
            Solve((f"{_B}.mlp.Wo",), out_of(_B)),
        ),
        after=(Rescale("{p}final_norm"),),
        heads={
            "classification": _STEPS,
            "tagging": _STEPS,
            "mlm": _STEPS[:2],
            "none": (),
        },
    ),
    leftovers=(r"head\.", r"decoder\."),
    per_layer=("layer_types",),
    keep_first=always,
)
