"""Readers of labelled text: Parquet, JSON lines, CSV, TSV, and CoNLL files with IOB2 tags."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.classes import decode_classes
from headstart.errors import HeadstartError, nearest

Reader = Callable[[Path, Collection[str]], pa.Table]
Numbered = tuple[int, str]
"""A line and its number, from 1."""

COMMENT = re.compile(r"#\s*[\w.:]+\s*=|-DOCSTART-")


def read(
    path: Path, wanted: Collection[str], readers: Mapping[str, Reader] | None = None
) -> pa.Table:
    """Read some columns of a file, whose ending names its format.

    Args:
        path: A file in UTF-8, with or without a byte order mark, or in Parquet.
        wanted: Columns to read; those that the file lacks are left out.
        readers: Formats by ending; None for those of labelled text.

    Returns:
        The columns in the file's order. A CoNLL file has `tokens`, `tags`, and `id` if its
        comments name one. Class ids of Parquet files that 🤗 datasets wrote become names.

    Raises:
        HeadstartError: Unknown format, or an empty or broken file, with its line.
    """
    readers = READERS if readers is None else readers
    reader = readers.get(path.suffix)
    if reader is None:
        raise HeadstartError(
            f"cannot read files of type {path.suffix!r}",
            where=str(path),
            way_out=nearest(path.suffix, readers),
        )
    if path.stat().st_size == 0:
        raise HeadstartError("the file is empty", where=str(path), way_out="fill or delete it")
    return reader(path, wanted)


def columns_of(path: Path) -> list[str]:
    """Name all columns of a file that could be read, wanted or not; none of one without names."""
    if path.suffix == ".parquet":
        return list(pq.read_schema(path).names)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    first = next((line for line in lines if line.strip()), "")
    if path.suffix == ".jsonl":
        return list(json.loads(first or "{}"))
    if path.suffix not in (".csv", ".tsv"):
        return []
    return next(csv.reader([first], delimiter="\t" if path.suffix == ".tsv" else _comma(first)), [])


def _parquet(path: Path, wanted: Collection[str]) -> pa.Table:
    try:
        file = pq.ParquetFile(path)
        table = file.read([c for c in file.schema_arrow.names if c in wanted])
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, f"not a whole Parquet file ({error})") from error
    note = (file.schema_arrow.metadata or {}).get(b"huggingface")
    if note is None:
        return table
    return decode_classes(table, json.loads(note).get("info", {}).get("features") or {})


def _jsonl(path: Path, wanted: Collection[str]) -> pa.Table:
    rows: list[tuple[int, dict[str, object]]] = []
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise _broken(path, f"not JSON ({why})", number) from error
        if not isinstance(row, dict):
            raise _broken(path, "not a JSON object", number)
        rows.append((number, cast("dict[str, object]", row)))
    columns = dict.fromkeys(key for _, row in rows for key in row if key in wanted)
    return pa.table({name: _column(path, name, rows) for name in columns})


def _column(path: Path, name: str, rows: list[tuple[int, dict[str, object]]]) -> pa.Array:
    strange = next((n for n, row in rows if row.get(name) != row.get(name)), None)
    if strange is not None:
        raise _broken(path, f"column {name!r} holds NaN", strange)
    try:
        return pa.array([row.get(name) for _, row in rows])
    except (ValueError, TypeError, OverflowError) as error:  # Arrow's, and half a surrogate pair
        kinds = {n: type(row[name]) for n, row in rows if row.get(name) is not None}
        first = next(iter(kinds.values()))
        line = next((n for n, kind in kinds.items() if kind is not first), None)
        line = line or next((n for n, row in rows if not _readable(row.get(name))), None)
        raise _broken(path, f"column {name!r} cannot be read as one ({error})", line) from error


def _readable(value: object) -> bool:
    with suppress(ValueError, TypeError, OverflowError):
        pa.array([value])
        return True
    return False


def _csv(path: Path, wanted: Collection[str]) -> pa.Table:
    csv.field_size_limit(2**31 - 1)  # a long text is cut by its tokenizer, as anywhere
    text = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_comma(text), strict=True)
    return _separated(path, wanted, _counted(path, reader))


def _comma(text: str) -> str:
    """Say what separates columns: semicolons where the header has some, and no comma."""
    header = text.partition("\n")[0]
    return ";" if ";" in header and "," not in header else ","


def _counted(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:  # noqa: ANN401
    """Give the rows of a csv reader with the line that each ends in."""
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise _broken(path, f"not CSV ({error})", reader.line_num) from error


def _plain(path: Path, wanted: Collection[str]) -> pa.Table:
    """Read one text a line."""
    texts = [line for _, line in _lines(path)]
    return pa.table({"text": pa.array(texts, pa.string())} if "text" in wanted else {})


def _tsv(path: Path, wanted: Collection[str]) -> pa.Table:
    """Tabs separate and nothing quotes: a text keeps its quotation marks."""
    return _separated(path, wanted, ((n, line.split("\t")) for n, line in _lines(path)))


def _separated(
    path: Path, wanted: Collection[str], rows: Iterator[tuple[int, list[str]]]
) -> pa.Table:
    _, header = next(rows, (1, list[str]()))
    if twice := {name for name in header if name in wanted and header.count(name) > 1}:
        raise _broken(path, f"column {min(twice)!r} stands twice in the header", 1)
    columns: list[list[str]] = [[] for _ in header]
    for number, row in rows:
        if row in ([], [""]):
            continue
        if len(row) != len(header):
            raise _broken(path, f"{len(row)} fields where the header has {len(header)}", number)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    named = zip(header, columns, strict=True)
    return pa.table({n: pa.array(c, pa.string()) for n, c in named if n in wanted})


def _conll(path: Path, wanted: Collection[str]) -> pa.Table:
    """Token first and tag last, or (UNER) running number, token, tag and more."""
    sentences, ids = _sentences(path)
    is_numbered = bool(sentences) and all(
        len(fields) > 2 and fields[0] == str(place)
        for sentence in sentences
        for place, (_, fields) in enumerate(sentence, 1)
    )
    token, tag = (1, 2) if is_numbered else (0, -1)
    columns = {
        "tokens": pa.array([[f[token] for _, f in s] for s in sentences], pa.list_(pa.string())),
        "tags": pa.array([[f[tag] for _, f in s] for s in sentences], pa.list_(pa.string())),
        "id": pa.array(ids, pa.string()),
    }
    if not any(ids):
        del columns["id"]
    return pa.table({name: column for name, column in columns.items() if name in wanted})


Fields = tuple[int, list[str]]


def _sentences(path: Path) -> tuple[list[list[Fields]], list[str | None]]:
    """Cut a CoNLL file at blank lines into numbered fields, and find `# sent_id = …`."""
    lines = list(_lines(path))
    separator = "\t" if any("\t" in line for _, line in lines) else None
    sentences: list[list[Fields]] = [[]]
    ids: list[str | None] = [None]
    for number, line in lines:
        if not line.strip():
            if sentences[-1]:
                sentences.append([])
                ids.append(None)
        elif _is_comment(line, separator):
            key, _, value = line.lstrip("# ").partition("=")
            ids[-1] = value.strip() if key.strip() == "sent_id" else ids[-1]
        else:
            sentences[-1].append((number, _fields(path, number, line, separator)))
    if not sentences[-1]:
        del sentences[-1], ids[-1]
    return sentences, ids


def _is_comment(line: str, separator: str | None) -> bool:
    """A line with `#` may also be a token: `# O`, or `#` and a tab."""
    return COMMENT.match(line) is not None or (
        separator is not None and line.startswith("#") and separator not in line
    )


def _fields(path: Path, number: int, line: str, separator: str | None) -> list[str]:
    fields = line.rstrip("\r").split(separator)
    if len(fields) < 2:
        raise _broken(path, f"a token without a tag: {line.strip()!r}", number)
    return fields


def _lines(path: Path) -> Iterator[Numbered]:
    """Only a line feed ends a line: texts may hold U+2028 and its like."""
    text = _text(path)
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield number, line.removesuffix("\r")


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _broken(path, "not UTF-8", line) from error


def _broken(path: Path, what: str, line: int | None = None) -> HeadstartError:
    where = str(path) if line is None else f"{path}, line {line}"
    return HeadstartError(what, where=where, way_out="mend the file")


READERS: Mapping[str, Reader] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".iob2": _conll,
    ".conll": _conll,
}
"""The formats of labelled text by file ending."""

TEXT_READERS: Mapping[str, Reader] = {**READERS, ".txt": _plain}
"""The formats of text without labels."""
