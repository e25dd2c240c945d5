"""SentencePiece's table of character replacements, built from the replacements themselves.

`tokenizers` takes the table as bytes (`normalizers.Precompiled`): a double-array trie over UTF-8,
then the replacements. It looks up whole graphemes of at most five bytes and single characters
otherwise, so longer sequences need no entry.
"""

from __future__ import annotations

import struct
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

WINDOW = 64  # places behind the last one found that are tried again
BLOCK = 256  # characters; surrogates fill whole ones
LONGEST = 5  # bytes of a grapheme that tokenizers looks up whole
FIRST_SURROGATE, AFTER_SURROGATES = 0xD800, 0xE000
AFTER_IDEOGRAPHS = 0x30000  # no character from here on has a decomposition


def with_compositions(singles: Mapping[str, str]) -> dict[str, str]:
    """Add what singles leave out: letters written as base and marks become one character.

    Args:
        singles: Replacements of single characters.

    Returns:
        Those, and each canonical decomposition of at most five bytes with the character that it
        stands for; marks may also be written as characters that `singles` maps to them.

    Source:
        Whistler, Unicode Standard Annex 15; the tables of SentencePiece (`nmt_nfkc`) hold full
        decompositions and no partial ones.
    """
    spellings: dict[str, list[str]] = defaultdict(list)
    for written, meant in singles.items():
        spellings[meant].append(written)
    table = dict(singles)
    for whole in _decomposing():
        parts = unicodedata.normalize("NFD", whole)
        if len(parts) == 1 or whole in singles or unicodedata.normalize("NFC", parts) != whole:
            continue
        ways = [""]
        for part in parts:
            ways = [way + other for way in ways for other in (part, *spellings[part])]
        table.update((way, whole) for way in ways if len(way.encode()) <= LONGEST)
    return table


def _decomposing() -> Iterator[str]:
    """Give all characters that are written as others; whole blocks without one are passed over."""
    for first in range(0, AFTER_IDEOGRAPHS, BLOCK):
        if FIRST_SURROGATE <= first < AFTER_SURROGATES:
            continue
        block = "".join(map(chr, range(first, first + BLOCK)))
        if not unicodedata.is_normalized("NFD", block):
            yield from (one for one in block if not unicodedata.is_normalized("NFD", one))


@dataclass(slots=True)
class _Node:
    below: dict[int, _Node] = field(default_factory=dict)
    value: int | None = None  # place of the replacement, if a key ends here


def compile_charsmap(table: Mapping[str, str]) -> bytes:
    """Write replacements in SentencePiece's form.

    Args:
        table: What each key becomes; keys are not empty and hold no NUL.

    Source:
        Yata, darts-clone (the units); Kudo, SentencePiece `normalizer.cc` (size, trie, texts).
    """
    texts = bytearray()
    places: dict[str, int] = {}
    root = _Node()
    for key, replacement in sorted(table.items()):
        if replacement not in places:
            places[replacement] = len(texts)
            texts += replacement.encode() + b"\0"
        node = root
        for byte in key.encode():
            node = node.below.setdefault(byte, _Node())
        node.value = places[replacement]
    units = _double_array(root)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(texts)


def _double_array(root: _Node) -> list[int]:
    """Lay a trie out so that the child for byte c of a node lies at its base XOR c."""
    units: dict[int, int] = {0: 0}
    bases: set[int] = set()
    floor = 0
    todo = [(0, root)]
    for place, node in todo:  # grows; breadth first puts the wide nodes into empty space
        labels = [*([0] if node.value is not None else []), *node.below]
        base, floor = _free_base(units, bases, labels, floor)
        bases.add(base)
        has_value = node.value is not None
        # 8 bits of label, one for a value, one for far offsets (never needed), then the offset
        units[place] |= (base ^ place) << 10 | has_value << 8
        if node.value is not None:
            units[base] = node.value | 1 << 31
        for label, child in node.below.items():
            units[base ^ label] = label
            todo.append((base ^ label, child))
    size = -(-(max(units) + 1) // 256) * 256  # a base XOR any byte stays inside
    return [units.get(place, 0) for place in range(size)]


def _free_base(
    units: Mapping[int, int], bases: set[int], labels: Sequence[int], floor: int
) -> tuple[int, int]:
    """Find a base of no other node whose places are free, and from where to look next time."""
    place = floor
    while (base := place ^ labels[0]) in bases or any(base ^ label in units for label in labels):
        place += 1
    return base, max(floor, place - WINDOW)
