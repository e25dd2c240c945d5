"""Speed side by side: what is counted, who takes turns, and what is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertForQuestionAnswering

from headstart import bench as room
from headstart.bench import BATCH, LEAST, bench, rows, sentences
from headstart.checkpoint import save_model
from headstart.errors import HeadstartError
from tiny import tiny_config, tiny_model, tiny_tokenizer

TEXTS = [f"wake me {i} the {'rain ' * (i % 7)}" for i in range(70)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    place = tmp_path_factory.mktemp("models")
    for name, layers, head in (("teacher", 4, "classification"), ("student", 1, "tagging")):
        model = tiny_model("bert", head, layers=layers, max_position_embeddings=160)
        save_model(model, tiny_tokenizer(), place / name)
    save_model(tiny_model("roberta", "none"), tiny_tokenizer(), place / "bare")
    return [str(place / name) for name in ("teacher", "student", "bare")]


def test_sizes_are_those_of_the_folders_and_shares_those_of_the_first(models: list[str]) -> None:
    found = bench(models, TEXTS, seconds=0.05)
    assert [one.name for one in found.speeds] == models
    for one in found.speeds:
        folder = Path(one.name)
        assert one.bytes == (folder / "model.safetensors").stat().st_size
        assert 4 * one.parameters <= one.bytes < 4 * one.parameters + 20_000  # and a header
        assert 0 < one.vocabulary < one.parameters
        assert 0 < one.p50_ms <= one.p95_ms
        lengths = [len(tiny_tokenizer()(text)["input_ids"]) for text in TEXTS]
        mean = one.pieces_per_second / one.sentences_per_second
        assert min(lengths) < mean < max(lengths)  # real pieces, and no padding among them
    assert found.speedup(found.speeds[0]) == 1.0
    head, table = rows(found)
    assert [len(row) for row in table] == [len(head)] * 3
    assert json.loads(json.dumps(found.plain()))["pieces"] == list(found.pieces)


def test_numbers_are_those_of_the_clock(models: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that moves by what each answer takes, all numbers are known."""
    now, shares = [0.0], {models[0]: 4.0, models[1]: 1.0}
    asked: list[tuple[str, int]] = []

    def answer(self: Any, texts: list[str]) -> int:
        now[0] += shares[self.name] * len(texts)
        asked.append((self.name, len(texts)))
        return 10 * len(texts)

    monkeypatch.setattr(room._Model, "answer", answer)
    monkeypatch.setattr(room.time, "perf_counter", lambda: now[0])
    teacher, student = bench(models[:2], TEXTS, seconds=1).speeds
    assert (teacher.p50_ms, teacher.p95_ms) == pytest.approx((4000, 4000))
    assert (student.sentences_per_second, student.pieces_per_second) == pytest.approx((1, 10))
    assert teacher.sentences_per_second == pytest.approx(0.25)
    singles = [name for name, size in asked if size == 1][2 * room.WARM :]
    assert singles == models[:2] * LEAST  # in turn, and often enough for a percentile
    assert {size for _, size in asked} == {1, BATCH}


def test_threads_are_given_back(models: list[str]) -> None:
    before = torch.get_num_threads()
    assert bench(models[1:2], TEXTS, seconds=0.01, threads=1).threads == 1
    assert torch.get_num_threads() == before


def test_the_packaged_sentences_are_real_and_of_every_language() -> None:
    found = sentences(None)
    assert len(found) == len(set(found)) == 512
    assert found == sentences(None)
    assert found != sentences(None, seed=1)
    letters = "".join(found)
    assert all(any(a <= c <= b for c in letters) for a, b in ("az", "अह", "一龥", "بي"))


def test_sentences_of_a_folder(tmp_path: Path) -> None:
    for name in ("aa", "bb"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} {i}\n" for i in range(40)))
    found = sentences(tmp_path, count=40)
    assert sum(text.startswith("aa") for text in found) == 20


def test_faults_are_told(models: list[str]) -> None:
    with pytest.raises(HeadstartError, match="31 sentences are too few"):
        bench(models, TEXTS[:31])
    with pytest.raises(HeadstartError, match="device nowhere"):
        bench(models, TEXTS, device="nowhere")
    with pytest.raises(HeadstartError, match="no folder and no model"):
        bench(["none/such"], TEXTS)


def test_faults_of_models_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    save_model(tiny_model("bert"), tokenizer, tmp_path / "unpadded")
    with pytest.raises(HeadstartError, match="no padding token"):
        bench([str(tmp_path / "unpadded")], TEXTS)
    answers = BertForQuestionAnswering(tiny_config("bert"))
    answers.save_pretrained(tmp_path / "answers")
    tiny_tokenizer().save_pretrained(tmp_path / "answers")
    with pytest.raises(HeadstartError, match="head of a BertForQuestionAnswering is not known"):
        bench([str(tmp_path / "answers")], TEXTS)
    with pytest.raises(HeadstartError, match="device meta"):
        bench([str(tmp_path / "answers")], TEXTS, device="meta")


def test_lengths_are_those_that_all_models_read(models: list[str]) -> None:
    """The one with the fewest positions decides, and what is told is what was read."""
    long = ["wake " * 300] * BATCH
    found = bench([models[0], models[2]], long, seconds=0.01)
    longest = min(128, tiny_model("roberta", "none").config.max_position_embeddings - 2)
    assert found.pieces == (longest,) * 3
    for one in found.speeds:
        assert one.pieces_per_second / one.sentences_per_second == pytest.approx(longest)


def test_the_verb_prints_a_table_and_writes_json(models: list[str], tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "bench", *models[:2], "--seconds", "0.1",
         "--threads", "1", "--out", str(out)],
        capture_output=True, text=True, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    numbers = json.loads(out.read_text())
    assert "1.00 x" in done.stdout
    assert "512 sentences" in done.stdout
    assert numbers["threads"] == 1
    assert {one["precision"] for one in numbers["speeds"]} == {"fp32"}
    assert "fp32; " in done.stdout
    assert np.isfinite([one["p95_ms"] for one in numbers["speeds"]]).all()
