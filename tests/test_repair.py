"""Refit alone: in memory, folder to folder, and its faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import headstart as hs
from headstart.checkpoint import load_model, save_model, weights_fingerprint
from headstart.errors import HeadstartError
from headstart.recipe import Refit
from headstart.repair import refit, refit_folder
from headstart.student import cut_checkpoint, make_student, student_from
from tiny import tiny_model, tiny_tokenizer

TEXTS = {"aa": [f"wake me {i}" for i in range(60)], "bb": [f"the rain {i}" for i in range(60)]}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    save_model(tiny_model("bert", max_position_embeddings=160), tiny_tokenizer(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for language, texts in TEXTS.items():
        rows = "\n".join(json.dumps({"text": one}) for one in texts)
        (folder / f"{language}.jsonl").write_text(rows + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def student(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("student") / "model"
    cut_checkpoint(teacher, folder, shape={"layers": 2})
    return str(folder)


def test_memory_and_disk_give_the_same_student(
    teacher: str, student: str, text: Path, tmp_path: Path
) -> None:
    fitted = refit_folder(student, teacher, tmp_path / "out", text=text, asked=Refit(tokens=600))
    in_memory = hs.refit(student_from(teacher, layers=2), teacher, TEXTS, tokens=600)
    on_disk = load_model(tmp_path / "out", task="classification")
    assert weights_fingerprint(in_memory) == weights_fingerprint(on_disk)
    assert weights_fingerprint(in_memory) != weights_fingerprint(student_from(teacher, layers=2))
    assert any(one.ridge is not None for one in fitted)
    assert (tmp_path / "out" / "selection.json").read_text() == (
        Path(student) / "selection.json"
    ).read_text()


def test_a_refitted_student_can_be_refitted_on() -> None:
    model = tiny_model("bert", max_position_embeddings=160)
    once = refit(student_from(model, layers=2), model, TEXTS, tokenizer=tiny_tokenizer())
    assert refit(once, model, TEXTS["aa"], tokenizer=tiny_tokenizer()) is once


def test_a_model_of_unknown_origin_is_refused(teacher: str) -> None:
    with pytest.raises(HeadstartError, match="not known what this model keeps"):
        refit(tiny_model("bert"), teacher, TEXTS)


def test_a_teacher_in_memory_needs_a_tokenizer() -> None:
    model = tiny_model("bert", max_position_embeddings=160)
    with pytest.raises(HeadstartError, match="does not bring its tokenizer"):
        refit(student_from(model, layers=2), model, TEXTS)


def test_another_teacher_is_refused(teacher: str) -> None:
    other = tiny_model("bert", layers=6)
    with pytest.raises(HeadstartError, match="not a copy of this model"):
        refit(student_from(other, layers=2), teacher, TEXTS)


@pytest.mark.parametrize("source", ["scratch", "permuted"])
def test_a_student_that_copies_nothing_is_refused(teacher: str, source: str) -> None:
    made = make_student(teacher, shape={"layers": 2}, source=source)
    with pytest.raises(HeadstartError, match=f"the student is {source}"):
        refit(made.model, teacher, TEXTS)


def test_faults_of_folders_are_told(teacher: str, student: str, text: Path, tmp_path: Path) -> None:
    asked = Refit(tokens=600)
    with pytest.raises(HeadstartError, match=r"no selection\.json"):
        refit_folder(teacher, teacher, tmp_path / "out", text=text, asked=asked)
    with pytest.raises(HeadstartError, match="no folder with text"):
        refit_folder(student, teacher, tmp_path / "out", text=tmp_path / "none", asked=asked)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(HeadstartError, match="holds something already"):
        refit_folder(student, teacher, tmp_path / "full", text=text, asked=asked)
    assert not (tmp_path / "out").exists()
