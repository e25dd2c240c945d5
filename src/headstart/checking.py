"""Plain data to a checked recipe, with every fault at its key; changes by dotted keys."""

from __future__ import annotations

import copy
import textwrap
from typing import TYPE_CHECKING, cast, get_args

from pydantic import BaseModel, ValidationError

from headstart.errors import HeadstartError, combine, nearest
from headstart.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic_core import ErrorDetails

Tree = dict[str, object]
Keys = tuple[str, ...]


def validate(tree: Tree) -> tuple[Recipe | None, list[HeadstartError]]:
    """Check a recipe; with faults, check once more without the faulty keys.

    Parts are checked against each other only where each is sound, so the second look finds what
    the faults of the first hid.

    Returns:
        The recipe (less its faulty keys), or None if too little is left; and all faults.
    """
    try:
        return Recipe.model_validate(tree), []
    except ValidationError as error:
        first = _grouped(error, tree)
    faults = [_fault(keys, errors) for keys, errors in first.items()]
    sound = cast("Tree", without(tree, frozenset(".".join(keys) for keys in first)))
    try:
        return Recipe.model_validate(sound), faults
    except ValidationError as error:
        hidden = {k: e for k, e in _grouped(error, sound).items() if _was_hidden(k, e[0], first)}
    return None, faults + [_fault(keys, errors) for keys, errors in hidden.items()]


def _was_hidden(keys: Keys, error: ErrorDetails, first: Mapping[Keys, object]) -> bool:
    """Whether a fault of the second look is the user's own, not one of leaving keys out."""
    holds_a_gap = any(gap[: len(keys)] == keys for gap in first)
    is_new = error["type"] == "value_error" and keys not in first
    return is_new and (len(keys) == 1 or holds_a_gap)


def apply(recipe: Recipe, dotted: Mapping[str, object]) -> Recipe:
    """Change settings.

    Args:
        recipe: Stays as it is.
        dotted: New values by key, such as `train.epochs`.

    Returns:
        A checked recipe.

    Raises:
        HeadstartError: All faults of the new settings.
    """
    tree = dumped(recipe)
    for key, value in dotted.items():
        put(tree, key, copy.deepcopy(value))
    changed, faults = validate(tree)
    if faults or changed is None:
        raise combine(faults, where="settings " + ", ".join(dotted))
    return changed


def dumped(recipe: Recipe) -> Tree:
    """Turn a recipe into plain data, every default included."""
    return recipe.model_dump(mode="json")


def put(tree: Tree, dotted: str, value: object) -> None:
    """Set one key, making the mappings on the way as their defaults have them.

    Raises:
        HeadstartError: A key on the way holds a value, not a mapping.
    """
    *parents, last = dotted.split(".")
    defaults = _defaults()
    for depth, key in enumerate(parents, 1):
        inner = defaults.get(key)
        defaults = cast("Tree", inner) if isinstance(inner, dict) else {}
        whole = ".".join(parents[:depth])
        child = tree.setdefault(key, copy.deepcopy(defaults))
        if child is None and any(
            path[:depth] == tuple(parents[:depth]) != path for path in known_keys()
        ):
            child = tree[key] = {}  # a part that was left out, such as init.refit
        if not isinstance(child, dict):
            raise HeadstartError(
                f"{whole} is {_short(child)} and has no keys of its own",
                where=f"recipe key {dotted}",
                way_out=f"set {whole} as a whole",
            )
        tree = cast("Tree", child)
    tree[last] = value


def without(tree: object, dropped: frozenset[str], path: str = "") -> object:
    """Copy plain data, less the dotted keys named."""
    if not isinstance(tree, dict):
        return tree
    items = cast("Tree", tree).items()
    kept = {key: value for key, value in items if f"{path}{key}" not in dropped}
    return {key: without(value, dropped, f"{path}{key}.") for key, value in kept.items()}


def known_keys(part: type[BaseModel] = Recipe, path: Keys = ()) -> Iterator[Keys]:
    """Go through all keys of a recipe, parts before what they hold."""
    for name, field in part.model_fields.items():
        yield (*path, name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from known_keys(inner, (*path, name))


def _defaults() -> Tree:
    parts = {name: field.default for name, field in Recipe.model_fields.items()}
    return {k: v.model_dump(mode="json") for k, v in parts.items() if isinstance(v, BaseModel)}


def _grouped(error: ValidationError, tree: Tree) -> dict[Keys, list[ErrorDetails]]:
    """Collect errors under the keys that the user wrote; a union gives one for each branch."""
    groups: dict[Keys, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        keys: list[str] = []
        place: object = tree
        may_lack = detail["type"] in ("missing", "value_error")
        for part in detail["loc"]:
            if isinstance(place, dict) and (part in place or (may_lack and part != "[key]")):
                place = cast("dict[object, object]", place).get(part)
            elif isinstance(place, list) and part in range(len(cast("list[object]", place))):
                place = cast("list[object]", place)[int(part)]
            else:
                break
            keys.append(str(part))
        groups.setdefault(tuple(keys), []).append(detail)
    return groups


def _fault(keys: Keys, errors: Sequence[ErrorDetails]) -> HeadstartError:
    """Say what pydantic found in our words."""
    first, where = errors[0], "recipe key " + ".".join(keys)
    if first["type"] == "extra_forbidden":
        return HeadstartError(f"unknown key {keys[-1]!r}", where=where, way_out=_way_home(keys))
    if first["type"] == "missing" and len(first["loc"]) == len(keys):
        return HeadstartError("the key is missing", where=where, way_out=f"add {keys[-1]}")
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        what = f"{_short(first['input'])} should " + ", or ".join(dict.fromkeys(map(_wish, errors)))
    return HeadstartError(what, where=where, way_out="mend this setting")


WISHES = {  # pydantic's words are Python's
    "tuple_type": "be a list, such as [a, b]",
    "dict_type": "be a mapping, such as {a: 1}",
    "mapping_type": "be a mapping, such as {a: 1}",
    "model_type": "be a mapping, such as {a: 1}",
}


def _wish(error: ErrorDetails) -> str:
    """Keep what pydantic asks for, without how it came to that."""
    if error["type"] in WISHES:
        return WISHES[error["type"]]
    wish = error["msg"].partition("should ")[2] or "be longer"
    return wish.partition(", unable")[0].partition(", got")[0]


def _way_home(keys: Keys) -> str:
    """Tell where an unknown key belongs, or which known one is nearest."""
    known = list(known_keys())
    homes = [".".join(path) for path in known if path[-1] == keys[-1]]
    level = [path[-1] for path in known if path[:-1] == keys[:-1]]
    alike = [name for name in level if keys[-1] in name.split("_")]  # steps for max_steps
    if homes and not alike:
        return "it belongs at " + " or ".join(homes)
    if alike:
        return f"did you mean {' or '.join(map(repr, alike))}?"
    return nearest(keys[-1], level or ["weight", "temperature"])  # only terms have free names


def _short(value: object) -> str:
    return textwrap.shorten(repr(value), 60, placeholder="...")
