"""YAML is read as it is meant, and written so that it is read back the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.document import dump, parse
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TRAPS: Mapping[str, object] = {
    "no": "no",
    "on": "on",
    "y": "y",
    "true": True,
    "1e-4": 1e-4,
    "5E3": 5000.0,
    "1.5e-4": 1.5e-4,
    ".5": 0.5,
    "-3": -3,
    "0": 0,
    "010": "010",
    "12:30": "12:30",
    "1_000": "1_000",
    "2024-01-01": "2024-01-01",
    "~": None,
    "": None,
    "'1'": "1",
}


def law_traps_are_avoided(read: Callable[[str], object]) -> None:
    for text, meant in TRAPS.items():
        value = read(f"key: {text}")
        assert value == {"key": meant}, text
        assert isinstance(value, dict)
        assert type(value["key"]) is type(meant), text


def test_traps_are_avoided() -> None:
    law_traps_are_avoided(lambda text: parse(text, where="test"))


def test_the_law_has_teeth() -> None:
    with pytest.raises(AssertionError, match="no"):
        law_traps_are_avoided(yaml.safe_load)


TEXT = st.one_of(st.text(st.characters(codec="utf-8")), st.sampled_from(sorted(TRAPS)))
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(PLAIN)
def test_what_is_written_is_read_back(value: object) -> None:
    assert parse(dump(value), where="test") == value


@pytest.mark.parametrize("text", ["1e5", "no", "true"])
def test_reading_back_has_teeth(text: str) -> None:
    careless = text if text != "no" else "no: 1"  # as str() would put it
    assert (parse(careless, where="test") == text) is False


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a: 1\nb: 2\na: 3\n", r"key 'a' stands twice(.|\n)*file, line 1"),
        ("a: {x: 1, x: 2}", r"key 'x' stands twice"),
        ("a: [1\nb: 2\n", r"not readable as YAML(.|\n)*file, line 2"),
        ("a: !!python/object:os.system {}", r"not readable as YAML"),
        ("a: \0", r"not readable as YAML"),
        ("a: &x [*x]\nb: *y\n", r"undefined alias 'y'(.|\n)*line 2"),
    ],
)
def test_faults_name_file_and_line(text: str, match: str) -> None:
    with pytest.raises(HeadstartError, match=match):
        parse(text, where="file")
