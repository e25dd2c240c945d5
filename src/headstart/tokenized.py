"""A corpus as pieces: what students and teachers read, and what judges them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa

from headstart.corpus import load_corpus, narrowed
from headstart.encode import encode
from headstart.evaluate import cross_entropy, mean_score, predict, score_languages
from headstart.folders import stamp
from headstart.formats import READERS
from headstart.objectives import UNLABELLED
from headstart.sources import COLUMNS
from headstart.train import Dev

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from headstart.calibration import Unlabelled
    from headstart.corpus import Corpus
    from headstart.encode import Encoded
    from headstart.settings import Data


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
    chosen = None if learned is None else tuple(learned)
    reader = _Reader(_what_it_is(tokenizer), tokenizer)
    return _tokenized(cast("Hashable", data), task, chosen, reader, stamp(data.folder, READERS))


@dataclass(frozen=True, slots=True)
class _Reader:
    """A tokenizer, equal to others that split text as it does."""

    what: str
    tokenizer: PreTrainedTokenizerBase = field(compare=False)


def _what_it_is(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash what decides a tokenizer's pieces, less what its last call has set."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    whole = backend.to_str() if backend else repr(tokenizer)
    _, found, rest = whole.partition('"added_tokens"')  # truncation and padding come before
    said = (tokenizer.truncation_side, tokenizer.pad_token_id)
    special = getattr(tokenizer, "split_special_tokens", None)
    return hashlib.sha256(repr((rest if found else whole, said, special)).encode()).hexdigest()


@lru_cache(maxsize=4)
def _tokenized(
    data: Data, task: str, learned: tuple[str, ...] | None, reader: _Reader, files: Hashable
) -> Text:
    """Tokenize a corpus, once for as long as its files stay: runs of a study share it."""
    del files  # part of the cache's key only
    corpus = narrowed(load_corpus(data, task), learned)
    languages = (*corpus.languages, *corpus.zero_shot)
    splits = {
        name: encode(
            table, reader.tokenizer, task=task, languages=languages, max_length=data.max_length
        )
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
