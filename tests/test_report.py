"""The page: numbers are the records', and a real browser shows, sorts and filters them."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

import fake
from fake import GRID, LANGUAGES, TEACHER, ZERO_SHOT, Arm, write_study
from headstart import machine
from headstart.answers import (
    SCORE,
    SHARE,
    against,
    answer,
    examples_to,
    lines,
    other_gains,
    points,
    shares_of,
    steps_to,
)
from headstart.charts import curves, heat, sizes, waterfall, worth
from headstart.errors import HeadstartError
from headstart.insight import look_into
from headstart.loading import expand, load_recipe, to_yaml
from headstart.record import read_record
from headstart.report import report
from headstart.stats import Estimate
from headstart.tables import percent, read_records, rising

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from playwright.sync_api import Browser, Page

REFITTED = {
    f"refitted-{objective}": Arm(0.96 + more, objective=objective, refitted=True)
    for objective, more in (("labels", 0.0), ("mse", 0.03))
}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
SERIOUS = ("serious", "critical")
Shown = tuple["Page", list[str], list[str]]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sized = {
        f"{name}|examples_per_language={count}": Arm(
            arm.keeps * worth, arm.source, arm.objective, arm.refitted,
            (("data", {"examples_per_language": count}),),
        )
        for count, worth in ((500, 1.0), (8, 0.6))
        for name, arm in (GRID | REFITTED).items()
    }  # fmt: skip
    folder = write_study(tmp_path_factory.mktemp("study") / "tiny", sized, seeds=(0, 1))
    report(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's own; where there is none, `make test` leaves these tests out and says so."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    assert found is not None, "install the system's package chromium"
    with sync_playwright() as driver:
        made = driver.chromium.launch(executable_path=found, args=QUIET)
        yield made
        made.close()


KEPT = sorted(Path(__file__).parents[1].glob("docs/study/*/report.html"))


def show(browser: Browser, page: Path, **how: Any) -> Shown:
    """Open a page; also return what it complained of, and what it asked for."""
    shown, said, asked = browser.new_page(**how), list[str](), list[str]()
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda fault: said.append(str(fault)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(page.as_uri())
    shown.wait_for_selector("html[data-state=drawn]", timeout=60_000)
    return shown, said, asked


@pytest.mark.browser
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_a_browser_shows_it_without_a_fault_or_request(
    browser: Browser, out: Path, scheme: Any, width: int
) -> None:
    size: Any = {"width": width, "height": 800}
    page, said, asked = show(browser, out / "report.html", color_scheme=scheme, viewport=size)
    assert said == []
    assert asked == [(out / "report.html").as_uri()]
    assert drawn(page) == 5
    assert faults(page) == []
    page.close()


def drawn(page: Page) -> int:
    """Count the charts, each of which must show something."""
    charts = page.locator(".chart")
    for i in range(charts.count()):
        assert charts.nth(i).locator("svg").count() == 1
        assert charts.nth(i).locator("svg path").count() > 3
    return charts.count()


def faults(page: Page) -> list[tuple[str, str]]:
    """List what a reader with a screen reader, or weak eyes, would stumble over."""
    found = Axe().run(page).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in SERIOUS]


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.parent.name)
def test_a_browser_shows_each_page_that_is_kept(browser: Browser, kept: Path) -> None:
    page, said, asked = show(browser, kept, viewport={"width": 390, "height": 800})
    assert (said, asked) == ([], [kept.as_uri()])
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert drawn(page) >= 3
    assert faults(page) == []
    page.close()


@pytest.mark.browser
def test_the_check_for_readers_has_teeth(browser: Browser, out: Path, tmp_path: Path) -> None:
    faulty = (out / "report.html").read_text(encoding="utf-8")
    faulty = faulty.replace('<html lang="en">', "<html>")
    faulty = faulty.replace("--soft: light-dark(#5b6470", "--soft: light-dark(#d5d8dd")
    (tmp_path / "faulty.html").write_text(faulty, encoding="utf-8")
    page, _, _ = show(browser, tmp_path / "faulty.html")
    found = {v["id"] for v in Axe().run(page).response["violations"] if v["impact"] in SERIOUS}
    assert found == {"color-contrast", "html-has-lang"}
    page.close()


@pytest.mark.browser
def test_a_phone_scrolls_down_only(browser: Browser, out: Path) -> None:
    page, _, _ = show(browser, out / "report.html", viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


@pytest.mark.browser
def test_a_sheet_of_paper_holds_its_width_in_dark_ink(browser: Browser, out: Path) -> None:
    sheet = {"width": 794, "height": 1123}  # A4, at 96 dots an inch
    page, said, _ = show(browser, out / "report.html", viewport=sheet, color_scheme="dark")
    assert page.locator(".tools").first.is_visible()
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == sheet["width"]
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    marks = "[...document.querySelectorAll('.chart .role-axis-label text')]"
    assert page.evaluate(f"{marks}.length") > 10
    dark = f"{marks}.every(mark => mark.getAttribute('fill') === '#1b1f24')"
    page.wait_for_function(dark, timeout=10_000)
    assert not page.locator(".tools").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert said == []
    page.close()


@pytest.mark.browser
def test_long_names_of_a_grid_stay_in_their_columns(browser: Browser, out: Path) -> None:
    page, _, _ = show(browser, out / "report.html")
    heads = "[...document.querySelectorAll('thead th')]"
    assert page.evaluate(f"{heads}.some(head => head.textContent.includes('per_language=500'))")
    over = f"{heads}.filter(head => head.scrollWidth > head.clientWidth + 1)"
    assert page.evaluate(f"{over}.map(head => head.textContent)") == []
    page.close()


@pytest.mark.browser
def test_columns_sort_by_their_exact_numbers(browser: Browser, out: Path) -> None:
    page, _, _ = show(browser, out / "report.html")
    button = page.locator("#scores thead button").nth(2)
    rows = page.locator("#scores tbody tr")

    def column() -> list[float]:
        found = rows.locator("td:nth-of-type(2)")
        return [float(found.nth(i).get_attribute("title") or "nan") for i in range(rows.count())]

    before = column()
    button.click()
    assert column() == sorted(before, reverse=True)
    button.press("Enter")
    assert column() == sorted(before)
    assert page.locator("#scores th[aria-sort=ascending]").count() == 1
    page.locator("#ways thead button").nth(5).click()  # a language, and what it loses
    lost = page.locator("#ways tbody tr td[title]")
    drops = [float(lost.nth(i).get_attribute("title") or "nan") for i in range(lost.count())]
    assert len(drops) == page.locator("#ways tbody tr").count()
    assert drops == sorted(drops, reverse=True)
    assert len(set(drops)) > 1
    page.locator("#scores thead button").first.click()
    names = rows.locator("th").all_inner_texts()
    assert names == sorted(names, key=str.casefold)
    page.close()


@pytest.mark.browser
def test_languages_can_be_picked(browser: Browser, out: Path) -> None:
    page, _, _ = show(browser, out / "report.html")
    shown = page.locator("#scores tbody tr:visible th")
    assert shown.count() == len(TEACHER) + 2
    page.fill("#find", "SW")
    assert [text.split()[0] for text in shown.all_inner_texts()] == ["sw-KE"]
    page.fill("#find", "")
    page.select_option("#kind", "zero-shot")
    assert [text.split()[0] for text in shown.all_inner_texts()] == ["cy-GB", "fa-IR"]
    page.close()


@pytest.mark.browser
def test_the_numbers_are_the_records(browser: Browser, out: Path) -> None:
    page, _, _ = show(browser, out / "report.html")
    table = look_into(out).table
    shown = page.locator("#scores tbody tr")
    for i, row in enumerate(table.rows):
        cells = shown.nth(i).locator("td")
        expected = [*row.teachers, *row.scores]
        titles = [cells.nth(j).get_attribute("title") or "" for j in range(len(expected))]
        assert [float(title) for title in titles] == expected
        assert cells.all_inner_texts() == [percent(value) for value in expected]
    page.close()


@pytest.mark.browser
def test_what_each_part_brings_in_each_language_can_be_looked_up(
    browser: Browser, out: Path
) -> None:
    page, said, _ = show(browser, out / "report.html")
    found = look_into(out).attributions[0]
    table = page.locator("#everywhere")
    assert not table.is_visible()
    page.get_by_text("In each language", exact=True).click()
    heads = [text.split()[0] for text in table.locator("thead th").all_inner_texts()]
    assert heads == ["language", *(part.name for part in found.parts), "whole"]
    for i, (language, estimate) in enumerate(found.part("distillation").by_language.items()):
        cells = table.locator("tbody tr").nth(i).locator("th, td").all_inner_texts()
        assert cells[0] == language
        assert cells[heads.index("distillation")] == points(estimate, sign=True)
    assert said == []
    page.close()


@pytest.mark.browser
def test_what_each_language_keeps_has_its_interval(browser: Browser, out: Path) -> None:
    """Shown in the table at a switch, sorted by it, and back again; and where a pointer rests."""
    page, said, _ = show(browser, out / "report.html")
    insight = look_into(out)
    told = [shares_of(insight, column) for column in insight.table.columns]
    expected = [[shares[row.label] for shares in told] for row in insight.table.rows]
    with_interval = re.compile(r"\d+\.\d \(\d+\.\d to \d+\.\d\)")
    assert all(with_interval.fullmatch(cell) for row in expected for cell in row)
    rows = page.locator("#scores tbody tr")
    before = rows.all_inner_texts()
    page.select_option("#cells", "kept")
    for i, row in enumerate(expected):
        assert rows.nth(i).locator("td[data-other]").all_inner_texts() == row
    teachers = len(insight.table.teachers)
    page.locator("#scores thead button").nth(1 + teachers).click()
    shown = [
        float(text.split()[0])
        for text in rows.locator("td[data-other]:nth-of-type(2)").all_inner_texts()
    ]
    assert shown == sorted(shown, reverse=True)
    assert len(set(shown)) > 1
    page.select_option("#cells", "score")
    assert sorted(rows.all_inner_texts()) == sorted(before)
    page.locator("#heat path").nth(3).hover(position={"x": 3, "y": 3})
    page.locator("#vg-tooltip-element.visible").wait_for()
    assert with_interval.search(page.locator("#vg-tooltip-element").inner_text())
    assert said == []
    page.close()


def test_the_heat_map_begins_with_the_teacher(out: Path) -> None:
    table = (insight := look_into(out)).table
    spec = heat(insight, [shares_of(insight, column) for column in table.columns])
    (boxes, _) = spec["layer"]
    assert boxes["encoding"]["x"]["sort"][0] == table.teachers[0].name
    shown = [one["score"] for one in spec["data"]["values"] if one["way"] == table.teachers[0].name]
    assert shown == [percent(row.teachers[0]) for row in table.rows]


def test_it_is_one_small_file(out: Path) -> None:
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 3_000_000
    head = page[: page.index("<script>")]
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', head)


def test_the_pages_that_are_kept_are_of_today() -> None:
    """A page beside records has the look and the workings that `headstart report` gives."""
    plain = files("headstart").joinpath("templates/report.html").read_text(encoding="utf-8")
    parts = [
        re.findall(f"<{name}>.*?</{name}>", plain, re.DOTALL)[-1] for name in ("style", "script")
    ]
    fixed = [parts[0], parts[1].partition("document.documentElement.dataset")[2]]
    captions = dict(re.findall(r'call chart\("(\w+)"[^%]*%}([^{]+){% endcall', plain))
    assert "worth" in captions
    assert len(KEPT) > 5
    for page in KEPT:
        made = (
            f"<code>headstart study {page.parent.name}/study.yaml OUT</code> makes the runs again"
        )
        text = page.read_text("utf-8")
        under = [said for name, said in captions.items() if f'id="{name}"' in text]
        assert all(part in text for part in (*fixed, *under, made)), page.parent.name


@pytest.mark.parametrize("page", KEPT, ids=lambda page: page.parent.name)
def test_a_kept_recipe_names_all_runs_of_its_page(page: Path) -> None:
    named = {name for name, _ in expand(load_recipe(str(page.parent / "study.yaml"), ()))}
    assert {record.name for record in read_records(page.parent)} <= named


def test_ways_that_the_recipe_does_not_name_are_told(tmp_path: Path) -> None:
    out = write_study(tmp_path / "a", GRID)
    some = [name for name in GRID if name != "base-mse"]
    for arms, seeds, told in (
        (GRID, "0, 1, 2", ""),
        (some, "0, 1, 2", "It does not name all runs of base-mse, made when it had"),
        (GRID, "1", f"all runs of {', '.join(GRID)}, made when it had"),
    ):
        each = (f"{name}: {{train.learning_rate: {i + 1}e-4}}" for i, name in enumerate(arms))
        asked = "arms={" + ", ".join(each) + "}"
        recipe = load_recipe("quickstart", [asked, "baseline=null", f"seeds=[{seeds}]"])
        (out / "study.yaml").write_text(to_yaml(recipe), encoding="utf-8")
        page = report(out).read_text(encoding="utf-8")
        assert "makes the runs again: that file" in page
        assert ("It does not name" in page) == bool(told)
        assert told in page
    (out / "study.yaml").write_text("arms: {a: {train.gone: 1}}", encoding="utf-8")
    assert "makes the runs again" not in report(out).read_text(encoding="utf-8")  # nor anything


def test_the_answer_is_one_sentence_with_its_intervals(out: Path) -> None:
    first, zero_shot = answer(look_into(out))
    assert first.startswith(
        "From scratch-labels to refitted-mse (examples_per_language=500), after 600 steps each, "
        "the score rises by "
    )
    assert len(re.findall(r"\d \(-?\d+\.\d to -?\d+\.\d\)", first)) == 3
    assert zero_shot.startswith("On zero-shot languages it rises by ")
    assert first in (out / "report.html").read_text(encoding="utf-8")


def test_a_score_that_falls_does_not_rise(tmp_path: Path) -> None:
    worse = {name: replace(arm, keeps=1.5 - arm.keeps) for name, arm in GRID.items()}
    first = answer(look_into(write_study(tmp_path / "a", worse)))[0]
    assert "the score changes by -" in first


@pytest.mark.parametrize("known", [True, False])
def test_speed_is_estimated_where_records_know_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """Products alone, of old records, are a third; with what comes beside them a half."""
    teacher = fake.SIZE | {"transformer": 27_000_000, "head": 0}
    monkeypatch.setattr(fake, "SIZE", teacher)
    out = write_study(tmp_path / "a", GRID)
    for path in out.glob("runs/*/record.json"):
        plain = json.loads(path.read_text(encoding="utf-8"))
        for model, work in (("teacher", 30), ("student", 15)) if known else ():
            plain["shape"][model]["work"] = work
        path.write_text(json.dumps(plain), encoding="utf-8")
    spec = worth(look_into(out))
    assert {row["faster"] for row in spec["data"]["values"]} == {1.0, 2.0 if known else 3.0}
    assert ("times as fast" in json.dumps(spec)) == known


def test_settings_are_told_apart(out: Path) -> None:
    insight = look_into(out)
    assert [(found.setting, len(found.ways)) for found in insight.attributions] == [
        (f"examples_per_language={count}", ways) for count in (500, 8) for ways in (8, 6)
    ]
    assert [row[0] for row in other_gains(insight)] == [
        "mse, without refit, examples_per_language=500",
        "mse, examples_per_language=8",
        "mse, without refit, examples_per_language=8",
    ]


def test_one_seed_has_no_intervals_and_says_so(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "one", GRID, seeds=(0,))
    page = report(folder).read_text(encoding="utf-8")
    assert "One seed: nothing here has an interval over seeds." in page
    assert not re.search(r"\d \(-?\d+\.\d to", page[: page.index("<script>")])


def test_without_predictions_there_are_no_intervals_and_it_says_so(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "bare", GRID, predictions=False)
    page = report(folder).read_text(encoding="utf-8")
    assert "Their predictions are not all there: no intervals." in page
    assert look_into(folder).attributions == ()
    assert lines(look_into(folder))[0].trained_on != "-"


def test_predictions_of_other_rows_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    other = write_study(tmp_path / "b", GRID, examples=100)
    run = next((folder / "runs").iterdir()).name
    kept = Path("runs", run, "predictions", "test.parquet")
    shutil.copy(other / kept, folder / kept)
    page = report(folder).read_text(encoding="utf-8")
    assert "was not tested on the rows of de-DE that others were" in page


def test_broken_predictions_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    (run, *_) = (folder / "runs").iterdir()
    (run / "predictions" / "test.parquet").write_bytes(b"no parquet")
    assert "the predictions cannot be read" in report(folder).read_text(encoding="utf-8")


def plain(arm: Arm, **settings: object) -> Arm:
    return replace(arm, settings=tuple(settings.items()))


def test_what_decides_nothing_tells_no_settings_apart(tmp_path: Path) -> None:
    arms = {
        name: plain(arm, data={"folder": f"/{i}", "text": f"/{i}"}, train={"tracker": str(i)})
        for i, (name, arm) in enumerate(GRID.items())
    }
    (found,) = look_into(write_study(tmp_path / "a", arms)).attributions
    assert found.setting == ""


def test_losses_of_other_temperatures_are_no_pair(tmp_path: Path) -> None:
    def kl(temperature: float) -> dict[str, object]:
        return {"objective": {"kl": {"weight": 1.0, "temperature": temperature}}}

    arms = {name: arm for name, arm in GRID.items() if arm.objective == "labels"}
    for i, source in enumerate(("scratch", "base", "teacher")):
        arms[f"{source}-kl"] = plain(Arm(0.9, source, "kl"), train=kl(1.0 + i))
    insight = look_into(write_study(tmp_path / "a", arms))
    assert [way.objective for way in insight.ways[3:]] == ["kl", "kl T=2", "kl T=3"]
    assert insight.attributions == ()


@pytest.mark.parametrize("text", ["", "- a list", "{broken"])
def test_a_broken_recipe_beside_a_run_is_no_traceback(tmp_path: Path, text: str) -> None:
    folder = write_study(tmp_path / "a", GRID)
    for run in (folder / "runs").iterdir():
        (run / "recipe.yaml").write_text(text)
    if text == "{broken":
        with pytest.raises(HeadstartError, match="YAML"):
            report(folder)
    else:
        report(folder)


def test_fewer_seeds_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    (lost, *_) = [r for r in (folder / "runs").iterdir() if r.name.startswith("00000005")]
    shutil.rmtree(lost)
    assert "teacher-mse has 2 of 3 seeds" in report(folder).read_text(encoding="utf-8")


def test_a_teacher_without_a_right_answer_gives_no_share(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", {"only": Arm(0.9)}, taught={"cy-GB": 0.0, "fa-IR": 0.0})
    (line,) = lines(look_into(folder))
    assert line.kept_zero_shot == "-"
    assert line.kept != "-"
    report(folder)


def test_marked_runs_are_named_beside_the_answer(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", {**GRID, "best": Arm(1.0, marks=("nan",))})
    said = answer(look_into(folder))
    assert not any("Do not lean on it" in sentence for sentence in said)  # best is in no cell
    marked = {name: replace(arm, marks=("below-majority",)) for name, arm in GRID.items()}
    assert answer(look_into(write_study(tmp_path / "b", marked)))[-1].startswith(
        "Do not lean on it"
    )
    chosen = write_study(tmp_path / "c", {"broken": Arm(1.0, marks=("nan",)), "sound": Arm(0.5)})
    assert answer(look_into(chosen))[0].startswith("sound, the best")


def test_a_grid_without_scratch_names_the_best(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", REFITTED)
    (said,) = answer(look_into(folder))
    assert said.startswith("refitted-mse, the best on test of 2, keeps ")
    assert "this needs students from scratch" in report(folder).read_text(encoding="utf-8")


@pytest.mark.browser
def test_a_single_run_is_shown_too(browser: Browser, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", {"only": Arm(0.9)}, seeds=(0,))
    (run,) = (folder / "runs").iterdir()
    page, said, asked = show(browser, report(run), viewport={"width": 390, "height": 800})
    assert (said, len(asked)) == ([], 1)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert drawn(page) == 3
    assert faults(page) == []
    page.close()


def test_a_single_run_has_the_same_page_with_less_on_it(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", {"only": Arm(0.9)}, seeds=(0,))
    (run,) = (folder / "runs").iterdir()
    page = report(run).read_text(encoding="utf-8")
    assert "The student keeps " in page
    assert f"<code>headstart run {run.name}/recipe.yaml OUT</code>" in page
    (folder / "nothing").mkdir()
    with pytest.raises(HeadstartError, match="no finished run"):
        report(folder / "nothing")


def test_steps_are_the_mean_over_seeds(out: Path) -> None:
    column = look_into(out).table.columns[5]
    assert column.name.startswith("teacher-mse")
    metric = "accuracy"
    taught = column.records[0].scores["teacher"]["dev"].values()
    goal = 0.9 * sum(row[metric] for row in taught) / 3
    reached = [
        min(p["step"] or 0 for p in record.curve if (p["dev"] or 0) >= goal)
        for record in column.records
    ]
    assert steps_to(column, 0.9) == f"{sum(reached) / len(reached):,.0f}"
    assert steps_to(column, 0.05) == "0"
    assert steps_to(column, 1.5) == "-"


CURVES: Mapping[str, tuple[list[tuple[int, float]], float | None]] = {
    "rises": ([(100, 0.3), (300, 0.5), (301, 0.51), (400, 0.55)], 0.05),
    "has stopped": ([(100, 0.3), (300, 0.5), (400, 0.49)], 0.0),
    "rises a little": ([(100, 0.3), (300, 0.5), (400, 0.519)], 0.019),
    "rises by much of what it has": ([(100, 0.1), (300, 0.15), (400, 0.16)], 0.01),
    "has nothing": ([(100, 0.0), (300, 0.0), (400, 0.0)], 0.0),
    "was judged at its end alone": ([(400, 0.5)], None),
    "was not trained": ([], None),
}


@pytest.mark.parametrize("case", CURVES)
def test_ways_that_had_not_stopped_rising_are_named(case: str, tmp_path: Path) -> None:
    """A ceiling of steps that stops one way too early may turn the answer: it has been seen to."""
    curve, rise = CURVES[case]
    points = tuple({"step": step, "dev": dev} for step, dev in curve)
    folder = write_study(tmp_path / "a", GRID)
    for path in (folder / "runs").glob("*/record.json"):
        record = read_record(path)
        flat = ({"step": 100, "dev": 0.5}, {"step": 400, "dev": 0.5})
        is_meant = record.name.startswith("scratch-mse")
        replace(record, curve=points if is_meant else flat).write(path)
    found = look_into(folder)
    (column,) = (c for c in found.table.columns if c.name == "scratch-mse")
    assert column.rise == (None if rise is None else pytest.approx(rise))
    said = [sentence for sentence in answer(found) if "had not stopped rising" in sentence]
    assert len(said) == (case in {"rises", "rises by much of what it has"})
    told = f"scratch-mse ({100 * (rise or 0):+.1f})"
    assert all(told in sentence for sentence in said)
    assert [
        told.replace(" (", " had not stopped rising: ").replace(")", " points") in line
        for line in rising(found.table.columns)
    ] == [True] * len(said)
    (line,) = (line for line in lines(found) if line.way == "scratch-mse")
    assert line.rise == ("-" if rise is None else f"{100 * rise:.1f}")
    assert "last quarter, dev" in report(folder).read_text(encoding="utf-8")


def test_the_language_that_loses_most_has_an_interval_for_all_at_once(tmp_path: Path) -> None:
    found = look_into(write_study(tmp_path / "a", GRID))
    for column, line in zip(found.table.columns, lines(found), strict=True):
        each = {name: kept.below for name, kept in found.kept_by_language(column).items()}
        worst = max(each, key=lambda name: each[name].value)
        ends, plain = each[worst].interval(among=5), each[worst].interval()
        assert ends is not None
        assert plain is not None
        told = f"{worst} {100 * each[worst].value:.1f} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"
        assert line.worst == told
        assert f"({100 * plain[0]:.1f} to {100 * plain[1]:.1f})" not in line.worst


def test_ways_of_other_lengths_are_not_said_to_have_one(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    assert " after 600 steps each," in answer(look_into(folder))[0]
    for path in (folder / "runs").glob("*/record.json"):
        record = read_record(path)
        if record.name.startswith("base-mse"):
            replace(record, curve=record.curve[:-1]).write(path)
    assert "steps each" not in answer(look_into(folder))[0]


def test_languages_that_only_the_teacher_learned_are_not_called_trained_on(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    assert look_into(folder).languages == "3 languages trained on, 2 zero-shot"
    for path in (folder / "runs").glob("*/record.json"):
        replace(read_record(path), learned_from=("sw-KE",)).write(path)
    found = look_into(folder)
    assert found.languages == (
        "1 language trained on, 2 more of the recipe's, without training rows, 2 zero-shot"
    )
    notes = {row.label: row.note for row in found.table.rows}
    assert notes == {
        "de-DE": "no training rows", "sw-KE": "", "th-TH": "no training rows",
        "cy-GB": "zero-shot", "fa-IR": "zero-shot",
        "mean, the recipe's languages": "", "mean, zero-shot": "",
    }  # fmt: skip
    page = report(folder).read_text(encoding="utf-8")
    shown = re.sub(r"<script>.*?</script>", "", page[page.index("<body>") :], flags=re.DOTALL)
    told = shown.replace("1 language trained on", "").replace("trained-on languages' dev", "")
    assert "trained on" not in told
    assert "mean, trained on" not in page
    (path, *_) = (folder / "runs").glob("*/record.json")
    replace(read_record(path), learned_from=()).write(path)  # one way has learned from all
    assert look_into(folder).languages == "3 languages trained on, 2 zero-shot"


def test_ways_are_held_against_the_baseline(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    assert against(look_into(folder)) == []
    assert 'id="against"' not in report(folder).read_text(encoding="utf-8")
    (folder / "study.yaml").write_text("baseline: base-labels\n", encoding="utf-8")
    insight = look_into(folder)
    columns = {column.name: column for column in insight.table.columns}
    rows = against(insight)
    assert [way for way, *_ in rows] == [name for name in GRID if name != "base-labels"]
    for way, *told in rows:
        for kind, said in zip((LANGUAGES, ZERO_SHOT), told, strict=True):
            apart = [
                (columns[way].score(c) or 0) - (columns["base-labels"].score(c) or 0) for c in kind
            ]
            assert said.startswith(f"{100 * sum(apart) / len(kind):+.1f} (")
    assert "Against base-labels, the baseline" in report(folder).read_text(encoding="utf-8")


def test_examples_that_it_takes_are_the_fewest_tried(out: Path) -> None:
    insight = look_into(out)
    sizes_of = {c.name: int(c.name.rpartition("=")[2]) for c in insight.table.columns}
    found = {row[0]: row[1:] for row in examples_to(insight, sizes_of)}
    assert set(found) == set(GRID | REFITTED)
    assert found["scratch-labels"] == ("-", "-", "-")
    assert found["refitted-mse"][:2] == ("500", "500")
    more = dict.fromkeys(sizes_of, 7)
    assert examples_to(insight, more) == []  # one size says nothing


def test_where_no_number_of_examples_will_do_it_says_so(tmp_path: Path) -> None:
    weak = {f"weak|examples_per_language={n}": Arm(0.5) for n in (8, 500)}
    page = report(write_study(tmp_path / "a", weak, seeds=(0,))).read_text(encoding="utf-8")
    assert "With none of these numbers does a way keep 90 % of its teacher" in page
    assert 'id="sized"' not in page


def test_ways_are_described_in_words(tmp_path: Path) -> None:
    arms = {**GRID, **REFITTED, "odd": Arm(0.9, objective="kl T=2")}
    folder = write_study(tmp_path / "a", arms, seeds=(0,))
    for path in (folder / "runs").glob("*/record.json"):
        record = read_record(path)
        if record.name.startswith("refitted-labels"):
            replace(record, curve=()).write(path)
    told = {line.way: line.about for line in lines(look_into(folder))}
    assert told["scratch-labels"] == "fresh weights; learns labels"
    assert told["base-mse"] == "copied from the base; learns the teacher's logits (mse)"
    assert told["refitted-labels"] == "copied from the teacher, refitted; untrained"
    assert told["odd"].endswith("learns kl T=2")
    assert told["odd"] in report(folder).read_text(encoding="utf-8")


def test_all_rows_are_a_size_too(out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(out, tmp_path / "a")
    for path in (folder / "runs").glob("*/record.json"):
        record = read_record(path)
        is_all = "=500" in record.name
        name = record.name.replace("=500", "=None")
        replace(record, name=name, train_rows=900 if is_all else 24).write(path)
    runs = (folder / "runs.json").read_text().replace("=500", "=None")
    (folder / "runs.json").write_text(runs)
    page = report(folder).read_text(encoding="utf-8")
    specs = json.loads(page.partition("const SPECS = ")[2].partition(";\n")[0])
    drawn = {row["examples"] for row in specs["sizes"]["data"]["values"] if "examples" in row}
    assert drawn == {8, 300}


def test_an_accelerator_is_named_before_the_processor() -> None:
    assert "accelerator" not in machine.hardware()
    made_on = machine.hardware("a card") | {
        "processor": "a processor",
        "cores": 2,
        "system": "Linux",
    }
    assert machine.told(made_on) == "a card; a processor, 2 cores, Linux"


def test_all_commits_and_machines_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "a", GRID)
    for i, path in enumerate(sorted((folder / "runs").glob("*/record.json"))):
        record = read_record(path)
        hardware = {**record.hardware, "processor": f"processor {i % 2}"}
        replace(record, commit=f"commit{i % 3}", hardware=hardware).write(path)
    page = report(folder).read_text(encoding="utf-8")
    made = page.partition("How it was made")[2].partition("</p>")[0]
    assert all(f"processor {i}, 2 cores" in made for i in (0, 1))
    assert "commits " in made
    assert all(made.count(f"commit{i}") == 1 for i in range(3))


def test_points_are_written_with_their_interval() -> None:
    sure, alone = Estimate(0.123, 0.01, 8.0, 0.01), Estimate(-0.02, None, None, 0.01)
    assert points(sure) == "12.3 (10.0 to 14.6)"
    assert points(sure, sign=True) == "+12.3 (10.0 to 14.6)"
    assert points(alone, sign=True) == "-2.0"


def test_a_corpus_without_zero_shot_languages_has_no_columns_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fake.ZERO_SHOT", ())
    ways = {
        f"{name}|examples_per_language={count}": replace(arm, settings=(("data", {"n": count}),))
        for count in (8, 500)
        for name, arm in (GRID | REFITTED).items()
    }
    page = report(write_study(tmp_path / "a", ways, seeds=(0, 1))).read_text(encoding="utf-8")
    assert "Other gains" in page
    shown = re.sub(r"<(script|style)[ >].*?</\1>", "", page, flags=re.DOTALL)
    assert "fine-tuning" in shown
    assert "zero-shot" not in shown
    tables = re.findall(r"<table.*?</table>", shown, flags=re.DOTALL)
    assert len(tables) > 3
    for head, *body in (re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL) for table in tables):
        cells = {len(re.findall(r"<t[hd][ >]", row)) for row in body}
        assert cells == {len(re.findall(r"<t[hd][ >]", head))}


def test_a_way_without_training_is_a_dot_without_a_learning_rate(tmp_path: Path) -> None:
    arms = {"trained": Arm(0.9), "untrained": Arm(0.8)}
    folder = write_study(tmp_path / "a", arms, seeds=(0,))
    for path in (folder / "runs").glob("*/record.json"):
        record = read_record(path)
        if record.name.startswith("untrained"):
            replace(record, curve=()).write(path)
    spec = curves(look_into(folder).table.columns)
    (dots,) = (layer for layer in spec["layer"] if layer["mark"]["type"] == "circle")
    assert {(row["arm"], row["step"]) for row in dots["data"]["values"]} == {
        ("trained", 0),
        ("untrained", 0),
    }
    page = report(folder).read_text(encoding="utf-8")
    costs = page.partition('aria-label="Size and cost"')[2]
    rates = re.findall(r">(\w*trained)</th>.*<td>(.*?)</td><td>61</td>", costs)
    assert rates == [("trained", "0.0003"), ("untrained", "\u2013")]


def test_sizes_are_held_against_the_teacher_of_each_way(out: Path) -> None:
    """One dashed line for each teacher of the ways that are drawn, at that teacher's score."""
    insight = look_into(out)
    examples = {column.name: 500 for column in insight.table.columns}
    levels = [row for row in sizes(insight, examples)["data"]["values"] if "teacher" in row]
    assert {row["name"] for row in levels} == {one.name for one in insight.table.teachers}
    first, trained = insight.table.teachers[0], insight.first.languages
    (told,) = (row["teacher"] for row in levels if row["group"] == "trained on")
    assert told == pytest.approx(
        100 * sum(first.score(code) or 0 for code in trained) / len(trained)
    )
    assert not [row for row in sizes(insight, {})["data"]["values"] if "teacher" in row]


def test_an_arm_called_teacher_is_not_the_teacher(tmp_path: Path) -> None:
    insight = look_into(write_study(tmp_path, GRID))
    found = insight.attributions[0]
    last = replace(found, last=replace(found.last, name="teacher"))
    rows = waterfall(last, {"trained on": 0.3}, {"trained on": 0.9})["data"]["values"]
    ends = [row["step"] for row in rows if row["sort"] == "total"]
    assert len(set(ends)) == len(ends) == 3


def test_no_interval_leaves_what_a_score_can_be() -> None:
    few = Estimate(0.35, error=0.118, freedom=1.0, within=0.1)  # two seeds
    assert points(few, span=SCORE) == "35.0 (0.0 to 100.0)"
    assert points(few, span=SHARE) == "35.0 (0.0 to 184.9)"
    assert points(few) == "35.0 (-100.0 to 100.0)"
