"""Scores of units by what they do: held to their definition, and alike for every language."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from headstart import measure as measuring
from headstart.checkpoint import load_encoder, save_model
from headstart.encode import collate, unit_logits
from headstart.errors import HeadstartError
from headstart.families import FAMILIES
from headstart.flow import Solve
from headstart.measure import measure
from headstart.rules import MEASURED
from headstart.student import make_student
from headstart.walk import Sample
from test_refit import text
from tiny import VARIANTS, tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from headstart.rules import Measured


def two_languages(*, head: str = "classification", more: int = 0) -> Sample:
    """Two languages; the second one's texts come once more, or several times."""
    encoded = text("tagging" if head == "tagging" else "classification", 12)
    owners = np.arange(12) % 2
    sample = Sample(
        replace(encoded, language_ids=owners, languages=("xx", "yy")),
        [np.arange(5), np.arange(5, 10)],
        [np.arange(10, 12)],
    )
    again = [np.flatnonzero(owners == 1)] * more
    return replace(sample, fit=[*sample.fit, *again])


def silence(model: PreTrainedModel, layer: int, neuron: int) -> None:
    """Make a neuron of a BERT give nothing."""
    up = model.bert.encoder.layer[layer].intermediate.dense
    with torch.no_grad():
        up.weight[neuron], up.bias[neuron] = 0.0, 0.0


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_family_is_measured(variant: str) -> None:
    model = tiny_model(variant)
    found = measure(model, two_languages(), MEASURED)
    assert found["activation"]["hidden"].shape == (32,)
    assert found["activation"]["hidden"].mean() == pytest.approx(4)  # a share of each of 4 layers
    assert "hidden" not in found["taylor"]
    for rule in MEASURED:
        assert found[rule]["heads"].shape == (4, 4)
        assert found[rule]["ffn"].shape == (4, 64)
        assert all((found[rule][size] > 0).all() for size in ("heads", "ffn"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_rules_share_a_forward_pass(variant: str) -> None:
    model, sample, passes = tiny_model(variant), two_languages(), []
    apart = {rule: measure(model, sample, [rule])[rule] for rule in MEASURED}
    model.register_forward_hook(lambda *_: passes.append(1))
    together = measure(model, sample, MEASURED)
    assert len(passes) == measuring.PARTS * len(sample.batches)
    for rule, scores in apart.items():
        for size, found in scores.items():
            assert (together[rule][size] == found).all()


def activations(model: PreTrainedModel, sample: Sample, module: nn.Module) -> list[Tensor]:
    """Collect a module's inputs for every language, text by text, without padding."""
    rows: list[list[Tensor]] = [[], []]
    for i in range(12):
        seen: list[Tensor] = []
        hook = module.register_forward_pre_hook(lambda _m, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            model(**collate(sample.encoded, np.array([i])).inputs)
        hook.remove()
        rows[int(sample.encoded.language_ids[i])].append(seen[0][0])
    return [torch.cat(part) for part in rows]


@pytest.mark.parametrize("head", ["classification", "tagging"])
def test_parts_of_a_batch_give_what_it_gives_whole(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sample = tiny_model("bert", head).double(), two_languages(head=head)
    found: list[Measured] = []
    for parts in (1, 2, 9):  # more than a batch has texts, too
        monkeypatch.setattr(measuring, "PARTS", parts)
        found.append(measure(model, sample, MEASURED, seed=3))
    for rule, sizes in found[0].items():
        for size, scores in sizes.items():
            for other in found[1:]:
                assert other[rule][size] == pytest.approx(scores, rel=1e-9)


@pytest.mark.parametrize("breaks", [False, True])
def test_measuring_leaves_a_model_as_it_was(breaks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("bert")
    model.bert.embeddings.requires_grad_(False)
    learns = {name: p.requires_grad for name, p in model.named_parameters()}
    kept: list[int] = []
    grad = torch.autograd.grad

    def watch(*what: object) -> object:
        kept.append(sum(p.requires_grad for p in model.parameters()))
        if breaks:
            raise RuntimeError
        return grad(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.autograd, "grad", watch)
    with pytest.raises(RuntimeError) if breaks else nullcontext():
        measure(model, two_languages(), ["taylor"])
    assert set(kept) == {0}  # nothing is kept for weights' gradients
    assert {name: p.requires_grad for name, p in model.named_parameters()} == learns
    assert not model.bert.encoder.layer[0]._forward_pre_hooks


def test_activation_is_the_mean_over_tokens_then_languages() -> None:
    model, sample = tiny_model("bert"), two_languages()
    found = measure(model, sample, ["activation"])["activation"]
    layer = model.bert.encoder.layer[2]
    neurons = [rows.abs().mean(0) for rows in activations(model, sample, layer.output.dense)]
    expected = torch.stack(neurons).mean(0)
    assert found["ffn"][2] == pytest.approx(expected.double().numpy(), rel=1e-4)
    heads = [
        rows.abs().unflatten(-1, (4, 8)).mean((0, 2))
        for rows in activations(model, sample, layer.attention.output.dense)
    ]
    assert found["heads"][2] == pytest.approx(torch.stack(heads).mean(0).numpy(), rel=1e-4)


def likelihood(model: PreTrainedModel, sample: Sample, index: int, gate: float, unit: int) -> float:
    """Cross-entropy of one text to the label 1, with one neuron of layer 1 scaled."""

    def scale(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        scaled = args[0].clone()
        scaled[..., unit] *= gate
        return (scaled,)

    hook = model.bert.encoder.layer[1].output.dense.register_forward_pre_hook(scale)
    batch = collate(sample.encoded, np.array([index]))
    with torch.no_grad():
        logits = unit_logits(model(**batch.inputs).logits, batch)
    hook.remove()
    return float(torch.nn.functional.cross_entropy(logits, torch.ones(1, dtype=torch.int64)))


def test_taylor_is_the_slope_of_a_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    def ones(probabilities: Tensor, _count: int, **_: object) -> Tensor:
        return torch.ones(len(probabilities), 1, dtype=torch.int64)

    monkeypatch.setattr(torch, "multinomial", ones)
    model, sample = tiny_model("bert").double(), two_languages()
    found = measure(model, sample, ["taylor"])["taylor"]["ffn"][1]
    step = 1e-4
    for unit in (0, 17, 63):
        up, down = (
            np.array([likelihood(model, sample, i, gate, unit) for i in range(12)])
            for gate in (1 + step, 1 - step)
        )
        slopes = (up - down) / (2 * step)
        means = [(slopes[sample.encoded.language_ids == k] ** 2).mean() for k in (0, 1)]
        assert found[unit] == pytest.approx(np.sqrt(np.mean(means)), rel=1e-3)


@pytest.mark.parametrize("rule", MEASURED)
def test_languages_count_alike(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch, "multinomial", lambda p, _n, **_: torch.zeros(len(p), 1, dtype=torch.int64)
    )
    model = tiny_model("bert").double()
    once, often = (measure(model, two_languages(more=n), [rule])[rule] for n in (0, 3))
    for size in ("heads", "ffn"):
        assert often[size] == pytest.approx(once[size], rel=1e-4)


@pytest.mark.parametrize("rule", MEASURED)
@pytest.mark.parametrize("head", ["classification", "tagging"])
def test_a_silent_neuron_is_not_kept(rule: str, head: str) -> None:
    model = tiny_model("bert", head)  # type: ignore[arg-type]
    silence(model, 3, 5)
    scores: Measured = measure(model, two_languages(head=head), [rule])
    assert scores[rule]["ffn"][3].argmin() == 5
    assert scores[rule]["ffn"][3][5] == 0
    made = make_student(model, shape={"ffn": 63}, rules={"ffn": rule}, scores=scores)
    assert 5 not in made.selection.ffn[3]
    assert made.selection.rules["ffn"] == rule


def test_taylor_needs_a_task_head(tmp_path: Path) -> None:
    save_model(tiny_model("bert", "none"), None, tmp_path)
    with pytest.raises(HeadstartError, match="taylor draws labels, and the model has no task head"):
        measure(load_encoder(str(tmp_path)), two_languages(), ["taylor"])


def test_a_measured_rule_without_text_says_where_text_is() -> None:
    with pytest.raises(HeadstartError, match="where there is text to measure on"):
        make_student(tiny_model("bert"), shape={"ffn": 10}, rules={"ffn": "taylor"})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_layer_has_two_ways_back_into_the_stream(family: str) -> None:
    steps = FAMILIES[family].flow.layer
    assert len([s for s in steps if isinstance(s, Solve) and s.total]) == 2
