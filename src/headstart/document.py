"""YAML text to plain data and back, without YAML's traps.

Numbers and flags are read as in YAML 1.2: `no` is a language, `1e-4` a number, `010` and dates
are words. A key that stands twice is a fault, not a quiet loss of the first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, cast

import yaml

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from collections.abc import Hashable

_NUMBERS = "-+.0123456789"
_FORMS: tuple[tuple[str, str, str], ...] = (  # tag, form, first letters
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL", "~nN"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", _NUMBERS),
    ("float", r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)\.[0-9]*)(?:[eE][-+]?[0-9]+)?", _NUMBERS),
    ("float", r"[-+]?(?:0|[1-9][0-9]*)[eE][-+]?[0-9]+", _NUMBERS),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", _NUMBERS),
    ("merge", r"<<", "<"),
)
Resolvers = dict[str, list[tuple[str, re.Pattern[str]]]]


def _resolvers() -> Resolvers:
    """Arrange the forms as PyYAML looks them up: by first letter; empty text is null."""
    table: Resolvers = {"": [("tag:yaml.org,2002:null", re.compile("^$"))]}
    for tag, form, letters in _FORMS:
        for letter in letters:
            entry = (f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{form})$"))
            table.setdefault(letter, []).append(entry)
    return table


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _resolvers()

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, object]:
        """Refuse keys that stand twice."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                problem = f"key {key.value!r} stands twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would read as something else than text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own name and form
        letter: yaml.SafeDumper.yaml_implicit_resolvers.get(letter, [])
        + _resolvers().get(letter, [])
        for letter in {*yaml.SafeDumper.yaml_implicit_resolvers, *_resolvers()}
    }

    def ignore_aliases(self, data: object) -> bool:
        """Write shared values out each time."""
        del data
        return True


def parse(text: str, *, where: str) -> object:
    """Read plain data from YAML.

    Args:
        text: One document.
        where: The file or option it comes from, for errors.

    Raises:
        HeadstartError: It is not YAML, or a key stands twice; with the line.
    """
    try:
        return cast("object", yaml.load(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        what, place = error.problem or str(error), where + line
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what, place = " ".join(str(error).split()), where
    raise HeadstartError(f"not readable as YAML: {what}", where=place, way_out="mend the text")


def dump(tree: object, width: float = 100) -> str:
    """Write plain data as YAML that `parse` reads back the same; small collections in one line.

    Args:
        tree: The data.
        width: Letters after which a line is broken.
    """
    return yaml.dump(
        tree,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=width,
    )
