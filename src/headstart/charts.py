"""Pictures of a study: Vega-Lite specifications, with their data inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt

from headstart.budget import BYTES
from headstart.tables import cells, dev_score, percent, sizeless

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.attribution import Attribution, Part
    from headstart.insight import Insight
    from headstart.stats import Estimate
    from headstart.tables import Column

    Spec = dict[str, Any]

COLOURS = {"total": "#8a94a3", "gain": "#1a7f5a", "loss": "#c2452d"}
SHARES = ["#b2402b", "#e9c46a", "#f4f1de", "#6fb28f", "#1a7f5a"]


def waterfall(found: Attribution, start: Mapping[str, float], teacher: Mapping[str, float]) -> Spec:
    """Draw the way from the first student's score to the last one's, part by part.

    Args:
        found: The parts; steps stand for the part that they are steps of.
        start: Mean score of the first, by kind of language.
        teacher: Mean score of the teacher, by kind of language.
    """
    split = {part.of for part in found.parts if part.of}
    drawn = [part for part in found.parts if part.name not in split]
    rows: list[dict[str, object]] = []
    for kind, level in start.items():
        rows.append(_bar(kind, found.first.arm, 0.0, level, "total"))
        for part in drawn:
            gain = _over(part, kind)
            if gain is not None:
                after = level + gain.value
                sort = "gain" if gain.value >= 0 else "loss"
                rows.append(_bar(kind, part.name, level, after, sort) | _interval(gain, level))
                level = after
        rows.append(_bar(kind, found.last.arm, 0.0, level, "total"))
        rows.append(_bar(kind, "teacher (reference)", 0.0, teacher[kind], "total"))
    order = list(dict.fromkeys(str(row["step"]) for row in rows))
    base = alt.Chart().encode(
        x=alt.X("step:N", sort=order, title=None, axis=alt.Axis(labelAngle=-35, labelLimit=140)),
    )
    told = [
        alt.Tooltip("step:N", title="step"),
        alt.Tooltip("gain:N", title="points"),
        alt.Tooltip("interval:N", title="95 % interval"),
    ]
    bars = base.mark_bar().encode(
        y=alt.Y("low:Q", title="score on test, percent"),
        y2="high:Q",
        color=alt.Color(
            "sort:N", legend=None, scale=alt.Scale(domain=[*COLOURS], range=[*COLOURS.values()])
        ),
        tooltip=told,
    )
    sure = base.mark_rule(strokeWidth=2).encode(y="from:Q", y2="to:Q", tooltip=told)
    return _spec(
        alt.layer(bars, sure, data=alt.Data(values=rows))
        .properties(width={"step": 62}, height=260)
        .facet(column=alt.Column("kind:N", sort=[*start], title=None))
    )


def _over(part: Part, kind: str) -> Estimate | None:
    return part.zero_shot if kind == "zero-shot" else part.trained_on


def _bar(kind: str, step: str, low: float, high: float, sort: str) -> dict[str, object]:
    gain = percent(high) if sort == "total" else f"{100 * (high - low):+.1f}"
    return {"kind": kind, "step": step, "low": 100 * low, "high": 100 * high, "sort": sort,
            "gain": gain, "interval": "-"}  # fmt: skip


def _interval(gain: Estimate, level: float) -> dict[str, object]:
    """Say where the top of a bar may be."""
    found = gain.interval() or gain.interval_within()
    low, high = (100 * min(max(value, -1.0), 1.0) for value in found)
    kind = "" if gain.interval() else " (over examples alone)"
    return {
        "from": max(100 * level + low, 0.0),  # with few seeds an interval goes beyond any score
        "to": min(100 * level + high, 100.0),
        "interval": f"{low:+.1f} to {high:+.1f}{kind}",
    }


def heat(insight: Insight, kept: Sequence[Mapping[str, str]]) -> Spec:
    """Draw what each way keeps of its teacher in each language; `kept` writes it, way by way."""
    table = insight.table
    ways = [column.name for column in (*table.teachers, *table.columns)]
    rows: list[dict[str, object]] = []
    for row in table.rows:
        for teacher, score in zip(table.teachers, row.teachers, strict=True):
            rows.append(
                {"language": cells(row)[0], "way": teacher.name, "kept": 1.0 if score else None,
                 "score": percent(score), "teacher": percent(score), "share": "itself"}
            )  # fmt: skip
        scores = zip(table.columns, table.taught, row.scores, kept, strict=True)
        for column, taught, score, shares in scores:
            teacher = row.teachers[taught]
            share = score / teacher if score is not None and teacher else None
            rows.append(
                {"language": cells(row)[0], "way": column.name, "kept": share,
                 "score": percent(score), "teacher": percent(teacher),
                 "share": shares.get(row.label, percent(share))}
            )  # fmt: skip
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X("way:N", sort=ways, title=None,
                axis=alt.Axis(orient="top", labelAngle=-45, labelLimit=220, domain=False)),
        y=alt.Y("language:N", sort=[cells(row)[0] for row in table.rows], title=None,
                axis=alt.Axis(domain=False, labelLimit=260)),
        tooltip=["language:N", "way:N", alt.Tooltip("score:N", title="score"),
                 alt.Tooltip("teacher:N", title="its teacher"),
                 alt.Tooltip("share:N", title="kept, percent")],
    )  # fmt: skip
    steps = [0.0, 0.5, 0.75, 0.9, 1.0]
    scale = alt.Scale(domain=steps, range=SHARES, clamp=True)
    legend = alt.Legend(title="share of the teacher", format=".0%", orient="bottom", values=steps)
    boxes = base.mark_rect().encode(color=alt.Color("kept:Q", scale=scale, legend=legend))
    ends = "isValid(datum.kept) && (datum.kept < 0.25 || datum.kept > 0.97)"  # dark
    text = base.mark_text(fontSize=10).encode(
        text="score:N", color=alt.condition(ends, alt.value("#fff"), alt.value("#111"))
    )
    return _spec(alt.layer(boxes, text).properties(width={"step": 46}, height={"step": 20}))


def curves(columns: Sequence[Column]) -> Spec:
    """Draw dev scores over steps: means over seeds, each seed faint; untrained ones are step 0."""
    rows = [
        {
            "arm": _arm(column),
            "way": column.name,
            "seed": record.seed,
            "step": step,
            "dev": 100 * dev,
        }
        for column in columns
        for record in column.records
        for step, dev in points_of(column, record.seed)
    ]
    levels = sorted({100 * dev_score(column.records[0], "teacher") for column in columns})
    picked = alt.selection_point(fields=["arm"], bind="legend")
    both = alt.Chart().encode(
        x=alt.X("step:Q", title="steps"),
        y=alt.Y("dev:Q", title="dev score, percent"),
        color=_coloured("arm", [_arm(column) for column in columns]),
        detail=["way:N", "seed:N"],
        tooltip=["way:N", "seed:N", "step:Q", alt.Tooltip("dev:Q", format=".1f")],
    )
    faint, full = (alt.condition(picked, alt.value(x), alt.value(0.08)) for x in (0.3, 1.0))
    seeds = both.encode(opacity=faint).mark_line(strokeWidth=1)
    means = both.encode(
        y="mean(dev):Q",
        detail="way:N",
        opacity=full,
        tooltip=["way:N", "step:Q", alt.Tooltip("mean(dev):Q", format=".1f", title="mean dev")],
    ).mark_line(point=alt.OverlayMarkDef(size=18))
    lines = [one.properties(data=alt.Data(values=rows)) for one in (seeds, means)]
    lines[0] = lines[0].add_params(picked)
    untrained = [row for row in rows if row["step"] == 0]  # a way without training is this alone
    dots = both.properties(data=alt.Data(values=untrained)).mark_circle(size=70)
    rule = (
        alt.Chart(alt.Data(values=[{"dev": level, "what": "a teacher"} for level in levels]))
        .mark_rule(strokeDash=[5, 4])
        .encode(y="dev:Q", tooltip=["what:N", alt.Tooltip("dev:Q", format=".1f")])
    )
    return _spec(alt.layer(*lines, dots, rule).properties(width="container", height=300))


def points_of(column: Column, seed: int) -> list[tuple[float, float]]:
    """List one run's dev scores: (step, score), the untrained student's first."""
    record = next(record for record in column.records if record.seed == seed)
    steps = ((float(p["step"] or 0), p["dev"] or 0.0) for p in record.curve)
    return [(0.0, dev_score(record, "step0")), *steps]


def sizes(insight: Insight, examples: Mapping[str, int]) -> Spec:
    """Draw scores over the number of examples a language.

    Args:
        insight: The study.
        examples: A language's training examples, by way.
    """
    table, rows = insight.table, list[dict[str, object]]()
    weakest = sorted(
        (row for row in table.rows if row.kind == "trained"), key=lambda row: row.teachers[0] or 0.0
    )[:3]
    groups = {
        table.kinds[0]: [row.label for row in table.rows if row.kind == "trained"],
        f"weakest of them ({', '.join(row.label for row in weakest)})": [r.label for r in weakest],
        "zero-shot": [row.label for row in table.rows if row.kind == "zero-shot"],
    }
    for column in table.columns:
        if column.name not in examples:
            continue
        arm = sizeless(column.name)
        for group, languages in groups.items():
            if (score := column.mean(languages)) is not None:
                rows.append({"way": arm, "examples": examples[column.name], "group": group,
                             "score": 100 * score})  # fmt: skip
    asked = {table.taught[i] for i, c in enumerate(table.columns) if c.name in examples}
    levels = [
        {"group": group, "name": teacher.name,
         "teacher": 100 * (teacher.mean(languages) or 0.0)}
        for teacher in (table.teachers[place] for place in sorted(asked))
        for group, languages in groups.items()
        if languages
    ]  # fmt: skip
    lines = (
        alt.Chart()
        .transform_filter("isValid(datum.score)")
        .mark_line(point=True)
        .encode(
            x=alt.X("examples:Q", scale=alt.Scale(type="log"), title="examples a language",
                    axis=alt.Axis(values=sorted({*examples.values()}), format=",d")),
            y=alt.Y("score:Q", title="score on test, percent"),
            color=_coloured("way", [str(row["way"]) for row in rows]),
            tooltip=["way:N", "examples:Q", alt.Tooltip("score:Q", format=".1f")],
        )
    )  # fmt: skip
    rule = (
        alt.Chart()
        .transform_filter("isValid(datum.teacher)")
        .mark_rule(strokeDash=[5, 4])
        .encode(y="teacher:Q", tooltip=["name:N", alt.Tooltip("teacher:Q", format=".1f")])
    )
    return _spec(
        alt.layer(lines, rule, data=alt.Data(values=[*rows, *levels]))
        .properties(width=240, height=240)
        .facet(column=alt.Column("group:N", sort=[*groups], title=None))
    )


def worth(insight: Insight) -> Spec:
    """Draw quality over speed, as it is estimated, with size as area."""
    rows, kinds = list[dict[str, object]](), insight.table.kinds
    columns = (*insight.table.teachers, *insight.table.columns)
    old = any("work" not in column.records[0].shape[column.model] for column in columns)
    for column in columns:
        record = column.records[0]
        teacher, own = record.shape["teacher"], record.shape[column.model]
        for kind, languages in zip(kinds, (record.languages, record.zero_shot), strict=False):
            if (score := column.mean(languages)) is not None:
                rows.append(
                    {"arm": _arm(column), "way": column.name, "kind": kind, "score": 100 * score,
                     "faster": _work(teacher, old=old) / _work(own, old=old),
                     "megabytes": own["total"] * BYTES / 1e6}
                )  # fmt: skip
    return _spec(
        alt.Chart(alt.Data(values=rows))
        .mark_circle(opacity=0.8)
        .encode(
            x=alt.X("faster:Q", title=f"times {'fewer products' if old else 'as fast'}",
                    scale=alt.Scale(zero=False, padding=18), axis=alt.Axis(tickCount=5)),
            y=alt.Y("score:Q", title="score on test, percent", scale=alt.Scale(zero=False)),
            size=alt.Size("megabytes:Q", scale=alt.Scale(range=[40, 400]), legend=alt.Legend(
                title="MB in fp32", orient="bottom", tickCount=3, symbolFillColor="#8b93a1",
                symbolStrokeWidth=0)),
            color=_coloured("arm", [
                _arm(column) for column in (*insight.table.columns, *insight.table.teachers)
            ]),
            tooltip=["way:N", "kind:N", alt.Tooltip("score:Q", format=".1f"),
                     alt.Tooltip("faster:Q", format=".2f"),
                     alt.Tooltip("megabytes:Q", format=".0f")],
        )
        .properties(width=300, height=260)
        .facet(column=alt.Column("kind:N", title=None, sort=[*kinds]))
    )  # fmt: skip


def _work(shape: Mapping[str, int], *, old: bool) -> float:
    """What a model does for each piece; of old records the products alone."""
    return float(shape["transformer"] + shape["head"] if old else shape["work"])


def _arm(column: Column) -> str:
    return column.name.partition("|")[0]


def _coloured(name: str, ways: Sequence[str]) -> alt.Color:
    """Colour ways by their place, so that one has the same colour in every chart."""
    legend = alt.Legend(
        title=None, orient="bottom", columns=2, labelLimit=260, symbolLimit=0, symbolOpacity=1
    )
    return alt.Color(f"{name}:N", scale=alt.Scale(domain=[*dict.fromkeys(ways)]), legend=legend)


def _spec(chart: alt.TopLevelMixin) -> Spec:
    """Turn a chart into plain data, without a theme: the page chooses light or dark."""
    found: Spec = chart.to_dict()
    found.pop("config", None)
    return found
