"""Files of text without labels, one a language."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from headstart.errors import HeadstartError
from headstart.formats import TEXT_READERS, read

if TYPE_CHECKING:
    from collections.abc import Sequence

WAY_OUT = (
    "put a file for each language there: sw.txt with one text a line, or sw.parquet, sw.jsonl, "
    "sw.csv, sw.tsv with a column text"
)


def check_folder(folder: Path, key: str = "data.text") -> None:
    """Refuse a folder of unlabelled text that is not there.

    Args:
        folder: It.
        key: The recipe's that names it.

    Raises:
        HeadstartError: It is not.
    """
    if not folder.is_dir():
        raise HeadstartError(
            f"there is no folder {folder}",
            where=f"recipe key {key}",
            way_out="name the folder that holds unlabelled text, from where headstart is called "
            f"({Path.cwd()}) or from the root",
        )


def file_of(folder: Path, language: str) -> Path | None:
    """Find a language's file, or that of the language without its country."""
    names = (language, language.replace("_", "-").split("-")[0])
    for name in names:
        there = [path for ending in TEXT_READERS if (path := folder / f"{name}{ending}").exists()]
        if there:
            _check_one(there)
            return there[0]
    return None


def _check_one(files: Sequence[Path]) -> None:
    """Refuse two files for one language: none is the one that is meant."""
    if len(files) > 1:
        raise HeadstartError(
            f"several files for one language: {', '.join(file.name for file in files)}",
            where=str(files[0].parent),
            way_out="keep one of them in the folder",
        )


def bytes_of_text(folder: Path, languages: Sequence[str]) -> int:
    """Say how large the files of unlabelled text are."""
    files = {file_of(folder, language) for language in languages}
    return sum(file.stat().st_size for file in files if file is not None)


def read_texts(path: Path) -> list[str]:
    """Read the column `text` of a file, or the lines of a `.txt`; empty texts are left out.

    Raises:
        HeadstartError: It has no such column, or is broken.
    """
    table = read(path, ("text",), TEXT_READERS)
    if "text" not in table.column_names:
        raise HeadstartError(
            "the file has no column 'text'",
            where=str(path),
            way_out="call the column with the sentences text",
        )
    texts = table["text"].to_pylist()
    if not all(isinstance(text, str | None) for text in texts):
        raise HeadstartError(
            "the column 'text' holds no text",
            where=str(path),
            way_out="write strings there",
        )
    return [text for text in texts if text and text.strip()]


def folder_texts(folder: Path) -> dict[str, list[str]]:
    """Read every file of a folder; a file is a language.

    Raises:
        HeadstartError: There is none.
    """
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [file for file in found if file.suffix in TEXT_READERS]
    if not files:
        raise HeadstartError(
            "no file in the folder holds text" if found else "there is no folder with files there",
            where=str(folder),
            way_out=WAY_OUT,
        )
    for name in dict.fromkeys(file.stem for file in files):
        _check_one([file for file in files if file.stem == name])
    return {file.stem: read_texts(file) for file in files}
