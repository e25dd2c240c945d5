"""A corpus holds what its files hold, in their order, checked, and an epoch visits it fairly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.corpus import Corpus, epoch_order, load_corpus
from headstart.document import parse
from headstart.errors import HeadstartError
from headstart.labels import check_known, check_labels, lacking
from headstart.recipe import Data
from headstart.rows import check_rows
from headstart.sources import CORPORA, QUICKSTART_INTENTS, Raw

if TYPE_CHECKING:
    from pathlib import Path

TRAINED = ("de", "en")
ZERO_SHOT = ("sw",)
SIZES = {"train": 6, "dev": 3, "test": 4}

Columns = dict[str, list[Any]]
Edit = Callable[[Columns], None]


def texts(language: str) -> Columns:
    """A file of one language: 13 rows, parallel over languages, labels b and a in turn."""
    splits = [split for split, size in SIZES.items() for _ in range(size)]
    return {
        "id": [f"i{row}" for row in range(len(splits))],
        "split": splits,
        "text": [f"{language} {row}" for row in range(len(splits))],
        "label": ["ba"[row % 2] for row in range(len(splits))],
    }


def test_a_corpus_is_read_once_for_as_long_as_its_files_stay(tmp_path: Path) -> None:
    build(tmp_path, texts)
    asked = Data(corpus="local", folder=tmp_path, languages=TRAINED, zero_shot=ZERO_SHOT)
    first = load_corpus(asked, "classification")
    assert load_corpus(asked.model_copy(), "classification") is first
    assert load_corpus(asked.model_copy(update={"test_per_language": 1}), "classification") != first

    def renamed(columns: Columns) -> None:
        columns["text"] = [text.upper() for text in columns["text"]]

    build(tmp_path, texts, renamed)
    other = load_corpus(asked, "classification")
    assert other.fingerprint != first.fingerprint
    (tmp_path / "out" / "runs" / "x").mkdir(parents=True)
    (tmp_path / "out" / "runs" / "x" / "a.parquet").write_bytes(b"none of the corpus' files")
    assert load_corpus(asked, "classification") is other
    (tmp_path / "de.parquet").unlink()
    with pytest.raises(HeadstartError, match="de"):
        load_corpus(asked, "classification")


def test_a_linked_folder_of_a_language_is_looked_into(tmp_path: Path) -> None:
    """What is read is what is looked at: `<language>/<split>.<type>`, behind a link, too."""
    (tmp_path / "corpus").mkdir()
    for language in TRAINED:
        (tmp_path / language).mkdir()
        (tmp_path / "corpus" / language).symlink_to(tmp_path / language)
    asked = Data(corpus="local", folder=tmp_path / "corpus", languages=TRAINED)

    def write(mark: str) -> None:
        for language in TRAINED:
            table = pa.table(texts(language))
            for split in SIZES:
                rows = table.filter(pc.equal(table["split"], split)).drop_columns(["split"])
                said = [f"{text}{mark}" for text in rows["text"].to_pylist()]
                rows = rows.set_column(rows.column_names.index("text"), "text", pa.array(said))
                pq.write_table(rows, tmp_path / language / f"{split}.parquet")

    write("")
    first = load_corpus(asked, "classification").fingerprint
    write("!")
    assert load_corpus(asked, "classification").fingerprint != first


def words(language: str) -> Columns:
    """The same for tagging."""
    columns = texts(language)
    columns["tokens"] = [text.split() for text in columns.pop("text")]
    columns["tags"] = [["O", {"a": "B-X", "b": "B-Y"}[label]] for label in columns.pop("label")]
    return columns


def build(folder: Path, make: Callable[[str], Columns], edit: Edit | None = None) -> None:
    """Write a file for each language; `edit` spoils the first."""
    for language in (*TRAINED, *ZERO_SHOT):
        columns = make(language)
        if edit is not None and language == TRAINED[0]:
            edit(columns)
        pq.write_table(pa.table(columns), folder / f"{language}.parquet")


def load(folder: Path, task: str = "classification", **settings: Any) -> Corpus:
    """Load what `build` wrote."""
    keys = {"folder": folder, "languages": TRAINED, "zero_shot": ZERO_SHOT} | settings
    return load_corpus(Data.model_validate(keys), task)


def law_rows_are_the_files_own(corpus: Corpus, limits: Mapping[str, int]) -> None:
    for split, table in corpus.splits.items():
        codes = (*TRAINED, *ZERO_SHOT) if split == "test" else TRAINED
        expected: list[tuple[str, str, str]] = []
        for code in codes:
            columns = texts(code)
            rows = [i for i, name in enumerate(columns["split"]) if name == split]
            expected += [
                (code, columns["text"][row], columns["label"][row])
                for row in rows[: limits.get(split)]
            ]
        found = [
            (row["language"], row["text"], corpus.labels[row["label"]]) for row in table.to_pylist()
        ]
        assert found == expected


LIMITS: Mapping[str, Mapping[str, int]] = {
    "none": {},
    "some": {"train": 2, "dev": 1, "test": 3},
    "more than there is": {"train": 100, "test": 100},
}
KEYS = {"train": "examples_per_language", "dev": "dev_per_language", "test": "test_per_language"}


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
def test_splits_hold_the_first_rows_of_each_language(
    limits: Mapping[str, int], tmp_path: Path
) -> None:
    build(tmp_path, texts)
    corpus = load(tmp_path, **{KEYS[split]: limit for split, limit in limits.items()})
    law_rows_are_the_files_own(corpus, limits)
    assert corpus.labels == ("a", "b")
    assert corpus.leaks == ()


MISTAKES: Mapping[str, Callable[[dict[str, pa.Table]], None]] = {
    "shuffles": lambda splits: splits.update(train=splits["train"].take([1, 0, *range(2, 12)])),
    "trains on zero-shot": lambda splits: splits.update(train=splits["test"]),
    "forgets a language": lambda splits: splits.update(dev=splits["dev"].slice(0, 3)),
    "numbers labels another way": lambda splits: splits.update(
        dev=splits["dev"].set_column(
            3, "label", pa.array([1 - i for i in splits["dev"]["label"].to_pylist()])
        )
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_the_law_of_rows_has_teeth(
    mistake: Callable[[dict[str, pa.Table]], None], tmp_path: Path
) -> None:
    build(tmp_path, texts)
    corpus = load(tmp_path)
    splits = dict(corpus.splits)
    mistake(splits)
    broken = Corpus(
        task=corpus.task,
        labels=corpus.labels,
        languages=corpus.languages,
        zero_shot=corpus.zero_shot,
        splits=splits,
        leaks=(),
        fingerprint="",
        stray_inside={},
    )
    with pytest.raises(AssertionError):
        law_rows_are_the_files_own(broken, {})


def test_columns_have_their_types(tmp_path: Path) -> None:
    build(tmp_path, texts)
    string, number = pa.string(), pa.int64()
    for table in load(tmp_path).splits.values():
        assert table.schema.names == ["id", "language", "text", "label"]
        assert table.schema.types == [string, string, string, number]
    build(tmp_path, words)
    for table in load(tmp_path, "tagging").splits.values():
        assert table.schema.names == ["id", "language", "tokens", "tags"]
        assert table.schema.types == [string, string, pa.list_(string), pa.list_(number)]


def test_tags_begin_with_o_and_sentences_keep_their_words(tmp_path: Path) -> None:
    build(tmp_path, words)
    corpus = load(tmp_path, "tagging")
    assert corpus.labels == ("O", "B-X", "B-Y")
    first = corpus.splits["train"].slice(0, 2).to_pylist()
    assert first == [
        {"id": "i0", "language": "de", "tokens": ["de", "0"], "tags": [0, 2]},
        {"id": "i1", "language": "de", "tokens": ["de", "1"], "tags": [0, 1]},
    ]


def test_given_labels_set_the_order_and_limits_do_not(tmp_path: Path) -> None:
    build(tmp_path, texts)
    assert load(tmp_path, labels=("b", "c", "a")).labels == ("b", "c", "a")
    assert load(tmp_path, examples_per_language=1).labels == ("a", "b")  # only b is in train


def test_rows_without_ids_get_their_number(tmp_path: Path) -> None:
    def forget(columns: Columns) -> None:
        columns["id"][1:3] = [None, None]

    build(tmp_path, texts, forget)
    assert load(tmp_path).splits["train"]["id"].to_pylist()[:4] == ["i0", "2", "3", "i3"]


CHANGES: Mapping[str, dict[str, object]] = {
    "limit": {"examples_per_language": 5},
    "order of labels": {"labels": ("b", "a")},
    "languages": {"languages": ("de",)},
    "zero-shot": {"zero_shot": ()},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_fingerprint_is_of_what_is_used(change: dict[str, object], tmp_path: Path) -> None:
    build(tmp_path, texts)
    first = load(tmp_path).fingerprint
    assert load(tmp_path, max_length=7, drop_leaks=True).fingerprint == first
    assert load(tmp_path, **change).fingerprint != first


def test_the_fingerprint_follows_one_letter(tmp_path: Path) -> None:
    build(tmp_path, texts)
    first = load(tmp_path).fingerprint
    build(tmp_path, texts, lambda columns: columns["text"].__setitem__(5, "de 5!"))
    assert load(tmp_path).fingerprint != first


def _copy(*pairs: tuple[int, int]) -> Edit:
    def edit(columns: Columns) -> None:
        name = "text" if "text" in columns else "tokens"
        for source, target in pairs:
            columns[name][target] = columns[name][source]

    return edit


def _leaks(corpus: Corpus) -> list[tuple[str, int, int]]:
    return [(leak.split, leak.rows, leak.conflicts) for leak in corpus.leaks]


@pytest.mark.parametrize(("make", "task"), [(texts, "classification"), (words, "tagging")])
def test_texts_of_other_splits_in_train_are_counted(
    make: Callable[[str], Columns], task: str, tmp_path: Path
) -> None:
    # test rows 9 (label a) and 11 (a) are copies of train rows 1 (a) and 2 (b); dev row 7 of 2
    build(tmp_path, make, _copy((1, 9), (2, 11), (2, 7)))
    assert _leaks(load(tmp_path, task)) == [("dev", 1, 1), ("test", 2, 1)]
    assert _leaks(load(tmp_path, task, examples_per_language=2)) == [("test", 1, 0)]
    assert _leaks(load(tmp_path, task, test_per_language=2, dev_per_language=1)) == [("test", 1, 0)]


def test_leaks_are_dropped_from_train_before_the_limit(tmp_path: Path) -> None:
    build(tmp_path, texts, _copy((1, 9), (1, 4)))
    corpus = load(tmp_path, drop_leaks=True, examples_per_language=3)
    assert corpus.splits["train"]["text"].to_pylist()[:4] == ["de 0", "de 2", "de 3", "en 0"]
    assert corpus.splits["test"].num_rows == 12
    assert _leaks(corpus) == [("test", 1, 0)]


def test_a_language_whose_train_rows_all_leak_is_refused(tmp_path: Path) -> None:
    build(tmp_path, texts, _copy(*((6, row) for row in range(6))))
    with pytest.raises(HeadstartError, match="language 'de' has no train rows"):
        load(tmp_path, drop_leaks=True)


def test_tags_that_continue_nothing_are_counted_not_changed(tmp_path: Path) -> None:
    def break_tags(columns: Columns) -> None:
        columns["tokens"][0], columns["tags"][0] = list("abcd"), ["I-X", "I-X", "I-Y", "O"]
        columns["tags"][1] = ["B-X", "I-X"]

    build(tmp_path, words, break_tags)
    corpus = load(tmp_path, "tagging")
    assert corpus.stray_inside == {"de": 2}
    names = [corpus.labels[i] for i in corpus.splits["train"]["tags"][0].as_py()]
    assert names == ["I-X", "I-X", "I-Y", "O"]


def _put(column: str, row: int, value: object) -> Edit:
    return lambda columns: columns[column].__setitem__(row, value)


def _drop(split: str) -> Edit:
    def edit(columns: Columns) -> None:
        keep = [i for i, name in enumerate(columns["split"]) if name != split]
        columns.update({name: [values[i] for i in keep] for name, values in columns.items()})

    return edit


PLACE = r"[\s\S]*de\.parquet, row "
TEXT_FAULTS: Mapping[str, tuple[Edit, str]] = {
    "empty text": (_put("text", 7, " \t"), f"an empty text{PLACE}8"),
    "missing text": (_put("text", 0, None), f"an empty text{PLACE}1"),
    "missing label": (_put("label", 2, None), f"no label{PLACE}3"),
    "empty label": (_put("label", 2, ""), f"no label{PLACE}3"),
    "blank label": (_put("label", 2, " "), f"no label{PLACE}3"),
    "texts are lists": (
        lambda columns: columns.update(text=[[text] for text in columns["text"]]),
        r"column 'text' holds list<.*string>, not string",
    ),
    "no train": (_drop("train"), r"language 'de' has no train rows[\s\S]*zero_shot"),
    "no dev": (_drop("dev"), "language 'de' has no dev rows"),
    "no test": (_drop("test"), "language 'de' has no test rows"),
}
WORD_FAULTS: Mapping[str, tuple[Edit, str]] = {
    "uneven": (_put("tags", 3, ["O"]), f"tokens and tags of different number{PLACE}4"),
    "no words": (_put("tokens", 3, []), f"no tokens{PLACE}4"),
    "missing words": (_put("tokens", 3, None), f"no tokens{PLACE}4"),
    "empty word": (_put("tokens", 3, ["a", " "]), f"an empty token{PLACE}4"),
    "not IOB2": (_put("tags", 4, ["O", "NOUN"]), rf"unknown label 'NOUN'{PLACE}5[\s\S]*B-<type>"),
    "words are text": (
        lambda columns: columns.update(tokens=list(columns["split"])),
        r"column 'tokens' holds string, not list<",
    ),
    "O is nowhere": (
        lambda columns: columns.update(tags=[["B-X", "B-X"]] * 13),
        r"tags are not IOB2: O is missing",
    ),
}


@pytest.mark.parametrize(("edit", "message"), TEXT_FAULTS.values(), ids=TEXT_FAULTS)
def test_faults_of_texts_are_named(edit: Edit, message: str, tmp_path: Path) -> None:
    build(tmp_path, texts, edit)
    with pytest.raises(HeadstartError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(("edit", "message"), WORD_FAULTS.values(), ids=WORD_FAULTS)
def test_faults_of_words_are_named(edit: Edit, message: str, tmp_path: Path) -> None:
    build(tmp_path, words, edit)
    with pytest.raises(HeadstartError, match=message):
        load(tmp_path, "tagging", languages=TRAINED[:1], zero_shot=())


def test_a_label_that_is_not_listed_is_named_with_the_nearest(tmp_path: Path) -> None:
    build(tmp_path, texts, _put("label", 5, "alarm"))
    with pytest.raises(HeadstartError, match=f"unknown label 'alarm'{PLACE}6") as caught:
        load(tmp_path, labels=("a", "b", "alarms"))
    assert "did you mean 'alarms'" in caught.value.way_out


def test_all_faulty_rows_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    def spoil(columns: Columns) -> None:
        columns["split"] = ["train"] * 9 + ["dev"] * 2 + ["test"] * 2
        for row in (0, 1, 3, 4, 5, 6, 8):
            columns["text"][row] = " "
        columns["label"][2] = None

    build(tmp_path, texts, spoil)
    with pytest.raises(HeadstartError, match=r"empty text \(at .*, rows 1, 2, 4, 5, 6 and 2 more;"):
        load(tmp_path)
    with pytest.raises(HeadstartError, match=r"2\. no label \(at .*de\.parquet, row 3;"):
        load(tmp_path)
    build(tmp_path, texts, lambda columns: columns["label"].__setitem__(slice(4), list("xyxz")))
    with pytest.raises(HeadstartError, match=r"3 faults[\s\S]*'x' \(at .*, rows 1, 3;[\s\S]*'z'"):
        load(tmp_path, labels=("a", "b"))


def test_class_numbers_stand_for_the_labels_that_are_listed(tmp_path: Path) -> None:
    tags = ("O", "B-X", "B-Y")

    def numbered(language: str) -> Columns:
        columns = texts(language)
        return columns | {"label": ["ba".index(label) for label in columns["label"]]}

    def words_numbered(language: str) -> Columns:
        columns = words(language)
        return columns | {"tags": [[tags.index(tag) for tag in row] for row in columns["tags"]]}

    for name, make in {"names": texts, "numbers": numbered, "tags": words,
                       "tag numbers": words_numbered}.items():  # fmt: skip
        (tmp_path / name).mkdir()
        build(tmp_path / name, make)
    named, by_number = (load(tmp_path / k, labels=("b", "a")) for k in ("names", "numbers"))
    assert by_number.splits["train"].equals(named.splits["train"])
    assert load(tmp_path / "numbers").labels == ("0", "1")  # nothing says what they are
    with pytest.raises(HeadstartError, match="unknown label '1'"):
        load(tmp_path / "numbers", labels=("c",))

    def holes(columns: Columns) -> None:
        columns["label"] = [*map(str, numbered("de")["label"])]
        columns["label"][1], columns["label"][2] = "", "-1"

    (tmp_path / "holes").mkdir()
    build(tmp_path / "holes", numbered, holes)
    with pytest.raises(HeadstartError, match=r"2 faults:\n.*no label.*row 2;.*\n.*'-1'.*row 3;"):
        load(tmp_path / "holes", labels=("b", "a"))
    raw = Raw(pa.table({"row": [1], "text": ["x"], "label": ["0"]}), "there", "train")
    with pytest.raises(HeadstartError, match="unknown label '0'"):
        check_rows(raw, "classification", ["a", "b"])  # a corpus' own table has other numbers
    with pytest.raises(HeadstartError, match="unknown label '1'"):
        load(tmp_path / "numbers", labels=("b", "7"))  # numbers are names here
    one, other = (load(tmp_path / k, "tagging", labels=tags) for k in ("tags", "tag numbers"))
    assert one.splits["test"].equals(other.splits["test"])
    with pytest.raises(HeadstartError, match=r"unknown label '[012]'[\s\S]*as data.labels"):
        load(tmp_path / "tag numbers", "tagging")


def test_a_label_that_train_lacks_is_a_slip_unless_it_is_listed(tmp_path: Path) -> None:
    build(tmp_path, texts, _put("label", 12, "aa"))
    with pytest.raises(HeadstartError, match=r"'aa' stands in no train row[\s\S]*de, split test"):
        load(tmp_path)
    assert load(tmp_path, labels=("a", "b", "aa")).labels == ("a", "b", "aa")


def test_each_unknown_label_is_named_once() -> None:
    def rows(*labels: str) -> pa.Table:
        return pa.table({"id": [str(i) for i in range(len(labels))], "label": labels})

    names = [f"l{i:02}" for i in range(11)]
    tables = {("de", "train"): rows("a"), ("de", "test"): rows("a", *names, *names)}
    with pytest.raises(HeadstartError) as caught:
        check_known(tables, "classification")
    told = str(caught.value)
    assert [told.count(f"'{name}'") for name in names] == [1] * 8 + [0] * 3
    assert "the corpus, which has 3 more of them" in told


def test_rows_that_nobody_reads_have_no_say(tmp_path: Path) -> None:
    """Train and dev of a zero-shot language: neither their faults nor their labels count."""
    build(tmp_path, texts, _put("label", 12, "aa"))
    spoilt = texts("sw")
    spoilt["label"][0], spoilt["text"][1], spoilt["label"][7] = "aa", "", "zz"
    pq.write_table(pa.table(spoilt), tmp_path / "sw.parquet")
    with pytest.raises(HeadstartError, match="'aa' stands in no train row") as caught:
        load(tmp_path)
    assert "sw" not in str(caught.value)
    build(tmp_path, texts)
    pq.write_table(pa.table(spoilt), tmp_path / "sw.parquet")
    assert load(tmp_path).labels == ("a", "b")
    bare = {name: column[-4:] for name, column in texts("sw").items()}  # test alone
    pq.write_table(pa.table(bare), tmp_path / "sw.parquet")
    assert load(tmp_path).splits["test"]["language"].to_pylist().count("sw") == 4


def test_labels_that_one_language_lacks_are_told(tmp_path: Path) -> None:
    build(tmp_path, texts, lambda columns: columns.update(label=["a"] * 13))
    corpus = load(tmp_path)
    assert lacking(corpus.splits["train"], corpus.labels, corpus.task) == {"de": ["b"]}
    build(tmp_path, words, lambda columns: columns.update(tags=[["O", "B-X"]] * 13))
    corpus = load(tmp_path, "tagging")
    assert lacking(corpus.splits["train"], corpus.labels, corpus.task) == {"de": ["Y"]}
    build(tmp_path, texts)
    corpus = load(tmp_path)
    assert lacking(corpus.splits["train"], corpus.labels, corpus.task) == {}


def test_a_tag_may_begin_as_it_likes_but_not_be_of_another_kind(tmp_path: Path) -> None:
    build(tmp_path, words, _put("tags", 12, ["B-X", "I-X"]))
    assert "I-X" in load(tmp_path, "tagging").labels
    build(tmp_path, words, _put("tags", 12, ["O", "B-Z"]))
    with pytest.raises(HeadstartError, match=r"label 'Z' stands in no train row"):
        load(tmp_path, "tagging")


def test_all_faulty_files_are_named_at_once(tmp_path: Path) -> None:
    build(tmp_path, texts, _put("text", 0, ""))
    table = pa.table(texts("sw") | {"label": [None] * 13})
    pq.write_table(table, tmp_path / "sw.parquet")
    with pytest.raises(HeadstartError, match=r"2 faults[\s\S]*an empty text[\s\S]*no label"):
        load(tmp_path)


def test_given_tags_must_be_iob2(tmp_path: Path) -> None:
    build(tmp_path, words)
    with pytest.raises(HeadstartError, match="tags are not IOB2: NOUN"):
        load(tmp_path, "tagging", labels=("O", "B-X", "B-Y", "NOUN"))


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_named_corpus_is_for_its_task(corpus: str, tmp_path: Path) -> None:
    task = "tagging" if CORPORA[corpus].task == "classification" else "classification"
    with pytest.raises(HeadstartError, match=f"corpus '{corpus}' is for .*, not {task}"):
        load(tmp_path, task, corpus=corpus)


LOCALES = (
    "en-US", "de-DE", "es-ES", "tr-TR", "ru-RU", "ar-SA", "hi-IN", "th-TH", "zh-CN", "sw-KE",
)  # fmt: skip


def test_the_quickstart_corpus_is_whole_parallel_balanced_and_without_leaks() -> None:
    data = Data(corpus="quickstart", languages=LOCALES, zero_shot=("pt-PT", "cy-GB"))
    corpus = load_corpus(data, "classification")
    assert corpus.leaks == ()
    assert corpus.labels == QUICKSTART_INTENTS == tuple(sorted(QUICKSTART_INTENTS))
    for split, per_intent in {"train": 10, "dev": 4, "test": 6}.items():
        rows = corpus.splits[split].to_pylist()
        by_language = {
            code: [(row["id"], row["label"]) for row in rows if row["language"] == code]
            for code in {row["language"] for row in rows}
        }
        assert len(by_language) == (12 if split == "test" else 10)
        first = by_language["en-US"]
        assert all(other == first for other in by_language.values())
        assert set(Counter(label for _, label in first).values()) == {per_intent}
        assert len({label for _, label in first[:12]}) == 12  # any limit stays balanced
    folder = CORPORA["quickstart"].folder
    assert folder is not None
    assert sum(path.stat().st_size for path in folder.iterdir()) < 600_000
    assert "CC BY 4.0" in (folder / "ATTRIBUTION.md").read_text(encoding="utf-8")


Order = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
ROWS = np.repeat([0, 1, 2], [70, 25, 5])
ALPHAS = (1.0, 0.7, 0.3, 0.01)


def law_an_epoch_is_fair(order: Order) -> None:
    for alpha in ALPHAS:
        index = order(ROWS, alpha, np.random.default_rng(0))
        assert len(index) == len(ROWS)
        weights = np.array([70.0, 25.0, 5.0]) ** alpha
        shares = 100 * weights / weights.sum()
        visits = np.bincount(index, minlength=len(ROWS))
        for code in range(3):
            own = visits[code == ROWS]
            assert abs(own.sum() - shares[code]) < 1
            assert own.max() - own.min() <= 1
        assert (np.diff(ROWS[index]) != 0).sum() > 10  # languages are mixed
    again = order(ROWS, 0.3, np.random.default_rng(0))
    other = order(ROWS, 0.3, np.random.default_rng(1))
    assert (order(ROWS, 0.3, np.random.default_rng(0)) == again).all()
    assert (other != again).any()


def test_an_epoch_is_fair() -> None:
    law_an_epoch_is_fair(epoch_order)


def _with_replacement(rows: np.ndarray, alpha: float, rng: np.random.Generator) -> np.ndarray:
    sizes = np.bincount(rows)
    weights = (sizes**alpha / sizes)[rows]
    return rng.choice(len(rows), len(rows), p=weights / weights.sum())


WRONG_ORDERS: Mapping[str, Order] = {
    "draws with replacement": _with_replacement,
    "ignores alpha": lambda rows, _, rng: rng.permutation(len(rows)),
    "takes alpha for a temperature": lambda rows, alpha, rng: epoch_order(rows, 1 / alpha, rng),
    "leaves languages in blocks": lambda *a: np.sort(epoch_order(*a)),
    "has a seed of its own": lambda rows, alpha, _: epoch_order(
        rows, alpha, np.random.default_rng(5)
    ),
}


@pytest.mark.parametrize("mistake", WRONG_ORDERS.values(), ids=WRONG_ORDERS)
def test_the_law_of_epochs_has_teeth(mistake: Order) -> None:
    with pytest.raises(AssertionError):
        law_an_epoch_is_fair(mistake)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.floats(0.01, 1.0),
    st.integers(0, 2**32 - 1),
)
def test_any_corpus_gives_an_epoch_of_its_own_length(
    sizes: list[int], alpha: float, seed: int
) -> None:
    rows = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    index = epoch_order(rows, alpha, np.random.default_rng(seed))
    assert index.shape == rows.shape
    visits = np.bincount(index, minlength=len(rows))
    for code in range(len(sizes)):
        assert np.ptp(visits[rows == code]) <= 1
    if alpha == 1.0:
        assert set(visits) == {1}


def test_alpha_of_one_visits_every_row_once() -> None:
    index = epoch_order(ROWS, 1.0, np.random.default_rng(3))
    assert sorted(index) == list(range(len(ROWS)))


def test_labels_of_a_model_must_be_the_corpus_own() -> None:
    check_labels(["a", "b"], ("a", "b"), where="model m")
    with pytest.raises(HeadstartError, match=r"same labels, other order[\s\S]*model m") as caught:
        check_labels(("a", "b"), ("b", "a"), where="model m")
    assert "[b, a]" in caught.value.way_out
    with pytest.raises(
        HeadstartError, match=r"only the model has \(c\), only the corpus has \(b\)"
    ):
        check_labels(("a", "b"), ("a", "c"), where="model m")
    with pytest.raises(HeadstartError, match=r"set data.labels to \[a, c\]"):
        check_labels(("0", "1"), ("a", "c"), where="model m")
    for numbers, names in ((("1", "2"), ("a", "c")), (("0", "7"), ("a", "c")), (("0",), ("1",))):
        with pytest.raises(HeadstartError, match="way out: mend the rows"):
            check_labels(numbers, names, where="model m")  # no numbers of its classes
    with pytest.raises(HeadstartError, match=r"way out: \(B, 'c '\) differ in case or blanks"):
        check_labels(("B", "c ", "d"), ("b", "c", "d"), where="model m")
    with pytest.raises(HeadstartError, match="write their names into id2label"):
        check_labels(("a", "b"), ("LABEL_0", "LABEL_1"), where="model m")
    with pytest.raises(HeadstartError, match=r"labels that the corpus lacks: \(c\)") as caught:
        check_labels(("a", "b"), ("c", "b", "a"), where="model m")
    assert caught.value.way_out == "set data.labels to the model's: [c, b, a]"
    odd = (
        "0",
        "10",
        "2",
        "true",
        "no: way",
        "null",
        *(f"a rather long name {i}" for i in range(9)),
    )
    with pytest.raises(HeadstartError, match="same labels, other order") as caught:
        check_labels(sorted(odd, reverse=True), odd, where="model m")
    line = caught.value.way_out.partition("order: ")[2]
    assert parse(line, where="there") == [*odd]
    assert "\n" not in line
    many = [f"l{i}" for i in range(9)]
    with pytest.raises(HeadstartError, match=r"l7, … 9 in all\)"):
        check_labels(many, many[::-1], where="model m")
