"""What a student is before its training: its shape, and where its first weights come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from headstart.settings import (
    Amount,
    Count,
    Index,
    Part,
    Place,
    Positive,
    Word,
    Words,
    check_known,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Some = Annotated[Words, Field(min_length=1)]
Source = Literal["teacher", "base", "scratch", "permuted"]

RULES: Mapping[str, tuple[str, ...]] = {
    "layers": ("even", "even-first", "first", "last"),
    "hidden": ("uniform", "first", "random", "magnitude", "activation"),
    "heads": ("uniform", "first", "random", "magnitude", "activation", "taylor", "strided"),
    "ffn": ("uniform", "first", "random", "magnitude", "activation", "taylor"),
}
"""Names of the selection rules, kept equal to `selection` by a test."""
RANKING = ("taylor", "activation", "magnitude")  # rules that say which of two units matters more


class Student(Part):
    """The student's shape, by sizes or by budget.

    Without a budget, what is None is as the teacher has it (ffn shrinks with hidden). With one, it
    is whatever should lose least.
    """

    layers: Count | None = None
    """Transformer layers."""
    hidden: Count | None = None
    """Width of the residual stream."""
    heads: Count | None = None
    """Attention heads in each layer."""
    ffn: Count | None = None
    """Feed-forward neurons in each layer."""
    params: Amount | None = None
    """At most so many parameters, such as 60M."""
    bytes: Amount | None = None
    """At most so many bytes in single precision, such as 200MB."""
    speedup: Annotated[Positive, Field(ge=1)] | None = None
    """At least so many times as fast as the teacher, by estimate; plan measures it."""


class Refit(Part):
    """Closed-form repair of the copied weights before training; `{}` takes the defaults."""

    tokens: Count = 50_000
    """How much text is looked at, in all languages together: training rows, then `data.text`."""
    text: Place | None = None
    """A folder, a file a language, that is looked at instead: no training row, no `data.text`. It
    adds no pieces to the packaged base."""
    languages: Some | None = None
    """Those whose text is looked at; None takes all, zero-shot ones included."""
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
    learning_rate: Positive = 1e-3
    """Highest rate; 3e-4 learned more slowly where both were tried (docs/log.md)."""
    batch_tokens: Count = 1024
    """Padded tokens of one step."""
    judge_tokens: Count = 4096
    """How much text that is not learned from says, ten times, which weights are best."""


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
    measure_languages: Some | None = None
    """Those whose text they look at; None takes all, zero-shot ones included."""
    refit: Refit | None = None
    """How the copied weights are repaired; None leaves them as they are."""
    general: General | None = None
    """General distillation of teacher.base before the task; None does without."""

    @property
    def refit_text(self) -> Path | None:
        """The folder that refit alone reads, if one is named."""
        return self.refit and self.refit.text

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
