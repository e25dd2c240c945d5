"""A recipe looked through before any work: every fault, what it will make, how long that takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from headstart import checkpoint
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError, combine
from headstart.forecast import describe, estimate, rated
from headstart.groundwork import REFIT_TEXT, check_texts, drawn
from headstart.labels import lacking
from headstart.loading import expand
from headstart.pieces import load_tokenizer
from headstart.plan import Size, plan_sizes
from headstart.prepare import check_tracker
from headstart.stages import base_of, check_base_pieces
from headstart.steps import check_lengths
from headstart.texts import check_folder
from headstart.tokenized import open_text
from headstart.tune import searches

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence
    from typing import TypeVar

    from headstart.reader import Opened
    from headstart.recipe import Recipe
    from headstart.tokenized import Text

    T = TypeVar("T")

POINT = re.compile(r"arms or grid, run \S+: ")


AS_LARGE = "the student is as large as its teacher: student.layers, say, makes it smaller"


@dataclass(frozen=True, slots=True)
class Checked:
    """A recipe without faults, and what it will make."""

    runs: int
    sizes: tuple[Size, Size]  # teacher and student of the first run
    rows: Mapping[str, int]  # examples of each split; these and what follows, of the first run
    leaks: int  # dev and test rows whose text is in train too
    truncated: int  # what the maximum length cuts: words when tagging, else texts
    lacking: Mapping[str, Sequence[str]]  # labels that a language has no train row of
    stray_inside: int  # I- tags that continue nothing
    is_smaller: bool  # whether any student is smaller than its teacher
    time: str
    looked: tuple[str, ...] = ()  # what there is to look at without labels, in words


def check(recipe: Recipe) -> Checked:
    """Find every fault of a recipe, its text and its models, before any work.

    Returns:
        What it will make, and how long that will take.

    Raises:
        HeadstartError: All faults, in one error.
    """
    faults: list[HeadstartError] = []
    runs = [one for _, one in expand(recipe)]
    for tracker in {part.tracker for one in runs for part in (one.train, one.teacher.finetune)}:
        if tracker:
            _try(partial(check_tracker, tracker), faults)
    found: dict[Hashable, Found] = {}
    with TemporaryDirectory() as folder:
        for one in runs:
            place = Path(folder) / str(len(found))
            given, learned = one.teacher.model, one.train.languages
            key = (one.data, given or one.teacher.base, given is None, learned)
            at = found.get(key) or found.setdefault(key, _find(one, place, faults))
            is_first = one.seed in recipe.seeds[:1] or not recipe.seeds  # chooses the rate
            at.runs.append(rated(one) if searches(one.train) and not is_first else one)
            asked = (*drawn(one).items(), one.init.refit_text)
            if at.text and at.named and asked not in at.drawn:  # a seed draws as much as another
                at.drawn.add(asked)
                told = _try(partial(check_texts, one, at.named), faults)
                at.looked |= dict.fromkeys(told or ())
            if at.named and (size := _try(partial(_sizes, one, at.named, at.labels), faults)):
                at.sizes.append(size)
            if given and one.reads_base and one.teacher.base not in at.bases:
                at.bases.add(one.teacher.base)
                _try(partial(_check_base, one, place / "base", at.teacher), faults)
        if faults:
            raise combine(_once(faults), where=recipe.name or "the recipe")
        return _checked(list(found.values()))


@dataclass(slots=True)
class Found:
    """What the runs that share text and teacher read; None where it is at fault."""

    named: str | None  # the teacher or its base
    teacher: Opened | None  # where a fine-tuned one is named
    labels: tuple[str, ...] | None
    text: Text | None
    runs: list[Recipe] = field(default_factory=list["Recipe"])
    sizes: list[tuple[Size, Size]] = field(default_factory=list[tuple[Size, Size]])
    drawn: set[Hashable] = field(default_factory=set["Hashable"])  # what was tried to be
    looked: dict[str, None] = field(default_factory=dict[str, None])  # what came of it, in order
    bases: set[str | None] = field(default_factory=set[str | None])  # that were checked


def _find(one: Recipe, place: Path, faults: list[HeadstartError]) -> Found:
    """Open what a run reads."""
    task, given = one.task, one.teacher.model
    corpus = _try(lambda: load_corpus(one.data, task), faults)
    for folder, key in ((one.data.text, "data.text"), (one.init.refit_text, REFIT_TEXT)):
        if folder is not None:
            _try(partial(check_folder, folder, key), faults)
    labels = corpus.labels if corpus else one.data.labels
    named, teacher = given or _try(lambda: base_of(one, place, hollow=True), faults), None
    if given:
        teacher = _try(lambda: checkpoint.check_model(given, task=task, labels=labels), faults)
    elif named:
        _try(lambda: checkpoint.check_base(named, task=task), faults)
    tokenizer = _try(lambda: load_tokenizer(named), faults) if named else None
    text = None
    if corpus and tokenizer:
        learned = one.train.languages
        text = _try(lambda: open_text(one.data, task, tokenizer, learned=learned), faults)
    if text and named:
        _try(lambda: check_lengths(text, named), faults)
    return Found(named, teacher, labels, text)


def _check_base(one: Recipe, place: Path, teacher: Opened | None) -> None:
    """Check the base that the student's weights come from, where the teacher is a given one."""
    if base := base_of(one, place, hollow=True):
        checkpoint.check_base(base, task=one.task, teacher=teacher)
        check_base_pieces(base, str(one.teacher.model))


def _try(attempt: Callable[[], T], faults: list[HeadstartError]) -> T | None:
    try:
        return attempt()
    except HeadstartError as fault:
        faults.append(fault)
        return None


def _once(faults: Sequence[HeadstartError]) -> list[HeadstartError]:
    """Keep each fault once; of several points that have it the first is named."""
    unique: dict[str, HeadstartError] = {}
    for whole in faults:
        for fault in whole.parts or (whole,):
            unique.setdefault(POINT.sub("", str(fault)), fault)
    return list(unique.values())


def _sizes(recipe: Recipe, named: str, labels: tuple[str, ...] | None) -> tuple[Size, Size]:
    """Find a run's sizes; a fault says which point of arms and grid has it."""
    try:
        return plan_sizes(recipe, named, labels=None if recipe.teacher.model else len(labels or ()))
    except HeadstartError as fault:
        point = recipe.name.rpartition("|seed=")[0]
        if not point:
            raise
        raise combine(
            [
                HeadstartError(
                    part.what,
                    where=f"arms or grid, run {point}: {part.where}",
                    way_out=part.way_out,
                )
                for part in fault.parts or (fault,)
            ],
            where=recipe.name,
        ) from fault


def _checked(found: list[Found]) -> Checked:
    first = next(text for at in found if (text := at.text))
    made: set[str] = set()  # shared by the groups, too
    each = (estimate(at.runs, at.named, at.text, made=made) for at in found if at.named and at.text)
    return Checked(
        runs=sum(len(at.runs) for at in found),
        sizes=found[0].sizes[0],
        rows={name: len(split) for name, split in first.splits.items()},
        leaks=sum(leak.rows for leak in first.corpus.leaks),
        truncated=sum(split.truncated for split in first.splits.values()),
        lacking=lacking(first.corpus.splits["train"], first.corpus.labels, first.corpus.task),
        stray_inside=sum(first.corpus.stray_inside.values()),
        is_smaller=any(
            student.parameters["total"] < teacher.parameters["total"]
            for at in found
            for teacher, student in at.sizes
        ),
        time=describe([*chain.from_iterable(each)]),
        looked=tuple({line: None for at in found for line in at.looked}),
    )


def time_of(recipe: Recipe) -> str:
    """Say how long a recipe's runs will take; where that cannot be known, why."""
    try:
        return check(recipe).time
    except HeadstartError as fault:
        first = (fault.parts or (fault,))[0]
        return f"not known: {first.what} ({first.where}); headstart check tells all faults"


def told(found: Checked, recipe: Recipe) -> list[str]:
    """Say what was found, a line each.

    Args:
        found: What `check` gave.
        recipe: What was checked.
    """
    rows = ", ".join(f"{count:,} {split}" for split, count in found.rows.items())
    return [
        f"no fault: {found.runs} run{'s' * (found.runs > 1)}",
        f"rows: {rows}",
        *([] if found.is_smaller else [AS_LARGE]),
        *_told_lacking(found.lacking),
        *_told_strays(found.stray_inside),
        f"dev and test rows whose text is in train too: {_told_leaks(found.leaks, recipe)}",
        *found.looked,
        f"{_cut(recipe)} cut at {recipe.data.max_length} pieces (data.max_length): "
        f"{found.truncated:,}",
        f"time: {found.time}",
    ]


def _told_strays(count: int) -> list[str]:
    """Say how many tags look like another scheme's."""
    what = "I- tags that continue nothing, read as B-"
    return [f"{what}: {count:,} (files in IOB1 must be converted to IOB2)"] if count else []


def _cut(recipe: Recipe) -> str:
    return "words" if recipe.task == "tagging" else "texts"


def _told_leaks(count: int, recipe: Recipe) -> str:
    """Say how many there are, and what becomes of the train rows."""
    if recipe.data.drop_leaks:
        return f"{count:,}, left out of train"
    return f"{count:,}" + (" (data.drop_leaks=true leaves them out of train)" if count else "")


def _told_lacking(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Say which labels languages have no train row of."""
    told = [
        f"{language} {len(names)} ({', '.join(names[:2])}{', …' * (len(names) > 2)})"
        for language, names in found.items()
    ]
    return [f"labels with no train row in some languages: {'; '.join(told)}"] if told else []
