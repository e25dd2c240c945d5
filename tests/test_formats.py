"""A file gives the same columns in every format, and a broken one is named with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.classes import classes_of, decode_classes
from headstart.errors import HeadstartError
from headstart.formats import READERS, columns_of, read

TEXTS = (
    "plain",
    " blanks kept ",
    'quotes "inside" and, commas',
    "line\u2028separator and next\x85line",
    "emoji 👩‍👩‍👧 and \uff46\uff55\uff4c\uff4c width",
    "# not a comment",
)
COLUMNS = {"text": list(TEXTS), "label": [f"l{i}" for i in range(len(TEXTS))]}
TOKENS = (["#", "Ada", "Lovelace"], ["20 000", "1"], ["x"])
TAGS = (["O", "B-PER", "I-PER"], ["O", "B-ORG"], ["O"])

Read = Callable[[Path, set[str]], pa.Table]


def _write_csv(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(*COLUMNS.values(), strict=True))


WRITERS: Mapping[str, Callable[[Path], object]] = {
    ".parquet": lambda path: pq.write_table(pa.table(COLUMNS), path),
    ".jsonl": lambda path: path.write_text(
        "".join(
            json.dumps({"text": t, "label": b, "more": [1, {}]}, ensure_ascii=False) + "\n"
            for t, b in zip(*COLUMNS.values(), strict=True)
        ),
        encoding="utf-8",
    ),
    ".csv": _write_csv,
    ".tsv": lambda path: path.write_text(
        "\n".join(map("\t".join, [COLUMNS, *zip(*COLUMNS.values(), strict=True)])),
        encoding="utf-8",
    ),
}


def law_reads_what_was_written(reader: Read, folder: Path) -> None:
    for ending, write in WRITERS.items():
        write(folder / f"a{ending}")
        table = reader(folder / f"a{ending}", {"text", "label"})
        assert table.to_pydict() == COLUMNS, ending


def test_every_format_gives_the_same_columns(tmp_path: Path) -> None:
    law_reads_what_was_written(read, tmp_path)
    assert read(tmp_path / "a.csv", {"label"}).column_names == ["label"]


def test_semicolons_separate_where_no_comma_does(tmp_path: Path) -> None:
    """As spreadsheets write it where the comma is the decimal point's."""
    path = tmp_path / "a.csv"
    path.write_text('\ufefftext;label\r\n"wake me, please";x\r\n"a;b";y\r\n', encoding="utf-8")
    wanted = {"text": ["wake me, please", "a;b"], "label": ["x", "y"]}
    assert read(path, {"text", "label"}).to_pydict() == wanted
    assert columns_of(path) == ["text", "label"]
    path.write_text("text,a;b\nwake;me,x\n", encoding="utf-8")
    assert read(path, {"text", "a;b"}).to_pydict() == {"text": ["wake;me"], "a;b": ["x"]}


def _splits_lines_anywhere(path: Path, wanted: set[str]) -> pa.Table:
    if path.suffix == ".tsv":
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(line for line in lines if "\t" in line), encoding="utf-8")
    return read(path, wanted)


def _strips(path: Path, wanted: set[str]) -> pa.Table:
    table = read(path, wanted)
    return pa.table({n: [x.strip() for x in table[n].to_pylist()] for n in table.column_names})


MISTAKES: Mapping[str, Read] = {
    "takes U+2028 for the end of a line": _splits_lines_anywhere,
    "strips blanks": _strips,
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_law_has_teeth(mistake: Read, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        law_reads_what_was_written(mistake, tmp_path)


CONLL: Mapping[str, str] = {
    "two columns, tabs": "# sent_id = a\n#\tO\nAda\tB-PER\nLovelace\tI-PER\n\n"
    "20 000\tO\n1\tB-ORG\n\nx\tO\n",
    "tag last, more between": "#\t_\tO\nAda\tN\tB-PER\nLovelace\tN\tI-PER\n\n"
    "20 000\tM\tO\n1\tM\tB-ORG\n\nx\tS\tO\n",
    "UNER": "# newdoc id = d\n# sent_id = a\n# text = # Ada\n1\t#\tO\n2\tAda\tB-PER\t-\tme\n"
    "3\tLovelace\tI-PER\t-\tme\n\n\n# sent_id = b\n1\t20 000\tO\n2\t1\tB-ORG\t-\tme\n\n"
    "# sent_id = c\n1\tx\tO\n\n",
    "Windows": "#\tO\r\nAda\tB-PER\r\nLovelace\tI-PER\r\n\r\n20 000\tO\r\n1\tB-ORG\r\n\r\nx\tO\r\n",
}


@pytest.mark.parametrize("text", CONLL.values(), ids=CONLL)
@pytest.mark.parametrize("ending", [".iob2", ".conll"])
def test_conll_files_give_words_and_tags(text: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(text.encode())
    table = read(path, {"tokens", "tags", "id"})
    assert table["tokens"].to_pylist() == list(TOKENS)
    assert table["tags"].to_pylist() == list(TAGS)


def test_blanks_may_separate_and_a_hash_may_be_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- -X- O O\n\n# sent_id = 7\n# NN O\nAda NN B-PER\n", encoding="utf-8")
    table = read(path, {"tokens", "tags", "id"})
    assert table.to_pylist() == [{"tokens": ["#", "Ada"], "tags": ["O", "B-PER"], "id": "7"}]


def test_uner_ids_are_read_and_missing_ones_make_no_column(tmp_path: Path) -> None:
    path = tmp_path / "a.iob2"
    path.write_text(CONLL["UNER"], encoding="utf-8")
    assert read(path, {"id"}).to_pydict() == {"id": ["a", "b", "c"]}
    path.write_text("x\tO\n", encoding="utf-8")
    assert read(path, {"id", "tokens"}).column_names == ["tokens"]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\nx,y\n", encoding="utf-8-sig")
    assert read(path, {"text"}).to_pydict() == {"text": ["x"]}


FEATURES = {
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["O", "B-X"], "_type": "ClassLabel"}, "_type": "List"},
    "old": [{"names": ["O", "B-X"], "_type": "ClassLabel"}],
    "text": {"dtype": "string", "_type": "Value"},
}


def test_class_ids_become_names_in_their_order() -> None:
    table = pa.table(
        {
            "label": [1, -1, 0],
            "tags": [[0, 1], [], [1]],
            "old": [[1], [1], [0]],
            "text": list("abc"),
        }
    )
    decoded = decode_classes(table, FEATURES)
    assert decoded.to_pydict() == {
        "label": ["yes", None, "no"],
        "tags": [["O", "B-X"], [], ["B-X"]],
        "old": [["B-X"], ["B-X"], ["O"]],
        "text": ["a", "b", "c"],
    }
    assert classes_of(decoded, "label") == ("no", "yes")
    assert classes_of(decoded, "old") == ("O", "B-X")
    assert classes_of(decoded, "text") == ()
    assert decode_classes(decoded, FEATURES).to_pydict() == decoded.to_pydict()  # names stay


def test_parquet_files_of_datasets_carry_their_classes(tmp_path: Path) -> None:
    note = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
    table = pa.table({"label": [1, 0]}).replace_schema_metadata(note)
    pq.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet", {"label"})
    assert found["label"].to_pylist() == ["yes", "no"]
    assert classes_of(found, "label") == ("no", "yes")


BROKEN: Mapping[str, tuple[str, bytes, str]] = {
    "Parquet": ("a.parquet", b"PAR1 and no more", r"not a whole Parquet file[\s\S]*a\.parquet"),
    "JSON": ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', r"not JSON[\s\S]*a\.jsonl, line 3"),
    "no object": ("a.jsonl", b'{"text": "a"}\n["b"]\n', r"not a JSON object[\s\S]*line 2"),
    "types": (
        "a.jsonl",
        b'{"text": "a"}\n{"text": 1}\n',
        r"cannot be read as one[\s\S]*line 2",
    ),
    "half a pair": (
        "a.jsonl",
        b'{"text": "hi \\ud83d"}\n',
        r"'text' cannot be read as one[\s\S]*surrog[\s\S]*line 1",
    ),
    "NaN": ("a.jsonl", b'{"text": "a"}\n{"text": NaN}\n', r"'text' holds NaN[\s\S]*line 2"),
    "a long number": ("a.jsonl", b'{"text": 1' + b"0" * 30 + b"}", "'text' cannot be read as one"),
    "too long a number": ("a.jsonl", b'{"text": 1' + b"0" * 5000 + b"}", "not JSON"),
    "deep": ("a.jsonl", b"[" * 100_000, r"not JSON[\s\S]*line 1"),
    "a column twice": ("a.csv", b"text,text\na,b\n", "'text' stands twice in the header"),
    "empty": ("a.jsonl", b"", "the file is empty"),
    "few fields": (
        "a.csv",
        b"text,label\na,b\nc\n",
        r"1 fields where the header has 2[\s\S]*line 3",
    ),
    "quote": ("a.csv", b'text,label\n"a"b,c\n', r"not CSV[\s\S]*line 2"),
    "many fields": ("a.tsv", b"text\tlabel\na\tb\tc\n", r"3 fields where[\s\S]*a\.tsv, line 2"),
    "no tag": ("a.iob2", b"Ada\tB-PER\n\nLovelace\n", r"without a tag: 'Lovelace'[\s\S]*line 3"),
    "encoding": ("a.tsv", b"text\tlabel\na\tb\n\xe4\tc\n", r"not UTF-8[\s\S]*a\.tsv, line 3"),
    "type": ("a.xml", b"<a/>", r"cannot read files of type '\.xml'[\s\S]*choose from \.conll"),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_with_its_line(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(HeadstartError, match=message):
        read(tmp_path / name, {"text", "label", "tokens", "tags"})


def test_no_format_is_without_a_test() -> None:
    assert READERS.keys() == {*WRITERS, ".iob2", ".conll"}


def test_a_long_text_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'x' * 200_000},y\n", encoding="utf-8")
    assert len(read(path, {"text"})["text"][0].as_py()) == 200_000
