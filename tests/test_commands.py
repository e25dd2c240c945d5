"""Every printed command is one of the program's; recipes that are named are there, and take it."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import typer

from headstart.cli import app
from headstart.errors import HeadstartError
from headstart.loading import expand, load_recipe, shipped

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LEAST = {"README.md": 6, "results.md": 35, "performance.md": 4, "data.md": 3}  # or not found
VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
OWN = {"RECIPE", "mine.yaml", "OUT", "A", "out"}  # stand for what a reader has


def commands_of(page: Path) -> list[list[str]]:
    """Find printed commands, word by word, in blocks and in lines."""
    text = page.read_text(encoding="utf-8")
    blocks = [*re.findall(r"```\w*\n(.*?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
    known = [line for line in lines if re.match(r"headstart [a-z]", line)]
    return [shlex.split(line.partition("; do")[0], comments=True) for line in known]


def faults_of(words: list[str]) -> str:
    """Say what is wrong with a command: its verb, an option, its recipe, or a setting."""
    verb, *rest = words[1:]
    if verb not in VERBS:
        return f"no verb {verb}"
    options = {name for option in VERBS[verb].params for name in option.opts}
    if unknown := [word for word in rest if word.startswith("--") and word not in options]:
        return f"{verb} has no {unknown}"
    if verb not in ("study", "run", "check", "plan") or not rest or rest[0] in OWN:
        return ""
    settings = [b for a, b in itertools.pairwise(rest) if a == "--set"]
    if "…" in words:
        return "" if rest[0] in shipped() or (ROOT / rest[0]).exists() else f"no {rest[0]}"
    try:
        expand(load_recipe(rest[0] if rest[0] in shipped() else ROOT / rest[0], settings))
    except HeadstartError as fault:
        return str(fault)
    return ""


COMMANDS = [(page.name, words) for page in PAGES for words in commands_of(page)]


def test_the_printed_commands_are_found() -> None:
    for name, least in LEAST.items():
        assert sum(page == name for page, _ in COMMANDS) >= least, name


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_a_printed_command_is_taken(page: str, words: list[str]) -> None:
    assert not faults_of(words), page


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("headstart studdy quickstart out", "no verb"),
        ("headstart refit student teacher out --text t --tokkens 3", "has no"),
        ("headstart study quikstart out", "quickstart"),
        ("headstart study benchmarks/recipes/none.yaml OUT …", "none.yaml"),
        ("headstart study benchmarks/recipes/refit.yaml OUT --set train.epoch=2", "train.epoch"),
        (
            "headstart study benchmarks/recipes/refit.yaml OUT --set 'grid={train.max_steps: [9]}'",
            "did you mean",
        ),
    ],
)
def test_a_command_that_is_not_taken_is_seen(line: str, fault: str) -> None:
    assert fault in faults_of(shlex.split(line))
