"""Many runs: one teacher for all, nothing twice, and a page that says what the records say."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from safetensors import safe_open

from headstart import groundwork
from headstart.board import AWAY, DONE, LEFT, RUNNING
from headstart.checking import apply
from headstart.errors import HeadstartError
from headstart.forecast import how_long
from headstart.groundwork import text_fingerprints
from headstart.loading import expand, load_recipe
from headstart.measure import measure
from headstart.record import write_runs
from headstart.report import report, shade
from headstart.run import run, run_signature
from headstart.study import one_by_one, outlook, plan_runs, study, to_time
from headstart.tables import cells, heads, percent, read_records, tabulate
from world import world

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from transformers import PreTrainedModel

    from headstart.board import Board
    from headstart.recipe import Recipe
    from headstart.record import Record
    from headstart.settings import Data
    from headstart.study import Planned
    from headstart.walk import Sample

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


def test_arms_that_differ_in_training_share_their_start(tmp_path: Path) -> None:
    """One refit serves all numbers of steps; another seed, amount or rule has its own."""
    recipe = apply(
        world(tmp_path / "world"),
        {"init.refit": {"tokens": 400}, "data.max_length": 40, "student.hidden": 16, "seeds": [0]},
    )
    few = apply(recipe, {"grid": {"train.max_steps": [0, 2]}})
    records = study(few, tmp_path / "out")
    starts = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("starts/*/*.json")}
    assert len(starts) == 1
    assert records[0].refit == records[1].refit
    assert records[0].costs["refit_seconds"] == records[1].costs["refit_seconds"] > 0
    assert records[0].scores["step0"] == records[1].scores["step0"]
    alone = run(apply(recipe, {"train.max_steps": 2}), tmp_path / "alone")
    assert alone.scores == records[1].scores  # an opened start is the one that was made
    assert not (tmp_path / "alone" / "starts").exists()
    compared = apply(recipe, {"train.objective": {"hidden": 1.0}, "train.max_steps": 2})
    run(compared, tmp_path / "compared", shared=tmp_path / "out")  # its stream keeps its channels
    others = {"train.max_steps": 0}, {"init.refit": {"tokens": 401}}, {"init.ffn": "taylor"}
    for i, other in enumerate(others):
        run(apply(recipe, {"train.max_steps": 0, "seed": i + 1, **other}), tmp_path / f"{i}",
            shared=tmp_path / "out")  # fmt: skip
    found = set((tmp_path / "out").glob("starts/*/*.json"))
    assert len(found) == 5
    assert all(path.stat().st_mtime_ns == at for path, at in starts.items())


def test_students_of_all_shapes_share_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass over the text serves all shapes; a rule is measured once for each seed."""
    rules: list[list[str]] = []

    def counted(teacher: PreTrainedModel, sample: Sample, asked: list[str], *, seed: int) -> object:
        rules.append(asked)
        return measure(teacher, sample, asked, seed=seed)

    monkeypatch.setattr(groundwork, "measure", counted)
    recipe = apply(
        world(tmp_path / "world"),
        {"init.ffn": "taylor", "init.measure_tokens": 300, "train.max_steps": 0, "seeds": [0],
         "grid": {"student.layers": [1, 2, 3]}},
    )  # fmt: skip
    records = study(recipe, tmp_path / "out")
    assert rules == [["taylor"]]
    (path,) = (tmp_path / "out").glob("starts/measured-*.safetensors")
    with safe_open(path, "np") as file:
        spent = float(file.metadata()["seconds"])
    assert all(record.costs["init_seconds"] > spent > 0 for record in records)
    alone = run(
        apply(recipe, {"grid": {}, "seeds": [], "student.layers": 3}), tmp_path / "alone"
    )  # measures by itself
    assert rules == [["taylor"]] * 2
    assert alone.scores == records[2].scores
    active = {"init.heads": "activation", "init.ffn": "activation"}
    for i, other in enumerate(({"seed": 1}, active, {**active, "seed": 2}, {"seed": 2})):
        one = apply(recipe, {"grid": {}, "seeds": [], "student.layers": 3, **other})
        run(one, tmp_path / str(i), shared=tmp_path / "out")
    assert rules[2:] == [["taylor"], ["activation"], ["activation"], ["taylor"]]
    both = {"init.heads": "activation", "seed": 3}
    run(apply(recipe, {"grid": {}, "seeds": [], **both}), tmp_path / "both",
        shared=tmp_path / "out")  # fmt: skip
    assert rules[6:] == [["activation", "taylor"]]
    kept = sorted((tmp_path / "out").glob("starts/measured-*.safetensors"))
    assert len(kept) == 7
    for path in kept:
        path.write_bytes(path.read_bytes()[:40])
    again = apply(recipe, {"grid": {}, "seeds": [], "student.layers": 3, "student.ffn": 32})
    with pytest.raises(HeadstartError, match="measured of a teacher is damaged"):
        run(again, tmp_path / "again", shared=tmp_path / "out")


def test_the_first_seed_chooses_the_rate_of_its_way(tmp_path: Path) -> None:
    """Trials are paid once for each way; a seed that takes a rate is another run than alone."""
    recipe = apply(
        world(tmp_path / "world"),
        {"arms": ARMS, "seeds": [0, 1], "train.learning_rate": "auto", "train.epochs": 2},
    )
    planned = plan_runs(recipe, tmp_path / "out")
    assert [one.is_ready for one in planned] == [True, False, True, False]
    assert [one.rate_from for one in planned[1::2]] == [one.place for one in planned[::2]]
    records = study(recipe, tmp_path / "out")
    for first, second in (records[:2], records[2:]):
        assert first.learning_rate["chosen"] == second.learning_rate["chosen"]
        assert first.learning_rate["tried"]
        assert second.learning_rate["tried"] == [
            {**trial, "seconds": 0.0} for trial in first.learning_rate["tried"]
        ]
        assert first.costs["trial_seconds"] > 0 == second.costs["trial_seconds"]
        assert second.learning_rate.get("tried_by") == first.signature
        assert first.learning_rate.get("tried_by") is None
    (second,) = study(apply(recipe, {"seeds": [1], "arms": {}}), tmp_path / "alone")
    assert second.signature != records[1].signature
    assert second.costs["trial_seconds"] > 0
    fixed = apply(recipe, {"train.learning_rate": 1e-3, "arms": {}, "seeds": []})
    with pytest.raises(HeadstartError, match="one of the two has a fixed one"):
        run(fixed, tmp_path / "fixed", shared=tmp_path / "out", rate_from=planned[0].place)
    assert not (tmp_path / "fixed").exists()  # it is refused before any work
    for given in ({"train.learning_rate": 1e-3}, {"train.max_steps": 0}):
        free = plan_runs(apply(recipe, given), tmp_path / "out")
        assert all(one.is_ready for one in free)


def test_every_way_has_its_first_seed_before_any_has_its_second(tmp_path: Path) -> None:
    arms = {"copied": {}, "scratch": {"init.source": "scratch"}}
    recipe = world(tmp_path / "world", arms=arms, seeds=[3, 1], baseline="scratch")
    order: list[str] = []

    def engine(waiting: Sequence[Planned], board: Board, shared: Path) -> None:
        order.extend(one.name for one in waiting)
        one_by_one(waiting, board, shared)

    records = study(recipe, tmp_path / "out", engine=engine)
    assert order == ["copied|seed=3", "scratch|seed=3", "copied|seed=1", "scratch|seed=1"]
    assert [record.name for record in records] == [order[i] for i in (0, 2, 1, 3)]  # the recipe's


@pytest.mark.parametrize("finishes", [True, False])
def test_what_another_process_is_at_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finishes: bool
) -> None:
    """It makes the first of three runs, and ends it, or dies, while the second is made here."""
    recipe = world(tmp_path / "world", seeds=[0, 1, 2])
    seen: list[tuple[str, ...]] = []
    room = sys.modules["headstart.study"]

    def engine(waiting: Sequence[Planned], board: Board, shared: Path) -> None:
        first = waiting[0]
        first.place.parent.mkdir()
        lock = FileLock(first.place.with_suffix(".lock"))
        lock.acquire()

        def watched(*given: Any, **named: Any) -> Record:
            seen.append(tuple(board.states.values()))
            if lock.is_locked:
                if finishes:
                    run(first.recipe, first.place, shared=shared)
                lock.release()
            return run(*given, **named)

        monkeypatch.setattr(room, "run", watched)
        one_by_one(waiting, board, shared)
        assert {*board.states.values()} == {DONE}

    study(recipe, tmp_path / "out", engine=engine)
    assert seen[0] == (AWAY, RUNNING, LEFT)
    assert seen[1] == ((DONE, DONE, RUNNING) if finishes else (RUNNING, DONE, LEFT))


def test_a_seed_that_takes_a_rate_counts_no_trials(tmp_path: Path) -> None:
    rates = {"train.learning_rate": "auto", "train.learning_rates": [1e-3, 3e-3, 1e-2]}
    recipe = apply(world(tmp_path / "world"), {**rates, "train.epochs": 9})
    one, two = (apply(recipe, {"seeds": seeds}) for seeds in ([0], [0, 1]))
    pair = plan_runs(two, tmp_path / "out")
    first, second = how_long(to_time(pair), tmp_path / "out")
    assert second["student"] < 0.9 * first["student"]
    assert [first] == how_long(to_time(plan_runs(one, tmp_path / "out")), tmp_path / "out")


def test_text_is_read_once_for_all_runs(
    made: tuple[Recipe, Path, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out, _ = made
    grid = {"data.examples_per_language": [2, 3], "train.max_steps": [0, 1]}
    many = apply(recipe, {"grid": grid})
    alone = [run_signature(one, out) for _, one in expand(many)]
    asked: list[int | None] = []

    def read(data: Data, task: str, more: bool, own: Path | None) -> Mapping[str, str]:
        asked.append(data.examples_per_language)
        return text_fingerprints(data, task, more, own)

    monkeypatch.setattr(sys.modules["headstart.study"], "text_fingerprints", read)
    assert [one.key for one in plan_runs(many, out)] == alone
    assert sorted(asked) == [2, 3]


def test_answers_that_are_there_take_no_time(tmp_path: Path) -> None:
    recipe, out = world(tmp_path / "world"), tmp_path / "out"
    (before,) = how_long([recipe], out)
    (out / "passes" / "some").mkdir(parents=True)
    (after,) = how_long([recipe], out)
    assert before["teacher pass"] > after["teacher pass"] == 0
    assert before["student"] == after["student"]


def test_a_damaged_start_is_named(tmp_path: Path) -> None:
    recipe = apply(
        world(tmp_path / "world"),
        {"init.refit": {"tokens": 400}, "data.max_length": 40, "train.max_steps": 0},
    )
    run(recipe, tmp_path / "run", shared=tmp_path / "all")
    (start,) = (tmp_path / "all").glob("starts/*/start.json")
    start.write_text("{")
    with pytest.raises(HeadstartError, match="an untrained student is damaged"):
        run(recipe, tmp_path / "again", shared=tmp_path / "all")


def test_a_study_leaves_a_single_run_alone(tmp_path: Path) -> None:
    recipe = world(tmp_path / "world")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.yaml").write_text("# signature: 0\n")
    with pytest.raises(HeadstartError, match="holds a single run"):
        study(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "study.yaml").exists()


def test_a_study_leaves_a_strange_folder_alone(tmp_path: Path) -> None:
    recipe = world(tmp_path / "world")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".study.yaml.1.partial").write_text("what a killed process left")
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(HeadstartError, match=r"holds thesis\.txt, and no study"):
        study(recipe, tmp_path / "out")
    (tmp_path / "out" / ".study.yaml.1.partial").unlink()
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("make", [study, run])
def test_a_file_is_no_folder(make: Callable[..., object], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(HeadstartError, match="it is a file"):
        make(world(tmp_path / "world"), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"


def test_a_refused_folder_is_left_as_it_is(tmp_path: Path) -> None:
    """A packed base was written into it before it was looked at."""
    packed = {"teacher.base": "quickstart"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(HeadstartError, match="is not empty, and holds no run"):
        run(apply(world(tmp_path / "world"), packed), tmp_path / "out")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_another_study_does_not_take_the_place_of_finished_runs(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    recipe, out, records = made
    shutil.copytree(out, mine := tmp_path / "out")
    with pytest.raises(HeadstartError, match="holds 4 finished runs, and none is of this recipe"):
        study(apply(recipe, {"train.max_steps": 0}), mine)
    assert read_records(mine) == records
    assert (mine / "study.yaml").read_text() == (out / "study.yaml").read_text()
    fewer = apply(recipe, {"seeds": [0]})
    assert study(fewer, mine) == [record for record in records if record.seed == 0]
    for record in mine.glob("runs/*/record.json"):
        record.unlink()  # nothing is finished: nothing can be lost
    assert len(study(apply(recipe, {"train.max_steps": 0, "seeds": [0]}), mine)) == 2


def test_what_killed_processes_leave_in_finished_runs_is_taken_away(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    recipe, out, records = made
    shutil.copytree(out, mine := tmp_path / "out")
    place = next(mine.glob("runs/*/record.json")).parent
    before = {entry.name for entry in place.iterdir()}
    for name in ("state", ".student.abc"):
        (place / name).mkdir()
    assert study(recipe, mine) == records
    assert {entry.name for entry in place.iterdir()} == before


def test_a_second_call_makes_nothing(made: tuple[Recipe, Path, list[Record]]) -> None:
    recipe, out, records = made
    paths = sorted(out.glob("runs/*/record.json"))
    before = [path.stat().st_mtime_ns for path in paths]
    assert study(recipe, out) == records
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_what_is_left_and_its_time_are_told_before(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    recipe, out, _ = made
    more = apply(recipe, {"seeds": [0, 1, 2]})
    before = sorted(out.rglob("*"))
    told = outlook(more, out)
    assert told[:3] == ["copied|seed=0  done", "copied|seed=1  done", "copied|seed=2"]
    assert re.fullmatch(r"2 of 6 runs to make: about \d+ s on this machine.*", told[-1])
    assert outlook(recipe, out)[-1] == "0 of 4 runs to make: nothing to make"
    assert outlook(more, tmp_path / "new")[-1].startswith("6 of 6 runs to make: about ")
    assert sorted(out.rglob("*")) == before
    assert not (tmp_path / "new").exists()


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
    shown = re.findall(r'<td style="[^"]*" title="([^"]*)"[^>]*>([^<]*)</td>', page)
    assert [float(value) for value, _ in shown] == pytest.approx(list(expected.values()))
    assert all(text == percent(float(value)) for value, text in shown)
    assert f"<code>headstart study {out.name}/study.yaml OUT</code>" in page
    listed = [one["name"] for one in json.loads((out / "runs.json").read_text())]
    assert [name for name, _ in expand(load_recipe(out / "study.yaml"))] == listed


def lay(out: Path, *records: Record, listed: bool = True) -> Path:
    """Lay records into a study's folder as if its runs had been made."""
    for record in records:
        record.write(out / "runs" / record.signature / "record.json")
    if listed:
        write_runs(out / "runs.json", [(record.name, record.signature) for record in records])
    return out


def test_names_of_the_user_are_escaped(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    evil = replace(made[2][0], name="<script>alert(1)</script>")
    page = report(lay(tmp_path, evil)).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_a_page_shows_the_runs_that_the_study_now_has(
    made: tuple[Recipe, Path, list[Record]],
) -> None:
    recipe, out, records = made
    short = {**ARMS["fresh"], "train.epochs": 1}
    settings = {"seeds": [0], "arms": {"fresh": ARMS["fresh"], "short": short}}
    other = study(apply(recipe, settings), out)
    assert len(list(out.glob("runs/*/record.json"))) == 5
    assert read_records(out) == other
    again = study(recipe, out)
    assert [r.signature for r in again] == [r.signature for r in records]
    assert read_records(out) == again


def test_columns_are_in_the_order_of_the_recipe(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    out = lay(tmp_path, *reversed(made[2]))
    assert [column.name for column in tabulate(read_records(out)).columns] == ["fresh", "copied"]


def test_a_run_is_shown_under_its_present_name(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    first, second = made[2][:2]
    lay(tmp_path, first, second)
    runs = [("new|seed=0", first.signature), ("to come|seed=0", "0" * 16)]
    write_runs(tmp_path / "runs.json", runs)
    assert read_records(tmp_path) == [replace(first, name="new|seed=0")]


def test_a_folder_without_a_list_gives_all_that_lie_there(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    assert read_records(lay(tmp_path, *reversed(made[2]), listed=False)) == made[2]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"name": "a"}]', "3"])
def test_a_broken_list_of_runs_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text(text, encoding="utf-8")
    with pytest.raises(HeadstartError, match=r"no list of a study's runs(.|\n)*runs\.json"):
        read_records(tmp_path)


def taught_by(record: Record, weights: str, **scores: float) -> Record:
    """Plant another teacher: its weights, and its accuracy in every language of test."""
    test = {code: {"accuracy": value} for code, value in scores.items()}
    return replace(
        record,
        fingerprints={**record.fingerprints, "teacher": weights},
        scores={**record.scores, "teacher": {**record.scores["teacher"], "test": test}},
    )


def test_each_column_stands_beside_its_own_teacher(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    copied, _, fresh, _ = made[2]
    strong = taught_by(copied, "x", aa=1.0, bb=1.0, cc=1.0)
    weak = taught_by(fresh, "y", aa=0.1, bb=0.1, cc=0.1)
    table = tabulate([strong, weak])
    names = ["teacher 1 (reference)", "teacher 2 (reference)"]
    assert heads(table) == ["language", *names, "copied", "fresh"]
    assert table.taught == (0, 1)
    assert cells(table.rows[-1])[:3] == ["mean, zero-shot", "100.0", "10.0"]
    page = report(lay(tmp_path, strong, weak)).read_text(encoding="utf-8")
    colours = re.findall(r'<td style="background:([^"]*)"', page)
    both = zip(table.rows, colours[::2], colours[1::2], strict=True)
    for row, first, second in both:
        assert (first, second) == (shade(row.scores[0], 1.0), shade(row.scores[1], 0.1))
    assert f"<strong>{names[0]}</strong>: copied</li>" in page
    assert f"<strong>{names[1]}</strong>: fresh</li>" in page


def test_seeds_of_different_teachers_are_not_averaged(
    made: tuple[Recipe, Path, list[Record]],
) -> None:
    first, second = made[2][:2]
    table = tabulate([first, taught_by(second, "x", aa=1.0, bb=1.0, cc=1.0)])
    names = ["copied, teacher 1", "copied, teacher 2"]
    assert [(c.name, len(c.records)) for c in table.columns] == [(name, 1) for name in names]


def test_an_arm_called_teacher_is_not_the_reference(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    arm = replace(made[2][0], name="teacher|seed=0")
    table = tabulate([arm])
    assert heads(table) == ["language", "teacher (reference)", "teacher"]
    assert len(cells(table.rows[0])) == 3
    page = report(lay(tmp_path, arm)).read_text(encoding="utf-8")
    shown = re.findall(r'<th scope="(?:col|row)">(teacher[^<]*)<', page)
    assert shown == ["teacher", *["teacher (reference)", "teacher"] * 2]


def test_the_page_says_what_is_peculiar_about_the_text(
    made: tuple[Recipe, Path, list[Record]], tmp_path: Path
) -> None:
    leak = {"language": "aa", "split": "test", "rows": 12, "conflicts": 0, "dropped": False}
    leaky = [replace(record, leaks=(leak,), text_left_out=7) for record in made[2]]
    page = report(lay(tmp_path / "all", *leaky)).read_text(encoding="utf-8")
    for said in (
        "12 test rows stand in train too: aa 12.",
        "7 unlabelled texts stand in dev or test too, and were left out.",
    ):
        assert f"<p>{said}</p>" in page
    some = [*leaky[:2], *made[2][2:]]
    page = report(lay(tmp_path / "some", *some)).read_text(encoding="utf-8")
    assert "<p>copied: 12 test rows" in page
    none = report(lay(tmp_path / "none", *made[2])).read_text(encoding="utf-8")
    assert "About the text" not in none


@pytest.mark.parametrize("dropped", [False, True])
def test_a_record_tells_leaks_cut_words_and_stray_tags(dropped: bool, tmp_path: Path) -> None:
    recipe = world(tmp_path / "world", task="tagging")
    rows = [
        {"split": "train", "tokens": ["zebra", "me"], "tags": ["B-PER", "O"]},
        {"split": "test", "tokens": ["zebra", "me"], "tags": ["O", "I-PER"]},
        {"split": "test", "tokens": ["me"] * 40, "tags": ["O"] * 40},
    ]
    with (tmp_path / "world" / "texts" / "bb.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    quick = {"train.epochs": 1, "teacher.finetune.epochs": 1, "data.max_length": 32}
    record = run(apply(recipe, {**quick, "data.drop_leaks": dropped}), tmp_path / "out")
    planted = {"language": "bb", "split": "test", "rows": 1, "conflicts": 1, "dropped": dropped}
    assert [leak for leak in record.leaks if leak["language"] == "bb"] == [planted]
    assert record.truncated == {"train": 0, "dev": 0, "test": 10}
    assert record.stray_inside == {"bb": 1}
    assert record.precision in {"fp32", "bf16"}
    assert read_records(tmp_path / "out") == [record]


def test_an_empty_folder_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="no finished run"):
        report(tmp_path)


def test_runs_of_other_languages_do_not_share_a_table(
    made: tuple[Recipe, Path, list[Record]],
) -> None:
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
