"""What a recipe will make, told from configs before any work."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from headstart.budget import BYTES, wanted_shape, work
from headstart.families import family_of
from headstart.layout import count_parameters, shape_of, student_changes, traits_of
from headstart.loading import expand
from headstart.reader import read_config
from headstart.rules import choose
from headstart.sources import source_of
from headstart.stages import base_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headstart.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Size:
    """One model's shape and size.

    Args:
        name: teacher or student.
        layers, hidden, heads, ffn: Its shape.
        parameters: `total`, and of them `vocabulary`, `transformer` and `head`.
        work: What it does for each piece of text, in multiply-adds.
        config: As plain data.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    parameters: Mapping[str, int]
    work: float
    config: Mapping[str, Any] = field(compare=False)

    @property
    def bytes(self) -> int:
        """Size on disk in single precision."""
        return self.parameters["total"] * BYTES


def plan_sizes(recipe: Recipe, named: str, *, labels: int | None = None) -> tuple[Size, Size]:
    """Work out the teacher's and the student's size from the teacher's config.

    Args:
        recipe: Says what student is wanted.
        named: Folder or hub name of the teacher or its base.
        labels: Classes of the task, where the config is a base's.

    Returns:
        Teacher and student.

    Raises:
        HeadstartError: The student cannot be cut from that teacher.
    """
    config: dict[str, Any] = read_config(named).to_dict()
    if labels is not None:
        config |= {"num_labels": labels, "id2label": {str(i): str(i) for i in range(labels)}}
    family = family_of(config)
    old = shape_of(family, config)
    new = wanted_shape(family, config, recipe.task, recipe.student.model_dump())
    layers = choose(
        old,
        new,
        rules={"layers": recipe.init.layers},
        traits=traits_of(family, config),
    ).layers
    changed = config | student_changes(family, config, new, layers=layers)
    sizes: list[Size] = []
    for name, shape, plain in (("teacher", old, config), ("student", new, changed)):
        counts = count_parameters(family, plain, recipe.task)
        four = (shape.layers, shape.hidden, shape.heads, shape.ffn)
        sizes.append(Size(name, *four, counts, work(family, plain), plain))
    return sizes[0], sizes[1]


def study_sizes(recipe: Recipe) -> list[list[Size]]:
    """Work out each teacher, and after it its students, each once.

    Raises:
        HeadstartError: One of them cannot be cut from its teacher.
    """
    labels = recipe.data.labels or source_of(recipe.data).labels
    count = len(labels) if labels else None
    found: dict[str, list[Size]] = {}
    with TemporaryDirectory() as folder:
        for _, one in expand(recipe):
            named = one.teacher.model or str(base_of(one, Path(folder), hollow=True))
            teacher, student = plan_sizes(one, named, labels=count)
            group = found.setdefault(named, [teacher])
            if student not in group[1:]:
                group.append(student)
    return [*found.values()]
