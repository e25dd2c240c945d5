"""Refit alone: a student in memory or in a folder, and any text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedModel

from headstart import checkpoint
from headstart.calibration import folder_texts, sample_texts
from headstart.errors import HeadstartError
from headstart.layout import shape_of
from headstart.measure import measure
from headstart.prepare import choose_precision, has_fast_bf16
from headstart.reader import open_model, read_selection
from headstart.recipe import Refit
from headstart.refit import RIDGES
from headstart.refit import refit as refit_model
from headstart.rules import MEASURED
from headstart.selection import Selection
from headstart.student import SELECTION

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from headstart.calibration import Rows
    from headstart.reader import Named
    from headstart.recipe import Recipe
    from headstart.ridge import Fitted
    from headstart.rules import Measured
    from headstart.stages import Teacher
    from headstart.student import Made

MAX_LENGTH = 128  # pieces of the longest text; what is beyond is cut off


def refit(
    student: PreTrainedModel,
    teacher: PreTrainedModel | Named,
    texts: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    tokens: int = 50_000,
    ridge: float | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """Repair a cut student in closed form, before it is trained.

    Args:
        student: As `student_from` gives it; changed in place.
        teacher: The model that it was cut from: a model, a folder, or a name on the hub.
        texts: Without labels; by language, which then count alike, or a plain list.
        tokenizer: Needed where the teacher is a model in memory.
        tokens: How much text is looked at.
        ridge: Weight of the squared change, in units of the mean square of a map's inputs; None
            lets held-out text choose for each map.
        seed: Of the draw of texts.

    Returns:
        The student.

    Raises:
        HeadstartError: The student was not cut from this teacher, or text is lacking.
    """
    selection = vars(student).get(SELECTION)
    if not isinstance(selection, Selection):
        raise HeadstartError(
            "it is not known what this model keeps of its teacher",
            where="student",
            way_out="take it from student_from, or refit a folder that headstart init wrote",
        )
    if tokenizer is None:
        if isinstance(teacher, PreTrainedModel):
            raise HeadstartError(
                "a teacher in memory does not bring its tokenizer",
                where="tokenizer",
                way_out="give tokenizer=, or name the teacher's folder",
            )
        tokenizer = checkpoint.load_tokenizer(teacher)
    named = texts if isinstance(texts, Mapping) else {"": texts}
    asked = Refit(tokens=tokens, ridge="auto" if ridge is None else ridge)
    _refit(student, teacher, selection, named, tokenizer=tokenizer, asked=asked, seed=seed)
    return student


def refit_folder(
    student: str, teacher: str, out: str | Path, *, text: Path, asked: Refit, seed: int = 0
) -> tuple[Fitted, ...]:
    """Repair a student on disk, and write it to another folder.

    Args:
        student: Folder with `selection.json`; it is left as it is.
        teacher: Folder or hub name of the model that it was cut from.
        out: A new folder.
        text: Folder of unlabelled text, a file a language, with a column `text`.
        asked: How much text is looked at, and the ridge.
        seed: Of the draw of texts.

    Returns:
        What became of each map and norm.

    Raises:
        HeadstartError: As `refit`; or the folder is taken.
    """
    selection, out = read_selection(student), Path(out)
    if out.exists() and any(out.iterdir()):
        raise HeadstartError(
            "the folder holds something already",
            where=str(out),
            way_out="choose a new or an empty folder",
        )
    tokenizer = checkpoint.load_tokenizer(student)
    texts = folder_texts(text)
    model = checkpoint.load_model(student, task=open_model(student).head)
    done = _refit(model, teacher, selection, texts, tokenizer=tokenizer, asked=asked, seed=seed)
    checkpoint.save_model(model, tokenizer, out, selection=selection)
    return done


def scores_for(recipe: Recipe, teacher: Teacher, texts: Mapping[str, Rows]) -> Measured:
    """Measure the teacher for the rules of a recipe that look at text; all processes do the same.

    Args:
        recipe: Says which rules, how much text, and the seed.
        teacher: Is measured.
        texts: By language.
    """
    rules = {str(rule) for rule in recipe.init.rules.values()} & {*MEASURED}
    if not rules:
        return {}
    sample = sample_texts(
        texts,
        teacher.tokenizer,
        task=recipe.task,
        tokens=recipe.init.measure_tokens,
        max_length=recipe.data.max_length,
        seed=recipe.seed,
    )
    return measure(teacher.model, sample, rules, seed=recipe.seed)


def refit_run(
    recipe: Recipe,
    teacher: Teacher,
    texts: Mapping[str, Rows],
    made: Made,
    accelerator: Accelerator,
) -> tuple[Fitted, ...]:
    """Repair the student of a run, where its recipe asks for it.

    Args:
        recipe: Says how, and with which seed.
        teacher: What the student is refitted toward; its base, if that is what was copied.
        texts: By language.
        made: The student; changed in place.
        accelerator: Device and processes.

    Returns:
        What became of each map and norm; nothing where no refit is asked for.
    """
    asked, aim = recipe.init.refit, teacher.model
    if asked is None:
        return ()
    if recipe.init.source == "base":
        aim = checkpoint.load_encoder(str(teacher.base)).to(accelerator.device)
    sample = sample_texts(
        texts,
        teacher.tokenizer,
        task=recipe.task,
        tokens=asked.tokens,
        max_length=recipe.data.max_length,
        seed=recipe.seed,
    )
    return refit_model(
        made.model,
        aim,
        made.selection,
        sample,
        ridges=RIDGES if asked.ridge == "auto" else (asked.ridge,),
        accelerator=accelerator,
        bf16=choose_precision(recipe.train, accelerator) == "bf16",
    )


def _refit(
    student: PreTrainedModel,
    teacher: PreTrainedModel | Named,
    selection: Selection,
    texts: Mapping[str, Sequence[str]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    asked: Refit,
    seed: int,
) -> tuple[Fitted, ...]:
    opened = open_model(teacher)
    shape = shape_of(opened.family, opened.plain)
    if selection.source not in ("teacher", "base") or shape != selection.teacher:
        raise HeadstartError(
            f"the student is {selection.source} of {selection.teacher}, not a copy of this model",
            where=opened.where,
            way_out="name the model that it was cut from",
        )
    checkpoint.check_length(opened.plain, MAX_LENGTH)
    tagging = open_model(student).head == "tagging"
    sample = sample_texts(
        {k: [t.split() for t in v] for k, v in texts.items()} if tagging else texts,
        tokenizer,
        task="tagging" if tagging else "classification",
        tokens=asked.tokens,
        max_length=MAX_LENGTH,
        seed=seed,
    )
    if not isinstance(teacher, PreTrainedModel):
        teacher = checkpoint.load_model(teacher, task=opened.head)
    ridges = RIDGES if asked.ridge == "auto" else (asked.ridge,)
    bf16 = has_fast_bf16(student.device.type)
    return refit_model(student, teacher, selection, sample, ridges=ridges, bf16=bf16)
