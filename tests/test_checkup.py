"""What `check` tells of a recipe without faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from headstart.checkup import check, told
from headstart.loading import apply
from world import world

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.recipe import Recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return world(tmp_path_factory.mktemp("world"))


def lines(recipe: Recipe) -> list[str]:
    return told(check(recipe), recipe)


def test_a_student_that_is_no_smaller_is_named(recipe: Recipe) -> None:
    same = "the student is as large as its teacher"
    assert not any(line.startswith(same) for line in lines(recipe))
    assert any(line.startswith(same) for line in lines(apply(recipe, {"student.layers": 4})))


def test_texts_that_the_maximum_length_shortens_are_counted(recipe: Recipe) -> None:
    assert "texts cut at 40 pieces (data.max_length): 0" in lines(
        apply(recipe, {"data.max_length": 40})
    )
    (line,) = (x for x in lines(apply(recipe, {"data.max_length": 4})) if x.startswith("texts cut"))
    assert not line.endswith(" 0")


def test_tags_of_another_scheme_are_counted(tmp_path: Path) -> None:
    recipe = world(tmp_path, task="tagging")
    assert recipe.data.folder is not None
    assert not any("IOB1" in line for line in lines(recipe))
    for file in recipe.data.folder.rglob("*.jsonl"):
        content = file.read_text(encoding="utf-8")
        file.write_text(content.replace('"B-', '"I-'), encoding="utf-8")
    (line,) = (line for line in lines(recipe) if "IOB1" in line)
    assert line.startswith("I- tags that continue nothing, read as B-: ")
