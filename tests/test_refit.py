"""Refit: exact where nothing is broken, never worse on what it saw, the same in any order."""

from __future__ import annotations

import gc
import itertools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart import sides
from headstart.checkpoint import load_encoder, save_model, weights_fingerprint
from headstart.encode import Encoded, collate
from headstart.errors import HeadstartError
from headstart.families import FAMILIES
from headstart.flow import Rescale, Solve, Tap, into, out_of
from headstart.places import Place
from headstart.recipe import Refit
from headstart.refit import refit
from headstart.ridge import Sums, best_change
from headstart.sides import Scratch, Side
from headstart.student import Made, make_selected, make_student
from headstart.walk import Sample, Walk
from test_laws import EVERY, reordered, selection_of
from tiny import VARIANTS, VOCABULARY, tiny_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from transformers import PreTrainedModel

    from headstart.layout import Family, Head
    from headstart.ridge import Fitted
    from headstart.selection import Selection

refits = sys.modules["headstart.refit"]  # headstart.refit is a function
BF16 = 4e-3  # of a variance; a value is rounded by a 256th at most
SMALL = {"layers": 2, "hidden": 16, "ffn": 20}


def text(head: Head = "classification", examples: int = 48, seed: int = 0) -> Encoded:
    """Draw texts of random pieces."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 12, examples)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    none = np.zeros(examples, np.int64)
    return Encoded(
        task="tagging" if head == "tagging" else "classification",
        pad_id=1,
        ids=rng.integers(4, VOCABULARY, starts[-1]).astype(np.int32),
        starts=starts,
        positions=none + (head == "tagging"),
        unit_starts=np.arange(examples + 1),
        gold=none,
        unit_words=np.arange(examples),
        words=none,
        word_starts=np.arange(examples + 1),
        language_ids=none,
        languages=("xx",),
    )


def sample(head: Head = "classification") -> Sample:
    batches = np.split(np.arange(48), 6)
    return Sample(text(head), batches[:4], batches[4:])


def small(variant: str, head: Head = "classification") -> tuple[PreTrainedModel, Made]:
    teacher = tiny_model(variant, head)
    return teacher, make_student(teacher, shape=SMALL)


# --- the walk reads what a whole forward pass gives ---


def law_a_walk_reads_what_a_forward_pass_gives(model: PreTrainedModel, family: Family) -> None:
    batch = collate(text(), np.arange(8))
    prefix = family.prefix
    paths = [family.flow.block.format(p=prefix, i=i) for i in range(4)]
    walk = Walk(model, paths)
    taps = [out_of(path) for path in paths]
    whole = {tap: walk.read(batch.inputs, (tap,))[tap][0] for tap in taps}
    side = Side(walk, "classification", prefix, [batch])
    for layer, tap in enumerate(taps):
        found = side.read(0, (tap,), stop=layer)[tap][0]
        assert torch.equal(found, whole[tap])
        side.advance(layer)
        assert torch.equal(side.states[0], whole[tap])
    with torch.no_grad():
        logits = model(**batch.inputs).logits
    last = Tap("classifier.out_proj" if "classifier.out_proj" in walk.modules else "classifier",
               "output")  # fmt: skip
    assert torch.equal(side.read(0, (last,), stop=None)[last][0], logits)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_walk_reads_what_a_forward_pass_gives(variant: str) -> None:
    family = FAMILIES[variant.split("/")[0]]
    law_a_walk_reads_what_a_forward_pass_gives(tiny_model(variant), family)


def test_the_law_of_walks_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    advance = Walk.advance

    def late(self: Walk, *args: object, start: int, **more: object) -> object:
        return advance(self, *args, start=max(start - 1, 0), **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Walk, "advance", late)
    with pytest.raises(AssertionError):
        law_a_walk_reads_what_a_forward_pass_gives(tiny_model("bert"), FAMILIES["bert"])


# --- nothing broken, nothing changed ---


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_a_full_size_copy_is_left_as_it_is(variant: str, head: Head) -> None:
    teacher = tiny_model(variant, head)
    made = make_student(teacher)
    before = weights_fingerprint(made.model)
    fitted = refit(made.model, teacher, made.selection, sample(head))
    assert weights_fingerprint(made.model) == before
    rounding = max(max(one.before, one.held_out_before) for one in fitted)
    assert rounding < 1e-5


@pytest.mark.parametrize("variant", ["bert", "deberta-v2", "distilbert", "electra", "modernbert"])
def test_in_bfloat16_a_full_size_copy_changes_by_rounding(variant: str) -> None:
    teacher = tiny_model(variant)
    rounding: list[float] = []
    for bf16 in (False, True):
        made = make_student(teacher)
        fitted = refit(made.model, teacher, made.selection, sample(), bf16=bf16)
        rounding.append(max(max(one.before, one.held_out_before) for one in fitted))
    assert rounding[0] < rounding[1] < BF16
    batch = collate(text(seed=9), np.arange(48))
    with torch.no_grad():
        logits = teacher(**batch.inputs).logits
    assert distance(made.model, teacher) < BF16 * float(logits.var())


def law_a_reordered_copy_is_left_as_it_is(
    variant: str, head: Head, told: Callable[[Selection], Selection] = lambda chosen: chosen
) -> None:
    rotary = variant.startswith("modernbert")
    teacher = tiny_model(variant, head).double()
    chosen = reordered(selection_of(teacher), inside_heads=not rotary)
    student = make_selected(teacher, chosen).model.double()
    before = {name: weight.clone() for name, weight in student.named_parameters()}
    refit(student, teacher, told(chosen), sample(head))
    moved = max(float((p - before[n]).detach().abs().max()) for n, p in student.named_parameters())
    assert moved < (1e-3 if rotary else 1e-6)


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_a_reordered_copy_is_left_as_it_is(variant: str, head: Head) -> None:
    law_a_reordered_copy_is_left_as_it_is(variant, head)


MISTAKES: Mapping[str, Callable[[Selection], Selection]] = {
    "hidden": lambda s: replace(s, hidden=s.hidden[::-1]),
    "attention": lambda s: replace(s, attention=tuple(row[::-1] for row in s.attention)),
    "ffn": lambda s: replace(s, ffn=s.ffn[::-1]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("variant", ["bert", "deberta-v2", "modernbert"])
def test_the_law_of_reordered_copies_has_teeth(variant: str, mistake: str) -> None:
    with pytest.raises(AssertionError):
        law_a_reordered_copy_is_left_as_it_is(variant, "classification", MISTAKES[mistake])


# --- never worse on what it saw, better on what it did not ---


def errors(fitted: Sequence[Fitted]) -> list[tuple[float, float]]:
    return [(one.before, one.after) for one in fitted]


def law_no_map_is_made_worse(variant: str, head: Head) -> None:
    teacher, made = small(variant, head)
    fitted = refit(made.model, teacher, made.selection, sample(head))
    assert all(one.after <= one.before + 1e-12 for one in fitted)
    assert all(one.held_out_after <= one.held_out_before for one in fitted)
    assert sum(one.ridge is not None for one in fitted) > len(fitted) / 2
    names = [one.name for one in fitted]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("variant", "head"), EVERY)
def test_no_map_is_made_worse(variant: str, head: Head) -> None:
    law_no_map_is_made_worse(variant, head)


def test_the_law_of_no_worse_maps_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: each change has the wrong sign."""

    def backward(name: str, fit: Any, held_out: Any, ridges: Sequence[float]) -> Any:
        change, told = best_change(name, fit, held_out, ridges)
        if change is None:
            return None, told
        after, held_out_after = (sums.unexplained(-change) for sums in (fit, held_out))
        return -change, replace(told, after=after, held_out_after=held_out_after)

    monkeypatch.setattr("headstart.places.best_change", backward)
    with pytest.raises(AssertionError):
        law_no_map_is_made_worse("bert", "classification")


def apart(
    made: Made, teacher: PreTrainedModel, variant: str, batches: Sequence[Any]
) -> list[float]:
    """After each layer, the share of the teacher's variance that a real forward pass leaves."""
    path = FAMILIES[variant.split("/")[0]].flow.block
    prefix = FAMILIES[variant.split("/")[0]].prefix
    found: list[float] = []
    for ours, theirs in enumerate(made.selection.layers):
        rows: list[list[torch.Tensor]] = [[], []]
        for index in batches:
            batch = collate(text(), index)
            mask = batch.inputs["attention_mask"].bool()
            for i, (model, layer) in enumerate(((made.model, ours), (teacher, theirs))):
                tap = out_of(path.format(p=prefix, i=layer))
                rows[i].append(Walk(model, []).read(batch.inputs, [tap])[tap][0][mask].double())
        x, y = (torch.cat(some) for some in rows)
        y = y[:, list(made.selection.hidden)]
        found.append(float((x - y).square().sum() / (y - y.mean(0)).square().sum()))
    return found


def law_a_forward_pass_says_what_the_record_says(
    variant: str, told: Callable[[Made], None], *, merge: bool = False
) -> None:
    teacher = tiny_model(variant)
    made = make_student(teacher, shape=SMALL, rules={"merge": merge})
    seen = sample()
    copied = apart(small(variant)[1], teacher, variant, seen.fit)
    fitted = refit(made.model, teacher, made.selection, seen, asked=Refit(directions="kept"))
    told(made)
    after = apart(made, teacher, variant, seen.fit)
    assert all(x <= y for x, y in zip(after, copied, strict=True))
    names = {one.name: one for one in fitted}
    ends = [one for name, one in names.items() if re.search(r"\.\d+\.(output\.|output_)", name)]
    last = [one for one in ends if "LayerNorm" in one.name or "layer_norm" in one.name]
    assert len(last) == (0 if variant.startswith("modernbert") else 2)
    if last:  # of families whose layer ends with a norm
        held_out = apart(made, teacher, variant, seen.held_out)
        assert after == pytest.approx([one.after for one in last], rel=1e-4)
        assert held_out == pytest.approx([one.held_out_after for one in last], rel=1e-4)


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_after_every_layer_the_stream_is_nearer_than_the_copied_one(
    variant: str, merge: bool
) -> None:
    law_a_forward_pass_says_what_the_record_says(variant, lambda _: None, merge=merge)


def law_a_forward_pass_says_what_a_map_leaves() -> None:
    """Of queries, and of a sum that a map is added to: their errors are taken from the sums."""
    teacher, made = small("bert")
    chosen, seen = made.selection, sample()
    fitted = refit(made.model, teacher, chosen, seen, asked=Refit(directions="kept"))
    told = {one.name: one for one in fitted}
    at = "bert.encoder.layer.{}.attention."
    sizes = {"hidden": 32, "attention": 32, "ffn": 64}
    for path, tap, kept in (
        ("self.query", out_of(f"{at}self.query"), chosen.keep("attention", 1, sizes)),
        ("output.dense", into(f"{at}output.LayerNorm"), chosen.hidden),
    ):
        for batches, share in ((seen.fit, "after"), (seen.held_out, "held_out_after")):
            rows: list[list[torch.Tensor]] = [[], []]
            for index in batches:
                batch = collate(text(), index)
                mask = batch.inputs["attention_mask"].bool()
                for i, (model, layer) in enumerate(((made.model, 1), (teacher, chosen.layers[1]))):
                    here = Tap(tap.path.format(layer), tap.side)
                    found = Walk(model, []).read(batch.inputs, [here])[here][0]
                    rows[i].append(found[mask].double())
            x, y = (torch.cat(some) for some in rows)
            y = y[:, list(kept or range(y.shape[1]))]
            left = float((x - y).square().sum() / (y - y.mean(0)).square().sum())
            assert left == pytest.approx(getattr(told[at.format(1) + path], share), rel=1e-3)


def test_a_forward_pass_says_what_a_map_leaves() -> None:
    law_a_forward_pass_says_what_a_map_leaves()


def test_the_law_of_what_maps_leave_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what a map gives is not taken off."""
    monkeypatch.setattr(Sums, "less", lambda _sums, _given: None)
    with pytest.raises(AssertionError):
        law_a_forward_pass_says_what_a_map_leaves()


@pytest.mark.parametrize("mistake", ["a map", "a bias", "a norm"])
def test_the_law_of_nearer_streams_has_teeth(mistake: str) -> None:
    def spoil(made: Made) -> None:
        layer = made.model.bert.encoder.layer[0]
        with torch.no_grad():
            if mistake == "a map":
                layer.output.dense.weight.mul_(0.5)
            elif mistake == "a bias":
                layer.intermediate.dense.bias.add_(0.1)
            else:
                layer.output.LayerNorm.weight.mul_(1.1)

    with pytest.raises(AssertionError):
        law_a_forward_pass_says_what_the_record_says("bert", spoil)


def distance(student: PreTrainedModel, teacher: PreTrainedModel) -> float:
    """Mean squared error of the logits, on text that no refit has seen."""
    batch = collate(text(seed=9), np.arange(48))
    with torch.no_grad():
        ours, theirs = (model(**batch.inputs).logits for model in (student, teacher))
    return float(((ours - theirs) ** 2).mean())


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_refitted_student_is_nearer_to_its_teacher(variant: str) -> None:
    teacher, made = small(variant)
    copied = distance(made.model, teacher)
    refit(made.model, teacher, made.selection, sample())
    assert distance(made.model, teacher) < copied


def linear_maps(family: Family) -> set[str]:
    """List a layer's matrices, but for those of relative positions, which no token goes through."""
    names = [weight.name for weight in family.layer if len(weight.axes) == 2]
    return {name.removesuffix(".weight") for name in names if ".pos_" not in name}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_map_of_a_layer_is_refitted(family: str) -> None:
    steps = FAMILIES[family].flow.layer
    assert {path for s in steps if isinstance(s, Solve) for path in s.maps} == linear_maps(
        FAMILIES[family]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_norm_after_a_sum_is_refitted(family: str) -> None:
    flow = FAMILIES[family].flow
    sums = {s.total.path for s in flow.layer if isinstance(s, Solve) and s.total}
    norms = {s.norm for s in flow.layer if isinstance(s, Rescale)}
    assert norms == (set() if family == "modernbert" else sums)


# --- the same, whatever the order and the mode ---


def weights_after(variant: str, seen: Sample, *, training: bool = False) -> list[torch.Tensor]:
    teacher, made = small(variant)
    made.model.train(training)
    refit(made.model, teacher, made.selection, seen)
    assert not made.model.training
    return [weight.detach() for weight in made.model.parameters()]


def test_what_stays_on_an_accelerator_is_what_a_file_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Activations kept as tensors, all or every other, give the bits of those on disk."""
    plain = weights_after("bert", sample())
    turns = itertools.cycle([True, False])
    for has_room in (lambda _: True, lambda _: next(turns)):
        monkeypatch.setattr(sides, "has_room", has_room)
        kept = weights_after("bert", sample())
        assert all(torch.equal(a, b) for a, b in zip(plain, kept, strict=True))


Keep = Callable[[Side, str, Sequence[str], Scratch], None]


def law_memory_does_not_grow_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step's batches were read, ten times the text has left no more tensors behind."""
    found: list[int] = []
    settle = Place.settle

    def counting(place: Place, *rest: Any) -> Fitted:
        gc.collect()
        tensors = [one for one in gc.get_objects() if type(one) in (torch.Tensor, nn.Parameter)]
        storages = {one.untyped_storage().data_ptr(): one.untyped_storage() for one in tensors}
        found[-1] = max(found[-1], sum(one.nbytes() for one in storages.values()))
        return settle(place, *rest)

    monkeypatch.setattr(Place, "settle", counting)
    for examples in (48, 480):
        teacher, made = small("bert")
        batches = np.split(np.arange(examples), examples // 8)
        seen = Sample(text(examples=examples), batches[2:], batches[:2])
        gc.collect()
        found.append(0)
        refit(made.model, teacher, made.selection, seen)
    assert found[1] < found[0] + 100_000, found


def test_memory_does_not_grow_with_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    law_memory_does_not_grow_with_the_text(monkeypatch)


def test_the_law_of_memory_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "has_room", lambda _: True)  # activations are held
    with pytest.raises(AssertionError):
        law_memory_does_not_grow_with_the_text(monkeypatch)


def law_what_is_kept_is_what_would_be_computed(variant: str, keep: Keep = Side.keep) -> None:
    """Not running settled maps again changes no bit, and is done for each that leads into one."""
    kept: list[str] = []

    def counted(side: Side, path: str, idle: Sequence[str], tensors: Scratch) -> None:
        kept.append(path)
        keep(side, path, idle, tensors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Side, "keep", lambda *_: None)
        whole = weights_after(variant, sample())
        patch.setattr(Side, "keep", counted)
        pairs = zip(weights_after(variant, sample()), whole, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    norms = sum(isinstance(step, Rescale) for step in FAMILIES[variant.split("/")[0]].flow.layer)
    assert len(kept) == len(set(kept)) == (2 + norms) * SMALL["layers"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_kept_is_what_would_be_computed(variant: str) -> None:
    law_what_is_kept_is_what_would_be_computed(variant)


def test_the_law_of_what_is_kept_has_teeth() -> None:
    plainly = Side.keep

    def of_another_text(side: Side, path: str, idle: Sequence[str], tensors: Scratch) -> None:
        tensors[0] = tensors[0].flip(0)
        plainly(side, path, idle, tensors)

    def idle_itself(side: Side, path: str, _idle: Sequence[str], tensors: Scratch) -> None:
        plainly(side, path, [path], tensors)

    for mistake in (of_another_text, idle_itself):
        with pytest.raises(AssertionError):
            law_what_is_kept_is_what_would_be_computed("bert", mistake)


def law_each_map_of_a_layer_runs_once(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once solved for; what it gave before follows from the sums."""
    teacher, made = small(variant)
    runs: dict[int, int] = {}
    plainly = torch.nn.Linear.forward

    def counted(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
        runs[id(module)] = runs.get(id(module), 0) + 1
        return plainly(module, x)

    monkeypatch.setattr(torch.nn.Linear, "forward", counted)
    refit(made.model, teacher, made.selection, sample())
    flow, prefix = FAMILIES[variant].flow, FAMILIES[variant].prefix
    paths = [p for step in flow.layer if isinstance(step, Solve) for p in step.maps]
    modules = dict(made.model.named_modules())
    found = {p: runs[id(modules[p.format(p=prefix, i=j)])] for j in range(2) for p in paths}
    assert set(found.values()) == {len(sample().batches)}, found


@pytest.mark.parametrize("variant", ["bert", "distilbert", "electra"])
def test_each_map_of_a_layer_runs_once(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law_each_map_of_a_layer_runs_once(variant, monkeypatch)


def test_the_law_of_single_runs_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: maps that are solved for are run."""
    plainly = Side.read
    monkeypatch.setattr(Side, "read", lambda *a, **more: plainly(*a, **more | {"idle": ()}))
    with pytest.raises(AssertionError):
        law_each_map_of_a_layer_runs_once("bert", monkeypatch)


def law_the_order_of_batches_changes_nothing(variant: str, directions: str = "kept") -> None:
    """In double precision, 20 batches in any order give the weights of any other."""
    encoded = text(examples=120)
    batches = np.split(np.random.default_rng(1).permutation(120), 24)

    def fitted(order: Sequence[int]) -> list[torch.Tensor]:
        teacher, made = small(variant)
        seen = Sample(encoded, [batches[i] for i in order], batches[20:])
        asked = Refit(directions=directions)
        refit(made.model.double(), teacher.double(), made.selection, seen, asked=asked)
        return [weight.detach() for weight in made.model.parameters()]

    mixed = np.random.default_rng(2).permutation(20).tolist()
    for a, b in zip(fitted(range(20)), fitted(mixed), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-7), (a - b).abs().max()


@pytest.mark.parametrize(
    ("variant", "directions"),
    [
        ("bert", "kept"),
        ("bert", "principal"),
        ("deberta-v2", "kept"),
        ("deberta-v2", "principal"),
        ("modernbert", "kept"),  # its stream cannot be turned
    ],
)
def test_the_order_of_batches_changes_nothing(variant: str, directions: str) -> None:
    law_the_order_of_batches_changes_nothing(variant, directions)


def test_the_law_of_the_order_of_batches_sees_where_directions_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted: the first eight batches show them."""
    monkeypatch.setattr(refits, "looks_of", lambda *_: list(range(8)))
    with pytest.raises(AssertionError):
        law_the_order_of_batches_changes_nothing("bert", "principal")


def test_the_law_of_the_order_of_batches_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: sums forget the batches before the last."""
    add = Sums.add

    def forgetful(self: Sums, *rows: torch.Tensor) -> None:
        for name in ("rows", "xx", "xe", "ee", "t", "tt"):
            getattr(self, name).zero_()
        add(self, *rows)

    monkeypatch.setattr(Sums, "add", forgetful)
    with pytest.raises(AssertionError):
        law_the_order_of_batches_changes_nothing("bert")


def test_a_student_in_training_mode_is_refitted_without_dropout() -> None:
    pairs = zip(
        weights_after("bert", sample()), weights_after("bert", sample(), training=True), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("variant", ["bert", "deberta-v2", "modernbert"])
def test_bfloat16_gives_nearly_the_same(variant: str) -> None:
    found: list[float] = []
    for bf16 in (False, True):
        teacher, made = small(variant)
        refit(made.model, teacher, made.selection, sample(), bf16=bf16)
        found.append(distance(made.model, teacher))
    teacher, made = small(variant)
    copied = distance(made.model, teacher)
    assert abs(found[1] - found[0]) < 0.1 * (copied - found[0])


def test_a_base_is_the_aim_of_its_copy_and_leaves_the_head_alone(tmp_path: Path) -> None:
    base = tiny_model("bert", "none")
    save_model(base, None, tmp_path)
    teacher = tiny_model("bert", seed=1)
    made = make_student(teacher, base=str(tmp_path), shape=SMALL, source="base")
    head = made.model.classifier.weight.clone()
    fitted = refit(made.model, load_encoder(str(tmp_path)), made.selection, sample())
    assert torch.equal(made.model.classifier.weight, head)
    assert not any("pooler" in one.name or "classifier" in one.name for one in fitted)
    assert any(one.ridge is not None for one in fitted)


def test_layers_in_another_order_are_refused() -> None:
    teacher = tiny_model("bert")
    whole = selection_of(teacher)
    chosen = replace(whole, layers=(2, 1), attention=whole.attention[:2], ffn=whole.ffn[:2])
    made = make_selected(teacher, chosen)
    with pytest.raises(HeadstartError, match="not in the teacher's order"):
        refit(made.model, teacher, made.selection, sample())


# --- merged layers ---


def law_units_of_other_layers_are_met(
    variant: str, told: Callable[[Selection], Selection] = lambda chosen: chosen
) -> None:
    """Heads of the first layer, in a student's that stands for two, read what they read there."""
    teacher = tiny_model(variant)
    plain = make_student(teacher, shape={"layers": 2}).selection
    width = len(plain.hidden)
    chosen = replace(plain, attention_of=((0,) * width, (2,) * width))
    made = make_selected(teacher, chosen)
    fitted = refit(made.model, teacher, told(chosen), sample())
    step = FAMILIES[variant].flow.layer[0]
    queries = step.maps if isinstance(step, Solve) else ()
    first = [f for f in fitted if f.name in {p.format(p=teacher.base_model_prefix + ".", i=0)
                                             for p in queries}]  # fmt: skip
    assert len(first) == len(queries)
    assert max(one.before for one in first) < 1e-6


@pytest.mark.parametrize("variant", ["bert", "deberta-v2", "distilbert"])
def test_units_of_other_layers_are_met(variant: str) -> None:
    law_units_of_other_layers_are_met(variant)


def test_the_law_of_other_layers_has_teeth() -> None:
    with pytest.raises(AssertionError):
        law_units_of_other_layers_are_met("bert", lambda chosen: replace(chosen, attention_of=()))


@pytest.mark.parametrize(
    ("variant", "directions"),
    [("bert", "kept"), ("bert", "principal"), ("modernbert", "kept"), ("deberta-v2", "kept")],
)
def test_merged_layers_are_refitted(variant: str, directions: Any) -> None:
    teacher = tiny_model(variant)
    shape = {"layers": 2, "hidden": 16}
    made = make_student(teacher, shape=shape, rules={"merge": True})
    assert made.selection.ffn_of
    copied = distance(made.model, teacher)
    refit(made.model, teacher, made.selection, sample(), asked=Refit(directions=directions))
    assert distance(made.model, teacher) < copied


def test_units_of_a_layer_that_is_not_stood_for_are_refused() -> None:
    teacher = tiny_model("bert")
    plain = make_student(teacher, shape={"layers": 2}).selection
    width = len(plain.hidden)
    chosen = replace(plain, attention_of=((3,) * width, (2,) * width))
    with pytest.raises(
        HeadstartError, match=r"layer 0 takes from layers \[1, 3\] .* stands for 0 to 1"
    ):
        refit(make_selected(teacher, chosen).model, teacher, chosen, sample())
