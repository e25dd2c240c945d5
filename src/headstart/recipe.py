"""What a run is: data, teacher, student, first weights, training. `loading` reads it from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from headstart.initial import RULES, Init, Refit, Source, Student
from headstart.settings import (
    CORPUS_TASKS,
    Columns,
    Count,
    Data,
    Part,
    RunName,
    Seed,
    Seeds,
    Task,
    Term,
    Train,
    Word,
)

__all__ = [
    "NOT_DECIDING",
    "ONLY_WITHOUT_MODEL",
    "RESULT_VERSION",
    "RULES",
    "Columns",
    "Data",
    "Init",
    "Recipe",
    "Refit",
    "Source",
    "Student",
    "Teacher",
    "Term",
    "Train",
]

FINETUNE_DEFAULTS: Mapping[str, object] = {
    "objective": {"labels": 1.0},
    "learning_rate": 1.5e-4,
    "epochs": 6.0,
}

RESULT_VERSION = 18  # goes up when a change of code moves a result
NOT_DECIDING = frozenset(
    {
        "name", "arms", "grid", "baseline", "seeds", "data.folder", "data.text", "init.refit.text",
        "train.tracker", "train.checkpoint_minutes",
        "teacher.finetune.tracker", "teacher.finetune.checkpoint_minutes",
    }
)  # fmt: skip
"""Keys that leave a run's result as it is. A folder's content enters as a fingerprint."""
ONLY_WITHOUT_MODEL = frozenset(
    {"teacher.finetune", "teacher.examples_per_language", "teacher.seed"}
)


def _over_finetune_defaults(value: object) -> object:
    named = value.model_dump(exclude_unset=True) if isinstance(value, Train) else value
    return {**FINETUNE_DEFAULTS, **named} if isinstance(named, Mapping) else named


class Teacher(Part):
    """Where the teacher comes from: `model`, or `base` fine-tuned here; both names model's base."""

    base: Word | None = None
    """A pre-trained encoder, as folder or hub name, or `quickstart` for the packaged one."""
    model: Word | None = None
    """A fine-tuned model, as folder or hub name."""
    finetune: Annotated[Train, BeforeValidator(_over_finetune_defaults)] = Train.model_validate(
        FINETUNE_DEFAULTS
    )
    """How base becomes the teacher; defaults here are labels alone, rate 1.5e-4, 6 epochs."""
    examples_per_language: Count | None = None
    """Train rows for the teacher; None takes what the student gets."""
    seed: Seed = 0
    """Of the fine-tuning: one teacher serves all seeds of a study."""

    @field_validator("model")
    @classmethod
    def _one_is_named(cls, model: str | None, info: ValidationInfo) -> str | None:
        if model is None and info.data.get("base", "") is None:
            raise ValueError("neither base (to fine-tune) nor model (fine-tuned) is given")
        return model

    @field_validator("finetune")
    @classmethod
    def _teacher_learns_labels(cls, finetune: Train) -> Train:
        if set(finetune.objective) != {"labels"}:
            raise ValueError("a teacher has no teacher: its only objective is labels")
        return finetune


class Recipe(Part):
    """One run; with arms, grid or seeds a study of many."""

    name: str = ""
    """For people; decides nothing."""
    task: Task
    """A label per text, or a tag per word."""
    data: Data
    teacher: Teacher
    student: Student = Student()
    init: Init = Init()
    train: Train = Train()
    seed: Seed = 0
    """Of fresh weights, order of the text, dropout."""
    arms: Mapping[RunName, Mapping[str, object]] = {}
    """Ways of making a student, by name: dotted keys and their values."""
    grid: Mapping[str, Annotated[tuple[object, ...], Field(min_length=1)]] = {}
    """Dotted keys and the values that each takes; all combinations are run."""
    baseline: Word | None = None
    """What the others are compared with: a run's name without its seed."""
    seeds: Seeds = ()
    """Seeds of a study; none takes `seed` alone."""

    @property
    def reads_base(self) -> bool:
        """Whether the student starts from the base's weights, or learns from its states."""
        return self.init.source == "base" or self.init.general is not None

    @property
    def compares_channels(self) -> bool:
        """Whether any training compares hidden states, channel by channel."""
        general = self.init.general
        return "hidden" in {*self.train.objective, general and general.objective}

    @field_validator("data")
    @classmethod
    def _corpus_fits_task(cls, data: Data, info: ValidationInfo) -> Data:
        task, wanted = info.data.get("task"), CORPUS_TASKS.get(data.corpus)
        if task is not None and wanted not in (None, task):
            raise ValueError(f"corpus {data.corpus!r} is for {wanted}, but task is {task}")
        return data

    @field_validator("train", "teacher")
    @classmethod
    def _languages_are_there(cls, part: Train | Teacher, info: ValidationInfo) -> Train | Teacher:
        data = info.data.get("data")
        train = part.finetune if isinstance(part, Teacher) else part
        there = data.languages if isinstance(data, Data) else (train.languages or ())
        if missing := [code for code in train.languages or () if code not in there]:
            raise ValueError(f"languages {', '.join(missing)} are not in data.languages")
        return part

    @field_validator("train")
    @classmethod
    def _text_has_an_answer(cls, train: Train, info: ValidationInfo) -> Train:
        data = info.data.get("data")
        learns = isinstance(data, Data) and data.text_per_language is not None
        weights = {name: term.weight for name, term in train.objective.items()}
        if learns and not any(weights[name] > 0 for name in weights if name != "labels"):
            raise ValueError("data.text_per_language needs an objective besides labels")
        return train

    @field_validator("init")
    @classmethod
    def _base_is_named(cls, init: Init, info: ValidationInfo) -> Init:
        teacher = info.data.get("teacher")
        if isinstance(teacher, Teacher) and teacher.base is None:
            if init.source == "base":
                raise ValueError("source is 'base', but teacher.base does not name the encoder")
            if init.general is not None:
                raise ValueError("general learns from teacher.base, which does not name an encoder")
        return init

    @field_validator("train")
    @classmethod
    def _states_can_be_compared(cls, train: Train, info: ValidationInfo) -> Train:
        init = info.data.get("init")
        refit, general = (init.refit, init.general) if isinstance(init, Init) else (None, None)
        compares = {*train.objective, general and general.objective}
        if "hidden" in compares and refit is not None and refit.directions == "principal":
            raise ValueError(
                "hidden compares kept channels, but init.refit.directions is principal"
            )
        return train

    @field_validator("init")
    @classmethod
    def _looks_at_known_languages(cls, init: Init, info: ValidationInfo) -> Init:
        data = info.data.get("data")
        asked = {"measure_languages": init.measure_languages}
        if init.refit is not None:
            asked["refit.languages"] = init.refit.languages
        for key, languages in asked.items():
            there = (*data.languages, *data.zero_shot) if isinstance(data, Data) else languages
            if missing := [code for code in languages or () if code not in (there or ())]:
                raise ValueError(f"{key}: {', '.join(missing)}: neither trained on nor zero-shot")
        return init

    @field_validator("init")
    @classmethod
    def _layers_fit_shape(cls, init: Init, info: ValidationInfo) -> Init:
        student = info.data.get("student")
        wanted = student.layers if isinstance(student, Student) else None
        budget = isinstance(student, Student) and (student.params, student.bytes, student.speedup)
        if not isinstance(init.layers, str) and wanted is None and budget and any(budget):
            raise ValueError("layers are listed, but the budget would choose how many; name both")
        if wanted is not None and not isinstance(init.layers, str) and len(init.layers) != wanted:
            raise ValueError(f"{len(init.layers)} layers listed, but student.layers is {wanted}")
        return init
