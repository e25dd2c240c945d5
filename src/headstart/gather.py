"""From a corpus' place to its rows, per language and split: folders in four layouts, or the hub.

In a folder: `<language>.<type>` with a column for the split, `<split>/<language>.<type>`,
`<language>/<split>.<type>`, or files with a column for the language (and one for the split,
unless the file is named for it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from headstart.classes import classes_of, decode_classes
from headstart.errors import HeadstartError, nearest
from headstart.formats import READERS, columns_of, read
from headstart.sources import COLUMNS, SPLIT_NAMES, SPLITS, Raw, Reading

if TYPE_CHECKING:
    from headstart.recipe import Data
    from headstart.sources import Hub, Source

INSTEAD_OF = {  # a column that is not there
    "split": "; without a column for the split put files into folders train, dev and test",
    "language": "; without one for the language give the rows as data.folder, a file for each",
}
Opener = Callable[[Reading, str], list[Raw]]
Place = tuple[Path, str | None]
"""A file, and its split where the path names one."""


class UnreachableError(HeadstartError):
    """The hub does not answer."""


def gather(
    data: Data, source: Source, task: str
) -> tuple[dict[str, list[Raw]], list[HeadstartError]]:
    """Read what there is of each language.

    Args:
        data: Languages and folder.
        source: How the corpus is laid out.
        task: Decides which columns are read.

    Returns:
        For each language its splits in the order train, dev, test, several of one split only
        where files are joined; and the faults of those that could not be read: languages, files
        or columns that are not there.

    Raises:
        HeadstartError: There is no folder, or the hub does not answer.
    """
    opened = _opener(data, source)
    found: dict[str, list[Raw]] = {}
    faults: list[HeadstartError] = []
    for language in (*data.languages, *data.zero_shot):
        try:
            raws = opened(Reading(source, task), language)
        except UnreachableError:
            raise  # the other languages would wait for the network, too
        except HeadstartError as fault:
            faults.append(fault)
        else:
            found[language] = sorted(raws, key=lambda raw: SPLIT_NAMES.index(raw.split))
    return found, faults


def _opener(data: Data, source: Source) -> Opener:
    folder = data.folder or source.folder
    if folder is None and source.hub is not None:
        hub = replace(source.hub, revision=data.revision or source.hub.revision)
        return partial(_from_hub, hub)
    if folder is None or not folder.is_dir():
        raise HeadstartError(
            f"{folder} is a file" if folder and folder.exists() else f"there is no folder {folder}",
            where="recipe key data.folder",
            way_out=f"name the corpus' folder, from {Path.cwd()} (your folder now) or the root",
        )
    return partial(_from_folder, folder, {})


def _from_folder(
    folder: Path, shared: dict[Path, pa.Table], reading: Reading, language: str
) -> list[Raw]:
    """Read a language's files, or its rows of those that all share, which are read once."""
    places = _places(folder)
    if language in places:
        return _open_all(places[language], reading)
    if reading.source.has_treebanks:
        banks = _treebanks(language, places)
        if banks:
            return _first_with_train([_open_all(places[bank], reading) for bank in banks])
    files = [path for path in sorted(folder.iterdir()) if path.suffix in READERS]
    for path in files:
        if path not in shared:
            shared[path] = read(path, reading.theirs)
    raws = [raw for path in files for raw in _of_language(shared[path], path, reading, language)]
    return raws or _refuse(language, _languages(places, files, reading), str(folder))


def _treebanks(language: str, names: Mapping[str, object] | list[str]) -> list[str]:
    """Find the treebanks of a language: `da` has `da_ddt`."""
    return sorted(name for name in names if name.split("_")[0] == language)


def _first_with_train(opened: list[list[Raw]]) -> list[Raw]:
    """Take the first treebank that has a train split, or all of them where none has."""
    whole = (raws for raws in opened if any(raw.split == "train" for raw in raws))
    return next(whole, [raw for raws in opened for raw in raws])


def _places(folder: Path) -> dict[str, list[Place]]:
    """Find which files could be whose."""
    places: dict[str, list[Place]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in READERS:
            places.setdefault(path.stem, []).append((path, None))
        for inner in sorted(path.iterdir()) if path.is_dir() else ():
            if inner.suffix in READERS and path.name in SPLITS:
                places.setdefault(inner.stem, []).append((inner, SPLITS[path.name]))
            elif inner.suffix in READERS and inner.stem in SPLITS:
                places.setdefault(path.name, []).append((inner, SPLITS[inner.stem]))
    return places


def _languages(places: Mapping[str, object], shared: list[Path], reading: Reading) -> set[str]:
    """List the languages of a folder, for a message."""
    found = {name for name in places if name not in SPLITS}
    for path in shared:
        table = read(path, reading.source.called("language"))
        for column in table.columns:
            found.discard(path.stem)
            found.update(str(code) for code in column.unique().to_pylist())
    return found


def _refuse(language: str, there: set[str] | list[str], where: str) -> list[Raw]:
    raise HeadstartError(
        f"no language {language!r}; there are {', '.join(sorted(there)) or 'none'}",
        where=where,
        way_out=nearest(language, there) + " (a file's name, or data.columns.language, says it)"
        if there
        else f"name another folder or data set; files are read that end in {', '.join(READERS)}",
    )


def _open_all(places: list[Place], reading: Reading) -> list[Raw]:
    raws: list[Raw] = []
    for path, split in places:
        raws += _cut(read(path, reading.theirs), str(path), reading, split=split)
    for raw in raws:
        same = [other.where for other in raws if other.split == raw.split]
        if len(same) > 1:
            raise HeadstartError(
                f"{len(same)} files hold the same language and split {raw.split!r}",
                where=", ".join(same),
                way_out="keep one of them in the folder",
            )
    return raws


def _of_language(table: pa.Table, path: Path, reading: Reading, language: str) -> list[Raw]:
    """Take a language's rows from a file with a column for the language; none without one."""
    if reading.find("language", table) is None:
        return []
    return _cut(table, str(path), reading, split=SPLITS.get(path.stem), language=language)


def _cut(
    table: pa.Table, where: str, reading: Reading, *, split: str | None, language: str = ""
) -> list[Raw]:
    """Give columns our names, number the rows, keep those of one language, cut by split.

    Args:
        table: Read from one file.
        where: The file.
        reading: How to understand it.
        split: All rows are of it; None asks the column.
        language: Empty keeps all rows.
    """
    columns: dict[str, Any] = {"row": pa.array(range(1, len(table) + 1))}
    for ours in reading.ours:
        name = reading.find(ours, table)
        if name is not None:
            columns[ours] = table[name]
    also = [name for name, asked in (("split", not split), ("language", language)) if asked]
    _check_columns(columns, table, where, reading, also)
    answer = reading.find(COLUMNS[reading.task][1], table)
    classes = classes_of(table, answer) if answer else ()
    splits = [split] * len(table) if split else _splits(columns["split"].to_pylist(), where)
    if language:
        codes = columns["language"].to_pylist()
        splits = [s if str(c) == language else None for s, c in zip(splits, codes, strict=True)]
    renamed = pa.table(columns)
    return [
        Raw(renamed.filter(pa.array([s == name for s in splits])), where, name, classes)
        for name in SPLIT_NAMES
        if name in splits
    ]


def _splits(names: list[object], where: str) -> list[str | None]:
    """Read the column that names each row's split."""
    for row, name in enumerate(names, 1):
        if name not in SPLITS:
            raise HeadstartError(
                f"unknown split {name!r}",
                where=f"{where}, row {row}",
                way_out=nearest(str(name), SPLITS),
            )
    return [SPLITS[str(name)] for name in names]


def _check_columns(
    columns: Mapping[str, object],
    table: pa.Table,
    where: str,
    reading: Reading,
    also: Sequence[str],
) -> None:
    """Refuse a table that lacks a column of the task, or one more that is needed here."""
    lacking = [ours for ours in (*COLUMNS[reading.task], *also) if ours not in columns]
    if lacking:
        names = ", ".join(" or ".join(reading.source.called(ours)) for ours in lacking)
        raise HeadstartError(
            f"no column {names}{_instead(Path(where), table)}",
            where=where,
            way_out="name its columns under data.columns"
            + "".join(INSTEAD_OF.get(ours, "") for ours in lacking),
        )


def _instead(path: Path, table: pa.Table) -> str:
    """Name the columns that a file or a data set has."""
    there = columns_of(path) if path.is_file() else table.column_names
    return f"; there are {', '.join(there)}" if there else ""


def _from_hub(hub: Hub, reading: Reading, language: str) -> list[Raw]:
    """Read a language's configuration, or its rows by a column; needs the network once."""
    config = hub.config(language)
    if hub.is_converted:
        return _download(hub, reading, data_dir=config)
    names = _configs(hub)
    if config in names:
        return _download(hub, reading, config=config)
    if reading.source.has_treebanks:
        banks = _treebanks(language, names)
        if banks:
            return _first_with_train([_download(hub, reading, config=bank) for bank in banks])
    if len(names) > 1:
        return _refuse(language, names, hub.name)
    return _download(hub, reading, language=language) or _refuse(language, [], hub.name)


def _configs(hub: Hub) -> list[str]:
    from datasets import get_dataset_config_names

    try:
        return get_dataset_config_names(hub.name, revision=hub.revision)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(hub, hub.name, error) from error


def _download(
    hub: Hub,
    reading: Reading,
    *,
    config: str | None = None,
    data_dir: str | None = None,
    language: str = "",
) -> list[Raw]:
    """Load one configuration; splits that are none of ours are left out."""
    from datasets import load_dataset

    where = "/".join(part for part in (hub.name, config or data_dir) if part)
    try:
        found: Any = load_dataset(hub.name, config, data_dir=data_dir, revision=hub.revision)
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(hub, where, error) from error
    raws: list[Raw] = []
    for name, rows in cast("Mapping[str, Any]", found).items():
        if str(name) in SPLITS:
            table = decode_classes(rows.with_format("arrow")[:], rows.features.to_dict())
            at, split = f"{where}, split {name}", SPLITS[str(name)]
            raws += _cut(table, at, reading, split=split, language=language)
    return raws


def _unreachable(hub: Hub, where: str, error: Exception) -> UnreachableError:
    return UnreachableError(
        f"cannot load {where} from the hub: {error}",
        where=f"hub data set {hub.name}",
        way_out="check name, language and network, or give the files as data.folder",
    )
