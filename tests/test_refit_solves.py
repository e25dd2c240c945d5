"""A refitted map is the direct ridge solution, from activations of the finished student."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from headstart.encode import collate
from headstart.flow import into, out_of
from headstart.places import Place
from headstart.recipe import Refit
from headstart.refit import refit
from headstart.walk import Sample, Walk
from test_refit import sample, small, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from headstart.encode import Encoded
    from headstart.flow import Tap

RIDGE = 1e-2
LAYER = 1  # of the student


def rows_of(model: PreTrainedModel, tap: Tap, seen: Sample) -> Tensor:
    """Read what stands there in a forward pass, of the pieces that are fitted to."""
    found: list[Tensor] = []
    for index in seen.fit:
        batch = collate(seen.encoded, index)
        (here,) = Walk(model, []).read(batch.inputs, [tap])[tap]
        found.append(here[batch.inputs["attention_mask"].bool()])
    return torch.cat(found)


def solved(x: Tensor, lacking: Tensor, ridge: float) -> Tensor:
    """Least squares with as many rows more as there are inputs: they weigh the change alone."""
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    weight = float(x.square().sum(0).mean()) * ridge
    more = weight**0.5 * torch.eye(x.shape[1], x.shape[1] + 1, dtype=x.dtype)
    none = torch.zeros(x.shape[1], lacking.shape[1], dtype=x.dtype)
    return torch.linalg.lstsq(torch.cat([ones, more]), torch.cat([lacking, none])).solution


def law_a_map_is_the_direct_solution(path: str, aim: str, ridge: float = RIDGE) -> None:
    """Of a map alone (its target is what the teacher's gives), or in a sum before a norm."""
    teacher, made = small("bert")
    copied = small("bert")[1].model.double().get_submodule(path)
    student, seen = made.model.double(), sample()
    asked = Refit(directions="kept", ridge=RIDGE)
    refit(student, teacher.double(), made.selection, seen, asked=asked)
    (there,) = made.selection.layers[LAYER : LAYER + 1]
    in_sum = aim != path
    theirs = (into if in_sum else out_of)(aim.replace(f".{LAYER}.", f".{there}."))
    axis = "hidden" if in_sum else "ffn" if "intermediate" in path else "attention"
    sizes = {"hidden": 32, "attention": 32, "ffn": 64}
    kept = torch.tensor(made.selection.keep(axis, LAYER, sizes))
    x, target = rows_of(student, into(path), seen), rows_of(teacher, theirs, seen)[:, kept]
    now = rows_of(student, into(aim) if in_sum else out_of(path), seen)
    fitted = student.get_submodule(path)
    change = torch.cat([(fitted.weight - copied.weight).T, (fitted.bias - copied.bias)[None]])
    ones = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    before = now - ones @ change  # what the copied map gave, given all that is fitted before it
    expected = solved(x, target - before, ridge)
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-8)
    assert float(change.detach().abs().max()) > 1e-3


MAPS = [
    (f"bert.encoder.layer.{LAYER}.attention.self.query",) * 2,
    (f"bert.encoder.layer.{LAYER}.attention.self.key",) * 2,
    (f"bert.encoder.layer.{LAYER}.attention.self.value",) * 2,
    (f"bert.encoder.layer.{LAYER}.intermediate.dense",) * 2,
    (
        f"bert.encoder.layer.{LAYER}.attention.output.dense",
        f"bert.encoder.layer.{LAYER}.attention.output.LayerNorm",
    ),
    (
        f"bert.encoder.layer.{LAYER}.output.dense",
        f"bert.encoder.layer.{LAYER}.output.LayerNorm",
    ),
]


@pytest.mark.parametrize(("path", "aim"), MAPS)
def test_a_map_is_the_direct_solution(path: str, aim: str) -> None:
    law_a_map_is_the_direct_solution(path, aim)


@pytest.mark.parametrize(("path", "aim"), MAPS)
def test_the_law_of_solutions_has_teeth(path: str, aim: str) -> None:
    """Planted: another ridge."""
    with pytest.raises(AssertionError):
        law_a_map_is_the_direct_solution(path, aim, 1.1 * RIDGE)


# --- a tagger's head is fitted to its words, not to all pieces ---


def words(examples: int = 48) -> Encoded:
    """Texts whose second and fourth pieces begin words."""
    plain = text("tagging", examples)
    units = np.arange(2 * examples)
    return replace(
        plain,
        positions=np.tile([1, 3], examples),
        unit_starts=2 * np.arange(examples + 1),
        gold=0 * units,
        unit_words=units,
        words=0 * units,
        word_starts=2 * np.arange(examples + 1),
    )


def law_a_taggers_head_is_fitted_to_words() -> None:
    teacher, made = small("bert", "tagging")
    copied = small("bert", "tagging")[1].model.double().classifier
    batches = np.split(np.arange(48), 6)
    seen = Sample(words(), batches[:4], batches[4:])
    student = made.model.double()
    asked = Refit(directions="kept", ridge=RIDGE)
    refit(student, teacher.double(), made.selection, seen, asked=asked)
    at = into("classifier")
    inputs: list[Sequence[Tensor]] = []
    for index in seen.fit:
        batch = collate(seen.encoded, index)
        inputs.append([Walk(m, []).read(batch.inputs, [at])[at][0][:, [1, 3]].flatten(0, 1)
                       for m in (student, teacher)])  # fmt: skip
    x, theirs = (torch.cat(some) for some in zip(*inputs, strict=True))
    with torch.no_grad():
        expected = solved(x, teacher.classifier(theirs) - copied(x), RIDGE)
        ours: Any = student.classifier
        change = torch.cat([(ours.weight - copied.weight).T, (ours.bias - copied.bias)[None]])
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-8)


def test_a_taggers_head_is_fitted_to_words() -> None:
    law_a_taggers_head_is_fitted_to_words()


def test_the_law_of_words_has_teeth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: all pieces count."""
    made = Place.__init__

    def of_all_pieces(self: Place, *args: Any, **more: Any) -> None:
        made(self, *args, **more | {"units": False})

    monkeypatch.setattr(Place, "__init__", of_all_pieces)
    with pytest.raises(AssertionError):
        law_a_taggers_head_is_fitted_to_words()
