"""Records are whole or absent, are read back the same, and average languages with equal weight."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.record import (
    Record,
    Summary,
    read_record,
    remarks,
    retention,
    summarize,
)

SCORES = {"en": {"accuracy": 0.8, "macro_f1": 0.7}, "sw": {"accuracy": 0.4, "macro_f1": 0.3}}


def record(**changes: object) -> Record:
    made = Record(
        signature="0123456789abcdef",
        name="teacher|seed=0",
        seed=0,
        source="teacher",
        objective="labels+mse",
        task="classification",
        labels=("a", "b"),
        languages=("en",),
        zero_shot=("sw",),
        scores={"student": {"test": SCORES}, "step0": {"dev": {"en": SCORES["en"]}}},
        summary={"student": summarize(SCORES, ("en",), ("sw",), metric="accuracy")},
        retention={"en": 0.9},
        curve=({"step": 1, "epoch": 0.5, "seconds": 2.0, "loss": 0.7, "dev": 0.4},),
        learning_rate={"chosen": 1e-4, "tried": [{"learning_rate": 1e-4, "dev": 0.4}]},
        costs={"train_seconds": 3.5, "tokens": 100},
        shape={"student": {"total": 10}},
        versions={"python": "3.11"},
        fingerprints={"data": "é"},
        hardware={"processor": "x", "cores": 2},
        marks=("one-class",),
        commit=None,
        precision="bf16",
        leaks=(
            {"language": "en", "split": "test", "rows": 1200, "conflicts": 3, "dropped": False},
        ),
        truncated={"train": 4, "dev": 0},
        stray_inside={"en": 5},
    )
    return dataclasses.replace(made, **changes)


def test_a_record_is_read_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run" / "record.json"
    record().write(path)
    assert read_record(path) == record()
    assert Record.from_json(record().to_json()) == record()


def test_every_field_survives() -> None:
    text = json.loads(record(commit="abc").to_json())
    assert list(text) == [field.name for field in dataclasses.fields(Record)]
    assert "é" in record().to_json()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_become_null(value: float) -> None:
    text = record(curve=({"loss": value, "dev": 0.5},)).to_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert Record.from_json(text).curve == ({"loss": None, "dev": 0.5},)


def test_a_record_without_later_fields_is_readable() -> None:
    old = json.loads(record().to_json())
    later = ("marks", "commit", "precision", "leaks", "truncated", "stray_inside")
    for name in later:
        del old[name]
    read = Record.from_json(json.dumps(old))
    plain = record(marks=(), precision="fp32", leaks=(), truncated={}, stray_inside={})
    assert read == plain
    assert remarks(read) == []


def test_what_is_peculiar_about_the_text_is_said() -> None:
    assert remarks(record()) == [
        "1,200 test rows stand in train too: en 1,200; for 3 of them no copy has the same label.",
        "The maximum length cuts texts: train 4.",
        "I- tags that continue nothing, read as B-: en 5.",
    ]
    dropped = {"language": "sw", "split": "dev", "rows": 1, "conflicts": 0, "dropped": True}
    said = "1 dev row stands in train too: sw 1; their copies were left out of train."
    assert said in remarks(record(leaks=(dropped,)))


def test_of_many_languages_those_with_the_most_are_named() -> None:
    many = tuple(
        {"language": f"l{i:02}", "split": "test", "rows": i + 1, "conflicts": 0} for i in range(52)
    )
    (said,) = (line for line in remarks(record(leaks=many)) if "in train too" in line)
    named = ", ".join(f"l{i:02} {i + 1}" for i in range(51, 39, -1))
    assert said == f"1,378 test rows stand in train too: {named} and 40 more."


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "this is not a whole record"),
        ("[]", "it holds no mapping"),
        ('{"seed": 1}', "it lacks costs, curve"),
        ('{"vigour": 1}', "unknown keys: vigour(.|\n)*later version of headstart"),
    ],
)
def test_what_is_no_record_is_refused(text: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HeadstartError, match=match) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"record\.json"):
        read_record(tmp_path / "record.json")


Write = Callable[[Path, "bytes | str"], None]


def law_whole_or_absent(write: Write, folder: Path) -> None:
    path = folder / "file.json"
    write(path, "first")
    assert path.read_text(encoding="utf-8") == "first"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _fails)
        for data in ("second, broken off", b"third"):
            with pytest.raises(OSError, match="disk"):
                write(path, data)
    assert path.read_text(encoding="utf-8") == "first"
    assert [entry.name for entry in folder.iterdir()] == ["file.json"]


def _fails(_: int) -> None:
    raise OSError("disk full")


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    law_whole_or_absent(atomic_write, tmp_path / "made" / "on" / "the" / "way")


def _in_place(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())


def _leaves_rubbish(path: Path, data: bytes | str) -> None:
    beside = path.with_suffix(".new")
    _in_place(beside, data)
    beside.replace(path)


@pytest.mark.parametrize("write", [_in_place, _leaves_rubbish])
def test_the_law_of_writing_has_teeth(write: Write, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        law_whole_or_absent(write, tmp_path / "folder")


def test_written_files_are_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"\xff")
    atomic_write(tmp_path / "atomic", b"\xff")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")]
    assert modes[0] == modes[1]
    assert (tmp_path / "atomic").read_bytes() == b"\xff"


Table = Mapping[str, Mapping[str, float]]
Summarize = Callable[[Table, tuple[str, ...], tuple[str, ...]], Summary]


def by_accuracy(table: Table, languages: tuple[str, ...], zero_shot: tuple[str, ...]) -> Summary:
    return summarize(table, languages, zero_shot, metric="accuracy")


def law_languages_weigh_the_same(average: Summarize) -> None:
    table = {"a": {"accuracy": 1.0}, "b": {"accuracy": 0.0}, "c": {"accuracy": 0.5}}
    result = average({**table, "z": {"accuracy": 0.25}}, ("a", "b", "c"), ("z",))
    assert result["trained_on"] == {"accuracy": 0.5}
    assert result["zero_shot"] == {"accuracy": 0.25}  # never mixed with the others
    assert (result["worst_language"], result["worst"]) == ("b", {"accuracy": 0.0})
    worst = average({**table, "z": {"accuracy": -1.0}}, ("a", "b", "c"), ("z",))
    assert worst["worst_language"] == "z"  # unseen languages count


def test_languages_weigh_the_same() -> None:
    law_languages_weigh_the_same(by_accuracy)


MISTAKES: Mapping[str, Summarize] = {
    "mixes zero-shot in": lambda t, a, z: by_accuracy(t, (*a, *z), z),
    "forgets zero-shot": lambda t, a, _: by_accuracy(t, a, ()),
    "takes the best": lambda t, a, z: {
        **by_accuracy(t, a, z),
        "worst_language": max(t, key=lambda code: t[code]["accuracy"]),
    },
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_law_has_teeth(mistake: Summarize) -> None:
    with pytest.raises(AssertionError):
        law_languages_weigh_the_same(mistake)


def test_languages_without_examples_are_left_out() -> None:
    assert by_accuracy(SCORES, ("en", "fr"), ()) == {
        "trained_on": SCORES["en"],
        "zero_shot": {},
        "worst_language": "en",
        "worst": SCORES["en"],
    }
    assert by_accuracy({}, ("en",), ("sw",))["worst_language"] == ""


def test_retention_is_a_share_of_the_teacher() -> None:
    student = {"en": {"f1": 0.4}, "sw": {"f1": 0.3}, "de": {"f1": 0.1}, "fr": {"f1": 0.1}}
    teacher = {"en": {"f1": 0.8}, "sw": {"f1": 0.2}, "de": {"f1": 0.0}}
    kept = retention(student, teacher, metric="f1")
    assert kept == {"en": pytest.approx(0.5), "sw": pytest.approx(1.5)}
