"""Hold a checkpoint's tensors against its family's table, name by name and shape by shape."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError
from headstart.layout import Config, Family, Head, entries, lengths, tensor_shape

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHOWN = 6  # faults of one kind come in hundreds


@dataclass(frozen=True, slots=True)
class Fit:
    """How a checkpoint's tensors meet the table.

    Args:
        prefix: What really stands before the encoder's names; empty for a bare encoder.
        absent: Templates of the head's tensors that a base lacks, or has for other labels.
        unused: Names of the tensors that it does not ask for, all of them known leftovers.
    """

    prefix: str
    absent: frozenset[str]
    unused: tuple[str, ...]


def fit(
    family: Family,
    config: Config,
    head: Head,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    where: str,
    base: bool = False,
) -> Fit:
    """Hold a checkpoint against its family's table.

    Args:
        family: The checkpoint's family.
        config: The config that the tensors must fit.
        head: The head that is wanted of it.
        shapes: Shape of each tensor in the checkpoint, by name.
        where: The checkpoint, for errors.
        base: The head's tensors may be absent, and those that depend on the labels are not
            wanted.

    Raises:
        HeadstartError: Tensors are missing, have another shape, or are not in the table.
    """
    prefix = "" if family.stem[0].name.format(p="") in shapes else family.prefix
    sizes = lengths(family, config)
    expected = {entry.name(prefix): entry for entry in entries(family, config, head)}
    absent: set[str] = set()
    faults: list[str] = []
    for name, entry in expected.items():
        found, wanted = shapes.get(name), tensor_shape(entry, sizes)
        if base and entry.part == "head" and ("labels" in entry.axes or found != wanted):
            absent.add(entry.template)
        elif found is None and not entry.tied:
            faults.append(f"{name} is missing")
        elif found is not None and found != wanted:
            faults.append(f"{name} has shape {found}, not {wanted}")
    unused = tuple(name for name in shapes if name not in expected)
    strays = [name for name in unused if not _is_leftover(name, family, base=base)]
    faults += [f"{name} is not in the table of {family.model_type}" for name in strays]
    if faults:
        raise _misfit(faults, where, base=base)
    return Fit(prefix, frozenset(absent), unused)


def _is_leftover(name: str, family: Family, *, base: bool) -> bool:
    plain = name.removeprefix(family.prefix)
    if any(re.match(pattern, plain) for pattern in family.leftovers):
        return True
    heads = {weight.name.format(p="") for head in family.heads.values() for weight in head}
    return base and plain in heads


def _misfit(faults: list[str], where: str, *, base: bool) -> HeadstartError:
    more = [f"… and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    listed = "\n    ".join(faults[:_SHOWN] + more)
    return HeadstartError(
        f"{len(faults)} tensors do not fit the config:\n    {listed}",
        where=where,
        way_out="name the very model that the teacher was fine-tuned from"
        if base
        else "save the model again with save_pretrained, so that weights and config agree",
    )
