"""The house stands: one reading order, libraries by floor, light doors, short rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import headstart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HOUSE = Path(headstart.__file__).parent
LONGEST = 300  # lines

# A room may import only rooms named before it; a floor, its own libraries and those below.
FLOORS: Mapping[str, tuple[str, str]] = {
    "pure": (
        """errors folders record document settings initial recipe checking loading flow layout
        postnorm prenorm families fitting selection rules budget sources classes formats texts
        gather rows labels corpus metrics stats evidence tables attribution insight answers compare
        charsmap pack machine""",
        "numpy scipy pyarrow pydantic pydantic_core yaml",
    ),
    "tensors": ("transplant encode ridge walk sides objectives", "torch tokenizers"),
    "training": (
        """console store reader pieces assembly cutting checkpoint trimmed packed student
        places stream principal refit measure calibration merging state
        features prepare replay stride lastlayer
        evaluate teacher train tune tokenized stages groundwork general starts repair bench""",
        "transformers accelerate safetensors huggingface_hub rich filelock",
    ),
    "studies": (
        "results plan pace speed forecast board runfolder run study cluster steps checkup",
        "",
    ),
    "face": (
        "charts report show options verbs cli __init__ __main__",
        "jinja2 markupsafe altair vl_convert typer",
    ),
}
ORDER = [room for rooms, _ in FLOORS.values() for room in rooms.split()]
IN_FUNCTIONS = {"gather": {"datasets"}}  # the hub's reader: loaded only when a corpus is there
NEVER: Mapping[str, set[str]] = {
    "charts": {r for floor in ("tensors", "training", "studies") for r in FLOORS[floor][0].split()},
    "report": {r for floor in ("tensors", "training", "studies") for r in FLOORS[floor][0].split()},
    "train": {"layout", "families", "selection", "corpus", "metrics", "checkpoint"},
    "objectives": {"layout", "families", "checkpoint", "transformers", "pathlib", "os"},
    "transplant": {"pathlib", "os", "io", "tempfile", "safetensors"},
}
LIGHT = {
    "typer",
    "errors",
    "options",
    "verbs",
}  # all that the command line loads before a verb is chosen
DOORS = {"cli", "options", "verbs", "__init__", "__main__"}

Sources = dict[str, str]
Law = Callable[[Sources], None]


class Import(NamedTuple):
    """One name imported: a room of the house, or the top of another package."""

    name: str
    is_ours: bool
    is_inner: bool  # in a function, or for the type checker only


def imports(source: str) -> Iterator[Import]:
    tree = ast.parse(source)
    inner = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test))
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "headstart":
                names = [f"headstart.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            ours = top == "headstart"
            yield Import(rest.partition(".")[0] if ours else top, ours, id(node) in inner)


def law_every_room_is_named(sources: Sources) -> None:
    assert sorted(sources) == sorted(ORDER)


def law_a_room_imports_only_rooms_before_it(sources: Sources) -> None:
    for room, source in sources.items():
        later = ORDER[ORDER.index(room) :]
        wrong = {i.name for i in imports(source) if i.is_ours and i.name in (*later, "")}
        assert not wrong, f"{room} imports {wrong}"


def law_a_floor_uses_its_libraries(sources: Sources) -> None:
    allowed = set(sys.stdlib_module_names)
    for rooms, libraries in FLOORS.values():
        allowed |= set(libraries.split())
        for room in set(rooms.split()) & set(sources):
            here = [i for i in imports(sources[room]) if not i.is_ours]
            lazy = IN_FUNCTIONS.get(room, set())
            wrong = {
                i.name for i in here if i.name not in allowed | (lazy if i.is_inner else set())
            }
            assert not wrong, f"{room} imports {wrong}"


def law_some_things_are_never_known(sources: Sources) -> None:
    for room, unknown in NEVER.items():
        wrong = {i.name for i in imports(sources[room])} & unknown
        assert not wrong, f"{room} imports {wrong}"


def law_the_door_is_light(sources: Sources) -> None:
    allowed = set(sys.stdlib_module_names) | LIGHT
    for room in DOORS - {"__main__"}:
        wrong = {i.name for i in imports(sources[room]) if not i.is_inner} - allowed
        assert not wrong, f"{room} imports {wrong}"


def law_rooms_are_short(sources: Sources) -> None:
    for room, source in sources.items():
        assert len(source.splitlines()) <= LONGEST, room


LAWS = {
    law.__name__: law
    for law in (
        law_every_room_is_named,
        law_a_room_imports_only_rooms_before_it,
        law_a_floor_uses_its_libraries,
        law_some_things_are_never_known,
        law_the_door_is_light,
        law_rooms_are_short,
    )
}


@pytest.fixture(scope="module")
def house() -> Sources:
    return {path.stem: path.read_text(encoding="utf-8") for path in HOUSE.glob("*.py")}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_house_stands(law: Law, house: Sources) -> None:
    law(house)


# A mistake: the law that sees it, the room, and what is written into it.
MISTAKES: Mapping[str, tuple[Law, str, str]] = {
    "a room of no floor": (law_every_room_is_named, "utils", ""),
    "a later room": (law_a_room_imports_only_rooms_before_it, "record", "import headstart.recipe"),
    "itself": (law_a_room_imports_only_rooms_before_it, "record", "from headstart import record"),
    "a later room, in a function": (
        law_a_room_imports_only_rooms_before_it,
        "metrics",
        "def f():\n    from headstart.train import Job",
    ),
    "a later room, for types": (
        law_a_room_imports_only_rooms_before_it,
        "corpus",
        "if TYPE_CHECKING:\n    from headstart.run import run",
    ),
    "the front door": (law_a_room_imports_only_rooms_before_it, "run", "import headstart"),
    "torch below its floor": (law_a_floor_uses_its_libraries, "selection", "import torch.nn"),
    "torch in a function": (
        law_a_floor_uses_its_libraries,
        "metrics",
        "def f():\n    from torch import Tensor",
    ),
    "an unlisted library": (law_a_floor_uses_its_libraries, "show", "import pandas"),
    "datasets at once": (law_a_floor_uses_its_libraries, "gather", "import datasets"),
    "datasets elsewhere": (law_a_floor_uses_its_libraries, "rows", "def f():\n    import datasets"),
    "a tensor in the report": (
        law_some_things_are_never_known,
        "report",
        "from headstart.evaluate import predict",
    ),
    "a family in the loop": (
        law_some_things_are_never_known,
        "train",
        "from headstart.families import FAMILIES",
    ),
    "a heavy door": (law_the_door_is_light, "cli", "from headstart.run import run"),
    "a heavy package": (law_the_door_is_light, "__init__", "import numpy"),
    "a long room": (law_rooms_are_short, "errors", "\n" * LONGEST),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_laws_have_teeth(mistake: str, house: Sources) -> None:
    law, room, added = MISTAKES[mistake]
    with pytest.raises(AssertionError):
        law({**house, room: f"{house.get(room, '')}\n{added}\n"})


def loaded_after(code: str) -> set[str]:
    """Tell which packages a fresh Python has loaded after running some code."""
    tell = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"{code}\n{tell}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {"torch", "transformers", "datasets", "accelerate", "numpy", "pyarrow", "pydantic"}


@pytest.mark.parametrize(
    "code", ["import headstart", "import headstart.cli", "from headstart import HeadstartError"]
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_pure_rooms_load_without_tensors() -> None:
    rooms = FLOORS["pure"][0].split()
    loaded = loaded_after("import " + ", ".join(f"headstart.{room}" for room in rooms))
    assert not loaded & {"torch", "transformers", "datasets", "accelerate"}
    assert "torch" in loaded_after("import headstart.objectives")  # the test can see it


def test_the_front_door_opens_every_name() -> None:
    assert len(headstart.__all__) <= 12
    for name in headstart.__all__:
        assert callable(getattr(headstart, name)), name
    with pytest.raises(AttributeError, match="'headstart' has no attribute 'rum'"):
        headstart.rum  # noqa: B018


def test_a_room_never_hides_the_function_of_its_name() -> None:
    code = (
        "import headstart.study, headstart as hs;"
        "assert callable(hs.run) and callable(hs.study) and callable(hs.report);"
        "from headstart.run import run; assert hs.run is run; assert 'run' in dir(hs)"
    )
    loaded_after(code)
