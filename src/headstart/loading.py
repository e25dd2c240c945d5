"""From YAML to recipes and back: shipped ones, files, overrides, the runs of a study."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from headstart.checking import apply, dumped, put, validate, without
from headstart.document import dump, parse
from headstart.errors import HeadstartError, combine, nearest
from headstart.recipe import NOT_DECIDING, ONLY_WITHOUT_MODEL, RESULT_VERSION, Data, Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "apply",
    "data_of",
    "expand",
    "json_schema",
    "load_recipe",
    "shipped",
    "signature",
    "template",
    "to_yaml",
]

ALL_IF_NULL = (
    *(f"data.{split}_per_language" for split in ("examples", "dev", "test")), "train.languages"
)  # fmt: skip
STUDY_KEYS = ("name", "seed", "arms", "grid", "baseline", "seeds")
SHARED_KEYS = ("task", "data.languages", "data.zero_shot")  # one table holds all runs of a study


def shipped() -> Mapping[str, Path]:
    """List the recipes that come with the package: name and file."""
    folder = Path(__file__).parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def data_of(data: Data | Mapping[str, object], task: str) -> Data:
    """Check plain settings of data as a recipe's are.

    Raises:
        HeadstartError: Every fault at once.
    """
    if isinstance(data, Data):
        return data
    return load_recipe({"task": task, "data": dict(data), "teacher": {"model": "given"}}).data


def template() -> str:
    """Give a recipe to fill in, with a comment on what may stand where."""
    return (Path(__file__).parent / "templates" / "recipe.yaml").read_text(encoding="utf-8")


def load_recipe(
    source: str | Path | Mapping[str, object] | Recipe,
    overrides: Sequence[str] = (),
    *,
    seed: int | None = None,
) -> Recipe:
    """Read a recipe and check all of it.

    Args:
        source: Name of a shipped recipe, file, plain data, or a recipe to change.
        overrides: Settings as `train.epochs=2`; the value is YAML.
        seed: Replaces the recipe's.

    Raises:
        HeadstartError: Every fault of the recipe, its arms and its grid, in one message.
    """
    tree, where = _read(source)
    faults = [fault for text in overrides if (fault := _override(tree, text))]
    if seed is not None:
        tree["seed"] = seed
    recipe, found = validate(tree)
    faults += found
    if recipe is not None:
        faults += _study_faults(recipe)
    if faults or recipe is None:
        raise combine(faults, where=where)
    return recipe


def to_yaml(recipe: Recipe) -> str:
    """Write a recipe with every default spelled out; `load_recipe` reads the same one back."""
    return dump(dumped(recipe))


def json_schema() -> dict[str, object]:
    """Describe recipes as a JSON schema, for editors."""
    return Recipe.model_json_schema()


def _unsaid(recipe: Recipe) -> frozenset[str]:
    """List budgets that are not given: without them a recipe is what it was before they were."""
    given = recipe.student.model_dump(exclude_none=True)
    return frozenset(f"student.{key}" for key in ("params", "bytes", "speedup") if key not in given)


def signature(recipe: Recipe, **extra: str) -> str:
    """Name a run by all that decides its result.

    Args:
        recipe: One run; arms, grid and seeds are not read.
        **extra: Fingerprints of what the recipe only points at, such as data and weights.

    Returns:
        16 hexadecimal digits: the head of a SHA-256 over canonical JSON.
    """
    dropped = NOT_DECIDING if recipe.teacher.model is None else NOT_DECIDING | ONLY_WITHOUT_MODEL
    places = (("teacher.model", "teacher"), ("teacher.base", "base"))
    printed = {key for key, name in places if name in extra}  # wherever these lie
    settings = without(dumped(recipe), dropped | _unsaid(recipe) | printed)
    content = {"recipe": settings, "extra": extra, "result_version": RESULT_VERSION}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def expand(recipe: Recipe) -> list[tuple[str, Recipe]]:
    """List the runs of a study: arms x grid x seeds.

    Args:
        recipe: An arm's settings are applied first, then the grid's, then the seed.

    Returns:
        Distinct names such as `teacher|epochs=3|seed=0`, and recipes of one run each, in the
        order of the recipe; `run` and the recipe itself where there is nothing to expand.

    Raises:
        HeadstartError: Settings of an arm or of the grid are faulty.
    """
    faults = _study_faults(recipe)
    if faults:
        raise combine(faults, where="arms and grid")
    if not (recipe.arms or recipe.grid or recipe.seeds):
        return [("run", recipe)]
    return [
        (f"{point}|seed={seed}".lstrip("|"), _one_run(recipe, settings, point, seed))
        for point, settings in _points(recipe)
        for seed in recipe.seeds or (recipe.seed,)
    ]


def _one_run(recipe: Recipe, settings: Mapping[str, object], point: str, seed: int) -> Recipe:
    name = f"{point}|seed={seed}".lstrip("|")
    study: dict[str, object] = {
        "name": name,
        "seed": seed,
        "arms": {},
        "grid": {},
        "baseline": None,
        "seeds": [],
    }
    return apply(recipe, {**settings, **study})


def _points(recipe: Recipe) -> Iterator[tuple[str, dict[str, object]]]:
    """Go through arms x grid: a name, and the settings that make it."""
    keys = list(recipe.grid)
    arms = recipe.arms or {"": {}}
    for arm, changes in arms.items():
        for values in itertools.product(*recipe.grid.values()):
            point = dict(zip(keys, values, strict=True))
            labels = [_label(key, value, keys) for key, value in point.items()]
            yield "|".join([arm, *labels] if arm else labels), {**changes, **point}


def _label(key: str, value: object, keys: Sequence[str]) -> str:
    """Name one value of the grid: text as it is, numbers with the end of their key."""
    if isinstance(value, str):
        return value
    last = key.rpartition(".")[2]
    is_clear = last != "seed" and [k.rpartition(".")[2] for k in keys].count(last) == 1
    short = last if is_clear else key
    is_all = value is None and key in ALL_IF_NULL
    return f"{short}={'all' if is_all else _compact(value)}"


def _compact(value: object) -> str:
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return "+".join(f"{name}:{_compact(entry)}" for name, entry in items)
    if isinstance(value, list | tuple):
        return ",".join(_compact(entry) for entry in cast("Sequence[object]", value))
    if value is None or isinstance(value, bool):
        return json.dumps(value)  # as YAML has it
    return str(value)


def _study_faults(recipe: Recipe) -> list[HeadstartError]:
    """Check every arm and every point of the grid, and what the baseline names."""
    places = {f"arms.{arm}": list(keys) for arm, keys in recipe.arms.items()}
    faults: list[HeadstartError] = []
    for place, keys in {**places, "grid": list(recipe.grid)}.items():
        for key in keys:
            where = f"recipe key {place}"
            if key.partition(".")[0] in STUDY_KEYS:
                what, way_out = f"a study sets {key} itself", "leave it out"
            elif key in SHARED_KEYS:
                what = f"the runs of a study are judged in one table, so {key} is the same for all"
                way_out = (
                    "train.languages says which of the languages a student learns from; else make "
                    "a study of each"
                )
            elif key in recipe.grid and place != "grid":
                what, way_out = f"{key} is in the grid too", "set it in one place"
            else:
                continue
            faults.append(HeadstartError(what, where=where, way_out=way_out))
    return faults or _point_faults(recipe)


def _point_faults(recipe: Recipe) -> list[HeadstartError]:
    faults: dict[tuple[str, str], HeadstartError] = {}
    names: list[str] = []
    made: dict[tuple[object, ...], list[str]] = {}
    for name, settings in _points(recipe):
        names.append(name)
        try:
            one = _one_run(recipe, settings, name, recipe.seed)
            key = (signature(one), one.data.folder, one.data.text, one.init.refit_text)
            made.setdefault(key, []).append(name)
        except HeadstartError as fault:
            where = f"arms or grid, run {name}: {fault.where}" if name else fault.where
            found = HeadstartError(fault.what, where=where, way_out=fault.way_out)
            faults.setdefault((fault.what, fault.where), found)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        faults["twice", ""] = HeadstartError(
            f"several runs are called {', '.join(twice)}",
            where="recipe key grid",
            way_out="name each value once",
        )
    for alike in (sorted(set(same)) for same in made.values()):
        if len(alike) > 1:
            faults["alike", alike[0]] = HeadstartError(
                f"{', '.join(alike)} are the same run: nothing that decides a result differs",
                where="recipe key " + ("arms or grid" if recipe.arms else "grid"),
                way_out="leave all but one out, or set what should tell them apart",
            )
    if recipe.baseline is not None and recipe.baseline not in names:
        faults["baseline", ""] = HeadstartError(
            f"no run is called {recipe.baseline!r}",
            where="recipe key baseline",
            way_out=nearest(recipe.baseline, dict.fromkeys(filter(None, names)) or ["(no arms)"]),
        )
    return list(faults.values())


def _override(tree: dict[str, object], text: str) -> HeadstartError | None:
    """Write one `key=value` into plain data; return what is wrong with it."""
    key, equals, value = text.partition("=")
    if not equals:
        return HeadstartError(
            f"setting {text!r} has no value", where="--set", way_out="write it as train.epochs=2"
        )
    try:
        put(tree, key.strip(), parse(value, where=f"--set {key}"))
    except HeadstartError as fault:
        return fault
    return None


def _read(
    source: str | Path | Mapping[str, object] | Recipe,
) -> tuple[dict[str, object], str]:
    """Return plain data that may be changed, and its name for errors."""
    if isinstance(source, Recipe):
        return dumped(source), "recipe"
    if isinstance(source, Mapping):
        return copy.deepcopy(dict(source)), "recipe"
    path = shipped().get(str(source), Path(source))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HeadstartError(
            f"no recipe can be read there: {error}",
            where=str(source),
            way_out=f"give a file, or name a shipped recipe: {nearest(str(source), shipped())}",
        ) from error
    tree = parse(text, where=str(path))
    if not isinstance(tree, dict):
        raise HeadstartError(
            "a recipe is a mapping of keys to settings",
            where=str(path),
            way_out="begin with `task: classification`, or with what "
            "`headstart recipes template` prints",
        )
    settings = cast("dict[str, object]", tree)
    settings.setdefault("name", path.stem)
    return settings, str(path)
