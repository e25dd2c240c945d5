"""The door to transformers: models and tokenizers are assembled, loaded and saved here.

A checkpoint is held against its family's table before anything is read from it, and a model is
assembled from named tensors only: each has a source, or is named as fresh.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError

from headstart.assembly import assemble, prefix_of, quiet
from headstart.errors import HeadstartError, not_written
from headstart.fitting import fit
from headstart.folders import make_folder
from headstart.labels import check_labels
from headstart.layout import Head, entries, lengths, shape_of
from headstart.layout import count_parameters as count
from headstart.pieces import tokenizer_files
from headstart.reader import (
    Named,
    Opened,
    find_folder,
    fit_base,
    most_positions,
    open_model,
    weight_files,
)
from headstart.selection import Selection, full
from headstart.store import write
from headstart.transplant import transplant

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from headstart.store import Flow


def load_model(named: Named, *, task: Head, labels: Sequence[str] | None = None) -> PreTrainedModel:
    """Load a fine-tuned model, whole or not at all.

    Args:
        named: A folder, or a model of the hub.
        task: The head that it must have.
        labels: Its labels in the order of their ids; None to take them as they are.

    Returns:
        The model in evaluation mode, in single precision.

    Raises:
        HeadstartError: It has another head, other labels, or the same in another order; or its
            tensors do not fit its config.
    """
    return _load(_open_tuned(named, task, labels), task, seed=0, base=False)


def _open_tuned(named: Named, task: Head, labels: Sequence[str] | None) -> Opened:
    opened = open_model(named)
    if opened.head != task:
        other = f"set task: {opened.head}, " if opened.head in ("classification", "tagging") else ""
        raise HeadstartError(
            f"the model's head is {opened.head!r}, not {task!r}",
            where=opened.where,
            way_out=f"{other}name it as teacher.base to give it a fresh head, or name another",
        )
    if labels is not None:
        if why := why_no_choice(opened.plain, task):
            raise HeadstartError(
                why,
                where=opened.where,
                way_out="name a model that chooses one label of several (problem_type of its "
                "config.json says so, or nothing); others are not supported",
            )
        check_labels(labels, labels_of(opened.config), where=opened.where)
    return opened


def why_no_choice(config: Mapping[str, Any], head: Head) -> str | None:
    """Say why a model with a task head does not choose one label of several; None if it does.

    Args:
        config: The model's, as plain data.
        head: Taggers do not read their config's problem type.
    """
    labels = len(config.get("id2label") or ())
    problem = config.get("problem_type") if head == "classification" else None
    if labels < 2 or problem not in (None, "single_label_classification"):
        return f"the model chooses no label: it has {labels}, and is for {problem or 'regression'}"
    return None


def check_model(named: Named, *, task: Head, labels: Sequence[str] | None) -> Opened:
    """Find the faults that `load_model` would find, without reading a weight.

    Raises:
        HeadstartError: As `load_model` does.
    """
    opened = _open_tuned(named, task, labels)
    fit(opened.family, opened.plain, task, opened.shapes, where=opened.where)
    return opened


def check_base(named: Named, *, task: Head, teacher: Opened | None = None) -> None:
    """Find the faults of an encoder that would get a head, without reading a weight.

    Args:
        named: A folder, or a model of the hub.
        task: The head that it would get.
        teacher: The model that was fine-tuned from it; None where that is yet to be done.

    Raises:
        HeadstartError: Its tensors do not fit the config, or it is of another family.
    """
    opened = open_model(named)
    fit_base(opened, teacher or opened, task)


def load_encoder(named: Named | PreTrainedModel) -> PreTrainedModel:
    """Load an encoder without any head, such as a teacher's base.

    Raises:
        HeadstartError: Its tensors do not fit its config.
    """
    return _load(open_model(named), "none", seed=0, base=True)


def with_head(
    base: Named | PreTrainedModel, *, task: Head, labels: Sequence[str], seed: int = 0
) -> PreTrainedModel:
    """Give a pre-trained encoder a fresh head.

    Weights that the base has under the same name are taken from it (a pooler, ModernBERT's
    prediction layer); those that depend on the labels are always fresh.

    Args:
        base: A model, a folder, or a model of the hub.
        task: The head that it gets.
        labels: Label names in the order of their ids.
        seed: Of the fresh weights.

    Raises:
        HeadstartError: The base's tensors do not fit its config.
    """
    opened = open_model(base)
    config = copy.deepcopy(opened.config)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = None  # a tuned base may have had another
    return _load(replace(opened, config=config), task, seed=seed, base=True)


def _load(opened: Opened, head: Head, *, seed: int, base: bool) -> PreTrainedModel:
    family, plain = opened.family, opened.plain
    found = fit(family, plain, head, opened.shapes, where=opened.where, base=base)
    tensors = transplant(
        opened.read,
        [e for e in entries(family, plain, head) if e.template not in found.absent],
        full(shape_of(family, plain)),
        sizes=lengths(family, plain),
        source_prefix=found.prefix,
        target_prefix=prefix_of(family, head),
    )
    return assemble(opened.config, head, tensors, seed=seed)


def labels_of(config: PreTrainedConfig) -> tuple[str, ...]:
    """List a config's labels in the order of their ids."""
    names = {int(i): str(name) for i, name in (config.id2label or {}).items()}
    return tuple(names[i] for i in sorted(names))


def check_length(config: Mapping[str, Any], max_length: int) -> None:
    """Refuse inputs that are longer than a model's table of positions.

    Args:
        config: The model's, as plain data.
        max_length: Pieces of the longest input.

    Raises:
        HeadstartError: There are fewer positions than pieces.
    """
    largest = most_positions(config)
    if largest is not None and max_length > largest:
        name = config["model_type"]
        raise HeadstartError(
            f"inputs of {max_length} tokens, but the {name} has {largest} positions",
            where="recipe key data.max_length",
            way_out=f"set it to {largest} or less",
        )


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    folder: str | Path,
    *,
    selection: Selection | None = None,
    notes: Mapping[str, str] | None = None,
    flow: Flow | None = None,
) -> None:
    """Write a folder that the stock classes load; it appears whole or not at all.

    Args:
        model: Written as safetensors.
        tokenizer: Written beside it.
        folder: Made with its parents; an older model there is replaced.
        selection: Written as ``selection.json``.
        notes: Further files of text, by name.
        flow: Weights of a model that has none of its own, see `hollow` and `Cut.flow`.

    Raises:
        HeadstartError: The folder holds something that is no model.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise HeadstartError(
            "the folder holds something that is no model",
            where=str(folder),
            way_out="choose an empty or a new folder",
        )
    make_folder(folder.parent)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with quiet():
            if flow is None:
                cast("Any", model).save_pretrained(fresh)
            else:
                write(fresh / "model.safetensors", *flow)
                model.config.save_pretrained(fresh)
            if tokenizer is not None:
                tokenizer.save_pretrained(fresh)
        if selection is not None:
            (fresh / "selection.json").write_text(selection.to_json(), encoding="utf-8")
        for name, text in (notes or {}).items():
            (fresh / name).write_text(text, encoding="utf-8")
        _put(fresh, folder)
    except SafetensorError as fault:  # how that library says that a disk is full
        raise not_written(folder, fault) from fault
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _put(fresh: Path, folder: Path) -> None:
    # mkdtemp gives a folder that only its owner may read, safetensors such files.
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    if folder.exists():
        old = fresh.with_name(f"{fresh.name}.old")
        folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old)
    else:
        fresh.rename(folder)


def count_parameters(model: PreTrainedModel) -> dict[str, int]:
    """Count a model's parameters, shared ones once, as ``layout.count_parameters`` does."""
    opened = open_model(model)
    return count(opened.family, opened.plain, opened.head)


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Hash a model's weights by name, type, shape and content, as 64 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(plain.numpy().data)
    return digest.hexdigest()


def source_fingerprint(named: Named) -> str:
    """Hash a stored model's config, weights and tokenizer as they lie on disk, as 64 hex digits."""
    folder = find_folder(named)
    pieces = tokenizer_files(folder)
    digest = hashlib.sha256()
    for file in (folder / "config.json", *weight_files(folder), *sorted(pieces)):
        digest.update(f"{file.name}|".encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
