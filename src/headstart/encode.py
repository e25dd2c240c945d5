"""Text to pieces, once: flat arrays that batches are cut from without touching an example.

A unit is what carries one label: the example when classifying, a word's first piece when
tagging. `positions` says where each unit's logits stand, so that loss and metric see units only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor

    Ints = NDArray[np.int64]
    Tokenizer = Any  # of transformers, which belongs to the floor above


@dataclass(frozen=True, slots=True)
class Encoded:
    """One split as flat arrays; `starts` arrays have one entry more than there are examples."""

    task: str
    pad_id: int
    ids: NDArray[np.int32]  # (pieces,)
    starts: Ints  # where each example's pieces begin
    positions: Ints  # (units,) a unit's piece within its example
    unit_starts: Ints  # where each example's units begin
    gold: Ints  # (units,)
    unit_words: Ints  # (units,) the word that a unit stands for
    words: Ints  # (words,) gold of all words, truncated ones included
    word_starts: Ints  # where each example's words begin
    language_ids: Ints  # (examples,)
    languages: tuple[str, ...]
    shortened: int = 0  # texts that were cut at the maximum length, when classifying

    def __len__(self) -> int:
        """Count the examples."""
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """Pieces of each example, shape (examples,)."""
        return np.diff(self.starts)

    @property
    def longest(self) -> int:
        """Pieces of the longest example."""
        return int(self.lengths.max(initial=0))

    @property
    def truncated(self) -> int:
        """What the maximum length cuts off: words when tagging, else texts that it shortens."""
        return len(self.words) - len(self.gold) if self.task == "tagging" else self.shortened


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded tensors of some examples, and where their units stand."""

    inputs: dict[str, Tensor]  # input_ids, attention_mask: int64, (examples, longest)
    rows: Tensor  # (units,) index into logits flattened over examples and positions
    gold: Tensor  # (units,)
    units: Ints  # (units,) index into the split's units


def encode(
    table: pa.Table,
    tokenizer: Tokenizer,
    *,
    task: str,
    languages: tuple[str, ...],
    max_length: int,
) -> Encoded:
    """Tokenize one split.

    Args:
        table: Columns language and text, label (classification) or tokens, tags (tagging).
        tokenizer: A fast transformers tokenizer.
        task: `classification` or `tagging`.
        languages: All languages of the run, in the order of their ids.
        max_length: Longest example in pieces; the rest is cut off.

    Raises:
        HeadstartError: The tokenizer has no padding piece, or cannot read words one by one.
    """
    if tokenizer.pad_token_id is None:
        raise HeadstartError(
            "the tokenizer has no padding piece",
            where="the model's tokenizer",
            way_out="set its pad_token and save it",
        )
    split = _words if task == "tagging" else _texts
    shortened, pieces, positions, unit_words, words = split(table, tokenizer, max_length)
    code = {language: i for i, language in enumerate(languages)}
    gold = np.concatenate([np.asarray(w, np.int64) for w in words]) if words else np.empty(0, int)
    unit_word = _flat(unit_words)
    return Encoded(
        task=task,
        pad_id=int(tokenizer.pad_token_id),
        ids=_flat(pieces).astype(np.int32),
        starts=_starts(pieces),
        positions=_flat(positions),
        unit_starts=_starts(positions),
        gold=gold[unit_word],
        unit_words=unit_word,
        words=gold,
        word_starts=_starts(words),
        language_ids=np.array([code[x] for x in table["language"].to_pylist()], np.int64),
        languages=languages,
        shortened=shortened,
    )


Lists = list[list[int]]
Parts = tuple[int, Lists, Lists, Lists, Lists]  # shortened texts; pieces, positions, words, gold


def _texts(table: pa.Table, tokenizer: Tokenizer, max_length: int) -> Parts:
    """One unit an example, whose logits the model gives by itself."""
    texts: list[str] = table["text"].to_pylist()
    batch = tokenizer(texts, truncation=True, max_length=max_length)
    cut, each = sum(bool(one.overflowing) for one in batch.encodings or ()), range(len(texts))
    labels = [[label] for label in table["label"].to_pylist()]
    return cut, batch["input_ids"], [[0] for _ in each], [[i] for i in each], labels


def _words(table: pa.Table, tokenizer: Tokenizer, max_length: int) -> Parts:
    """One unit a word: its first piece."""
    tokens: list[list[str]] = table["tokens"].to_pylist()
    if not _keeps_pieces(tokenizer, ["a", "a", "a"]):
        tokens = [_marked(words) for words in tokens]
    batch = tokenizer(tokens, is_split_into_words=True, truncation=True, max_length=max_length)
    positions: Lists = []
    unit_words: Lists = []
    offset = 0
    for example, words in enumerate(tokens):
        first: dict[int, int] = {}
        for position, word in enumerate(batch.word_ids(example)):
            if word is not None:
                first.setdefault(word, position)
        positions.append(list(first.values()))
        unit_words.append([offset + word for word in first])
        offset += len(words)
    return 0, batch["input_ids"], positions, unit_words, table["tags"].to_pylist()


def _keeps_pieces(tokenizer: Tokenizer, words: list[str]) -> bool:
    """Tell whether words one by one have the pieces that they have in running text.

    Byte-level BPE, and BPE in the manner of Gemma, know a word's beginning by the blank before it,
    which words one by one lack. What the first word has is left open.

    Raises:
        HeadstartError: Not even a blank before each word helps.
    """

    def pieces(text: list[str] | str) -> list[int]:
        is_split = not isinstance(text, str)
        batch = tokenizer(text, is_split_into_words=is_split, add_special_tokens=False)
        if not is_split:
            return list(batch["input_ids"])
        pairs = zip(batch["input_ids"], batch.word_ids(), strict=True)
        return [piece for piece, word in pairs if word]  # not those of word 0

    running = pieces(" ".join(words))
    for given, answer in ((words, True), (_marked(words), False)):
        found = pieces(given)
        if found and running[-len(found) :] == found:
            return answer
    raise HeadstartError(
        "words one by one get other pieces than in running text",
        where="the model's tokenizer",
        way_out="take a model whose tokenizer splits text at blanks",
    )


def _marked(words: list[str]) -> list[str]:
    """Put a blank before every word but the first, as running text has it."""
    return [*words[:1], *(f" {word.lstrip()}" for word in words[1:])]


def _flat(lists: Lists) -> Ints:
    total = sum(map(len, lists))
    return np.fromiter((x for row in lists for x in row), np.int64, count=total)


def _starts(lists: Lists) -> Ints:
    return np.concatenate([[0], np.cumsum([len(row) for row in lists], dtype=np.int64)])


def _ranges(starts: Ints, index: Ints) -> tuple[Ints, Ints, Ints]:
    """Expand some slices of a flat array: its indices, the slice of each, the place within."""
    sizes = starts[index + 1] - starts[index]
    owner = np.repeat(np.arange(len(index)), sizes)
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return starts[index][owner] + within, owner, within


def collate(encoded: Encoded, index: Ints, *, device: torch.device | None = None) -> Batch:
    """Pad some examples to the longest of them.

    Args:
        encoded: The split.
        index: Examples, int64, shape (examples,).
        device: Where the tensors go; None for the processor.
    """
    piece, owner, within = _ranges(encoded.starts, index)
    longest = int(within.max()) + 1
    ids = np.full((len(index), longest), encoded.pad_id, np.int64)
    mask = np.zeros((len(index), longest), np.int64)
    ids[owner, within] = encoded.ids[piece]
    mask[owner, within] = 1
    units, unit_owner, _ = _ranges(encoded.unit_starts, index)
    rows = (
        unit_owner
        if encoded.task != "tagging"
        else (unit_owner * longest + encoded.positions[units])
    )
    inputs = {"input_ids": ids, "attention_mask": mask}
    return Batch(
        {k: to_device(v, device) for k, v in inputs.items()},
        rows=to_device(rows, device),
        gold=to_device(encoded.gold[units], device),
        units=units,
    )


def to_device(values: NDArray[Any], device: torch.device | None) -> Tensor:
    """Put values on a device, on CUDA without waiting for what it is doing.

    CUDA has copied them away when this returns; others may read them later, so they wait.
    """
    ahead = device is not None and device.type == "cuda"
    return torch.from_numpy(values).to(device, non_blocking=ahead)


def unit_logits(logits: Tensor, batch: Batch) -> Tensor:
    """Pick the units' logits: (examples[, positions], classes) to (units, classes)."""
    return logits.reshape(-1, logits.shape[-1])[batch.rows]


def pack(lengths: Ints, order: Ints, *, tokens: int, spare: int | None = None) -> list[Ints]:
    """Cut an order of examples into batches of similar length under a token budget.

    Args:
        lengths: Pieces of each example, shape (examples,).
        order: Examples in the order of the epoch; any selection of them.
        tokens: At most this many pieces a batch, padding included (one example may be longer).
        spare: At most this much padding a batch; None for any.

    Returns:
        Index arrays; examples are sorted by length within windows of 64 batches only, so that
        batches differ from epoch to epoch.
    """
    mean = max(float(lengths[order].mean()), 1.0) if len(order) else 1.0
    window = max(int(64 * tokens / mean), 1)
    batches: list[Ints] = []
    for start in range(0, len(order), window):
        chunk = order[start : start + window]
        chunk = chunk[np.argsort(lengths[chunk], kind="stable")]
        batches.extend(_fill(chunk, lengths[chunk], tokens, tokens if spare is None else spare))
    return batches


def _fill(chunk: Ints, lengths: Ints, tokens: int, spare: int) -> list[Ints]:
    """Cut examples sorted by length where the next one would break the budget."""
    cuts, ends = [0], [0, *np.cumsum(lengths).tolist()]
    for i, longest in enumerate(lengths.tolist()):
        padded = (i + 1 - cuts[-1]) * longest
        if i > cuts[-1] and (padded > tokens or padded - ends[i + 1] + ends[cuts[-1]] > spare):
            cuts.append(i)
    return [chunk[a:b] for a, b in zip(cuts, [*cuts[1:], len(chunk)], strict=True)]


def word_predictions(encoded: Encoded, logits: NDArray[np.float32], *, absent: int) -> Ints:
    """Predict each word; words that were cut off get `absent`, so that they count as errors.

    Args:
        encoded: The split.
        logits: Shape (units, classes).
        absent: The id for unseen words (`O` when tagging).

    Returns:
        Label ids, shape (words,).
    """
    predicted = np.full(len(encoded.words), absent, np.int64)
    predicted[encoded.unit_words] = logits.argmax(-1)
    return predicted
