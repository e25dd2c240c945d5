"""Every printed command names a recipe that is there, with settings that it takes."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from headstart.errors import HeadstartError
from headstart.loading import expand, load_recipe, shipped

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LEAST = 30  # commands that are printed: fewer, and they are not found


def commands_of(page: Path) -> list[tuple[str, list[str]]]:
    """Find whole commands that read a recipe: the recipe, and what is set."""
    text = page.read_text(encoding="utf-8")
    blocks = [*re.findall(r"```\w*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    lines = [
        line
        for block in blocks
        for line in block.replace("\\\n", " ").split("\n")
        if re.match(r"headstart (study|run|check|plan) ", line) and "…" not in line
    ]
    found: list[tuple[str, list[str]]] = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[2].startswith("benchmarks/") or words[2] in shipped():
            settings = [b for a, b in itertools.pairwise(words) if a == "--set"]
            found.append((words[2], settings))
    return found


def faults_of(recipe: str, settings: list[str]) -> str:
    try:
        expand(load_recipe(recipe if recipe in shipped() else ROOT / recipe, settings))
    except HeadstartError as fault:
        return str(fault)
    return ""


COMMANDS = [(page.name, *one) for page in PAGES for one in commands_of(page)]


def test_the_printed_commands_are_found() -> None:
    assert len(COMMANDS) >= LEAST


@pytest.mark.parametrize(("page", "recipe", "settings"), COMMANDS)
def test_a_printed_command_is_taken(page: str, recipe: str, settings: list[str]) -> None:
    assert not faults_of(recipe, settings), page


def test_a_command_that_is_not_taken_is_seen() -> None:
    recipe = "benchmarks/recipes/refit.yaml"
    assert "did you mean" in faults_of(recipe, ["grid={train.max_steps: [1200]}"])
    assert "train.epoch" in faults_of(recipe, ["train.epoch=2"])
