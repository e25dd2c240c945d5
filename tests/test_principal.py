"""A stream along principal directions: they hold most, and every map speaks them."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import torch

from headstart import principal
from headstart.checkpoint import load_encoder, save_model, weights_fingerprint
from headstart.encode import pack
from headstart.errors import HeadstartError
from headstart.flow import Tap, out_of
from headstart.principal import directions_of
from headstart.recipe import Refit
from headstart.refit import refit
from headstart.stream import after, settled
from headstart.student import make_student
from headstart.walk import Sample, looks_of
from test_refit import SMALL, distance, sample, small, text
from tiny import HEADS, VARIANTS, tiny_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from headstart.layout import Head
    from headstart.principal import Turn
    from headstart.student import Made

refits = sys.modules["headstart.refit"]  # headstart.refit is a function
OWN_KEYS = "deberta-v2/own keys of one width"
ASKED = Refit(directions="principal")
TURNED = (
    "bert",
    "xlm-roberta",
    "roberta",
    "camembert",
    "distilbert",
    "electra",
    "deberta-v2",
    OWN_KEYS,
)

Find = "Callable[[list[Tensor], int], Tensor]"


def covariances(channels: int = 12, streams: int = 3) -> list[Tensor]:
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    roots = [draw(channels, channels) for _ in range(streams)]
    found = [root @ root.T for root in roots]
    return [one / one.trace() for one in found]


def law_directions_hold_most_and_keep_the_mean(find: Find) -> None:
    mean, width = torch.stack(covariances()).mean(0), 5
    turn = find(covariances(), width)
    within = torch.eye(width).double() - 1 / width
    assert torch.allclose(turn.T @ turn, within, atol=1e-10)
    held = float((turn.T @ mean @ turn).trace())
    best = float(torch.linalg.eigvalsh(mean)[-(width - 1) :].sum())
    assert held == pytest.approx(best, rel=1e-9)
    assert torch.allclose(turn.sum(1), torch.zeros(12).double(), atol=1e-10)


def test_directions_hold_most_and_keep_the_mean() -> None:
    law_directions_hold_most_and_keep_the_mean(directions_of)


MISTAKES: dict[str, Find] = {
    "least": lambda c, k: directions_of([torch.eye(12).double() / 3 - one for one in c], k),
    "with the mean": lambda c, k: torch.linalg.eigh(torch.stack(c).mean(0))[1][:, -k:],
    "one stream": lambda c, k: directions_of(c[:1], k),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_law_of_directions_has_teeth(mistake: Find) -> None:
    with pytest.raises(AssertionError):
        law_directions_hold_most_and_keep_the_mean(mistake)


# --- every map gives on the directions what it gives on the channels ---


def law_maps_speak_the_directions(turn: Turn, directions: Tensor) -> None:
    """What lies in the directions is read alike, and written as the directions have it."""
    turned = directions.float()
    read = turned @ torch.randn(turned.shape[1], 7, generator=torch.Generator().manual_seed(2))
    seen = 0
    for entry in turn.entries:
        if entry.layer is None or len(entry.axes) != 2:
            continue
        path = entry.template.removesuffix(".weight")
        places = ((turn.student, entry.layer), (turn.teacher, turn.selection.layers[entry.layer]))
        new, old = (
            cast("nn.Linear", side.walk.modules[path.format(p=side.prefix, i=i)]).weight
            for side, i in places
        )
        if entry.axes[0] == "hidden":
            kept = turn.selection.keep(entry.axes[1], entry.layer, turn.sizes)
            expected = turned.T @ old[:, list(kept or range(old.shape[1]))]
            assert torch.allclose(new, expected, atol=1e-5)
        else:
            kept = turn.selection.keep(entry.axes[0], entry.layer, turn.sizes)
            expected = (old @ read)[list(kept or range(len(old)))]
            assert torch.allclose(new @ (turned.T @ read), expected, atol=1e-4)
        seen += 1
    assert seen >= 6 * len(turn.selection.layers)


def cut(variant: str, head: Head = "classification") -> tuple[PreTrainedModel, Made]:
    if variant != OWN_KEYS:
        return small(variant, head)
    teacher = tiny_model("deberta-v2/own keys", head, embedding_size=32, conv_kernel_size=0)
    return teacher, make_student(teacher, shape=SMALL)


def turned(variant: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Turn, Tensor]:
    """Stop a refit when the stream is turned and nothing is fitted yet."""
    found: list[tuple[Turn, Tensor]] = []
    make = principal.Turn.make

    def stop(self: Turn, batches: range) -> Tensor:
        found.append((self, make(self, batches)))
        raise InterruptedError

    monkeypatch.setattr(principal.Turn, "make", stop)
    teacher, made = cut(variant)
    with pytest.raises(InterruptedError):
        refit(made.model, teacher, made.selection, sample(), asked=ASKED)
    return found[0]


@pytest.mark.parametrize("variant", TURNED)
@torch.no_grad()
def test_maps_speak_the_directions(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law_maps_speak_the_directions(*turned(variant, monkeypatch))


@pytest.mark.parametrize("mistake", ["other directions", "another layer"])
@torch.no_grad()
def test_the_law_of_maps_has_teeth(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turn, directions = turned("bert", monkeypatch)
    if mistake == "other directions":
        directions = directions.flip(1)
    else:
        first, second = (turn.student.walk.modules[f"bert.encoder.layer.{i}.output.dense"]
                         for i in (0, 1))  # fmt: skip
        cast("nn.Linear", first).weight.copy_(cast("nn.Linear", second).weight)
    with pytest.raises(AssertionError):
        law_maps_speak_the_directions(turn, directions)


# --- the refit that follows ---


@pytest.mark.parametrize("head", ["classification", "tagging"])
@pytest.mark.parametrize("variant", TURNED)
def test_a_turned_student_is_refitted_toward_its_teacher(variant: str, head: Head) -> None:
    teacher, made = cut(variant, head)
    fitted = refit(made.model, teacher, made.selection, sample(head), asked=ASKED)
    assert all(one.after <= one.before + 1e-12 for one in fitted)
    assert all(one.held_out_after <= one.held_out_before for one in fitted)
    assert sum(one.ridge is not None for one in fitted) > len(fitted) / 2


def test_a_turned_student_is_nearer_than_a_copy() -> None:
    teacher, made = small("bert")
    copied = distance(made.model, teacher)
    refit(made.model, teacher, made.selection, sample(), asked=ASKED)
    assert distance(made.model, teacher) < copied


@pytest.mark.parametrize("count", [1, 7, 8, 40, 41])
def test_any_number_of_processes_in_any_order_looks_at_the_same_batches(count: int) -> None:
    encoded = text(examples=4 * count)
    fit = pack(encoded.lengths, np.arange(4 * count), tokens=40)
    packed = Sample(encoded, fit, fit[:1])
    alone = looks_of(packed, 0, 1)
    assert alone == [(2 * i + 1) * len(fit) // (2 * len(alone)) for i in range(len(alone))]
    assert len(set(alone)) == min(len(fit), 8)
    mixed = np.random.default_rng(0).permutation(len(fit))
    shuffled = Sample(encoded, [fit[i] for i in mixed], fit[:1])
    assert sorted(mixed[looks_of(shuffled, 0, 1)]) == alone
    for world in (2, 3):
        shared = [rank + world * i for rank in range(world) for i in looks_of(packed, rank, world)]
        assert sorted(shared) == alone


@torch.no_grad()
def test_a_bases_pooler_is_turned_and_a_fresh_head_is_not(tmp_path: Path) -> None:
    save_model(tiny_model("bert", "none"), None, tmp_path)
    teacher = tiny_model("bert", seed=1)
    made = make_student(teacher, base=str(tmp_path), shape=SMALL, source="base")
    head, copied = made.model.classifier.weight.clone(), made.model.bert.pooler.dense.weight.clone()
    base = load_encoder(str(tmp_path))
    found: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        make = principal.Turn.make
        patch.setattr(
            principal.Turn, "make", lambda self, b: found.append(make(self, b)) or found[0]
        )
        refit(made.model, base, made.selection, sample(), asked=ASKED)
    assert torch.equal(made.model.classifier.weight, head)
    rows = base.get_parameter("pooler.dense.weight")[list(made.selection.hidden)]
    assert torch.equal(copied, rows[:, list(made.selection.hidden)])
    assert torch.allclose(made.model.bert.pooler.dense.weight, rows @ found[0].float(), atol=1e-6)


def test_where_the_width_stays_nothing_is_turned() -> None:
    found: list[str] = []
    for asked in (Refit(), ASKED):
        teacher = tiny_model("bert")
        made = make_student(teacher, shape={"layers": 2})
        refit(made.model, teacher, made.selection, sample(), asked=asked)
        assert after(made.selection, asked) == made.selection
        found.append(weights_fingerprint(made.model))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("variant", "head"),
    [("modernbert", "classification"), ("bert", "mlm")]
    + [(name, "classification") for name in VARIANTS if "projected" in name],
)
def test_what_cannot_be_turned_is_refused(variant: str, head: Head) -> None:
    teacher, made = small(variant, head)
    before = weights_fingerprint(made.model)
    with pytest.raises(HeadstartError, match="principal directions are not possible"):
        refit(made.model, teacher, made.selection, sample(head), asked=ASKED)
    assert weights_fingerprint(made.model) == before


@pytest.mark.parametrize(("variant", "head"), [(v, h) for v in VARIANTS for h in HEADS])
def test_the_stream_is_turned_where_it_can_be(variant: str, head: Head) -> None:
    """Left to us, it is never one that is refused, and not against a rule that was named."""
    teacher, made = small(variant, head)
    chosen = settled(Refit(), made.model, made.selection)
    can = head != "mlm" and not variant.startswith("modernbert")
    can = can and variant not in ("electra/projected", "deberta-v2/own keys")
    assert chosen.directions == ("principal" if can else "kept")
    refit(made.model, teacher, made.selection, sample(head))
    for rules in ({"hidden": "first"}, {"hidden": "random"}):
        other = make_student(teacher, shape=SMALL, rules=rules)
        assert settled(Refit(), other.model, other.selection).directions == "kept"
    shallow = make_student(teacher, shape={"layers": 2})
    assert settled(Refit(), shallow.model, shallow.selection).directions == "kept"


def test_a_turned_student_says_so_and_is_not_refitted_again() -> None:
    teacher, made = small("bert")
    refit(made.model, teacher, made.selection, sample(), asked=ASKED)
    told = after(made.selection, ASKED)
    assert told.rules["hidden"] == "principal"
    with pytest.raises(HeadstartError, match="along principal directions already"):
        refit(made.model, teacher, told, sample())


# --- nothing is lost where nothing is left out ---


@torch.no_grad()
def lean(kept: Sequence[int], neurons: Sequence[int], directions: int) -> PreTrainedModel:
    """Give a teacher whose stream lies in few directions, and of whose units only some are read."""
    teacher = tiny_model("bert")
    draw = torch.randn(32, directions + 1, generator=torch.Generator().manual_seed(3))
    draw[:, 0] = 1.0  # what a norm takes away is none of them
    span = torch.linalg.qr(draw)[0][:, 1:]
    within = span @ span.T
    for name, module in teacher.bert.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.weight.fill_(0.7)
            module.bias.zero_()
        elif isinstance(module, torch.nn.Embedding):
            module.weight.copy_(module.weight @ within)
        elif name.endswith("output.dense"):
            units = neurons if module.in_features == 64 else kept
            read = torch.zeros(module.in_features)
            read[list(units)] = 1.0
            module.weight.copy_(within @ module.weight * read)
            module.bias.copy_(within @ module.bias)
    return teacher


def law_few_directions_are_enough(error: float) -> None:
    """A stream that lies in one direction less than the student has channels is kept whole."""
    kept = make_student(tiny_model("bert"), shape={"hidden": 16}).selection
    teacher = lean(kept.attention[0], kept.ffn[0], 15)
    made = make_student(teacher, shape={"hidden": 16})
    copied = distance(made.model, teacher)
    refit(made.model, teacher, made.selection, sample(), asked=ASKED)
    assert distance(made.model, teacher) < error * copied


def test_few_directions_are_enough() -> None:
    law_few_directions_are_enough(0.005)


def test_the_law_of_few_directions_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees a target that is what a norm makes of the sum, not the sum."""
    job = refits._Refit
    theirs = job._theirs

    def normalized(self: Any, aim: Tap, *more: Any, on_stream: bool) -> Any:
        is_sum = on_stream and aim.side == "input"
        return theirs(self, out_of(aim.path) if is_sum else aim, *more, on_stream=on_stream)

    monkeypatch.setattr(job, "_theirs", normalized)
    with pytest.raises(AssertionError):
        law_few_directions_are_enough(0.005)
