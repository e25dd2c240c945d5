"""The stages of a run, each usable alone: text, teacher, student, training."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from headstart import checkpoint, packed
from headstart.calibration import every_text, unlabelled
from headstart.console import say
from headstart.corpus import epoch_order, load_corpus, read_corpus
from headstart.folders import atomic_write, settle, stamp
from headstart.formats import READERS, TEXT_READERS
from headstart.pieces import check_pieces, load_tokenizer
from headstart.reader import PACKAGED, find_folder
from headstart.recipe import RESULT_VERSION
from headstart.teacher import alone
from headstart.tokenized import open_text
from headstart.train import Job
from headstart.tune import learn

if TYPE_CHECKING:
    from pathlib import Path

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headstart.recipe import Recipe
    from headstart.settings import Data, Train
    from headstart.tokenized import Text


@dataclass(frozen=True, slots=True)
class Teacher:
    """A fine-tuned model, and what making it took."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    weights: str  # fingerprint
    base: str | None  # folder or hub name
    folder: Path | None  # where it was written, if it was fine-tuned here
    seconds: float = 0.0
    curve: tuple[dict[str, float], ...] = ()


def job_for(
    text: Text,
    settings: Train,
    accelerator: Accelerator,
    *,
    seed: int,
    teacher: NDArray[np.float32] | None = None,
    folder: Path | None = None,
    label: str = "student",
) -> Job:
    """Put a training together: what is read in which order, and who judges.

    Args:
        text: Train is learned from, dev judges.
        settings: How to train.
        accelerator: Device and processes.
        seed: Of order and dropout.
        teacher: The teacher's logits on train, (units, classes).
        folder: Where the state is kept for resuming.
        label: What the bar and the tracker call it.
    """
    train = text.splits["train"]
    alpha = text.data.sampling_alpha

    def order(epoch: int) -> NDArray[np.int64]:
        return epoch_order(train.language_ids, alpha, np.random.default_rng((seed, epoch, 0)))

    return Job(
        data=train,
        settings=settings,
        order=order,
        evaluate=partial(text.judge, accelerator),
        accelerator=accelerator,
        learning_rate=0.0 if settings.learning_rate == "auto" else settings.learning_rate,
        seed=seed,
        teacher=teacher,
        folder=folder,
        label=label,
    )


def _readable(recipe: Recipe) -> list[str]:
    """Collect all text that any run of these languages may read, whatever its limits."""
    whole = {"examples_per_language": None, "dev_per_language": None, "test_per_language": None}
    corpus = read_corpus(recipe.data.model_copy(update=whole), recipe.task)
    return every_text(corpus, unlabelled(corpus, recipe.data.text))


def base_of(recipe: Recipe, folder: Path, *, hollow: bool = False) -> str | None:
    """Find the base: a folder or hub name, or the packed one written out for this corpus.

    Args:
        recipe: Names it.
        folder: Holds `base/<key>/`, where the packed one is written.
        hollow: Write it without its weights, to `hollow/<key>/`, for one who looks at shapes and
            pieces alone.
    """
    base = recipe.teacher.base
    if base != PACKAGED:
        return base
    deciding = {"corpus", "folder", "revision", "text", "columns", "languages", "zero_shot"}
    which = recipe.data.model_dump_json(include=deciding)
    files = stamp(recipe.data.folder, READERS), stamp(recipe.data.text, TEXT_READERS)
    key = hashlib.sha256(f"{recipe.task}|{which}|{files}".encode()).hexdigest()[:16]
    place = folder / ("hollow" if hollow else "base") / key  # its pieces are those of this text
    if not (place / "config.json").exists():
        _say_once(packed.quickstart_base(place, _readable(recipe), hollow=hollow))
    return str(place)


def teacher_data(recipe: Recipe) -> Data:
    """Give the text that the teacher is fine-tuned on: the student's, but for its amount."""
    count = recipe.teacher.examples_per_language or recipe.data.examples_per_language
    return recipe.data.model_copy(update={"examples_per_language": count})


def fingerprint_of(named: str) -> str:
    """Hash a stored model, once for as long as its files stay as they are."""
    folder = find_folder(named)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    stamp = tuple((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _fingerprint(str(folder), stamp)


_say_once = cache(say)  # a verb may write the base several times


@cache
def _fingerprint(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> str:
    del stamp  # part of the cache's key only
    return checkpoint.source_fingerprint(folder)


def identity_of(model: PreTrainedModel) -> str:
    """Hash what decides a model's answers: weights and config, not where it came from."""
    config = model.config.to_dict()
    for key in ("_name_or_path", "transformers_version", "dtype"):
        config.pop(key, None)
    plain = json.dumps(config, sort_keys=True, default=str)
    return hashlib.sha256(f"{checkpoint.weights_fingerprint(model)}|{plain}".encode()).hexdigest()


def open_teacher(recipe: Recipe, folder: Path, accelerator: Accelerator) -> Teacher:
    """Load the teacher, or fine-tune it from its base and keep it for the next run.

    Args:
        recipe: Names the teacher or its base.
        folder: Holds `teachers/<key>/`.
        accelerator: Device and processes.

    Raises:
        HeadstartError: The teacher's labels are not the corpus' own.
    """
    base = base_of(recipe, folder)
    if recipe.teacher.model is not None:
        labels = load_corpus(recipe.data, recipe.task).labels
        model = checkpoint.load_model(recipe.teacher.model, task=recipe.task, labels=labels)
        tokenizer = load_tokenizer(recipe.teacher.model)
        if base is not None and recipe.reads_base:
            check_base_pieces(base, recipe.teacher.model)
        return Teacher(model.to(accelerator.device), tokenizer, identity_of(model), base, None)
    return _finetuned(recipe, str(base), folder, accelerator)


def check_base_pieces(base: str, teacher: str) -> None:
    """Refuse a base that reads other pieces than the teacher that was fine-tuned from it.

    Raises:
        HeadstartError: It does.
    """
    way_out = "name the encoder that the teacher was fine-tuned from as teacher.base"
    check_pieces(base, teacher, way_out=way_out)


def _finetuned(recipe: Recipe, base: str, folder: Path, accelerator: Accelerator) -> Teacher:
    """Open `teachers/<key>/`, after making it if it is not whole."""
    tokenizer = load_tokenizer(base)
    data = teacher_data(recipe)
    seed, settings = recipe.teacher.seed, recipe.teacher.finetune
    text = open_text(data, recipe.task, tokenizer, learned=settings.languages)
    start = checkpoint.with_head(base, task=recipe.task, labels=text.corpus.labels, seed=seed)
    checkpoint.check_length(start.config.to_dict(), text.longest)
    what = (
        settings.model_dump_json(exclude={"tracker", "checkpoint_minutes"}),
        data.model_dump_json(include={"max_length", "sampling_alpha"}),
        text.corpus.fingerprint,
        fingerprint_of(base),
        f"{seed}|{RESULT_VERSION}",
    )
    place = folder / "teachers" / hashlib.sha256("|".join(what).encode()).hexdigest()[:16]
    made = place / "made.json"
    with alone(accelerator, place):
        if not made.exists():
            say(f"fine-tuning the teacher from {base}")
            state = place / "state"
            job = job_for(text, settings, accelerator, seed=seed, folder=state, label="teacher")
            progress, trials = learn(start.to(accelerator.device), job, floor=text.floor)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                checkpoint.save_model(start, tokenizer, place / "model")
                settle(place / "model")
                seconds = progress.seconds + sum(trial.seconds for trial in trials)
                cost = {"seconds": seconds, "curve": progress.curve}
                atomic_write(made, json.dumps(cost, indent=2) + "\n")
                shutil.rmtree(state, ignore_errors=True)
            accelerator.wait_for_everyone()
    cost = json.loads(made.read_text(encoding="utf-8"))
    model = checkpoint.load_model(place / "model", task=recipe.task, labels=text.corpus.labels)
    weights = identity_of(model)
    return Teacher(
        model.to(accelerator.device), tokenizer, weights, base, place / "model",
        cost["seconds"], tuple(cost["curve"]),
    )  # fmt: skip
