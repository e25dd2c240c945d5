"""Labelled text, per language: splits, limits, leaks, fingerprint, and the order of an epoch."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headstart.errors import HeadstartError, combine
from headstart.folders import stamp
from headstart.formats import READERS
from headstart.gather import gather
from headstart.labels import check_known, check_tags
from headstart.rows import check_rows, count_stray_inside, find_leaks, pairs_of
from headstart.sources import COLUMNS, SPLIT_NAMES, source_of

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from headstart.recipe import Data
    from headstart.rows import Leak
    from headstart.sources import Raw

Ints = NDArray[np.int64]
Tables = dict[tuple[str, str], pa.Table]
"""Checked rows by language and split."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Checked text, with label ids.

    Splits have the columns `id` and `language` (strings), and `text`, `label` (int64) when
    classifying, or `tokens` (lists of strings), `tags` (lists of int64) when tagging. Train and
    dev hold the trained-on languages, test the zero-shot ones too; rows are in the order of
    languages, and within one as its file has them.
    """

    task: str
    labels: tuple[str, ...]
    """Classes or tags in the order of their ids."""
    languages: tuple[str, ...]
    zero_shot: tuple[str, ...]
    splits: Mapping[str, pa.Table]
    """Under `train`, `dev`, `test`."""
    leaks: tuple[Leak, ...]
    """Texts of dev and test that are in train; with `drop_leaks` what was taken out of train."""
    fingerprint: str
    """SHA-256, hex, of task, labels, languages and splits."""
    stray_inside: Mapping[str, int]
    """Per language the `I-` tags that continue nothing; metrics read each as a `B-`."""


def load_corpus(data: Data, task: str) -> Corpus:
    """Read, check and cut a corpus.

    The first rows of each split and language are taken, up to the recipe's limits, in the order
    of the file, so that languages stay parallel where their files are. With `drop_leaks` train
    rows whose text is in dev or test are left out before that; dev and test stay whole.

    Args:
        data: What to read.
        task: `classification` or `tagging`.

    Raises:
        HeadstartError: What is wrong with the files, all of them at once.
    """
    return _remembered(cast("Hashable", data), task, stamp(data.folder, READERS))


@lru_cache(maxsize=4)
def _remembered(data: Data, task: str, files: Hashable) -> Corpus:
    """Read a corpus, once for as long as its files stay: runs of a study share it."""
    del files  # part of the cache's key only
    return read_corpus(data, task)


def read_corpus(data: Data, task: str) -> Corpus:
    """Do what `load_corpus` does, and remember nothing: for a whole corpus that is read once."""
    source = source_of(data)
    if source.task not in (None, task):
        raise HeadstartError(
            f"corpus {data.corpus!r} is for {source.task}, not {task}",
            where="recipe keys task and data.corpus",
            way_out=f"set task: {source.task}, or name another corpus",
        )
    gathered, faults = gather(data, source, task)
    raws = {language: _needed(data, language, parts) for language, parts in gathered.items()}
    named = data.labels or source.labels or _agreed_order(raws)
    tables, faulty = _checked(raws, task, named, numbers=data.labels is not None)
    sound = {language for language in raws if language not in faulty}
    faults += [*faulty.values(), *_gaps(data, tables, sound)]
    if faults:
        once = {str(fault): fault for fault in faults}  # a data set's columns are all languages'
        raise combine([*once.values()], where=f"corpus {data.corpus!r}")
    labels = named or _sorted_labels(tables, task)
    if not named:
        check_known(tables, task)
    check_tags(labels, task)
    kept, leaks = _limited(data, tables, task)
    if gaps := _gaps(data, kept, raws):
        raise combine(gaps, where=f"corpus {data.corpus!r}")
    there = {split for _, split in kept}  # where nothing is trained on, test alone
    splits = {s: _joined(kept, s, task, labels) for s in SPLIT_NAMES if s in there}
    return Corpus(
        task=task,
        labels=labels,
        languages=data.languages,
        zero_shot=data.zero_shot,
        splits=splits,
        leaks=leaks,
        fingerprint=_fingerprint(task, labels, data, splits),
        stray_inside=_stray_inside(kept) if task == "tagging" else {},
    )


def _needed(data: Data, language: str, parts: list[Raw]) -> list[Raw]:
    """Leave out what nobody reads: train and dev of languages that are not trained on."""
    return [raw for raw in parts if raw.split == "test" or language in data.languages]


def _agreed_order(raws: Mapping[str, list[Raw]]) -> tuple[str, ...] | None:
    """Take the order of labels from the source, if it has one and all its parts agree."""
    orders = {raw.classes for parts in raws.values() for raw in parts}
    return (orders.pop() or None) if len(orders) == 1 else None


def _checked(
    raws: Mapping[str, list[Raw]], task: str, labels: Sequence[str] | None, *, numbers: bool
) -> tuple[Tables, dict[str, HeadstartError]]:
    """Check all rows; a language's files of one split are joined.

    Returns:
        Rows, and the faults of each language that has any.
    """
    parts: dict[tuple[str, str], list[pa.Table]] = {}
    faults: dict[str, list[HeadstartError]] = {}
    for language, found in raws.items():
        for raw in found:
            try:
                table = check_rows(raw, task, labels, numbers=numbers)
            except HeadstartError as fault:
                faults.setdefault(language, []).append(fault)
            else:
                parts.setdefault((language, raw.split), []).append(table)
    tables = {key: pa.concat_tables(some) for key, some in parts.items()}
    return tables, {k: combine(some, where=f"language {k!r}") for k, some in faults.items()}


def _sorted_labels(tables: Tables, task: str) -> tuple[str, ...]:
    """All names of all splits, whatever the limits: `O` first, then by the alphabet."""
    columns = (table[COLUMNS[task][1]].to_pylist() for table in tables.values())
    rows = chain.from_iterable(columns)
    names: set[str] = set(chain.from_iterable(rows) if task == "tagging" else rows)
    return tuple(sorted(names, key=lambda name: (name != "O", name)))


def _gaps(data: Data, tables: Tables, among: Collection[str]) -> list[HeadstartError]:
    """List what is missing: trained-on languages have every split, zero-shot ones have test."""
    wanted = [(language, split) for language in data.languages for split in SPLIT_NAMES]
    wanted += [(language, "test") for language in data.zero_shot]
    return [
        HeadstartError(
            f"language {language!r} has no {split} rows",
            where=f"corpus {data.corpus!r}",
            way_out=f"add {split} rows, or leave the language out of data.languages; with test "
            "rows it can be in data.zero_shot",
        )
        for language, split in wanted
        if language in among and not tables.get((language, split))
    ]


def _limited(data: Data, tables: Tables, task: str) -> tuple[Tables, tuple[Leak, ...]]:
    """Apply the limits, and look for dev and test texts in train."""
    limits = {"dev": data.dev_per_language, "test": data.test_per_language}
    kept = {
        (language, split): table.slice(0, limits[split])
        for (language, split), table in tables.items()
        if split == "test" or (split == "dev" and language in data.languages)
    }
    leaks: list[Leak] = []
    for language in data.languages:
        train = tables[language, "train"]
        if not data.drop_leaks:
            train = train.slice(0, data.examples_per_language)
        judged = {split: pairs_of(kept[language, split], task) for split in limits}
        found, stays = find_leaks(language, pairs_of(train, task), judged)
        leaks += found
        if data.drop_leaks:
            train = train.filter(pa.array(stays)).slice(0, data.examples_per_language)
        kept[language, "train"] = train
    return kept, tuple(leaks)


def _joined(kept: Tables, split: str, task: str, labels: Sequence[str]) -> pa.Table:
    """Put the languages of a split into one table, with label ids."""
    text, answer = COLUMNS[task]
    ids = {name: i for i, name in enumerate(labels)}
    parts: list[pa.Table] = []
    for (language, name), table in kept.items():
        if name == split:
            columns = {
                "id": table["id"],
                "language": pa.array([language] * len(table), pa.string()),
                text: table[text],
                answer: _numbered(table[answer].to_pylist(), ids, task),
            }
            parts.append(pa.table(columns))
    return pa.concat_tables(parts).combine_chunks()


def _numbered(answers: list[Any], ids: Mapping[str, int], task: str) -> pa.Array:
    if task == "tagging":
        return pa.array([[ids[tag] for tag in tags] for tags in answers], pa.list_(pa.int64()))
    return pa.array([ids[label] for label in answers], pa.int64())


def _fingerprint(
    task: str, labels: Sequence[str], data: Data, splits: Mapping[str, pa.Table]
) -> str:
    digest = hashlib.sha256()
    for part in (task, labels, data.languages, data.zero_shot):
        digest.update(json.dumps(part).encode())
    for name, table in splits.items():
        digest.update(json.dumps([name, table.to_pydict()]).encode())
    return digest.hexdigest()


def _stray_inside(kept: Tables) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for (language, _), table in kept.items():
        counts[language] += sum(map(count_stray_inside, table["tags"].to_pylist()))
    return {language: count for language, count in counts.items() if count}


def epoch_order(languages: Ints, alpha: float, rng: np.random.Generator) -> Ints:
    """Draw the rows of one epoch, which is as long as the corpus.

    A language of n rows gets a share in proportion to n^alpha; a smaller alpha gives small
    languages more. Each language goes through a permutation of its rows before any row comes
    again, so two rows of one language differ by one visit at most.

    Args:
        languages: Each row's language, int64, shape (rows,), at least one.
        alpha: In (0, 1]; with 1 every row comes exactly once.
        rng: Where the order comes from.

    Returns:
        Indices of rows, int64, shape (rows,).

    Source:
        Conneau & Lample (2019), arXiv:1901.07291, section 3.1.
    """
    codes, sizes = np.unique(languages, return_counts=True)
    weights = sizes.astype(np.float64) ** alpha
    shares = len(languages) * weights / weights.sum()
    counts = np.floor(shares).astype(np.int64)
    missing = len(languages) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1  # largest remainders first
    drawn: list[Ints] = []
    for code, size, count in zip(codes.tolist(), sizes.tolist(), counts.tolist(), strict=True):
        rows = np.flatnonzero(languages == code)
        rounds = [rng.permutation(rows) for _ in range(-(-count // size))]
        drawn.append(np.concatenate([*rounds, rows[:0]])[:count])
    return rng.permutation(np.concatenate(drawn))


def narrowed(corpus: Corpus, learned: Sequence[str] | None) -> Corpus:
    """Leave train and dev to some languages; None leaves all of it as it is."""
    if learned is None:
        return corpus
    kept = pc.field("language").isin([*learned])
    splits = {k: v if k == "test" else v.filter(kept) for k, v in corpus.splits.items()}
    return replace(corpus, splits=splits)
