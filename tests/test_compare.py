"""Two ways held against each other: paired, with p-values adjusted for the languages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fake import GRID, TEACHER, Arm, write_study
from headstart import evidence
from headstart.compare import Comparison, Row, compare, comparison_note, comparison_rows, find_runs
from headstart.errors import HeadstartError
from headstart.insight import look_into
from headstart.record import read_runs, write_runs
from headstart.stats import Estimate

if TYPE_CHECKING:
    from pathlib import Path

ARMS = {**GRID, "twin": Arm(0.95), "far": Arm(0.3)}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study") / "tiny", ARMS)


def row_of(found: Comparison, label: str) -> tuple[float, float]:
    (row,) = [row for row in found.rows if row.label == label]
    return row.scores


def test_scores_and_differences_are_the_records(out: Path) -> None:
    found = compare(f"{out}:base-mse", f"{out}:teacher-mse")
    runs = [find_runs(f"{out}:{way}") for way in ("base-mse", "teacher-mse")]
    for row in found.rows[: len(TEACHER)]:
        means = [
            sum(r.scores["student"]["test"][row.label]["accuracy"] for _, r in some) / len(some)
            for some in runs
        ]
        assert row.scores == pytest.approx(means)
        assert row.gain.value == pytest.approx(means[1] - means[0])
    trained = [row.gain.value for row in found.rows[:3]]
    (mean,) = [row for row in found.rows if row.label == "mean, trained on"]
    assert mean.gain.value == pytest.approx(sum(trained) / 3)
    assert [row.label for row in found.rows[-2:]] == ["mean, trained on", "mean, zero-shot"]


def law_the_order_of_runs_changes_nothing(out: Path, study: Path) -> None:
    """Seeds are drawn in pairs, in whatever order each way's runs are listed."""
    ways = ("base-mse", "teacher-mse")
    shutil.copytree(out, study)
    before = compare(*(f"{study}:{way}" for way in ways)), look_into(study)
    listed = read_runs(study / "runs.json")
    turned = [run for run in listed if not run[0].startswith("base-mse")]
    turned += [run for run in reversed(listed) if run[0].startswith("base-mse")]
    write_runs(study / "runs.json", turned)
    after = compare(*(f"{study}:{way}" for way in ways)), look_into(study)
    assert after[0] == before[0]
    assert after[0].seeds == ((0, 1, 2),) * 2
    whole, other = (one.bootstrap for _, one in (before, after))
    assert whole is not None
    assert other is not None
    for way in ways:  # against a way that was not listed anew
        gaps = [boot.mean(["teacher-labels", way], lambda a, b: b - a) for boot in (whole, other)]
        assert gaps[0].interval() == pytest.approx(gaps[1].interval())


def test_the_order_of_runs_changes_nothing(out: Path, tmp_path: Path) -> None:
    law_the_order_of_runs_changes_nothing(out, tmp_path / "study")


def test_the_law_of_the_order_of_runs_has_teeth(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: runs are taken as they are listed."""
    monkeypatch.setattr(evidence, "sorted", lambda runs, **_: list(runs), raising=False)
    with pytest.raises(AssertionError):
        law_the_order_of_runs_changes_nothing(out, tmp_path / "study")


def test_a_real_difference_is_found_and_a_twin_has_none(out: Path) -> None:
    found = compare(f"{out}:far", f"{out}:teacher-mse")
    assert all(found.verdict(row) == "teacher-mse is better" for row in found.rows)
    assert all(row.p == 1 / 10_000 for row in found.rows if row.p is not None)
    turned = compare(f"{out}:teacher-mse", f"{out}:far")
    assert all(turned.verdict(row) == "teacher-mse is better" for row in turned.rows)
    same = compare(f"{out}:twin", f"{out}:twin")
    languages, means = same.rows[: len(TEACHER)], same.rows[len(TEACHER) :]
    assert {same.verdict(row) for row in languages} == {"undecided"}  # 0.99 ** 200 is no 5 %
    assert {same.verdict(row) for row in means} == {"equivalent within 1"}
    wider = compare(f"{out}:twin", f"{out}:twin", margin=0.02)
    assert {wider.verdict(row) for row in wider.rows} == {"equivalent within 2"}
    assert all(row.p == row.adjusted == 1 for row in same.rows if row.p is not None)


def test_p_values_know_how_many_languages_there_are(out: Path) -> None:
    found = compare(f"{out}:teacher-mse", f"{out}:twin")
    languages = [row for row in found.rows if row.p is not None and row.adjusted is not None]
    least = min(languages, key=lambda row: row.p or 1)
    assert len(languages) == len(TEACHER)
    assert least.adjusted == pytest.approx(min((least.p or 0) * len(TEACHER), 1))


def test_a_language_that_is_one_of_many_says_so() -> None:
    gain = Estimate(0.05, 0.01, 40.0, 0.01)
    rows = (Row("aa", (0.5, 0.55), gain, 0.02, 0.4), Row("bb", (0.5, 0.55), gain, 0.001, 0.02))
    found = Comparison(("old", "new"), ((0, 1), (0, 1)), rows, 0.01, kinds_differ=True)
    assert found.verdict(Row("cc", (0.5, 0.55), gain, 0.3, 0.3)) == "undecided"
    assert found.verdict(Row("mean", (0.5, 0.55), gain)) == "new is better"
    assert [found.verdict(row) for row in rows] == ["new is better (unadjusted)", "new is better"]
    note = comparison_note(found)
    assert "not as one of so many" in note
    assert "other zero-shot ones" in note
    alone = Comparison(("old", "new"), ((0, 1), (0, 1)), rows[1:], 0.01)
    assert "unadjusted" not in comparison_note(alone)
    assert "zero-shot" not in comparison_note(alone)


def test_kinds_of_languages_are_named_and_held_together(tmp_path: Path) -> None:
    study = write_study(tmp_path / "a", {"a": Arm(0.9), "b": Arm(0.8)})
    assert not compare(f"{study}:a", f"{study}:b").kinds_differ
    for folder, record in find_runs(f"{study}:b"):
        kinds = {"zero_shot": (*record.zero_shot, record.languages[-1])}
        less = replace(record, languages=record.languages[:-1], learned_from=("aa",), **kinds)
        less.write(folder / "record.json")
    found = compare(f"{study}:a", f"{study}:b")
    assert found.kinds_differ
    assert found.rows[-2].label == "mean, the recipe's languages"


def test_a_wide_margin_makes_more_equivalent(out: Path) -> None:
    wide = compare(f"{out}:teacher-mse", f"{out}:twin", margin=0.2)
    assert {wide.verdict(row) for row in wide.rows} == {"equivalent within 20"}


def test_two_folders_of_runs_compare_with_one_seed(out: Path) -> None:
    first, second = (find_runs(f"{out}:{way}")[0][0] for way in ("base-mse", "teacher-mse"))
    found = compare(str(first), str(second))
    assert found.seeds == ((0,), (0,))
    assert {found.verdict(row) for row in found.rows} == {"one seed: unknown over seeds"}
    head, rows = comparison_rows(found)
    assert head[:3] == ["language", "base-mse", "teacher-mse"]
    assert all("(" not in row[3] for row in rows)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("", "the study has 8 ways"),
        (":teacher-mze", "the study has no way 'teacher-mze'"),
    ],
)
def test_a_way_must_be_named(out: Path, way: str, says: str) -> None:
    with pytest.raises(HeadstartError, match=says) as caught:
        compare(f"{out}{way}", f"{out}:twin")
    if way:
        assert "did you mean 'teacher-mse'" in caught.value.way_out


def test_what_cannot_be_compared_is_refused(out: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path / "other", {"only": Arm(0.9)}, examples=50)
    with pytest.raises(HeadstartError, match="not tested on the rows"):
        compare(f"{out}:twin", str(other))
    place = find_runs(f"{out}:far")[0][0]
    moved = tmp_path / "moved"
    shutil.copytree(place, moved)
    parquet = moved / "predictions" / "test.parquet"
    table = pq.read_table(parquet)
    turned = table["gold"].to_pylist()[::-1]  # other answers under the same numbers of rows
    column = table.column_names.index("gold")
    pq.write_table(table.set_column(column, "gold", pa.array(turned)), parquet)
    with pytest.raises(HeadstartError, match="not tested on the rows"):
        compare(f"{out}:twin", str(moved))
    print_of = {}
    for name, print_ in {"this": "a", "that": "b", "again": "a"}.items():
        record = find_runs(f"{out}:far")[0][1]
        print_of[name] = tmp_path / name
        shutil.copytree(place, print_of[name])
        replace(record, fingerprints={"test": print_}).write(print_of[name] / "record.json")
    assert compare(str(print_of["this"]), str(print_of["again"]))
    assert compare(str(print_of["this"]), str(place))  # an older record does not say
    with pytest.raises(HeadstartError, match="tested on other rows: texts or labels differ"):
        compare(str(print_of["this"]), str(print_of["that"]))
    with pytest.raises(HeadstartError, match="a single run, which has no ways"):
        compare(f"{place}:nonsense", f"{out}:twin")
    bare = write_study(tmp_path / "bare", {"only": Arm(0.9)}, predictions=False)
    with pytest.raises(HeadstartError, match="predictions are not there"):
        compare(f"{out}:twin", str(bare))
    with pytest.raises(HeadstartError, match="no finished run"):
        compare(f"{out}:twin", str(tmp_path / "nowhere"))
    with pytest.raises(HeadstartError, match="a margin of 0 points"):
        compare(f"{out}:twin", f"{out}:twin", margin=0)
    with pytest.raises(HeadstartError, match="the study has no way 'nonsense'"):
        compare(f"{other}:nonsense", f"{out}:twin")
    named = write_study(tmp_path / "c", {"teacher|objective=labels:1.0": Arm(0.9), "b": Arm(0.8)})
    assert compare(f"{named}:teacher|objective=labels:1.0", f"{named}:b").names[1] == "b"
    again = write_study(tmp_path / "d", {"b": Arm(0.8)})
    assert compare(f"{named}:b", f"{again}:b").names == (f"{named}:b", f"{again}:b")
    shutil.rmtree(other / "runs")
    with pytest.raises(HeadstartError, match="no finished run"):
        compare(str(other), f"{out}:twin")
