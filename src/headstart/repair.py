"""Refit alone: a student in memory or in a folder, and any text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic import ValidationError
from torch import nn

from headstart import checkpoint
from headstart.calibration import sample_texts
from headstart.console import say
from headstart.errors import HeadstartError
from headstart.folders import claim
from headstart.layout import shape_of
from headstart.merging import merged
from headstart.pieces import check_pieces, load_tokenizer
from headstart.prepare import has_fast_bf16, open_accelerator
from headstart.reader import Named, most_positions, open_model, read_selection
from headstart.recipe import Refit
from headstart.refit import check_models
from headstart.refit import refit as refit_model
from headstart.ridge import describe
from headstart.selection import Selection
from headstart.stream import after, settled
from headstart.student import SELECTION
from headstart.texts import folder_texts

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headstart.reader import Opened
    from headstart.ridge import Fitted
    from headstart.walk import Sample

FITS = "refit.json"  # beside a student's files: what became of each map and norm
MAX_LENGTH = 128  # pieces of the longest text, or what the model can read; the rest is cut off


def refit(  # noqa: PLR0913 - all but three have defaults
    student: PreTrainedModel,
    teacher: PreTrainedModel | Named,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    tokens: int = 50_000,
    ridge: float | None = None,
    directions: str = "auto",
    merge: bool | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Repair a cut student in closed form, before it is trained.

    It is what `init.refit` of a recipe does, the choice of heads and neurons included. A line on
    standard error says how many maps and norms were changed, and which were left as copied.

    Args:
        student: As `student_from` gives it; changed in place.
        teacher: The model that it was cut from: a model, a folder, or a name on the hub.
        texts: Without labels; by language, which then count alike, or a plain list.
        tokenizer: Needed where the teacher is a model in memory.
        tokens: How much text is refitted on; merging measures the teacher on 20,000 besides.
        ridge: Weight of the squared change, in units of the mean square of a map's inputs; None
            lets held-out text choose for each map.
        directions: `principal` lets the stream of a narrower student run along the directions in
            which the teacher's varies most, `kept` in the channels that it keeps of the teacher;
            `auto` takes principal ones where the family allows it.
        merge: Cut the student again before it is refitted: each layer takes the heads and neurons
            that `taylor` ranks highest among those of all the teacher's layers that it stands
            for. None does so where the student is as `student_from` cut it, by no other rule,
            from a teacher with a task head.
        seed: Of the draw of texts, and of the ranking.

    Returns:
        The student.

    Raises:
        HeadstartError: The student was not cut from this teacher, text is lacking, or layers
            that are to be merged cannot be.
    """
    selection = vars(student).get(SELECTION)
    if not isinstance(selection, Selection):
        raise HeadstartError(
            "it is not known what this model keeps of its teacher",
            where="student",
            way_out="take it from student_from, or refit a folder that headstart init wrote",
        )
    if tokenizer is None:
        if not isinstance(teacher, Named):
            raise HeadstartError(
                "a teacher in memory does not bring its tokenizer",
                where="tokenizer",
                way_out="give tokenizer=, or name the teacher's folder",
            )
        tokenizer = load_tokenizer(teacher)
    named = texts if isinstance(texts, Mapping) else {"": texts}
    if any(isinstance(some, str) for some in named.values()):
        raise HeadstartError(
            "one text, where a list is needed", where="texts", way_out="give [text, ...]"
        )
    named = {language: [*some] for language, some in named.items()}
    asked = ask(tokens, ridge, directions)
    kept, done = _refit(
        student, teacher, selection, named, tokenizer=tokenizer, asked=asked, merge=merge, seed=seed
    )
    say(f"refit: {describe(done)}")
    vars(student)[SELECTION] = kept
    return student


def ask(tokens: int, ridge: float | None, directions: str = "auto") -> Refit:
    """Say how to refit, as a recipe does.

    Raises:
        HeadstartError: A number is out of range, or the directions are not known.
    """
    plain = {"tokens": tokens, "ridge": "auto" if ridge is None else ridge}
    try:
        return Refit.model_validate(plain | {"directions": directions})
    except ValidationError as fault:
        first = fault.errors()[0]
        raise HeadstartError(
            f"{first['loc'][0]}: {first['msg']}, and it is {first['input']}",
            where="refit",
            way_out="give a number above 0, and directions auto, kept or principal",
        ) from fault


def refit_folder(
    student: str,
    teacher: str,
    out: str | Path,
    *,
    text: Path,
    asked: Refit,
    merge: bool | None = None,
    seed: int = 0,
) -> tuple[Fitted, ...]:
    """Repair a student on disk, and write it to another folder.

    Beside the student's files stands `refit.json`: of each map and norm what a run's record says.

    Args:
        student: Folder with `selection.json`; it is left as it is.
        teacher: Folder or hub name of the model that it was cut from.
        out: A new folder.
        text: Folder of unlabelled text, a file a language, with a column `text`.
        asked: How much text is looked at, and the ridge.
        merge: As `refit` has it.
        seed: Of the draw of texts, and of the ranking.

    Returns:
        What became of each map and norm.

    Raises:
        HeadstartError: As `refit`; or the folder is taken.
    """
    out = claim(out, student, teacher)
    selection = read_selection(student)
    tokenizer = load_tokenizer(student)
    _check_origin(open_model(teacher), open_model(student), selection)
    check_pieces(student, teacher, way_out="name the model that it was cut from")
    texts = folder_texts(text)
    model = checkpoint.load_model(student, task=open_model(student).head)
    nn.Module.to(model, open_accelerator().device)
    kept, done = _refit(
        model, teacher, selection, texts, tokenizer=tokenizer, asked=asked, merge=merge, seed=seed
    )
    told = json.dumps([asdict(one) for one in done], indent=1) + "\n"
    checkpoint.save_model(model, tokenizer, out, selection=kept, notes={FITS: told})
    return done


def _refit(  # noqa: PLR0913 - what both ways know
    student: PreTrainedModel,
    teacher: PreTrainedModel | Named,
    selection: Selection,
    texts: Mapping[str, Sequence[str]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    asked: Refit,
    merge: bool | None,
    seed: int,
) -> tuple[Selection, tuple[Fitted, ...]]:
    """Merge and refit; give what the student keeps from now on, and what became of its maps."""
    opened, ours = open_model(teacher), open_model(student)
    _check_origin(opened, ours, selection)
    tagging = ours.head == "tagging"

    def draw(tokens: int, languages: Sequence[str] | None = None) -> Sample:
        return sample_texts(
            [{k: [t.split() for t in v] for k, v in texts.items()} if tagging else texts],
            tokenizer,
            task="tagging" if tagging else "classification",
            tokens=tokens,
            max_length=min(MAX_LENGTH, most_positions(opened.plain) or MAX_LENGTH),
            languages=languages,
            seed=seed,
            where="refit",
        )

    sample = draw(asked.tokens, asked.languages)
    if selection.source == "base":  # its copy has the base as its aim, and no head to refit
        teacher = checkpoint.load_encoder(teacher)
        nn.Module.to(teacher, student.device)
    elif isinstance(teacher, Named):
        teacher = checkpoint.load_model(teacher, task=opened.head)
        nn.Module.to(teacher, student.device)
    check_models(student, teacher)  # before anything is changed
    was_training = teacher.training
    teacher.eval()
    try:
        kept = merged(student, teacher, selection, draw, asked=merge, seed=seed)
        asked, bf16 = settled(asked, student, kept), has_fast_bf16(student.device.type)
        done = refit_model(student, teacher, kept, sample, asked=asked, bf16=bf16)
    finally:
        teacher.train(was_training)
    return after(kept, asked), done


def _check_origin(teacher: Opened, student: Opened, selection: Selection) -> None:
    """Refuse a teacher that the student cannot have been cut from."""
    if selection.source not in ("teacher", "base"):
        raise HeadstartError(
            f"the student's weights are no copy: its source is {selection.source}",
            where="student",
            way_out="refit one whose source is teacher or base",
        )
    heads_count = selection.source == "teacher" and student.head != "none"
    with_head = (student, teacher) if heads_count else ()
    labels = [checkpoint.labels_of(one.config) for one in with_head]
    asked = {
        "family": [one.family.model_type for one in (student, teacher)],
        "shape": [str(selection.teacher), str(shape_of(teacher.family, teacher.plain))],
        "vocabulary": [f"{one.plain['vocab_size']:,} pieces" for one in (student, teacher)],
        "head": [one.head for one in with_head],
        "number of labels": [str(len(names)) for names in labels],
        **{f"label {i}": [*both] for i, both in enumerate(zip(*labels, strict=False))},
    }
    for what, found in asked.items():
        if len({*found}) > 1:
            raise HeadstartError(
                f"the student was not cut from this model: its teacher's {what} is {found[0]!r}, "
                f"this one's {found[1]!r}",
                where=teacher.where,
                way_out="name the model that it was cut from",
            )
