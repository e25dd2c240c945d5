"""Text for a refit: of every language alike, and its faults told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headstart import calibration
from headstart.calibration import Unlabelled, all_texts, languages_of, sample_texts, unlabelled
from headstart.checkup import check
from headstart.corpus import load_corpus
from headstart.errors import HeadstartError
from headstart.groundwork import check_texts, drawn, pools_of, samples_for
from headstart.loading import apply
from headstart.recipe import Data
from headstart.run import run_signature
from headstart.texts import bytes_of_text, folder_texts
from tiny import tiny_tokenizer
from world import world, write_tagged, write_texts

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.corpus import Corpus


def corpus_in(folder: Path, task: str = "classification") -> Corpus:
    writer = write_tagged if task == "tagging" else write_texts
    data = Data(
        corpus="local",
        folder=writer(folder / "labelled"),
        languages=("aa", "bb"),
        zero_shot=("cc",),
    )
    return load_corpus(data, task)


def write_unlabelled(folder: Path, language: str, texts: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    rows = "\n".join(json.dumps({"text": text}) for text in texts)
    (folder / f"{language}.jsonl").write_text(rows + "\n", encoding="utf-8")
    return folder


def test_training_text_alone_has_no_zero_shot_language(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path)
    texts = all_texts(corpus, unlabelled(corpus, None))
    assert languages_of(texts) == ["aa", "bb"]
    assert [len(rows) for rows in texts[0].values()] == [24, 24, 0]


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_what_stands_in_dev_or_test_is_left_out(tmp_path: Path, task: str) -> None:
    corpus = corpus_in(tmp_path, task)
    column = "tokens" if task == "tagging" else "text"
    judged = [row for name in ("dev", "test") for row in corpus.splits[name][column].to_pylist()]
    plain = [f" {row}" if isinstance(row, str) else "  ".join(row) for row in judged]
    folder = write_unlabelled(tmp_path / "more", "aa", [*plain, "the rain"])
    more = unlabelled(corpus, folder)
    assert more.left_out == len(plain)
    assert more.texts["aa"] == (["the rain"] if task == "classification" else [["the", "rain"]])


def test_unlabelled_text_reaches_zero_shot_languages(tmp_path: Path) -> None:
    folder = write_unlabelled(tmp_path / "more", "cc", ["the rain", " ", "wake me"])
    assert unlabelled(corpus_in(tmp_path), folder).texts["cc"] == ["the rain", "wake me"]


def test_a_country_finds_the_text_of_its_language(tmp_path: Path) -> None:
    folder = write_unlabelled(tmp_path / "more", "cc", ["the rain"])
    labelled = write_texts(tmp_path / "labelled", languages=("aa", "cc-XX"))
    data = Data(corpus="local", folder=labelled, languages=("aa",), zero_shot=("cc-XX",))
    corpus = load_corpus(data, "classification")
    assert unlabelled(corpus, folder).texts["cc-XX"] == ["the rain"]


def test_a_text_a_line_is_read_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "sw.txt").write_text('habari "yako"\n\n  njema\tsana\n', encoding="utf-8")
    assert folder_texts(tmp_path) == {"sw": ['habari "yako"', "  njema\tsana"]}


def test_a_folder_of_other_files_says_which_are_read(tmp_path: Path) -> None:
    (tmp_path / "sw.docx").write_bytes(b"x")
    with pytest.raises(HeadstartError, match=r"no file in the folder[\s\S]*sw\.txt"):
        folder_texts(tmp_path)


def test_words_are_split_at_blanks_when_tagging(tmp_path: Path) -> None:
    folder = write_unlabelled(tmp_path / "more", "cc", ["the rain"])
    corpus = corpus_in(tmp_path, "tagging")
    texts = all_texts(corpus, unlabelled(corpus, folder))
    assert texts[1]["cc"] == [["the", "rain"]]
    assert all(isinstance(row, list) for row in texts[0]["aa"])


def test_a_folder_without_any_of_the_languages_is_refused(tmp_path: Path) -> None:
    folder = write_unlabelled(tmp_path / "more", "zz", ["the rain"])
    with pytest.raises(HeadstartError, match=r"no text in .* for aa, bb, cc"):
        unlabelled(corpus_in(tmp_path), folder)


def test_a_column_of_numbers_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "cc.jsonl").write_text('{"text": 3}\n', encoding="utf-8")
    with pytest.raises(HeadstartError, match="holds no text"):
        unlabelled(corpus_in(tmp_path), folder)


def test_a_file_without_text_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "cc.jsonl").write_text('{"sentence": "the rain"}\n', encoding="utf-8")
    with pytest.raises(HeadstartError, match=r"no column 'text'") as caught:
        unlabelled(corpus_in(tmp_path), folder)
    assert "cc.jsonl" in str(caught.value)


TEXTS = {
    "aa": ["wake me"] * 400,
    "bb": [f"the loud rain {i}" for i in range(400)],
    "cc": ["rain"] * 20,
}


def tokens_per_language(seed: int = 0) -> dict[str, int]:
    seen = sample_texts(
        [TEXTS], tiny_tokenizer(), task="classification", tokens=900, max_length=32, seed=seed
    )
    index = np.concatenate(seen.batches)
    assert len(set(index.tolist())) == len(index)
    counts = np.bincount(seen.encoded.language_ids[index], seen.encoded.lengths[index])
    return dict(zip(seen.encoded.languages, counts.astype(int).tolist(), strict=True))


def test_languages_get_as_many_tokens_each() -> None:
    counts = tokens_per_language()
    assert 300 <= counts["aa"] < 332
    assert 300 <= counts["bb"] < 332
    assert counts["cc"] < 300  # all that it has


def test_the_tasks_own_text_is_drawn_before_any_other() -> None:
    """Up to a language's share; what it lacks comes from the next pool."""
    own = {"aa": [f"wake me {i}" for i in range(400)], "bb": ["the loud rain"] * 20, "cc": []}
    pools = [own, TEXTS, {"dd": ["rain"] * 400}]
    tokenizer = tiny_tokenizer()

    def first(texts: list[str]) -> set[tuple[int, ...]]:
        return {tuple(tokenizer(text)["input_ids"]) for text in texts}

    seen = sample_texts(pools, tokenizer, task="classification", tokens=1200, max_length=32)
    assert seen.encoded.languages == ("aa", "bb", "cc", "dd")
    starts, ids = seen.encoded.starts, seen.encoded.ids
    drawn: dict[str, list[tuple[int, ...]]] = {name: [] for name in seen.encoded.languages}
    for i in np.sort(np.concatenate(seen.batches)):
        name = seen.encoded.languages[seen.encoded.language_ids[i]]
        drawn[name].append(tuple(ids[starts[i] : starts[i + 1]].tolist()))
    assert set(drawn["aa"]) <= first(own["aa"])
    assert set(drawn["bb"][:20]) == first(own["bb"])
    assert set(drawn["bb"][20:]) <= first(TEXTS["bb"])
    assert drawn["bb"][20:]
    assert set(drawn["cc"]) == first(["rain"]) == set(drawn["dd"])


def law_what_is_looked_at_for_what(tmp_path: Path, own: str | None, *, rows: set[str]) -> None:
    """Refit reads training rows before other text, or its own folder; general any, measure rows."""
    recipe = apply(
        world(tmp_path),
        {
            "data.zero_shot": [],
            "init.general": {"tokens": 300},
            "init.refit": {"tokens": 300, "text": own},
            "init.ffn": "taylor",
            "init.measure_tokens": 300,
        },
    )
    corpus = load_corpus(recipe.data, recipe.task)
    more = Unlabelled({"aa": ["loud rain"] * 400, "bb": ["loud rain"] * 400})
    theirs = unlabelled(corpus, recipe.init.refit_text)
    samples = samples_for(recipe, pools_of(recipe, corpus, more, theirs), tiny_tokenizer())
    pieces = {
        name: {tuple(ids) for ids in np.split(one.encoded.ids, one.encoded.starts[1:-1])}
        for name, one in samples.items()
    }
    every = [*corpus.splits["train"]["text"].to_pylist(), "loud rain", "wake me"]
    found = {tuple(tiny_tokenizer()(text)["input_ids"]): text for text in every}
    read = {k: {found[one] for one in those} for k, those in pieces.items()}
    kinds = {k: those & {"loud rain", "wake me"} for k, those in read.items()}
    assert kinds == {"refit": rows, "general": {"loud rain"}, "measure": set()}
    assert (read["refit"] == rows) is bool(own)  # no training row


def test_general_distillation_reads_text_of_any_kind(tmp_path: Path) -> None:
    law_what_is_looked_at_for_what(tmp_path, None, rows=set())


def test_refit_reads_a_folder_of_its_own_and_nothing_else(tmp_path: Path) -> None:
    for language in ("aa", "bb"):
        folder = write_unlabelled(tmp_path / "own", language, ["wake me"] * 400)
    law_what_is_looked_at_for_what(tmp_path, str(folder), rows={"wake me"})


def test_a_folder_for_refit_that_is_not_there_is_refused(tmp_path: Path) -> None:
    asked = {"init.refit": {"text": str(tmp_path / "none")}, "data.max_length": 40}
    recipe = apply(world(tmp_path), asked)
    for reads in (
        lambda: check_texts(recipe, str(recipe.teacher.base)),
        lambda: run_signature(recipe, tmp_path),
        lambda: check(recipe),
    ):
        with pytest.raises(HeadstartError, match=r"no folder (.|\n)*init\.refit\.text"):
            reads()


def test_text_that_nothing_reads_need_not_be_there(tmp_path: Path) -> None:
    own = write_unlabelled(tmp_path / "own", "aa", ["wake me"] * 400)
    asked = {"init.refit": {"text": str(own), "tokens": 300}, "init.merge": False}
    unread = {"data.text": str(tmp_path / "none"), "data.max_length": 40}
    recipe = apply(world(tmp_path), {**asked, **unread})
    (told,) = check_texts(recipe, str(recipe.teacher.base))
    assert "none in bb, cc: put a file of it into init.refit.text" in told
    long = apply(recipe, {"data.max_length": 1000})
    with pytest.raises(HeadstartError, match="has 48 positions"):
        check_texts(long, str(recipe.teacher.base))


def test_a_part_judges_and_is_not_fitted_to() -> None:
    seen = sample_texts([TEXTS], tiny_tokenizer(), task="classification", tokens=900, max_length=32)
    fit, held_out = (set(np.concatenate(part).tolist()) for part in (seen.fit, seen.held_out))
    assert not fit & held_out
    assert len(held_out) == (len(fit) + len(held_out)) // 8


def test_the_draw_follows_from_the_seed() -> None:
    draws = [
        sample_texts(
            [TEXTS], tiny_tokenizer(), task="classification", tokens=900, max_length=32, seed=seed
        ).encoded.ids.tolist()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_as_much_is_drawn_however_little_is_tokenized_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drawn(tokens: int, usual: int) -> list[list[list[int]]]:
        monkeypatch.setattr(calibration, "USUAL", usual)
        seen = sample_texts(
            [TEXTS], tiny_tokenizer(), task="classification", tokens=tokens, max_length=32
        )
        starts, ids = seen.encoded.starts, seen.encoded.ids
        return [[ids[starts[i] : starts[i + 1]].tolist() for i in b] for b in seen.batches]

    for tokens in (90, 900, 3000, 9000):
        whole = drawn(tokens, calibration.LEAST)  # all at once
        assert whole == drawn(tokens, 16) == drawn(tokens, 10_000)


def test_each_sample_keeps_to_its_own_languages(tmp_path: Path) -> None:
    recipe = apply(
        world(tmp_path),
        {
            "init.ffn": "taylor",
            "init.measure_languages": ["cc", "aa"],
            "init.refit": {"languages": ["bb"], "tokens": 300},
        },
    )
    samples = samples_for(recipe, {key: [TEXTS] for key in drawn(recipe)}, tiny_tokenizer())
    found = {
        name: {sample.encoded.languages[i] for i in sample.encoded.language_ids}
        for name, sample in samples.items()
    }
    assert found == {"measure": {"aa", "cc"}, "refit": {"bb"}}


def test_a_named_language_without_text_is_refused(tmp_path: Path) -> None:
    recipe = apply(world(tmp_path), {"init.refit": {"languages": ["aa", "cc"], "tokens": 300}})
    with pytest.raises(HeadstartError, match=r"no text in cc to look at(.|\n)*init\.refit"):
        samples_for(recipe, {"refit": [{"aa": TEXTS["aa"], "cc": []}]}, tiny_tokenizer())


def test_too_few_texts_are_refused() -> None:
    with pytest.raises(HeadstartError, match="7 texts are too few"):
        sample_texts(
            [{"aa": ["wake me"] * 7}], tiny_tokenizer(), task="classification", tokens=900,
            max_length=32,
        )  # fmt: skip


def test_the_fingerprint_sees_text_and_language() -> None:
    prints = {
        Unlabelled(texts).fingerprint()
        for texts in (TEXTS, {**TEXTS, "cc": ["rain"] * 19}, {**TEXTS, "dd": ["x"]},
                      {"aa": TEXTS["bb"], "bb": TEXTS["aa"], "cc": TEXTS["cc"]})
    }  # fmt: skip
    assert len(prints) == 4


def test_two_files_of_one_language_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pt.txt").write_text("bom dia\n", encoding="utf-8")
    assert folder_texts(tmp_path) == {"pt": ["bom dia"]}
    (tmp_path / "pt.jsonl").write_text('{"text": "boa noite"}\n', encoding="utf-8")
    for read in (folder_texts, lambda folder: bytes_of_text(folder, ["pt-PT"])):
        with pytest.raises(HeadstartError, match=r"one language: .*pt\.txt"):
            read(tmp_path)
