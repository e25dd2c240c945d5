"""The stages of a run, each usable alone: text, teacher, student, training."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headstart import checkpoint, packed
from headstart.calibration import every_text, unlabelled
from headstart.console import say
from headstart.corpus import epoch_order, load_corpus, narrowed
from headstart.encode import encode
from headstart.evaluate import cross_entropy, mean_score, predict, score_languages
from headstart.folders import atomic_write
from headstart.objectives import UNLABELLED
from headstart.reader import PACKAGED, find_folder
from headstart.recipe import RESULT_VERSION
from headstart.sources import COLUMNS
from headstart.teacher import alone
from headstart.train import Dev, Job
from headstart.tune import learn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headstart.calibration import Unlabelled
    from headstart.corpus import Corpus
    from headstart.encode import Encoded
    from headstart.recipe import Recipe
    from headstart.settings import Data, Train


@dataclass(frozen=True, slots=True)
class Text:
    """A corpus, tokenized."""

    corpus: Corpus
    splits: Mapping[str, Encoded]
    data: Data

    @property
    def languages(self) -> tuple[str, ...]:
        """All languages, trained-on ones first."""
        return (*self.corpus.languages, *self.corpus.zero_shot)

    @property
    def longest(self) -> int:
        """Pieces of the longest example."""
        return max(split.longest for split in self.splits.values())

    @property
    def floor(self) -> float:
        """Dev score of always answering the commonest class of train."""
        train, dev = self.splits["train"], self.splits["dev"]
        known = train.words[train.words != UNLABELLED]
        commonest = np.bincount(known, minlength=len(self.corpus.labels)).argmax()
        always = np.zeros((len(dev.gold), len(self.corpus.labels)), np.float32)
        always[:, commonest] = 1.0
        return self.score(dev, always)

    def score(self, split: Encoded, logits: NDArray[np.float32]) -> float:
        """Main metric, mean over languages."""
        return mean_score(score_languages(split, logits, self.corpus.labels), self.corpus.task)

    def judge(self, accelerator: Accelerator, model: PreTrainedModel) -> Dev:
        """Judge a model on dev."""
        dev = self.splits["dev"]
        logits = predict(model, dev, accelerator, label="dev")
        return Dev(self.score(dev, logits), cross_entropy(dev, logits))


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


def open_text(
    data: Data,
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    learned: Sequence[str] | None = None,
) -> Text:
    """Read and tokenize a corpus.

    Args:
        data: Which one, and how much of it.
        task: classification or tagging.
        tokenizer: Of the model that reads it.
        learned: Languages whose train and dev rows are kept; None keeps all.

    Raises:
        HeadstartError: As `load_corpus` does.
    """
    corpus = narrowed(load_corpus(data, task), learned)
    languages = (*corpus.languages, *corpus.zero_shot)
    splits = {
        name: encode(table, tokenizer, task=task, languages=languages, max_length=data.max_length)
        for name, table in corpus.splits.items()
    }
    return Text(corpus, splits, data)


def add_unlabelled(
    text: Text, more: Unlabelled, tokenizer: PreTrainedTokenizerBase, count: int, *, seed: int
) -> Text:
    """Put unlabelled text into train, for the teacher to answer.

    Args:
        text: A corpus, tokenized.
        more: Texts by language.
        tokenizer: The teacher's.
        count: Texts of each language; one that has fewer gives all.
        seed: Of the draw.
    """
    task, languages = text.corpus.task, text.languages
    column, answer = COLUMNS[task]
    rng = np.random.default_rng((seed, 3))
    drawn = {
        k: [rows[i] for i in rng.permutation(len(rows))[:count]] for k, rows in more.texts.items()
    }
    rows = [row for language in drawn.values() for row in language]
    blank = [[UNLABELLED] * len(row) if task == "tagging" else UNLABELLED for row in rows]
    names = [name for name, language in drawn.items() for _ in language]
    train = text.corpus.splits["train"].select(["language", column, answer])
    table = pa.concat_tables([train, pa.table([names, rows, blank], schema=train.schema)])
    encoded = encode(
        table, tokenizer, task=task, languages=languages, max_length=text.data.max_length
    )
    return replace(text, splits={**text.splits, "train": encoded})


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
    corpus = load_corpus(recipe.data.model_copy(update=whole), recipe.task)
    return every_text(corpus, unlabelled(corpus, recipe.data.text))


def base_of(recipe: Recipe, folder: Path) -> str | None:
    """Find the base: a folder or hub name, or the packed one written out for this corpus."""
    base = recipe.teacher.base
    if base != PACKAGED:
        return base
    deciding = {"corpus", "folder", "revision", "text", "columns", "languages", "zero_shot"}
    which = recipe.data.model_dump_json(include=deciding)
    key = hashlib.sha256(f"{recipe.task}|{which}".encode()).hexdigest()[:16]
    place = folder / "base" / key  # its pieces are those of this text
    if not (place / "config.json").exists():
        say(packed.quickstart_base(place, _readable(recipe)))
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
        tokenizer = checkpoint.load_tokenizer(recipe.teacher.model)
        return Teacher(model.to(accelerator.device), tokenizer, identity_of(model), base, None)
    return _finetuned(recipe, str(base), folder, accelerator)


def _finetuned(recipe: Recipe, base: str, folder: Path, accelerator: Accelerator) -> Teacher:
    """Open `teachers/<key>/`, after making it if it is not whole."""
    tokenizer = checkpoint.load_tokenizer(base)
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
            progress, _ = learn(start.to(accelerator.device), job, floor=text.floor)
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                checkpoint.save_model(start, tokenizer, place / "model")
                cost = {"seconds": progress.seconds, "curve": progress.curve}
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
