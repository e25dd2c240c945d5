"""The student before its training, made once for all runs that start from the same.

A start is addressed by its content: the teacher (and base), shape, first weights, seed, and the
exact pieces of the text that was looked at. Arms that differ in their training alone share it.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from headstart import checkpoint
from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.general import generalize
from headstart.groundwork import refit_run, samples_for, scores_for
from headstart.prepare import choose_precision
from headstart.recipe import RESULT_VERSION
from headstart.ridge import Fitted
from headstart.selection import Selection
from headstart.stages import fingerprint_of
from headstart.student import make_student
from headstart.teacher import alone, pieces_fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from headstart.calibration import Pools
    from headstart.recipe import Recipe
    from headstart.stages import Teacher
    from headstart.walk import Sample


@dataclass(frozen=True, slots=True)
class Start:
    """A student before its training.

    Args:
        model: On the accelerator's device.
        selection: What it keeps of its teacher.
        fitted: What refit did to each map and norm.
        init_seconds: What choosing and copying took, measuring the teacher included.
        refit_seconds: What refit took.
        general_seconds: What general distillation took.
        general_curve: How it went: the loss on held-out text for each token is `dev_loss`.
    """

    model: PreTrainedModel
    selection: Selection
    fitted: tuple[Fitted, ...]
    init_seconds: float
    refit_seconds: float
    general_seconds: float = 0.0
    general_curve: tuple[Mapping[str, float], ...] = ()


def start_of(
    recipe: Recipe,
    teacher: Teacher,
    pools: Mapping[str, Pools],
    folder: Path,
    accelerator: Accelerator,
) -> Start:
    """Open a run's student as it is before training, after making it if need be.

    What is made without looking at text costs little, and is not kept.

    Args:
        recipe: Says what the student is.
        teacher: That it is made from.
        pools: What may be looked at for each purpose, as `pools_of` gives it.
        folder: Holds a folder for each start, and a file for what was measured of a teacher;
            seconds of one that lies there are its maker's.
        accelerator: Device and processes.

    Raises:
        HeadstartError: There is too little text, the student cannot be made, or what lies there
            is damaged.
    """
    samples = samples_for(recipe, pools, teacher.tokenizer)
    if not samples:
        return _make(recipe, teacher, samples, folder, accelerator)
    place = folder / _key(recipe, teacher, samples, accelerator)
    with alone(accelerator, place):
        if not (place / "start.json").exists():
            start = _make(recipe, teacher, samples, folder, accelerator)
            if accelerator.is_main_process:
                _write(place, start, teacher)
            accelerator.wait_for_everyone()
            return start
    return _open(place, recipe, teacher, accelerator)


def _key(
    recipe: Recipe, teacher: Teacher, samples: Mapping[str, Sample], accelerator: Accelerator
) -> str:
    what = {
        "teacher": teacher.weights,
        "base": fingerprint_of(str(teacher.base)) if recipe.reads_base else None,
        "student": recipe.student.model_dump(mode="json", exclude_none=True),
        "init": recipe.init.model_dump(mode="json", exclude={"refit": {"text"}}),
        "compares channels": recipe.compares_channels,  # decides auto's directions
        "seed": recipe.seed,
        "text": {
            name: [pieces_fingerprint(sample.encoded), sample.encoded.language_ids.tolist()]
            for name, sample in samples.items()
        },
        "precision": choose_precision(recipe.train, accelerator),
        "version": RESULT_VERSION,
    }
    if recipe.init.general is not None:
        what["trained embeddings"] = recipe.train.word_embeddings
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def _make(
    recipe: Recipe,
    teacher: Teacher,
    samples: Mapping[str, Sample],
    folder: Path,
    accelerator: Accelerator,
) -> Start:
    scores, measuring = scores_for(recipe, teacher, samples.get("measure"), folder, accelerator)
    began = time.perf_counter()
    made = make_student(
        teacher.model,
        base=teacher.base if recipe.init.source == "base" else None,
        shape=recipe.student.model_dump(exclude_none=True),
        rules=recipe.init.rules,
        source=recipe.init.source,
        scores=scores,
        seed=recipe.seed,
    )
    made.model.to(accelerator.device)
    cut = time.perf_counter()
    fitted, selection = refit_run(recipe, teacher, samples.get("refit"), made, accelerator)
    refitted = time.perf_counter()
    start = Start(made.model, selection, fitted, measuring + cut - began, refitted - cut)
    if "general" not in samples:
        return start
    now = replace(made, selection=selection)  # a refit may have turned the stream
    progress = generalize(recipe, teacher, samples["general"], now, accelerator)
    spent = time.perf_counter() - refitted
    return replace(start, general_seconds=spent, general_curve=tuple(progress.curve))


def _write(place: Path, start: Start, teacher: Teacher) -> None:
    """Write the student, then the description that makes it whole."""
    checkpoint.save_model(
        start.model, teacher.tokenizer, place / "model", selection=start.selection
    )
    told = {
        "fitted": [asdict(one) for one in start.fitted],
        "init_seconds": start.init_seconds,
        "refit_seconds": start.refit_seconds,
        "general_seconds": start.general_seconds,
        "general_curve": start.general_curve,
    }
    atomic_write(place / "start.json", json.dumps(told, indent=2) + "\n")


def _open(place: Path, recipe: Recipe, teacher: Teacher, accelerator: Accelerator) -> Start:
    try:
        told = json.loads((place / "start.json").read_text(encoding="utf-8"))
        labels = checkpoint.labels_of(teacher.model.config)
        model = checkpoint.load_model(place / "model", task=recipe.task, labels=labels)
        return Start(
            model.to(accelerator.device),
            Selection.from_json((place / "model" / "selection.json").read_text("utf-8")),
            tuple(Fitted(**one) for one in told["fitted"]),
            told["init_seconds"],
            told["refit_seconds"],
            told["general_seconds"],
            tuple(told.get("general_curve", ())),
        )
    except (OSError, ValueError, KeyError, TypeError, HeadstartError) as fault:
        raise HeadstartError(
            f"an untrained student is damaged: {fault}",
            where=str(place),
            way_out="delete that folder and run again",
        ) from fault
