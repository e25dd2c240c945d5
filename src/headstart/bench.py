"""How fast models answer, side by side: the same real sentences, one at a time and in batches.

Models take turns at every sentence and batch, so that what else the machine does at the time meets
all of them alike; ratios between them then hold where their seconds do not.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from headstart import checkpoint
from headstart.budget import megabytes
from headstart.console import say, track
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError
from headstart.loading import load_recipe
from headstart.machine import hardware, versions
from headstart.pieces import load_tokenizer
from headstart.prepare import accelerator_name
from headstart.reader import find_folder, first_line, most_positions, open_model, weight_files
from headstart.texts import folder_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32  # sentences, as a service collects them
WARM = 3  # answers of each model before the clock counts
LEAST = 20  # answers at batch 1 that a 95th percentile needs at least
LONGEST = 128  # pieces; the rest of a sentence is cut off
PRECISIONS = {torch.float32: "fp32", torch.float64: "fp64"}  # narrower ones are read as fp32


@dataclass(frozen=True, slots=True)
class Speed:
    """What one model costs who uses it.

    Args:
        name: As it was given.
        parameters: All of them.
        vocabulary: Of these, word embeddings.
        bytes: Its weights on disk.
        precision: In which it answers, such as fp32.
        p50_ms: Median time of an answer at batch 1, from text to logits, in milliseconds.
        p95_ms: 95th percentile of the same.
        sentences_per_second: At batch 32, padded to the longest of each batch.
        pieces_per_second: The same in pieces, without padding.
    """

    name: str
    parameters: int
    vocabulary: int
    bytes: int
    precision: str
    p50_ms: float
    p95_ms: float
    sentences_per_second: float
    pieces_per_second: float


@dataclass(frozen=True, slots=True)
class Bench:
    """Models beside one another.

    Args:
        speeds: One for each, in the order given.
        sentences: How many there were.
        pieces: Their lengths in pieces of the first model: shortest, median, longest.
        device: Such as cpu or cuda.
        threads: Of the processor that torch used.
        hardware: Processor, cores, system, and the accelerator where one answered.
        versions: Of what ran.
    """

    speeds: tuple[Speed, ...]
    sentences: int
    pieces: tuple[int, int, int]
    device: str
    threads: int
    hardware: Mapping[str, str | int]
    versions: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        """Give all of it as plain data, for JSON."""
        return asdict(self)

    def speedup(self, speed: Speed) -> float:
        """Say how many times as many sentences a second a model takes as the first one."""
        return speed.sentences_per_second / self.speeds[0].sentences_per_second


class _Model:
    """A model under measurement, its tokenizer included."""

    def __init__(self, named: str, device: str) -> None:
        opened = open_model(named)
        kinds = opened.config.architectures or ["Model"]
        if opened.head == "none" and not kinds[0].endswith("Model"):
            raise HeadstartError(
                f"the head of a {kinds[0]} is not known",
                where=named,
                way_out="name a classifier, a tagger, a masked language model, or a bare encoder",
            )
        self.name = named
        loaded = (
            checkpoint.load_encoder(named)
            if opened.head == "none"
            else checkpoint.load_model(named, task=opened.head)
        )
        self.model = cast("PreTrainedModel", torch.nn.Module.to(loaded, device))
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(named)
        if self.tokenizer.pad_token_id is None:
            raise HeadstartError(
                "the tokenizer has no padding token", where=named, way_out="give it one, save it"
            )
        self.longest = min(LONGEST, most_positions(opened.plain) or LONGEST)
        self.bytes = sum(file.stat().st_size for file in weight_files(find_folder(named)))
        self.single: list[float] = []
        self.batched: list[float] = []
        self.pieces = 0

    def answer(self, texts: Sequence[str]) -> int:
        """Go from texts to logits; give how many pieces were read."""
        read: Any = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        device = self.model.device
        known = {name: read[name].to(device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            self.model(**known)[0].cpu()  # an accelerator has answered when its answer is here
        return int(read["attention_mask"].sum())

    def timed(self, texts: Sequence[str], into: list[float]) -> int:
        """Answer, and note the seconds."""
        start = time.perf_counter()
        pieces = self.answer(texts)
        into.append(time.perf_counter() - start)
        return pieces

    def speed(self, size: int) -> Speed:
        """Sum up what was noted."""
        counts = checkpoint.count_parameters(self.model)
        p50, p95 = (1e3 * float(np.quantile(self.single, q)) for q in (0.5, 0.95))
        spent = sum(self.batched)
        return Speed(
            self.name, counts["total"], counts["vocabulary"], self.bytes,
            PRECISIONS[self.model.dtype], p50, p95,
            len(self.batched) * size / spent, self.pieces / spent,
        )  # fmt: skip


def bench(
    models: Sequence[str],
    texts: Sequence[str],
    *,
    seconds: float = 5.0,
    threads: int | None = None,
    device: str = "cpu",
) -> Bench:
    """Measure models side by side, teacher and students, say.

    Args:
        models: Folders or hub names; the first is what the others are compared with.
        texts: Sentences, in the order in which they are answered.
        seconds: For each model at batch 1, and as long again in batches.
        threads: Of the processor; None leaves torch's.
        device: Where the models run.

    Raises:
        HeadstartError: A model cannot be read, there are fewer sentences than a batch has, or no
            such device.
    """
    try:
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, ImportError) as fault:
        raise HeadstartError(
            f"cannot use it: {first_line(fault)}", where=f"device {device}", way_out="take cpu"
        ) from fault
    if len(texts) < BATCH:
        raise HeadstartError(
            f"{len(texts)} sentences are too few to measure on",
            where="text",
            way_out=f"give {BATCH} or more",
        )
    say(f"about {2.2 * seconds * len(models):.0f} s, after loading")
    with _threads(threads):
        opened = [_Model(named, device) for named in models]
        for one in opened:
            one.longest = min(other.longest for other in opened)  # all read the same pieces
            for some in (*([text] for text in texts[:WARM]), texts[:BATCH]):
                one.answer(some)
        batches = [texts[i : i + BATCH] for i in range(0, len(texts) - BATCH + 1, BATCH)]
        _turns(opened, [[text] for text in texts], seconds, lambda one: one.single, LEAST)
        for one in opened:
            one.pieces = 0
        _turns(opened, batches, seconds, lambda one: one.batched, WARM)
        threads = torch.get_num_threads()
    first = opened[0]
    whole = (len(first.tokenizer(text, verbose=False)["input_ids"]) for text in texts)
    lengths = [min(length, first.longest) for length in whole]
    return Bench(
        tuple(one.speed(BATCH) for one in opened),
        len(texts),
        (min(lengths), round(float(np.median(lengths))), max(lengths)),
        str(opened[0].model.device),
        threads,
        hardware(accelerator_name(opened[0].model.device)),
        versions(),
    )


def _turns(
    models: Sequence[_Model],
    asked: Sequence[Sequence[str]],
    seconds: float,
    into: Callable[[_Model], list[float]],
    least: int,
) -> None:
    """Let the models answer in turn until time is up, each at least so often."""
    whole, done, start, shown = seconds * len(models), 0, time.perf_counter(), 0
    with track(f"in batches of {len(asked[0])}", round(whole), "seconds") as advance:
        while done < least or time.perf_counter() - start < whole:
            for one in models:
                one.pieces += one.timed(asked[done % len(asked)], into(one))
            done += 1
            since = int(time.perf_counter() - start)
            advance(since - shown)
            shown = since


@contextmanager
def _threads(count: int | None) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sentences(folder: str | Path | None, *, count: int = 512, seed: int = 0) -> list[str]:
    """Draw real sentences, as many of every language, mixed.

    Args:
        folder: A file a language, see `folder_texts`; None takes the packaged extract of MASSIVE.
        count: Of all languages together, at most.
        seed: Of the draw.

    Raises:
        HeadstartError: The folder holds no text.
    """
    by_language = _packaged() if folder is None else folder_texts(Path(folder))
    rng = np.random.default_rng(seed)
    share = -(-count // len(by_language))
    drawn = [rows[i] for rows in by_language.values() for i in rng.permutation(len(rows))[:share]]
    return [drawn[i] for i in rng.permutation(len(drawn))[:count]]


def _packaged() -> dict[str, list[str]]:
    """Give the test rows of the packaged extract, by language."""
    recipe = load_recipe("quickstart")
    test = load_corpus(recipe.data, recipe.task).splits["test"]
    found: dict[str, list[str]] = {}
    for row in test.select(["language", "text"]).to_pylist():
        found.setdefault(row["language"], []).append(row["text"])
    return found


def rows(found: Bench) -> tuple[list[str], list[list[str]]]:
    """Write the models as a table: its head, and a row for each."""
    head = ["model", "parameters", "vocabulary", "MB", "ms", "ms, 95 %", "sentences/s", "faster"]
    return head, [
        [
            one.name, f"{one.parameters:,}", f"{one.vocabulary:,}", megabytes(one.bytes),
            f"{one.p50_ms:.2f}", f"{one.p95_ms:.2f}", f"{one.sentences_per_second:,.0f}",
            f"{found.speedup(one):.2f} x",
        ]
        for one in found.speeds
    ]  # fmt: skip
