"""Records to a page: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from headstart import charts, machine
from headstart.answers import (
    SHARES,
    against,
    answer,
    examples_to,
    lines,
    other_gains,
    part_rows,
    parts_by_language,
    shares_of,
)
from headstart.budget import BYTES, megabytes
from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.insight import look_into, place_of
from headstart.loading import expand, load_recipe
from headstart.tables import all_remarks, heads, percent, sizeless

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headstart.insight import Insight
    from headstart.tables import Column


def report(out: str | Path, insight: Insight | None = None) -> Path:
    """Write a run's or study's page: one HTML file that needs nothing else.

    Args:
        out: The folder of a run or a study.
        insight: What `look_into` gave, where that was asked already.

    Returns:
        `out/report.html`.

    Raises:
        HeadstartError: Nothing is finished there.
    """
    out = Path(out)
    insight = insight or look_into(out)
    table, first = insight.table, insight.first
    kept = [shares_of(insight, column) for column in table.columns]
    environment = Environment(
        loader=PackageLoader("headstart"), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= _FILTERS
    page = environment.get_template("report.html").render(
        insight=insight,
        table=table,
        heads=heads(table),
        first=first,
        answer=answer(insight),
        parts=[
            (found, part_rows(found), parts_by_language(found))
            for found in insight.attributions[:1]
        ],
        others=other_gains(insight),
        against=against(insight),
        sized=examples_to(insight, _examples(insight)),
        lines=(told := lines(insight)),
        kept=kept,
        reached=[i for i in range(len(SHARES)) if any(line.steps[i] != "-" for line in told)],
        made=_made(insight),
        shares=SHARES,
        remarks=all_remarks(table.columns),
        seeds=sorted({record.seed for column in table.columns for record in column.records}),
        out=out.resolve().name,
        recipe=_recipe(out, insight),
        specs=_script(_specs(insight, kept)),
        bundle=Markup(_vega()),
    )
    path = out / "report.html"
    atomic_write(path, page)
    return path


def _specs(insight: Insight, kept: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Draw all pictures that the study has data for, by the place that they have on the page."""
    table = insight.table
    averages = {row.label: row for row in table.rows if row.kind == "average"}
    kinds = {kind: averages[f"mean, {kind}"] for kind in table.kinds if f"mean, {kind}" in averages}
    specs: dict[str, Any] = {}
    for found in insight.attributions[:1]:
        at = [column.name for column in table.columns].index(found.first.name)
        start = {kind: row.scores[at] or 0.0 for kind, row in kinds.items()}
        teacher = {kind: row.teachers[table.taught[at]] or 0.0 for kind, row in kinds.items()}
        specs["waterfall"] = charts.waterfall(found, start, teacher)
    specs["heat"] = charts.heat(insight, kept)
    if any(column.records[0].curve for column in table.columns):
        specs["curves"] = charts.curves(table.columns)
    examples = _examples(insight)
    if len(set(examples.values())) > 1:
        specs["sizes"] = charts.sizes(insight, examples)
    specs["worth"] = charts.worth(insight)
    return specs


def _examples(insight: Insight) -> dict[str, int]:
    """Find how many labelled examples a language each way was trained on, in the mean."""
    found: dict[str, int] = {}
    for column in insight.table.columns:
        first = column.records[0]
        if first.train_rows is not None:
            found[column.name] = round(
                first.train_rows / len(first.learned_from or first.languages)
            )
            continue
        for part in column.name.split("|"):  # a record of before
            key, _, value = part.partition("=")
            if key.endswith("examples_per_language") and value.isdigit():
                found[column.name] = int(value)
    sizes: dict[str, set[int]] = {}
    for name, count in found.items():
        sizes.setdefault(sizeless(name), set()).add(count)
    return {name: count for name, count in found.items() if len(sizes[sizeless(name)]) > 1}


def _made(insight: Insight) -> dict[str, list[str]]:
    """List the machines, versions and commits of all runs, each once."""
    runs = [record for column in insight.table.columns for record in column.records]
    machines = (machine.told(record.hardware) for record in runs)
    versions = (f"{name} {version}" for r in runs for name, version in r.versions.items())
    commits = (record.commit for record in runs if record.commit)
    found = {"machines": machines, "versions": versions, "commits": commits}
    return {name: list(dict.fromkeys(some)) for name, some in found.items()}


def _recipe(out: Path, insight: Insight) -> dict[str, Any]:
    """Read the resolved recipe of the study, or of its first run; empty where there is none.

    `again` is the verb with its name, where it makes what is shown, but for the runs of `others`.
    """
    places = {"study": out / "study.yaml", "run": place_of(out, insight.first) / "recipe.yaml"}
    for verb, path in places.items():
        if path.exists():
            again = f"{verb} {out.resolve().name}/{path.name}" if path.parent == out else ""
            others = _others(path, insight) if verb == "study" else []
            text = path.read_text(encoding="utf-8")
            return {"again": "" if others is None else again, "others": others, "text": text}
    return {"again": "", "others": [], "text": ""}


def _others(recipe: Path, insight: Insight) -> list[str] | None:
    """List the ways of which a study's recipe does not name all runs; None if it makes none."""
    try:
        named = {name for name, _ in expand(load_recipe(str(recipe), ()))}
    except HeadstartError:  # of an earlier version
        return None
    columns = insight.table.columns
    return [c.name for c in columns if not all(record.name in named for record in c.records)]


def _vega() -> str:
    """Give the code that draws the pictures: Vega, Vega-Lite and Vega-Embed in one."""
    return vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue]


def _script(content: object) -> Markup:
    """Write plain data for a script element; no text in it can end the element."""
    return Markup(json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c"))


def shade(value: float | None, teacher: float | None) -> str:
    """Colour a cell by the share of the teacher that is kept: red at half or less, green at all."""
    if value is None or teacher is None or teacher <= 0:
        return "transparent"
    kept = min(max((value / teacher - 0.5) / 0.5, 0.0), 1.0)
    return f"hsl({round(120 * kept)} 60% 50% / 0.3)"


def _megabytes(parameters: int) -> str:
    """Size of that many parameters in single precision."""
    return f"{megabytes(parameters * BYTES)} MB"


def seconds(column: Column) -> str:
    """Say what a student took, or its teacher."""
    if column.model == "student":
        return f"{column.seconds:.0f}"
    spent = max(record.costs.get("teacher_seconds", 0.0) for record in column.records)
    return f"{spent:.0f}" if spent else "given"


_FILTERS: Mapping[str, Callable[..., str]] = {
    "percent": percent,
    "shade": shade,
    "megabytes": _megabytes,
    "seconds": seconds,
}
