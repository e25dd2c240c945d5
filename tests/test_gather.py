"""The same rows come out of every layout, of a folder and of the hub, and what lacks is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart import formats
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError, combine
from headstart.formats import columns_of
from headstart.gather import gather
from headstart.recipe import Columns, Data
from headstart.sources import CORPORA, SPLITS, Raw, source_of

if TYPE_CHECKING:
    from pathlib import Path

LANGUAGES = ("de", "sw")
NAMES = ("train", "dev", "test")
HUB_NAMES = {"train": "train", "dev": "validation", "test": "test"}

Rows = dict[str, dict[str, list[str]]]


def rows_of(language: str, split: str) -> dict[str, list[str]]:
    """Three rows, told apart by their text."""
    return {
        "id": [str(i) for i in range(3)],
        "text": [f"{language} {split} {i}" for i in range(3)],
        "label": ["yes", "no", "no"],
    }


def _one_file(language: str) -> dict[str, list[str]]:
    parts = [rows_of(language, split) | {"split": [split] * 3} for split in NAMES]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def write(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a table in the format of the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
        return
    rows = zip(*columns.values(), strict=True)
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        mark = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [mark.join(map(str, row)) for row in [columns, *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _column_for_split(folder: Path, ending: str) -> None:
    for language in LANGUAGES:
        write(folder / f"{language}{ending}", _one_file(language))


def _split_folders(folder: Path, ending: str) -> None:
    for split, theirs in HUB_NAMES.items():
        for language in LANGUAGES:
            write(folder / theirs / f"{language}{ending}", rows_of(language, split))


def _language_folders(folder: Path, ending: str) -> None:
    for split, theirs in HUB_NAMES.items():
        for language in LANGUAGES:
            write(folder / language / f"{theirs}{ending}", rows_of(language, split))


def _mixed(languages: tuple[str, ...], split: str) -> dict[str, list[str]]:
    parts = [rows_of(lang, split) | {"language": [lang] * 3} for lang in languages]
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}


def _column_for_language(folder: Path, ending: str) -> None:
    for split in NAMES:
        write(folder / f"{split}{ending}", _mixed(LANGUAGES, split))


def _columns_for_both(folder: Path, ending: str) -> None:
    parts = [_mixed(LANGUAGES, split) | {"split": [split] * 6} for split in NAMES]
    whole = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    write(folder / f"everything{ending}", whole)


LAYOUTS: Mapping[str, Callable[[Path, str], None]] = {
    "a column for the split": _column_for_split,
    "a folder for each split": _split_folders,
    "a folder for each language": _language_folders,
    "a column for the language": _column_for_language,
    "columns for both": _columns_for_both,
}
Gather = Callable[[Data], dict[str, list[Raw]]]
Raws = dict[str, list[Raw]]


def told(gathered: tuple[Raws, list[HeadstartError]]) -> Raws:
    """Raise what could not be read, as a corpus does."""
    found, faults = gathered
    if faults:
        raise combine(faults, where="the corpus")
    return found


def take(data: Data) -> dict[str, list[Raw]]:
    """Gather with the source that the data name."""
    return told(gather(data, source_of(data), "classification"))


def law_every_row_in_its_place(found: dict[str, list[Raw]]) -> None:
    assert tuple(found) == LANGUAGES
    for language, raws in found.items():
        assert [raw.split for raw in raws] == list(NAMES)
        for raw in raws:
            columns = {name: raw.table[name].to_pylist() for name in ("id", "text", "label")}
            columns["id"] = [str(i) for i in columns["id"]]
            assert columns == rows_of(language, raw.split)
            assert "row" in raw.table.column_names


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv", ".tsv"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_folder_in_any_layout(
    layout: Callable[[Path, str], None], ending: str, tmp_path: Path
) -> None:
    layout(tmp_path, ending)
    (tmp_path / "README.md").write_text("not a corpus file", encoding="utf-8")
    law_every_row_in_its_place(take(Data(folder=tmp_path, languages=LANGUAGES)))


MISTAKES: Mapping[str, Callable[[dict[str, list[Raw]]], dict[str, list[Raw]]]] = {
    "swaps languages": lambda found: dict(zip(LANGUAGES, reversed(found.values()), strict=True)),
    "takes dev for train": lambda found: {
        language: [replace(raws[1], split="train"), *raws[1:]] for language, raws in found.items()
    },
    "reverses rows": lambda found: {
        language: [replace(raw, table=raw.table.take([2, 1, 0])) for raw in raws]
        for language, raws in found.items()
    },
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_law_has_teeth(mistake: Callable[..., dict[str, list[Raw]]], tmp_path: Path) -> None:
    _column_for_split(tmp_path, ".csv")
    found = take(Data(folder=tmp_path, languages=LANGUAGES))
    with pytest.raises(AssertionError):
        law_every_row_in_its_place(mistake(found))


def test_rows_keep_their_number_in_the_file(tmp_path: Path) -> None:
    _columns_for_both(tmp_path, ".jsonl")
    found = take(Data(folder=tmp_path, languages=LANGUAGES))
    assert found["sw"][1].table["row"].to_pylist() == [10, 11, 12]  # dev begins at 7, with de


def test_columns_may_be_called_anything(tmp_path: Path) -> None:
    table = _one_file("de")
    write(tmp_path / "de.csv", {f"the_{name}": values for name, values in table.items()})
    columns = {name: f"the_{name}" for name in ("id", "text", "label", "split")}
    data = Data.model_validate({"folder": tmp_path, "languages": ["de"], "columns": columns})
    assert take(data)["de"][0].table["text"].to_pylist() == rows_of("de", "train")["text"]


def test_every_name_of_a_split_is_one_of_three() -> None:
    assert set(SPLITS.values()) == set(NAMES)


def test_massive_as_amazon_ships_it(tmp_path: Path) -> None:
    rows = {"id": ["1"], "partition": ["dev"], "intent": ["alarm_set"], "utt": ["wake me"]}
    write(tmp_path / "en-US.jsonl", rows)
    found = take(Data(corpus="massive", folder=tmp_path, languages=("en-US",)))
    assert found["en-US"][0].table.to_pylist() == [
        {"row": 1, "text": "wake me", "label": "alarm_set", "id": "1", "split": "dev"}
    ]


def _treebank(folder: Path, name: str, *splits: str) -> None:
    rows = {"tokens": [[name, s] for s in splits], "tags": [["O", "O"]] * len(splits)}
    write(folder / f"{name}.parquet", rows | {"split": list(splits)})


def test_a_language_finds_its_treebanks(tmp_path: Path) -> None:
    _treebank(tmp_path, "zh_pud", "test")
    _treebank(tmp_path, "zh_gsdsimp", "train", "dev", "test")
    _treebank(tmp_path, "zh_gsd", "train", "dev", "test")
    _treebank(tmp_path, "tl_ugnayan", "test")
    _treebank(tmp_path, "tl_trg", "test")
    _treebank(tmp_path, "nb_ndt", "dev", "test")
    data = Data(corpus="uner", folder=tmp_path, languages=("zh",), zero_shot=("tl", "zh_pud", "nb"))
    found = told(gather(data, source_of(data), "tagging"))
    names = {
        code: [(raw.table["tokens"][0][0].as_py(), raw.split) for raw in raws]
        for code, raws in found.items()
    }
    assert names == {
        "zh": [("zh_gsd", "train"), ("zh_gsd", "dev"), ("zh_gsd", "test")],
        "tl": [("tl_trg", "test"), ("tl_ugnayan", "test")],
        "zh_pud": [("zh_pud", "test")],
        "nb": [("nb_ndt", "dev"), ("nb_ndt", "test")],
    }


@pytest.fixture
def _no_shared_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def _card(folder: Path, configs: Mapping[str, str]) -> None:
    lines = ["---", "configs:"]
    for config, pattern in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for theirs in HUB_NAMES.values():
            files = pattern.format(split=theirs)
            lines += [f"  - split: {theirs}", f"    path: {files}"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


@pytest.mark.usefixtures("_no_shared_cache")
def test_a_hub_set_with_a_configuration_for_each_language(tmp_path: Path) -> None:
    _language_folders(tmp_path / "set", ".parquet")
    _card(tmp_path / "set", {code: f"{code}/{{split}}.parquet" for code in LANGUAGES})
    data = Data(corpus=str(tmp_path / "set"), languages=LANGUAGES)
    law_every_row_in_its_place(take(data))
    with pytest.raises(HeadstartError, match="no language 'sv'; there are de, sw") as caught:
        take(Data(corpus=str(tmp_path / "set"), languages=("sv",)))
    assert "did you mean 'sw'" in caught.value.way_out


@pytest.mark.usefixtures("_no_shared_cache")
def test_a_hub_set_with_a_column_for_the_language(tmp_path: Path) -> None:
    for split, theirs in HUB_NAMES.items():
        write(tmp_path / "set" / f"{theirs}.parquet", _mixed(LANGUAGES, split))
    data = Data(corpus=str(tmp_path / "set"), languages=LANGUAGES)
    law_every_row_in_its_place(take(data))
    with pytest.raises(HeadstartError, match="no language 'fi'"):
        take(Data(corpus=str(tmp_path / "set"), languages=("fi",)))


@pytest.mark.usefixtures("_no_shared_cache")
def test_a_hub_set_whose_columns_have_other_names(tmp_path: Path) -> None:
    names = {"text": "utt", "label": "intent", "language": "lang"}
    for split, theirs in HUB_NAMES.items():
        rows = {names.get(k, k): v for k, v in _mixed(LANGUAGES, split).items()}
        write(tmp_path / "set" / f"{theirs}.parquet", rows)
    data = Data(corpus=str(tmp_path / "set"), languages=LANGUAGES, columns=Columns(**names))
    law_every_row_in_its_place(take(data))


@pytest.mark.usefixtures("_no_shared_cache")
def test_a_hub_set_without_languages_is_refused(tmp_path: Path) -> None:
    for split, theirs in HUB_NAMES.items():
        write(tmp_path / "set" / f"{theirs}.parquet", rows_of("de", split))
    with pytest.raises(HeadstartError, match="no column language; there are id") as caught:
        load_corpus(Data(corpus=str(tmp_path / "set"), languages=LANGUAGES), "classification")
    assert str(caught.value).count("no column") == 1  # not once for each language
    assert "a file for each" in str(caught.value)


@pytest.mark.usefixtures("_no_shared_cache")
def test_files_of_the_hubs_converter(tmp_path: Path) -> None:
    classes = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    for split, theirs in HUB_NAMES.items():
        rows = {"text": rows_of("de", split)["text"], "label": [1, 0, 0]}
        path = tmp_path / "set" / "german" / theirs / "0000.parquet"
        path.parent.mkdir(parents=True)
        datasets.Dataset.from_dict(rows, features=classes).to_parquet(path)
    tsm = CORPORA["tsm"]
    assert tsm.hub is not None
    hub = replace(tsm.hub, name=str(tmp_path / "set"))
    data = Data(corpus="tsm", languages=("de",))
    found = told(gather(data, replace(tsm, hub=hub), "classification"))["de"]
    assert [raw.split for raw in found] == list(NAMES)
    for raw in found:
        assert raw.table["text"].to_pylist() == rows_of("de", raw.split)["text"]
        assert raw.table["label"].to_pylist() == ["yes", "no", "no"]
        assert raw.classes == ("no", "yes")


@pytest.mark.usefixtures("_no_shared_cache")
def test_treebanks_are_configurations_on_the_hub(tmp_path: Path) -> None:
    for bank in ("da_ddt", "da_other"):
        for split, theirs in HUB_NAMES.items():
            rows = {"tokens": [[bank, split]], "ner_tags": [["O", "O"]], "idx": ["7"]}
            write(tmp_path / "set" / bank / f"{theirs}.parquet", rows)
    banks = {bank: f"{bank}/{{split}}.parquet" for bank in ("da_ddt", "da_other")}
    _card(tmp_path / "set", banks)
    uner = CORPORA["uner"]
    assert uner.hub is not None
    hub = replace(uner.hub, name=str(tmp_path / "set"))
    data = Data(corpus="uner", languages=("da",))
    found = told(gather(data, replace(uner, hub=hub), "tagging"))["da"]
    assert [raw.table["tokens"].to_pylist() for raw in found] == [[["da_ddt", s]] for s in NAMES]
    assert found[0].table["id"].to_pylist() == ["7"]


@pytest.mark.usefixtures("_no_shared_cache")
@pytest.mark.parametrize("corpus", ["no/such", "massive", "tsm", "uner"])
def test_an_unreachable_hub_says_what_to_do(corpus: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def offline(*place: object, **__: object) -> None:
        asked.append(place)
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setattr(datasets, "get_dataset_config_names", offline)
    with pytest.raises(HeadstartError, match=r"cannot load .* from the hub: offline") as caught:
        take(Data(corpus=corpus, languages=("de", "fr")))
    assert "data.folder" in caught.value.way_out
    assert len(asked) == 1  # the second language does not wait for it again


def _write_two(folder: Path) -> None:
    write(folder / "de.csv", _one_file("de"))
    write(folder / "de.tsv", _one_file("de"))


def _without(folder: Path, column: str) -> None:
    table = _one_file("de")
    table["utterance"] = table.pop(column)
    write(folder / "de.csv", table)


def _odd_split(folder: Path) -> None:
    table = _one_file("de")
    table["split"][4] = "tset"
    write(folder / "de.jsonl", table)


FAULTS: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "no such language": (
        lambda folder: write(folder / "sv.csv", _one_file("sv")),
        r"no language 'de'; there are sv",
    ),
    "nothing there": (lambda _: None, r"no language 'de'; there are none"),
    "no such language in a column": (
        lambda folder: write(folder / "train.csv", _mixed(("sv", "sw"), "train")),
        r"no language 'de'; there are sv, sw",
    ),
    "two files": (_write_two, r"2 files hold the same language and split 'train'[\s\S]*de\.csv"),
    "no text": (
        lambda folder: _without(folder, "text"),
        r"no column text; there are id, label, split, utterance[\s\S]*de\.csv",
    ),
    "no split": (lambda folder: _without(folder, "split"), r"no column split[\s\S]*folders train"),
    "odd split": (_odd_split, r"unknown split 'tset'[\s\S]*de\.jsonl, row 5[\s\S]*'test'"),
}


@pytest.mark.parametrize(("prepare", "message"), FAULTS.values(), ids=FAULTS)
def test_what_lacks_is_named(prepare: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    with pytest.raises(HeadstartError, match=message):
        take(Data(folder=tmp_path, languages=("de",)))


def test_all_missing_languages_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "sv.csv", _one_file("sv"))
    with pytest.raises(HeadstartError, match=r"2 faults[\s\S]*'de'[\s\S]*'fi'"):
        take(Data(folder=tmp_path, languages=("de", "sv"), zero_shot=("fi",)))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"there is no folder .*nowhere"):
        take(Data(folder=tmp_path / "nowhere", languages=("de",)))
    write(tmp_path / "all.csv", _one_file("de"))
    with pytest.raises(HeadstartError, match=r"all\.csv is a file"):
        take(Data(folder=tmp_path / "all.csv", languages=("de",)))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_all_columns_of_a_file_are_named(ending: str, tmp_path: Path) -> None:
    table = _one_file("de")
    table["utterance"] = table.pop("text")
    write(tmp_path / f"de.{ending}", table)
    assert columns_of(tmp_path / f"de.{ending}") == list(table)


def test_a_file_without_names_has_no_columns_to_name(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ada B-PER\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('\n{"text": "x", "mood": "y"}\n', encoding="utf-8")
    assert columns_of(tmp_path / "a.conll") == []
    assert columns_of(tmp_path / "b.jsonl") == ["text", "mood"]


def test_a_file_that_languages_share_is_read_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _columns_for_both(tmp_path, ".jsonl")
    asked: list[Path] = []

    def read(path: Path, *rest: Any) -> pa.Table:
        asked.append(path)
        return formats.read(path, *rest)

    monkeypatch.setattr(sys.modules["headstart.gather"], "read", read)
    law_every_row_in_its_place(take(Data(folder=tmp_path, languages=LANGUAGES)))
    assert [path.name for path in asked] == ["everything.jsonl"]
