"""The settings of data and training: every key, its default and its limits.

Names that later rooms define (rules, objectives, corpora) stand here as constants, so that a
recipe can be checked without loading tensors; a test keeps them equal to the tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from headstart.errors import nearest
from headstart.folders import at_home

Task = Literal["classification", "tagging"]

CORPUS_TASKS: Mapping[str, Task | None] = {
    "massive": "classification",
    "tsm": "classification",
    "uner": "tagging",
    "quickstart": "classification",
    "local": None,
}
OBJECTIVES = ("labels", "mse", "kl", "hidden", "relation")
SOFTENED = ("kl",)  # the objectives that read a temperature

_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:([kKmMgG])[bB]?)?\s*$")
Item = TypeVar("Item", str, int)


def check_known(name: str, known: tuple[str, ...], kind: str) -> None:
    """Refuse a name that is in no table.

    Raises:
        ValueError: With the nearest known name; pydantic adds the key.
    """
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}: {nearest(name, known)}")


def _not_a_flag(value: object) -> object:
    """Refuse booleans, which Python counts as numbers."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return value


def _distinct(values: tuple[Item, ...]) -> tuple[Item, ...]:
    twice = sorted({v for v in values if values.count(v) > 1})
    if twice:
        raise ValueError(f"named twice: {', '.join(map(str, twice))}")
    return values


def _plain(name: str) -> str:
    if not name or "|" in name or any(letter.isspace() for letter in name):
        raise ValueError(f"name {name!r} is empty, or has a blank or a |")
    return name


def _objective(name: str) -> str:
    check_known(name, OBJECTIVES, "objective")
    return name


def _as_term(value: object) -> object:
    """Read `mse: 0.5` as `mse: {weight: 0.5}`."""
    return {"weight": value} if isinstance(value, int | float | str) else value


def amount(value: object) -> object:
    """Read `30M` as 30,000,000, and `50MB` the same way; all else stays as it is.

    Raises:
        ValueError: It is a boolean.
    """
    found = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return _not_a_flag(value)
    number, unit = found.groups()
    return round(float(number) * {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}[(unit or "").lower()])


Index = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=0)]
Count = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=1)]
Amount = Annotated[
    int,
    BeforeValidator(amount),
    Field(ge=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": _AMOUNT.pattern},
            ]
        }
    ),
]
Seed = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=0, lt=2**32)]
Seeds = Annotated[tuple[Seed, ...], AfterValidator(_distinct)]
Positive = Annotated[float, BeforeValidator(_not_a_flag), Field(gt=0)]
NotNegative = Annotated[float, BeforeValidator(_not_a_flag), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_not_a_flag), Field(ge=0, lt=1)]
Share = Annotated[float, BeforeValidator(_not_a_flag), Field(gt=0, le=1)]
Word = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Word, ...], AfterValidator(_distinct)]
ObjectiveName = Annotated[str, AfterValidator(_objective)]
RunName = Annotated[str, AfterValidator(_plain)]
Place = Annotated[Path, AfterValidator(at_home)]


class Part(BaseModel):
    """A frozen piece of a recipe, which knows all its keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Columns(Part):
    """What the columns of a local or hub corpus are called."""

    text: Word = "text"
    label: Word = "label"
    tokens: Word = "tokens"
    tags: Word = "tags"
    id: Word = "id"
    split: Word = "split"
    language: Word = "language"


class Data(Part):
    """The labelled text, per language."""

    corpus: Word = "local"
    """A known corpus, `local` for a folder of your own, or a hub name with a slash."""
    folder: Place | None = None
    """Where the files are, seen from the current directory; None takes the hub's copy."""
    text: Place | None = None
    """Folder of unlabelled text, a file a language: for refit, measured rules, and below."""
    text_per_language: Count | None = None
    """Texts of it, zero-shot languages too, that the student learns the teacher's answers on."""
    languages: Annotated[Words, Field(min_length=1)]
    """Trained on, chosen on (dev) and tested."""
    zero_shot: Words = ()
    """Tested only."""
    examples_per_language: Count | None = None
    """Rows of train that are used, the first ones; None takes all."""
    dev_per_language: Count | None = None
    """The same for dev."""
    test_per_language: Count | None = None
    """The same for test."""
    labels: Words | None = None
    """Classes or tags in the order of their ids; None takes the corpus' own, or sorted names."""
    columns: Columns = Columns()
    """Names of columns, for a local or hub corpus."""
    sampling_alpha: Share = 1.0
    """A language of n rows is drawn in proportion to n to this power."""
    max_length: Annotated[Count, Field(ge=4)] = 128
    """Longest input in tokens; what is beyond is cut off."""
    drop_leaks: bool = False
    """Leave out the train rows whose text is in dev or test too."""
    revision: Word | None = None
    """Commit or tag of a hub corpus."""

    @field_validator("corpus")
    @classmethod
    def _corpus_is_known(cls, corpus: str) -> str:
        if "/" not in corpus:
            check_known(corpus, tuple(CORPUS_TASKS), "corpus")
        return corpus

    @field_validator("folder")
    @classmethod
    def _folder_fits_corpus(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        corpus = info.data.get("corpus", "")
        if corpus == "local" and folder is None:
            raise ValueError("corpus 'local' needs the folder of its files")
        if folder is not None and "/" in corpus:
            raise ValueError(f"not used, since corpus {corpus!r} is on the hub; set it to 'local'")
        return folder

    @field_validator("text_per_language")
    @classmethod
    def _text_is_there(cls, count: int | None, info: ValidationInfo) -> int | None:
        if count is not None and info.data.get("text", "") is None:
            raise ValueError("not used, since data.text names no folder")
        return count

    @field_validator("zero_shot")
    @classmethod
    def _zero_shot_is_unseen(cls, zero_shot: tuple[str, ...], info: ValidationInfo) -> object:
        both = [language for language in zero_shot if language in info.data.get("languages", ())]
        if both:
            raise ValueError(f"trained on and zero-shot at once: {', '.join(both)}")
        return zero_shot


class Term(Part):
    """One part of the loss."""

    weight: NotNegative = 1.0
    """Factor of this part in the sum."""
    temperature: Positive = 1.0
    """Softening of both sides, unitless; kl only."""


Objective = Mapping[ObjectiveName, Annotated[Term, BeforeValidator(_as_term)]]


class Train(Part):
    """How a model is trained."""

    objective: Annotated[Objective, Field(min_length=1)] = {
        "labels": Term(weight=0.5),
        "mse": Term(weight=0.5),
    }
    """Parts of the loss: name and weight, or name and {weight, temperature}."""
    languages: Annotated[Words, Field(min_length=1)] | None = None
    """Those of data.languages whose rows are learned from and chosen on; None takes all. The others
    are zero-shot for what is trained."""
    epochs: Positive = 3.0
    """Passes over the training text."""
    max_steps: Index | None = None
    """Steps in all, whatever `epochs` says; 0 leaves the student as it was made."""
    learning_rate: Positive | Literal["auto"] = "auto"
    """Highest rate; auto tries several and keeps the best on dev."""
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """What auto tries; None takes 1e-4, 3e-4, 1e-3, and goes on beyond an edge that is best."""
    trial_fraction: Share = 0.2
    """Share of the steps that auto gives to each try."""
    batch_tokens: Count = 1024
    """Padded tokens of one step, over all processes."""
    warmup: Fraction = 0.1
    """Share of the steps in which the rate rises; then it falls to 0 in a line."""
    weight_decay: NotNegative = 0.01
    """Of AdamW, on matrices only."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Of AdamW."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    dropout: Annotated[
        Fraction | Literal["auto", "kept"], BeforeValidator(lambda v: "kept" if v is None else v)
    ] = "auto"
    """For all dropout in the model. kept (or null) leaves it as it is; auto does so where labels
    are learned from, and sets it to 0 where nothing is but the teacher."""
    word_embeddings: Literal["train", "freeze", "rows"] = "rows"
    """Train all rows, none, or only those that occur in the training text."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto takes bf16 where the processor is faster at it."""
    eval_every: Count | None = None
    """Steps between scores on dev; None scores after each epoch."""
    patience: Count | None = None
    """End after this many scores without a better one; None never ends early."""
    checkpoint_minutes: Positive = 5.0
    """Time between checkpoints for resuming; decides nothing."""
    tracker: Word | None = None
    """A tracker of Accelerate, such as tensorboard; decides nothing."""

    @property
    def learned(self) -> Mapping[str, Term]:
        """What is learned from: nothing, where no step is taken."""
        return {} if self.max_steps == 0 else self.objective

    @field_validator("objective")
    @classmethod
    def _objective_has_effect(cls, objective: Mapping[str, Term]) -> Mapping[str, Term]:
        for name, term in objective.items():
            if term.temperature != 1.0 and name not in SOFTENED:
                raise ValueError(f"objective {name!r} has no temperature; leave it out")
        if not any(term.weight > 0 for term in objective.values()):
            raise ValueError("no part of the loss has a weight above 0")
        return objective

    @field_validator("learning_rates")
    @classmethod
    def _rates_are_used(cls, rates: object, info: ValidationInfo) -> object:
        rate = info.data.get("learning_rate", "auto")
        if rates is not None and rate != "auto":
            raise ValueError(f"not used, since learning_rate is {rate}; set that to auto")
        return rates
