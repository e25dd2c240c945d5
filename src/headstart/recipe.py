"""What a run is: data, teacher, student, first weights, training. `loading` reads it from files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from headstart.settings import (
    CORPUS_TASKS,
    Columns,
    Count,
    Data,
    Index,
    Part,
    Positive,
    RunName,
    Seed,
    Seeds,
    Task,
    Term,
    Train,
    Word,
    check_known,
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

Source = Literal["teacher", "base", "scratch", "permuted"]

RULES: Mapping[str, tuple[str, ...]] = {
    "layers": ("even", "even-first", "first", "last"),
    "hidden": ("uniform", "first", "random", "magnitude", "activation"),
    "heads": ("uniform", "first", "random", "magnitude", "activation", "taylor", "strided"),
    "ffn": ("uniform", "first", "random", "magnitude", "activation", "taylor"),
}
"""Names of the selection rules, kept equal to `selection` by a test."""
RANKING = ("taylor", "activation", "magnitude")  # rules that say which of two units matters more

FINETUNE_DEFAULTS: Mapping[str, object] = {
    "objective": {"labels": 1.0},
    "learning_rate": 1.5e-4,
    "epochs": 6.0,
}

RESULT_VERSION = 5  # goes up when a change of code moves a result
NOT_DECIDING = frozenset(
    {
        "name", "arms", "grid", "baseline", "seeds", "data.folder", "data.text",
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


class Student(Part):
    """The student's shape; what is None is as the teacher has it (ffn shrinks with hidden)."""

    layers: Count | None = None
    """Transformer layers."""
    hidden: Count | None = None
    """Width of the residual stream."""
    heads: Count | None = None
    """Attention heads in each layer."""
    ffn: Count | None = None
    """Feed-forward neurons in each layer."""


class Refit(Part):
    """Closed-form repair of the copied weights before training; `{}` takes the defaults."""

    tokens: Count = 50_000
    """How much text is looked at, in all languages together: training rows, and `data.text`."""
    ridge: Positive | Literal["auto"] = "auto"
    """Weight of the squared change, in mean squares of its inputs; auto chooses for each map."""
    directions: Literal["auto", "kept", "principal"] = "auto"
    """What a narrower residual stream holds: the channels of `init.hidden`, or whatever varies most
    (post-norm families; text decides). auto takes principal where the family allows it and
    init.hidden is uniform. Where the width stays, all are the same."""


class General(Part):
    """Training on unlabelled text toward the base's states, before the task; `{}` for defaults."""

    tokens: Count = 200_000
    """How much text there is to learn from, in all languages together."""
    steps: Count = 1000
    """Of training on it."""
    objective: Literal["relation", "hidden"] = "relation"
    """What of the base's states is learned."""
    learning_rate: Positive = 3e-4
    """Highest rate."""
    batch_tokens: Count = 1024
    """Padded tokens of one step."""


class Init(Part):
    """Where the student's first weights come from, and which of them."""

    source: Source = "teacher"
    """`permuted` shuffles the teacher's values within each tensor."""
    layers: Word | tuple[Index, ...] = "even"
    """A rule, or the teacher's layers by number, from 0."""
    hidden: Word = "uniform"
    """Rule for the channels of the residual stream."""
    heads: Word | None = None
    """Rule for the attention heads; None takes taylor where layers are merged, else uniform."""
    ffn: Word | None = None
    """Rule for the feed-forward neurons; None as for heads."""
    merge: bool | None = None
    """Whether a layer's heads and neurons are chosen among those of all layers that it stands for
    (all since the one kept before it), not of the layer alone; `heads` and `ffn` must be rules that
    rank. None merges where the student is refitted, unless they are other rules."""
    measure_tokens: Count = 20_000
    """How much text the rules activation and taylor look at, in all languages together."""
    refit: Refit | None = None
    """How the copied weights are repaired; None leaves them as they are."""
    general: General | None = None
    """General distillation of teacher.base before the task; None does without."""

    @property
    def rules(self) -> dict[str, str | tuple[int, ...] | bool]:
        """The rule for each of the four sizes, and whether layers are merged."""
        merges = self.merge
        if merges is None:
            ranked = all(rule in (None, *RANKING) for rule in (self.heads, self.ffn))
            merges = self.refit is not None and ranked
        unsaid = "taylor" if merges else "uniform"
        heads, ffn = self.heads or unsaid, self.ffn or unsaid
        return {"layers": self.layers, "hidden": self.hidden, "heads": heads, "ffn": ffn,
                "merge": merges}  # fmt: skip

    @field_validator("refit")
    @classmethod
    def _refit_has_an_aim(cls, refit: Refit | None, info: ValidationInfo) -> Refit | None:
        source = info.data.get("source")
        if refit is not None and source not in (None, "teacher", "base"):
            raise ValueError(f"nothing to refit toward, since source is {source!r}; leave it out")
        return refit

    @field_validator("merge")
    @classmethod
    def _merging_ranks(cls, merge: bool | None, info: ValidationInfo) -> bool | None:
        said = [str(info.data[size] or "taylor") for size in ("heads", "ffn") if size in info.data]
        if merge and not all(rule in RANKING for rule in said):
            raise ValueError(
                f"heads: {said[0]}, ffn: {said[-1]} do not rank what is merged; set both to one of "
                + ", ".join(RANKING)
            )
        return merge

    @field_validator("layers", "hidden", "heads", "ffn")
    @classmethod
    def _rule_is_known(cls, rule: object, info: ValidationInfo) -> object:
        dimension = str(info.field_name)
        if isinstance(rule, str):
            check_known(rule, RULES[dimension], f"rule for {dimension}")
        return rule


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
            raise ValueError("data.text_per_language needs mse or kl in the objective")
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
        refit = init.refit if isinstance(init, Init) else None
        if "hidden" in train.objective and refit is not None and refit.directions == "principal":
            raise ValueError(
                "hidden compares kept channels, but init.refit.directions is principal"
            )
        return train

    @field_validator("init")
    @classmethod
    def _layers_fit_shape(cls, init: Init, info: ValidationInfo) -> Init:
        student = info.data.get("student")
        wanted = student.layers if isinstance(student, Student) else None
        if wanted is not None and not isinstance(init.layers, str) and len(init.layers) != wanted:
            raise ValueError(f"{len(init.layers)} layers listed, but student.layers is {wanted}")
        return init
