"""Text that a refit looks at: of every language alike, the task's own text first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa

from headstart.encode import encode, pack
from headstart.errors import HeadstartError
from headstart.sources import COLUMNS
from headstart.texts import WAY_OUT, check_folder, file_of, read_texts
from headstart.walk import Sample

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from headstart.corpus import Corpus
    from headstart.encode import Encoded

    Ints = NDArray[np.int64]

BATCH_TOKENS = 2048  # padded pieces of one forward pass
HELD_OUT = 8  # one text of so many judges, the others are fitted to
USUAL, LEAST = 16, 3  # tokens of a text: as it often is, and no fewer
Rows = Sequence[str] | Sequence[Sequence[str]]
"""Texts, or lists of words when tagging."""

Pools = Sequence[Mapping[str, Rows]]
"""Texts by language; of each language all of a pool are drawn before any of the next."""


@dataclass(frozen=True, slots=True)
class Unlabelled:
    """Text without labels."""

    texts: Mapping[str, Rows]  # by language; texts, or lists of words when tagging
    left_out: int = 0  # texts that stand in dev or test too

    def fingerprint(self) -> str:
        """Hash texts and their languages, as 64 hex digits."""
        digest = hashlib.sha256()
        for name, rows in self.texts.items():
            digest.update(f"{name}|{len(rows)}|".encode())
            for row in rows:
                digest.update((row if isinstance(row, str) else " ".join(row)).encode() + b"\0")
        return digest.hexdigest()


def unlabelled(corpus: Corpus, folder: Path | None, key: str = "data.text") -> Unlabelled:
    """Read the unlabelled text of every language, zero-shot ones included.

    Args:
        corpus: Names the languages; what stands in its dev or test is left out.
        folder: A file a language (`pt-PT` finds `pt.parquet`, too), with a column `text`, or
            `pt.txt` with a text a line; None for no text at all.
        key: The recipe's that names it, for errors.

    Raises:
        HeadstartError: The folder is not there, or has none of the languages.
    """
    if folder is None:
        return Unlabelled({})
    check_folder(folder, key)
    languages = (*corpus.languages, *corpus.zero_shot)
    files = {name: file_of(folder, name) for name in languages}
    found = {name: read_texts(file) if file else [] for name, file in files.items()}
    if not any(found.values()):
        raise HeadstartError(
            f"there is no text in {folder} for {', '.join(languages)}",
            where=f"recipe key {key}",
            way_out=WAY_OUT,
        )
    judged = _judged(corpus)
    kept = {name: [t for t in rows if _plain(t) not in judged] for name, rows in found.items()}
    left_out = sum(map(len, found.values())) - sum(map(len, kept.values()))
    if corpus.task == "tagging":
        return Unlabelled({k: [t.split() for t in v] for k, v in kept.items()}, left_out)
    return Unlabelled(kept, left_out)


def all_texts(corpus: Corpus, more: Unlabelled) -> Pools:
    """Put the training rows, without their labels, before unlabelled text.

    They are of the task's own kind, which is worth more to a refit than any other (docs/log.md).
    """
    train = corpus.splits["train"]
    content = train[COLUMNS[corpus.task][0]].to_pylist()
    texts: dict[str, list[Any]] = {name: [] for name in (*corpus.languages, *corpus.zero_shot)}
    for language, row in zip(train["language"].to_pylist(), content, strict=True):
        texts[language].append(row)
    return texts, more.texts


def together(texts: Pools) -> Pools:
    """Make one pool of all, where no kind of text comes first."""
    names = languages_of(texts)
    return [{name: [row for pool in texts for row in pool.get(name, ())] for name in names}]


def languages_of(texts: Pools) -> list[str]:
    """List the languages that have any text, each once."""
    return [*dict.fromkeys(name for pool in texts for name, rows in pool.items() if any(rows))]


def every_text(corpus: Corpus, more: Unlabelled) -> list[str]:
    """Collect what all splits and the unlabelled texts hold, words joined by blanks."""
    column = COLUMNS[corpus.task][0]
    rows = [row for table in corpus.splits.values() for row in table[column].to_pylist()]
    rows += [row for some in more.texts.values() for row in some]
    return [row if isinstance(row, str) else " ".join(row) for row in rows]


def _judged(corpus: Corpus) -> set[str]:
    """Collect the texts of dev and test."""
    column = COLUMNS[corpus.task][0]
    rows = [row for name in ("dev", "test") for row in corpus.splits[name][column].to_pylist()]
    return {_plain(row if isinstance(row, str) else " ".join(row)) for row in rows}


def _plain(text: str) -> str:
    """Write a text without what does not count: how wide its blanks are."""
    return " ".join(text.split())


def sample_texts(  # noqa: PLR0913 - one draw serves all that look at text
    texts: Pools,
    tokenizer: PreTrainedTokenizerBase,
    *,
    task: str,
    tokens: int,
    max_length: int,
    languages: Sequence[str] | None = None,
    seed: int = 0,
    where: str = "init.refit",
) -> Sample:
    """Draw as many tokens of every language, and set a part aside to judge.

    Args:
        texts: What there is; empty texts are passed over.
        tokenizer: The teacher's.
        task: classification or tagging.
        tokens: In all; a language that has fewer than its share gives what it has.
        max_length: Longest text in tokens.
        languages: Of these alone; None draws from all.
        seed: Of the draw.
        where: The recipe's key that asks for it, for errors.

    Raises:
        HeadstartError: There are too few texts to set some aside, or none in a language of these.
    """
    names = languages_of(texts)
    if missing := [name for name in languages or () if name not in names]:
        raise HeadstartError(
            f"there is no text in {', '.join(missing)} to look at",
            where=f"recipe key {where}",
            way_out="put a file of it into the folder of text, or name other languages",
        )
    names = [name for name in names if languages is None or name in languages]
    if not names:
        raise _too_few(0, where)
    rng = np.random.default_rng((seed, 2))
    share = tokens // len(names)
    drawn = {name: _drawn(texts, name, share // LEAST + 1, rng) for name in names}
    encoded = _enough(drawn, tokenizer, task=task, share=share, max_length=max_length)
    chosen = np.flatnonzero(_within(encoded.lengths, encoded.language_ids, share))
    judges = np.arange(len(chosen)) % HELD_OUT == HELD_OUT - 1
    if not judges.any():
        raise _too_few(len(chosen), where)
    parts = [pack(encoded.lengths, chosen[mask], tokens=BATCH_TOKENS) for mask in (~judges, judges)]
    return Sample(encoded, *parts)


def _drawn(texts: Pools, language: str, most: int, rng: np.random.Generator) -> list[Any]:
    """Draw texts of a language at random, pool by pool."""
    pools = [[row for row in pool.get(language, ()) if row] for pool in texts]
    return [rows[i] for rows in pools for i in rng.permutation(len(rows))][:most]


def _enough(
    drawn: Mapping[str, Rows],
    tokenizer: PreTrainedTokenizerBase,
    *,
    task: str,
    share: int,
    max_length: int,
) -> Encoded:
    """Tokenize the first texts of each language: twice as many until each has its share."""
    column, answer = COLUMNS[task]
    count = share // USUAL + 1
    while True:
        rows = [(language, row) for language, some in drawn.items() for row in some[:count]]
        blank = [[0] * len(cast("list[str]", row)) if task == "tagging" else 0 for _, row in rows]
        names, texts = zip(*rows, strict=True)
        table = pa.table({"language": names, column: texts, answer: blank})
        encoded = encode(table, tokenizer, task=task, languages=tuple(drawn), max_length=max_length)
        found = np.bincount(encoded.language_ids, encoded.lengths, len(drawn))
        pairs = zip(drawn.values(), found, strict=True)
        if all(len(some) <= count or tokens >= share for some, tokens in pairs):
            return encoded
        count *= 2


def _too_few(count: int, where: str) -> HeadstartError:
    return HeadstartError(
        f"{count} texts are too few to look at",
        where=f"recipe key {where}",
        way_out=f"give at least {HELD_OUT} texts, or more tokens",
    )


def _within(lengths: Ints, language_ids: Ints, share: int) -> NDArray[np.bool_]:
    """Mark the first texts of each language, up to its share of tokens."""
    keep = np.zeros(len(lengths), bool)
    for language in np.unique(language_ids):
        rows = np.flatnonzero(language_ids == language)
        keep[rows[np.cumsum(lengths[rows]) - lengths[rows] < share]] = True
    return keep
