"""Open a model's tensors one by one, wherever it is: in memory, in a folder, on the hub.

Weights are read from safetensors alone, so that nothing in a checkpoint is ever run, and a teacher
on disk is never held whole.
"""

from __future__ import annotations

import difflib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
import torch
from safetensors import SafetensorError
from transformers import AutoConfig

from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.fitting import Fit, fit
from headstart.folders import at_home, model_beside
from headstart.layout import ARCHITECTURES, Family, Head
from headstart.selection import Selection
from headstart.store import TYPES, Room, Stored, stored

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from headstart.transplant import Read

# Their types are open; what is taken from them is typed where it is taken.
_HUB: Any = huggingface_hub
_CONFIGS: Any = AutoConfig
Named = str | Path
PACKAGED = "quickstart"  # the base that comes with the package
# Families that count positions from pad id + 1.
_AFTER_PADDING = frozenset({"xlm-roberta", "roberta", "camembert"})
# What a model needs and nothing else: no pickles, no other engines' weights.
_WANTED = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "*vocab*",
           "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.json"]  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack")


@dataclass(frozen=True, slots=True)
class Opened:
    """A model whose tensors can be read one by one, in memory or on disk.

    Args:
        config: Its config.
        family: Its table.
        head: Its head; ``none`` also for heads that no table knows.
        shapes: Shape of each tensor by name.
        read: Gives one tensor by name, or some of its rows, on the CPU, in single precision or
            better; it is good until the next one is read.
        where: The folder or class, for errors.
        kind: The type in which all its weights are read; None if there are several.
    """

    config: PreTrainedConfig
    family: Family
    head: Head
    shapes: Mapping[str, tuple[int, ...]]
    read: Read
    where: str
    kind: torch.dtype | None

    @property
    def plain(self) -> dict[str, Any]:
        """The config as plain data."""
        return self.config.to_dict()


def open_model(named: Named | PreTrainedModel) -> Opened:
    """Open a model in memory, a folder, or a model of the hub.

    Raises:
        HeadstartError: It is not there, not in safetensors, broken, or of an unknown family.
    """
    if isinstance(named, Named):
        return _open_folder(find_folder(named))
    return _open_memory(named)


def _open_memory(model: PreTrainedModel) -> Opened:
    config = model.config
    family = family_of(config.to_dict())
    tensors = model.state_dict()
    return Opened(
        config,
        family,
        _head_of([type(model).__name__]),
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        lambda name, rows=None: _widened(tensors[name].detach()[rows or ...].cpu(), name),
        type(model).__name__,
        _only({_wide(t.dtype) for t in tensors.values() if t.is_floating_point()}),
    )


def read_config(named: Named) -> PreTrainedConfig:
    """Read a model's config; of a model of the hub nothing else is fetched.

    Raises:
        HeadstartError: There is none, it is broken, or its family has no table.
    """
    folder = at_home(named)
    if not folder.is_dir():
        folder = _fetch(str(named), ["config.json"])
    family_of(_read_json(folder / "config.json"))
    return _CONFIGS.from_pretrained(folder, trust_remote_code=False)


def _open_folder(folder: Path) -> Opened:
    config = read_config(folder)
    files = weight_files(folder)
    places: dict[str, Stored] = {}
    for file in files:
        with _broken_file(file):
            places |= {_modern(name): one for name, one in stored(file).items()}

    room = Room()

    def read(name: str, rows: slice | None = None, /) -> Tensor:
        if places[name].kind not in TYPES:
            raise _no_weight(name, places[name].kind)
        return _widened(places[name].read(rows, room), name)

    kinds = {_wide(TYPES[one.kind]) for one in places.values() if one.kind in TYPES}
    family, head = family_of(config.to_dict()), _head_of(config.architectures or [])
    shapes = {name: one.shape for name, one in places.items()}
    return Opened(config, family, head, shapes, read, str(folder), _only(kinds))


def _modern(name: str) -> str:
    """Give a LayerNorm's weight its name of today; BERT's first checkpoints have another."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _head_of(architectures: Sequence[str]) -> Head:
    for head, ending in ARCHITECTURES.items():
        if architectures and architectures[0].endswith(ending):
            return head
    return "none"


def _widened(tensor: Tensor, name: str) -> Tensor:
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        raise _no_weight(name, str(tensor.dtype))
    return tensor.to(_wide(tensor.dtype))


def _no_weight(name: str, kind: str) -> HeadstartError:
    return HeadstartError(
        f"{name} is stored as {kind}",
        where=name,
        way_out="give the model before its quantization",
    )


def _wide(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind.itemsize == 2 else kind


def _only(kinds: set[torch.dtype]) -> torch.dtype | None:
    return next(iter(kinds)) if len(kinds) == 1 else None


@contextmanager
def _broken_file(file: Path) -> Generator[None]:
    try:
        yield
    except (SafetensorError, OSError) as fault:
        raise HeadstartError(
            f"cannot read the weights: {first_line(fault)}",
            where=str(file),
            way_out="copy or download the file again",
        ) from fault


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError) as fault:
        raise HeadstartError(
            f"cannot read {file.name}: {first_line(fault)}",
            where=str(file),
            way_out="give a folder that save_pretrained wrote",
        ) from fault


def weight_files(folder: Path) -> list[Path]:
    """List a folder's safetensors files.

    Raises:
        HeadstartError: It has none.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        named: Mapping[str, str] = _read_json(index).get("weight_map", {})
        return [folder / name for name in sorted(set(named.values()))]
    whole = folder / "model.safetensors"
    if whole.exists():
        return [whole]
    pickled = [file.name for kind in _PICKLES for file in sorted(folder.glob(kind))]
    raise HeadstartError(
        "the folder has no model.safetensors" + (f", only {pickled[0]}" if pickled else ""),
        where=str(folder),
        way_out="pickles are never opened; where you trust the model, load it with its own class "
        "of transformers and call save_pretrained(new_folder)",
    )


def find_folder(named: Named) -> Path:
    """Find a model's folder; a model of the hub is fetched into the hub's cache.

    Raises:
        HeadstartError: There is no such folder and no such model.
    """
    folder = at_home(named)
    return folder if folder.is_dir() else _fetch(str(named), _WANTED)


def _fetch(name: str, patterns: list[str]) -> Path:
    try:
        return Path(_HUB.snapshot_download(name, allow_patterns=patterns))
    except Exception as fault:  # the hub's errors share no base class
        told, way_out = f"no folder and no model of the hub: {first_line(fault)}", _meant(name)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            told, way_out = "there is no such folder", f"check the path{model_beside(name)}"
        raise HeadstartError(told, where=name, way_out=way_out) from fault


def _meant(name: str) -> str:
    """Say what to do about a name that nobody knows."""
    if name == PACKAGED:
        return "the packaged base is a recipe's only: teacher.base: quickstart"
    if difflib.get_close_matches(name.lower(), [PACKAGED], cutoff=0.8):
        return f"did you mean {PACKAGED!r}, the packaged base?"
    return f"check the name, and the connection if it is a model of the hub{model_beside(name)}"


def first_line(fault: Exception) -> str:
    """Give the gist of another library's error."""
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)


def most_positions(config: Mapping[str, Any]) -> int | None:
    """Say how many pieces a model can read at once; None where it has no table of positions."""
    family = family_of(config)
    if not any("position" in weight.axes and weight.when(config) for weight in family.stem):
        return None
    largest = int(config["max_position_embeddings"])
    if family.model_type in _AFTER_PADDING:
        largest -= int(config["pad_token_id"]) + 1
    return largest


def read_selection(folder: Named) -> Selection:
    """Read what a student on disk keeps of its teacher.

    Raises:
        HeadstartError: The folder does not say.
    """
    place = Path(folder) / "selection.json"
    if not place.exists():
        raise HeadstartError(
            "the folder has no selection.json",
            where=str(folder),
            way_out="name a student that headstart made",
        )
    return Selection.from_json(place.read_text(encoding="utf-8"))


def fit_base(base: Opened, teacher: Opened, head: Head) -> Fit:
    """Hold a base against the config of the model that was fine-tuned from it.

    Raises:
        HeadstartError: It is of another family, or its tensors do not fit.
    """
    if base.family != teacher.family:
        raise HeadstartError(
            f"the base is of type {base.family.model_type}, the teacher of type "
            f"{teacher.family.model_type}",
            where=base.where,
            way_out="name the model that the teacher was fine-tuned from",
        )
    return fit(teacher.family, teacher.plain, head, base.shapes, where=base.where, base=True)
