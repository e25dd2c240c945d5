"""What a cut takes from where: the student's config, and tensors, all at once or as they flow."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.assembly import prefix_of
from headstart.errors import HeadstartError
from headstart.fitting import Fit, fit
from headstart.layout import entries, lengths, student_changes, tensor_shape
from headstart.reader import Opened, fit_base, open_model
from headstart.transplant import blocks, shuffled, source_names, transplant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from headstart.layout import Axis, Entry, Head
    from headstart.reader import Named
    from headstart.selection import Selection
    from headstart.store import Flow


@dataclass(frozen=True, slots=True)
class Cut:
    """A student that nothing has been copied for yet.

    Args:
        config: The student's.
        selection: What it keeps of its teacher.
        head: The student's.
        origin: The model that is copied.
        source_prefix: Prefix of the encoder's names there.
        prefix: Prefix of the encoder's names in the student.
        sizes: The teacher's length of each axis.
        lengths: The student's.
        entries: All of the student's tensors.
        copied: Those that are copied; the others are fresh, or shared.
        unused: The teacher's tensors that no part of the student comes from.
        seed: Of shuffling.
    """

    config: PreTrainedConfig
    selection: Selection
    head: Head
    origin: Opened
    source_prefix: str
    prefix: str
    sizes: Mapping[Axis, int]
    lengths: Mapping[Axis, int]
    entries: tuple[Entry, ...]
    copied: tuple[Entry, ...]
    unused: tuple[str, ...]
    seed: int

    @property
    def provenance(self) -> dict[str, str]:
        """Say where each tensor comes from, see `Made`."""
        source, prefix = self.selection.source, self.prefix
        copied = set(self.copied)
        found: dict[str, str] = {}
        for entry in self.entries:
            names = source_names(entry, self.selection, self.source_prefix)
            told = f"{source}:{' + '.join(names)}" if entry in copied else "fresh"
            found[entry.name(prefix)] = (
                f"tied:{entry.tied.format(p=prefix)}" if entry.tied else told
            )
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Copy everything, by the student's names."""
        made = transplant(
            self.origin.read,
            self.copied,
            self.selection,
            sizes=self.sizes,
            source_prefix=self.source_prefix,
            target_prefix=self.prefix,
        )
        if self.selection.source == "permuted":
            return {name: shuffled(name, t, seed=self.seed) for name, t in made.items()}
        return made

    def flow(self) -> Flow | None:
        """Copy block by block, where nothing is fresh, shuffled, or of a type of its own.

        Returns:
            Shapes by name; blocks of rows in the order of the sorted names; their type.
        """
        whole = all(entry.tied or entry in self.copied for entry in self.entries)
        kind = self.origin.kind
        if not whole or kind is None or self.selection.source == "permuted":
            return None
        named = {e.name(self.prefix): e for e in self.copied if not e.tied}

        def flowing() -> Iterator[Tensor]:
            for name in sorted(named):
                yield from blocks(
                    self.origin.read,
                    named[name],
                    self.selection,
                    sizes=self.sizes,
                    source_prefix=self.source_prefix,
                )

        return {name: tensor_shape(e, self.lengths) for name, e in named.items()}, flowing(), kind


def checked(opened: Opened) -> Fit:
    """Hold a teacher against its family's table.

    Raises:
        HeadstartError: It does not fit.
    """
    return fit(opened.family, opened.plain, opened.head, opened.shapes, where=opened.where)


def plan_cut(
    opened: Opened,
    found: Fit,
    selection: Selection,
    *,
    base: PreTrainedModel | Named | None,
    seed: int,
) -> Cut:
    """Find out what a student's tensors are copied from.

    Args:
        opened: The teacher.
        found: How it fits its family's table.
        selection: What the student keeps of it, and the source.
        base: The model that the teacher was fine-tuned from; for source ``base``.
        seed: Of shuffling.

    Raises:
        HeadstartError: The base is missing or at fault, or the student cannot have its shape.
    """
    config, source = _config(opened, selection), selection.source
    origin, at = _origin(base, opened) if source == "base" else (opened, found)
    wanted = entries(opened.family, config.to_dict(), opened.head)
    copied = [] if source == "scratch" else [e for e in wanted if e.template not in at.absent]
    used = {e.name(found.prefix) for e in wanted if e.tied}
    if source not in ("scratch", "base"):
        used.update(*(source_names(e, selection, at.prefix) for e in copied))
    unused = tuple(name for name in opened.shapes if name not in used)
    return Cut(
        config,
        selection,
        opened.head,
        origin,
        source_prefix=at.prefix,
        prefix=prefix_of(opened.family, opened.head),
        sizes=lengths(opened.family, opened.plain),
        lengths=lengths(opened.family, config.to_dict()),
        entries=tuple(wanted),
        copied=tuple(copied),
        unused=unused,
        seed=seed,
    )


def _origin(base: PreTrainedModel | Named | None, teacher: Opened) -> tuple[Opened, Fit]:
    """Open the base, and hold it against the teacher's config."""
    if base is None:
        raise HeadstartError(
            "source base needs the model that the teacher was fine-tuned from",
            where="recipe key teacher.base",
            way_out="name it there, or choose another init.source",
        )
    opened = open_model(base)
    return opened, fit_base(opened, teacher, teacher.head)


def _config(opened: Opened, selection: Selection) -> PreTrainedConfig:
    """Give the teacher's config with the student's sizes."""
    family, plain, shape = opened.family, opened.plain, selection.student
    config = copy.deepcopy(opened.config)
    for key, value in student_changes(family, plain, shape, layers=selection.layers).items():
        setattr(config, key, value)
    return config
