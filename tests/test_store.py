"""Safetensors read by ranges and written as tensors come: the bytes of the library, not held."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from headstart import transplant as room
from headstart.cutting import checked, plan_cut
from headstart.errors import HeadstartError
from headstart.reader import open_model, read_selection
from headstart.store import TYPES, Room, stored, write
from headstart.student import cut_checkpoint
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


def some(kind: torch.dtype) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = {"b.weight": (5, 3), "a.ä": (7,), "c": (2, 3, 4), "B": (1, 1)}
    return {name: torch.randn(shape, generator=rng).to(kind) for name, shape in shapes.items()}


def rows(tensors: dict[str, Tensor], step: int) -> Iterator[Tensor]:
    for name in sorted(tensors):
        yield from tensors[name].split(step)


@pytest.mark.parametrize("kind", TYPES.values())
@pytest.mark.parametrize("step", [1, 2, 100])
def test_written_are_the_bytes_of_the_library(kind: torch.dtype, step: int, tmp_path: Path) -> None:
    tensors = some(kind)
    save_file(tensors, tmp_path / "theirs", metadata={"format": "pt"})
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    write(tmp_path / "ours", shapes, rows(tensors, step), kind)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


@pytest.mark.parametrize("kind", TYPES.values())
def test_read_are_the_tensors_of_the_library(kind: torch.dtype, tmp_path: Path) -> None:
    save_file(some(kind), tmp_path / "file")
    theirs, space = load_file(tmp_path / "file"), Room()
    for name, one in stored(tmp_path / "file").items():
        assert torch.equal(one.read(), theirs[name])
        assert torch.equal(one.read(room=space), theirs[name])
        assert torch.equal(one.read(slice(0, 1), space), theirs[name][:1])
        assert torch.equal(one.read(slice(1, 99)), theirs[name][1:99])


def test_tensors_that_do_not_fill_their_shapes_are_no_file(tmp_path: Path) -> None:
    tensors = some(torch.float32)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    with pytest.raises(ValueError, match="bytes are missing"):
        write(tmp_path / "x", shapes, list(rows(tensors, 2))[1:], torch.float32)
    with pytest.raises(ValueError, match=r"float32 among torch\.float64"):
        write(tmp_path / "x", shapes, rows(tensors, 2), torch.float64)


def test_a_file_that_was_cut_off_meanwhile_is_told(tmp_path: Path) -> None:
    save_file(some(torch.float32), tmp_path / "file")
    listed = stored(tmp_path / "file")
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:-4])
    with pytest.raises(HeadstartError, match="ends before its tensors do"):
        [one.read() for one in listed.values()]


def test_a_double_teacher_gives_a_double_student_that_says_so(tmp_path: Path) -> None:
    tiny_model("bert").double().save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    cut_checkpoint(tmp_path / "teacher", tmp_path / "student", shape={"layers": 2})
    assert json.loads((tmp_path / "student" / "config.json").read_text())["dtype"] == "float64"
    tensors = load_file(tmp_path / "student" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float64}


def test_a_large_table_of_pieces_is_never_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Block by block it gives the same student, on disk and in memory."""
    teacher = tiny_model("xlm-roberta")
    teacher.save_pretrained(tmp_path / "teacher")
    tiny_tokenizer().save_pretrained(tmp_path / "teacher")
    shape = {"layers": 2, "hidden": 16}
    cut_checkpoint(tmp_path / "teacher", tmp_path / "whole", shape=shape)
    monkeypatch.setattr(room, "BLOCK", 3 * teacher.config.hidden_size)
    opened = open_model(tmp_path / "teacher")
    read: list[int] = []
    table = "roberta.embeddings.word_embeddings.weight"

    def watched(name: str, rows: slice | None = None, /) -> Tensor:
        found = opened.read(name, rows)
        if name == table:
            read.append(len(found))
        return found

    cut_checkpoint(tmp_path / "teacher", tmp_path / "blocks", shape=shape)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "blocks")]
    assert files[0].read_bytes() == files[1].read_bytes()
    found = checked(opened)
    selection = read_selection(tmp_path / "whole")
    plan = plan_cut(replace(opened, read=watched), found, selection, base=None, seed=0)
    made = plan.tensors()
    assert torch.equal(made[table], load_file(files[0])[table])
    assert max(read) == 3
    assert sum(read) == teacher.config.vocab_size
