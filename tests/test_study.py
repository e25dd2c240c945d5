"""Many runs: one teacher for all, nothing twice, and a page that says what the records say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from headstart.checking import apply
from headstart.errors import HeadstartError
from headstart.report import percent, read_records, report, shade, tabulate
from headstart.study import study
from world import world

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.recipe import Recipe
    from headstart.record import Record

ARMS = {"copied": {"init.source": "teacher"}, "fresh": {"init.source": "scratch"}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, list[Record]]:
    folder = tmp_path_factory.mktemp("study")
    recipe = world(folder / "world", arms=ARMS, seeds=[0, 1])
    return recipe, folder / "out", study(recipe, folder / "out")


def test_every_arm_and_seed_is_run(made: tuple[Recipe, Path, list[Record]]) -> None:
    _, _, records = made
    assert [(r.source, r.seed) for r in records] == [
        ("teacher", 0),
        ("teacher", 1),
        ("scratch", 0),
        ("scratch", 1),
    ]
    assert len({r.signature for r in records}) == 4


def test_one_teacher_and_one_pass_serve_all(made: tuple[Recipe, Path, list[Record]]) -> None:
    _, out, records = made
    assert len(list((out / "teachers").glob("*/made.json"))) == 1
    assert len(list((out / "passes").glob("*/meta.json"))) == 3
    assert [r.costs["teacher_pass_seconds"] > 0 for r in records] == [True, False, False, False]


def test_a_second_call_makes_nothing(made: tuple[Recipe, Path, list[Record]]) -> None:
    recipe, out, records = made
    paths = sorted(out.glob("runs/*/record.json"))
    before = [path.stat().st_mtime_ns for path in paths]
    assert study(recipe, out) == records
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_lost_run_is_made_again_as_it_was(made: tuple[Recipe, Path, list[Record]]) -> None:
    recipe, out, records = made
    (out / "runs" / records[2].signature / "record.json").unlink()
    again = study(recipe, out)
    assert again[2].scores == records[2].scores
    assert again[3] == records[3]


def test_the_page_says_what_the_records_say(made: tuple[Recipe, Path, list[Record]]) -> None:
    _, out, records = made
    page = report(out).read_text(encoding="utf-8")
    table = tabulate(read_records(out))
    assert [column.name for column in table.columns] == ["copied", "fresh"]
    expected = {(row.label, i): score for row in table.rows for i, score in enumerate(row.scores)}
    by_hand = sum(r.scores["student"]["test"]["cc"]["accuracy"] for r in records[:2]) / 2
    assert expected["cc", 0] == pytest.approx(by_hand)
    cells = re.findall(r'<td style="[^"]*" title="([^"]*)">([^<]*)</td>', page)
    assert [float(value) for value, _ in cells] == pytest.approx(list(expected.values()))
    assert all(shown == percent(float(value)) for value, shown in cells)


def test_the_page_needs_nothing_else(made: tuple[Recipe, Path, list[Record]]) -> None:
    page = report(made[1]).read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=|@import|url\(", page)
    assert "<script" not in page


def test_names_of_the_user_are_escaped(made: tuple[Recipe, Path, list[Record]]) -> None:
    from dataclasses import replace

    _, out, records = made
    evil = replace(records[0], name="<script>alert(1)</script>", signature="evil")
    (out / "runs" / "evil").mkdir()
    evil.write(out / "runs" / "evil" / "record.json")
    page = report(out).read_text(encoding="utf-8")
    (out / "runs" / "evil" / "record.json").unlink()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_an_empty_folder_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="no finished run"):
        report(tmp_path)


def test_runs_of_other_languages_do_not_share_a_table(
    made: tuple[Recipe, Path, list[Record]],
) -> None:
    from dataclasses import replace

    records = made[2]
    with pytest.raises(HeadstartError, match="differ in task or languages"):
        tabulate([records[0], replace(records[1], languages=("zz",))])


def test_shades_run_from_red_to_green() -> None:
    assert shade(0.9, 0.9).startswith("hsl(120")
    assert shade(0.1, 0.9).startswith("hsl(0 ")
    assert shade(None, 0.9) == "transparent"


def test_a_seed_more_leaves_the_others_alone(made: tuple[Recipe, Path, list[Record]]) -> None:
    recipe, out, records = made
    more = study(apply(recipe, {"seeds": [0, 1, 2]}), out)
    kept = [r.signature for r in more if r.seed < 2]
    assert kept == [r.signature for r in records]
    assert len(more) == 6
