"""The teacher's answers on disk: equal to live ones, found again, and never stale."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from headstart.checkpoint import weights_fingerprint
from headstart.encode import Encoded, collate, unit_logits
from headstart.errors import HeadstartError
from headstart.teacher import Pass, pieces_fingerprint, teacher_pass
from test_encode import tagged, texts
from tiny import VARIANTS, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedModel


def ask(model: PreTrainedModel, encoded: Encoded, folder: Path) -> Pass:
    weights = weights_fingerprint(model)
    return teacher_pass(model, encoded, folder, weights=weights, accelerator=Accelerator(cpu=True))


def law_kept_equals_live(done: Pass, model: PreTrainedModel, encoded: Encoded) -> None:
    for i in range(len(encoded)):
        batch = collate(encoded, np.array([i]))
        with torch.no_grad():
            live = unit_logits(model(**batch.inputs).logits, batch).numpy()
        np.testing.assert_allclose(done.logits[batch.units], live, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("make", [texts, tagged])
def test_kept_answers_equal_live_ones(
    make: Callable[[], Encoded], variant: str, tmp_path: Path
) -> None:
    encoded = make()
    model = tiny_model(variant, encoded.task)
    law_kept_equals_live(ask(model, encoded, tmp_path), model, encoded)


def test_answers_in_train_mode_are_found_out(tmp_path: Path) -> None:
    """The planted mistake: dropout left on while the teacher answers."""
    encoded, model = texts(), tiny_model("bert", "classification")
    model.eval = lambda: model  # type: ignore[method-assign]
    done = ask(model.train(), encoded, tmp_path)
    del model.eval
    with pytest.raises(AssertionError):
        law_kept_equals_live(done, model.eval(), encoded)


def test_a_second_arm_pays_nothing(tmp_path: Path) -> None:
    encoded, model = texts(), tiny_model("bert", "classification")
    first, second = ask(model, encoded, tmp_path), ask(model, encoded, tmp_path)
    assert first.seconds > 0
    assert second.seconds == 0
    assert np.array_equal(first.logits, second.logits)


def test_another_teacher_or_text_is_asked_anew(tmp_path: Path) -> None:
    encoded = texts()
    ask(tiny_model("bert", "classification"), encoded, tmp_path)
    ask(tiny_model("bert", "classification", seed=1), encoded, tmp_path)
    ask(tiny_model("bert", "classification"), texts(max_length=5), tmp_path)
    assert len(list(tmp_path.glob("*/meta.json"))) == 3


def test_the_key_sees_every_piece() -> None:
    encoded = texts()
    ids = encoded.ids.copy()
    ids[-2] += 1
    assert pieces_fingerprint(replace(encoded, ids=ids)) != pieces_fingerprint(encoded)
    assert pieces_fingerprint(texts()) == pieces_fingerprint(encoded)


def _folder(tmp_path: Path) -> tuple[PreTrainedModel, Encoded, Path]:
    encoded, model = texts(), tiny_model("bert", "classification")
    ask(model, encoded, tmp_path)
    (folder,) = (entry for entry in tmp_path.iterdir() if entry.is_dir())
    return model, encoded, folder


def test_a_stale_cache_is_refused(tmp_path: Path) -> None:
    model, encoded, folder = _folder(tmp_path)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"weights": "of another teacher"}))
    with pytest.raises(HeadstartError, match="stale teacher cache: it was made with other weights"):
        ask(model, encoded, tmp_path)


def test_a_cut_cache_is_refused(tmp_path: Path) -> None:
    model, encoded, folder = _folder(tmp_path)
    data = (folder / "logits.npy").read_bytes()
    (folder / "logits.npy").write_bytes(data[:-8])
    with pytest.raises(HeadstartError, match="stale teacher cache: it cannot be read"):
        ask(model, encoded, tmp_path)


def test_a_cache_of_another_shape_is_refused(tmp_path: Path) -> None:
    model, encoded, folder = _folder(tmp_path)
    np.save(folder / "logits.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(HeadstartError, match="has shape"):
        ask(model, encoded, tmp_path)


def test_half_a_pass_is_not_taken_for_whole(tmp_path: Path) -> None:
    model, encoded, folder = _folder(tmp_path)
    (folder / "meta.json").unlink()
    assert ask(model, encoded, tmp_path).seconds > 0
