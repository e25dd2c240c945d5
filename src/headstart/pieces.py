"""Tokenizers on disk: loaded, compared, and found file by file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoTokenizer

from headstart.errors import HeadstartError
from headstart.reader import Named, find_folder, first_line

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

_TOKENIZERS: Any = AutoTokenizer
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_DECIDING = (  # all that a tokenizer may be read from
    "tokenizer*", "*vocab*", "merges.txt", "*.model", "added_tokens.json", "special_tokens_map.json"
)  # fmt: skip


def check_pieces(named: Named, teacher: Named, *, way_out: str) -> None:
    """Refuse a model whose tokenizer numbers its pieces otherwise than the teacher's does.

    Raises:
        HeadstartError: It does: rows of its embeddings would stand for other pieces.
    """
    ours, theirs = (load_tokenizer(one).get_vocab() for one in (named, teacher))
    if ours != theirs:
        moved = sum(theirs.get(piece) != i for piece, i in ours.items())
        raise HeadstartError(
            f"its pieces are not the teacher's: {moved:,} of {len(ours):,} are others, or have "
            f"another number (the teacher has {len(theirs):,})",
            where=str(named),
            way_out=way_out,
        )


def load_tokenizer(named: Named) -> PreTrainedTokenizerBase:
    """Load a tokenizer that knows where words begin.

    Raises:
        HeadstartError: There is none, or it is not a fast one.
    """
    folder = find_folder(named)
    if not any(path for kind in _TOKENIZER_FILES for path in folder.glob(kind)):
        # transformers would make up an empty one
        raise HeadstartError(
            "the folder has no tokenizer",
            where=str(folder),
            way_out="save the tokenizer into the model's folder with save_pretrained",
        )
    try:
        tokenizer = _TOKENIZERS.from_pretrained(folder, trust_remote_code=False)
    except Exception as fault:  # a broken file fails in many ways
        raise HeadstartError(
            f"cannot read the tokenizer: {first_line(fault)}",
            where=str(folder),
            way_out="copy or download the tokenizer's files again",
        ) from fault
    if not tokenizer.is_fast:
        raise HeadstartError(
            "the tokenizer does not say which word a piece belongs to",
            where=str(folder),
            way_out="give a folder with tokenizer.json",
        )
    return tokenizer


def tokenizer_files(folder: Path) -> set[Path]:
    """List all files of a folder that its tokenizer may be read from."""
    return {file for kind in _DECIDING for file in folder.glob(kind) if file.is_file()}
