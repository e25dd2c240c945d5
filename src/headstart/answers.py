"""What a study says, in sentences and rows of text, each number with its interval."""

from __future__ import annotations

from math import inf, isnan
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from headstart.tables import dev_score, percent, sizeless

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headstart.attribution import Attribution, Way
    from headstart.insight import Insight
    from headstart.stats import Estimate
    from headstart.tables import Column

STARTS = {
    "scratch": "fresh weights",
    "base": "copied from the base",
    "teacher": "copied from the teacher",
    "permuted": "the teacher's values, shuffled",
    "general": "general distillation of the base first",
}
LEARNS = {
    "labels": "labels",
    "mse": "the teacher's logits (mse)",
    "kl": "the teacher's answers (kl)",
}
SHARES = (0.90, 0.95, 0.99)  # of the teacher, that a student's dev score may reach


class Line(NamedTuple):
    """One way of making a student: what it keeps, and when."""

    way: str
    about: str
    trained_on: str
    kept: str
    zero_shot: str
    kept_zero_shot: str
    worst: str
    drop: float | None  # the same without the language, as a share of 1
    steps: tuple[str, ...]
    rise: str
    marks: str


SCORE, SHARE, GAIN = (0.0, 1.0), (0.0, inf), (-1.0, 1.0)  # what each can be at all


def points(
    found: Estimate,
    *,
    sign: bool = False,
    span: tuple[float, float] = GAIN,
    among: int = 1,
) -> str:
    """Write a number in points, with its interval over seeds and examples or, with one seed, none.

    Args:
        found: In shares of 1.
        sign: Whether a gain has its plus.
        span: What it can be at all: few seeds make intervals that go beyond it.
        among: How many numbers it was picked from, for its size.
    """
    if isnan(found.value):
        return "-"
    value = f"{100 * found.value:+.1f}" if sign else f"{100 * found.value:.1f}"
    interval = found.interval(among=among)
    if interval is None or isnan(interval[0]):
        return value
    low, high = (100 * min(max(end, span[0]), span[1]) for end in interval)
    return f"{value} ({low:.1f} to {high:.1f})"


def answer(insight: Insight) -> list[str]:
    """Answer the question of the study, in a sentence or two."""
    if insight.attributions:
        return _credit(insight, insight.attributions[0])
    columns = [column for column in insight.table.columns if not column.marks]
    ours = insight.first.languages
    best = max(columns or insight.table.columns, key=lambda c: c.mean(ours) or 0.0)
    said: list[str] = []
    for zero_shot, where in ((False, f"on {insight.trained}"), (True, "on zero-shot ones")):
        kept = insight.kept(best, zero_shot=zero_shot)
        if kept is not None:
            said.append(f"{points(kept.share, span=SHARE)} % of its teacher's score {where}")
    if not said:
        return []
    which = f"{best.name}, the best on test of {len(insight.table.columns)}, keeps"
    alone = len(insight.table.columns) == 1
    return [f"{'The student' if alone else which}{' keeps' if alone else ''} {', '.join(said)}."]


def _moves(gain: Estimate) -> str:
    return f"{'rises' if gain.value >= 0 else 'changes'} by {points(gain)}"


def _credit(insight: Insight, found: Attribution) -> list[str]:
    start, told = found.part("initialization"), found.part("distillation")
    setting = f" ({found.setting})" if found.setting else ""
    read = {way.name for way in found.ways}
    columns = [column for column in insight.table.columns if column.name in read]
    said = [
        f"From {found.first.arm} to {found.last.arm}{setting},{_after(columns)} the score "
        f"{_moves(found.whole.trained_on)} points on {insight.trained}: initialization "
        f"brings {points(start.trained_on)}, distillation {points(told.trained_on)}."
    ]
    if found.whole.zero_shot and start.zero_shot and told.zero_shot:
        said.append(
            f"On zero-shot languages it {_moves(found.whole.zero_shot)}: initialization "
            f"brings {points(start.zero_shot)}, distillation {points(told.zero_shot)}."
        )
    if still := [f"{c.name} ({100 * (c.rise or 0.0):+.1f})" for c in columns if c.still_rises]:
        said.append(
            "More steps may change it: these had not stopped rising (points on dev in their last "
            f"quarter): {', '.join(still)}."
        )
    marked = [column for column in columns if column.marks]
    return said + [f"Do not lean on it: {c.name} is marked {', '.join(c.marks)}." for c in marked]


def _after(columns: Sequence[Column]) -> str:
    """Say how many steps all ways took; nothing where they took other numbers, or none."""
    taken = {int(r.curve[-1]["step"] or 0) if r.curve else 0 for c in columns for r in c.records}
    return f" after {taken.pop():,} steps each," if len(taken) == 1 and taken != {0} else ""


def about(way: Way, column: Column) -> str:
    """Say in words how a way makes its student."""
    start = STARTS.get(way.source, way.source) + (", refitted" if way.refitted else "")
    if not any(record.curve for record in column.records):
        return f"{start}; untrained"
    return f"{start}; learns {LEARNS.get(way.objective, way.objective)}"


def lines(insight: Insight) -> list[Line]:
    """Say of every way what it keeps: scores, shares of the teacher, the worst language, steps."""
    return [_line(insight, column) for column in insight.table.columns]


def _line(insight: Insight, column: Column) -> Line:
    told = {kind: insight.kept(column, zero_shot=kind) for kind in (False, True)}
    scores = [points(k.score, span=SCORE) if k else "-" for k in told.values()]
    if told[False] is None:
        first = column.records[0]
        scores = [percent(column.mean(some)) for some in (first.languages, first.zero_shot)]
    shares = [points(k.share, span=SHARE) if k else "-" for k in told.values()]
    each = insight.kept_by_language(column)
    worst = max(each, key=lambda lang: each[lang].below.value, default="")
    told_worst = f"{worst} {points(each[worst].below, among=len(each))}" if worst else "-"
    return Line(
        column.name, about(insight.way_of(column), column),
        scores[0], shares[0], scores[1], shares[1], told_worst,
        each[worst].below.value if worst else None,
        tuple(steps_to(column, share) for share in SHARES),
        "-" if column.rise is None else f"{100 * column.rise:.1f}", ", ".join(column.marks),
    )  # fmt: skip


def shares_of(insight: Insight, column: Column) -> dict[str, str]:
    """Write what a way keeps of its teacher, with its interval: by language, and in the means."""
    found = insight.kept_by_language(column)
    for kind in insight.table.kinds:
        mean = insight.kept(column, zero_shot=kind == "zero-shot")
        found |= {f"mean, {kind}": mean} if mean else {}
    return {label: points(kept.share, span=SHARE) for label, kept in found.items()}


def steps_to(column: Column, share: float) -> str:
    """Say after how many steps, mean over seeds, dev has a share of the teacher's; - if not all."""
    teacher = dev_score(column.records[0], "teacher")
    before = fmean(dev_score(record, "step0") for record in column.records)
    if before >= share * teacher:
        return "0"
    reached = [
        next((p["step"] or 0 for p in r.curve if (p["dev"] or 0.0) >= share * teacher), None)
        for r in column.records
    ]
    known = [step for step in reached if step is not None]
    return f"{fmean(known):,.0f}" if len(known) == len(reached) else "-"


def examples_to(insight: Insight, examples: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Say from how many examples a language on, of those tried, ways keep shares of their teacher.

    Args:
        insight: The study.
        examples: A language's training examples, by way.

    Returns:
        A row for each way that was tried with several: its name, and a number for each of SHARES.
    """
    found: dict[str, dict[int, float]] = {}
    for column in insight.table.columns:
        taught = insight.teacher_of(column).mean(insight.first.languages)
        if column.name in examples and taught:
            share = (column.mean(insight.first.languages) or 0.0) / taught
            found.setdefault(sizeless(column.name), {})[examples[column.name]] = share
    return [
        (way, *(f"{min(reached):,}" if (reached := [n for n in kept if kept[n] >= share]) else "-"
                for share in SHARES))
        for way, kept in found.items()
        if len(kept) > 1
    ]  # fmt: skip


def against(insight: Insight) -> list[tuple[str, str, str]]:
    """Hold every way against the baseline: points on both kinds of languages."""
    rows: list[tuple[str, str, str]] = []
    for column in insight.table.columns:
        found = [insight.against(column, zero_shot=kind) for kind in (False, True)]
        if column is not insight.baseline and found[0] is not None:
            told = [points(one, sign=True) if one else "-" for one in found]
            rows.append((column.name, told[0], told[1]))
    return rows


def other_gains(insight: Insight) -> list[tuple[str, ...]]:
    """List gains beside the first: of what, and points by part on both kinds of languages."""
    rows: list[tuple[str, ...]] = []
    refits = any(found.last.refitted for found in insight.attributions)
    for found in insight.attributions[1:]:
        parts = [found.part("initialization"), found.part("distillation"), found.whole]
        told = [points(part.trained_on, sign=True) for part in parts]
        zero = [points(p.zero_shot, sign=True) if p.zero_shot else "-" for p in parts]
        plain = "without refit" if refits and not found.last.refitted else ""
        about = ", ".join(filter(None, (found.last.objective, plain, found.setting)))
        rows.append((about, *told, *zero))
    return rows


def part_rows(found: Attribution) -> list[tuple[str, str, str, str]]:
    """List the parts of a gain: name, what it is a step of, points on both kinds of languages."""
    return [
        (
            part.name,
            part.of or "",
            points(part.trained_on, sign=True),
            points(part.zero_shot, sign=True) if part.zero_shot else "-",
        )
        for part in (*found.parts, found.whole)
    ]


def parts_by_language(found: Attribution) -> list[tuple[str, ...]]:
    """List what each part of a gain brings in each language, in points."""
    parts = (*found.parts, found.whole)
    return [
        (language, *(points(part.by_language[language], sign=True) for part in parts))
        for language in found.whole.by_language
    ]
