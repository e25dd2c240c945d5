"""The README's Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import headstart
from headstart.checkpoint import save_model
from headstart.loading import to_yaml
from tiny import tiny_model, tiny_tokenizer
from world import world

if TYPE_CHECKING:
    import pytest

README = Path(__file__).parents[1] / "README.md"


def test_the_six_lines_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    monkeypatch.chdir(tmp_path)
    save_model(
        tiny_model("bert", layers=12, max_position_embeddings=160),
        tiny_tokenizer(),
        tmp_path / "quickstart-out" / "teachers" / "0" / "model",
    )
    Path("recipe.yaml").write_text(to_yaml(world(tmp_path / "world")), encoding="utf-8")
    names: dict[str, object] = {}
    exec(blocks[0].replace('load_recipe("quickstart")', 'load_recipe("recipe.yaml")'), names)
    assert names["hs"] is headstart
    assert names["student"].config.num_hidden_layers == 6
    printed = capsys.readouterr().out
    assert 0 <= float(printed.splitlines()[-2]) <= 1
    assert Path(printed.splitlines()[-1]).is_file()


def test_the_pages_that_it_names_are_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (README.parent / link).exists()]
