"""Refit alone: in memory, folder to folder, and its faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModel

import headstart as hs
from headstart import repair
from headstart.calibration import sample_texts
from headstart.checkpoint import load_model, save_model, weights_fingerprint
from headstart.errors import HeadstartError
from headstart.measure import measure
from headstart.reader import read_selection
from headstart.recipe import Init, Refit
from headstart.refit import refit as refit_model
from headstart.repair import ask, refit, refit_folder
from headstart.ridge import Fitted, describe
from headstart.student import SELECTION, cut_checkpoint, make_student, student_from
from tiny import tiny_model, tiny_tokenizer

if TYPE_CHECKING:
    from headstart.walk import Sample

TEXTS = {"aa": [f"wake me {i}" for i in range(60)], "bb": [f"the rain {i}" for i in range(60)]}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    save_model(tiny_model("bert", max_position_embeddings=160), tiny_tokenizer(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for language, texts in TEXTS.items():
        rows = "\n".join(json.dumps({"text": one}) for one in texts)
        (folder / f"{language}.jsonl").write_text(rows + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def student(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("student") / "model"
    cut_checkpoint(teacher, folder, shape={"layers": 2})
    return str(folder)


def test_memory_and_disk_give_the_same_student(
    teacher: str,
    student: str,
    text: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fitted = refit_folder(student, teacher, tmp_path / "out", text=text, asked=Refit(tokens=600))
    capsys.readouterr()
    in_memory = hs.refit(student_from(teacher, layers=2), teacher, TEXTS, tokens=600)
    assert describe(fitted) in " ".join(capsys.readouterr().err.split())
    on_disk = load_model(tmp_path / "out", task="classification")
    assert weights_fingerprint(in_memory) == weights_fingerprint(on_disk)
    assert weights_fingerprint(in_memory) != weights_fingerprint(student_from(teacher, layers=2))
    assert any(one.ridge is not None for one in fitted)
    told = json.loads((tmp_path / "out" / "refit.json").read_text())
    assert [Fitted(**one) for one in told] == [*fitted]
    assert read_selection(tmp_path / "out") == vars(in_memory)[SELECTION]
    assert read_selection(student).attention_of == ()  # the folder that was read is as it was


def test_alone_it_gives_what_a_recipe_does(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranking, the merging, then the refit, from the same draws of text."""
    monkeypatch.setattr(repair, "has_fast_bf16", lambda _: False)  # in one precision
    model, tokenizer = load_model(Path(teacher), task="classification"), tiny_tokenizer()

    def draw(tokens: int) -> Sample:
        return sample_texts(
            [TEXTS], tokenizer, task="classification", tokens=tokens, max_length=128, seed=5
        )

    recipe = Init(refit=Refit(tokens=600))
    scores = measure(model, draw(recipe.measure_tokens), ("taylor",), seed=5)
    made = make_student(teacher, shape={"layers": 2}, rules=recipe.rules, scores=scores, seed=5)
    refit_model(made.model, model, made.selection, draw(600))
    alone = hs.refit(student_from(teacher, layers=2), teacher, TEXTS, tokens=600, seed=5)
    assert weights_fingerprint(alone) == weights_fingerprint(made.model)
    assert vars(alone)[SELECTION] == made.selection
    assert made.selection.attention_of or made.selection.ffn_of  # something was merged
    plain = student_from(teacher, layers=2)
    hs.refit(plain, teacher, TEXTS, tokens=600, seed=5, merge=False)
    assert weights_fingerprint(plain) != weights_fingerprint(alone)


def test_what_cannot_be_cut_again_stays_as_it_is_and_says_why(teacher: str) -> None:
    trained = student_from(teacher, layers=2)
    with torch.no_grad():
        trained.classifier.bias += 1
    chosen = make_student(teacher, shape={"layers": 2, "ffn": 16}, rules={"ffn": "magnitude"}).model
    base = tiny_model("bert", "none", seed=3, max_position_embeddings=160)
    copied = make_student(teacher, base=base, shape={"layers": 2}, source="base").model
    reasons = {"no longer those": trained, "another rule": chosen, "a copy of the base": copied}
    for reason, student in reasons.items():
        before = vars(student)[SELECTION]
        with pytest.raises(HeadstartError, match=reason):
            hs.refit(student, teacher, TEXTS, tokens=600, merge=True)
        assert vars(hs.refit(student, teacher, TEXTS, tokens=600))[SELECTION] == before
    whole = hs.refit(student_from(teacher), teacher, TEXTS, tokens=600, merge=True)
    assert vars(whole)[SELECTION].student == vars(whole)[SELECTION].teacher


def test_who_chooses_no_label_is_refitted_without_merging() -> None:
    for kind in ({"labels": ("score",)}, {"problem_type": "multi_label_classification"}):
        model = tiny_model("bert", max_position_embeddings=160, **kind)
        student = hs.refit(student_from(model, layers=2), model, TEXTS, tokenizer=tiny_tokenizer())
        assert vars(student)[SELECTION].attention_of == ()
        cut = student_from(model, layers=2)
        with pytest.raises(HeadstartError, match="chooses no label"):
            hs.refit(cut, model, TEXTS, tokenizer=tiny_tokenizer(), merge=True)


def test_a_frozen_teacher_ranks_like_any_and_stays_frozen() -> None:
    frozen = tiny_model("bert", max_position_embeddings=160).requires_grad_(False)
    free = tiny_model("bert", max_position_embeddings=160)
    with torch.inference_mode():
        made = hs.refit(student_from(frozen, layers=2), frozen, TEXTS, tokenizer=tiny_tokenizer())
    other = hs.refit(student_from(free, layers=2), free, TEXTS, tokenizer=tiny_tokenizer())
    assert vars(made)[SELECTION] == vars(other)[SELECTION]
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in free.parameters())


def test_a_call_that_is_refused_changes_neither_model() -> None:
    teacher = tiny_model("bert", max_position_embeddings=160)
    for kind in (torch.float64, torch.bfloat16):
        student = student_from(teacher, layers=2)
        before, other = (
            weights_fingerprint(student),
            tiny_model("bert", max_position_embeddings=160).to(kind).train(),
        )
        with pytest.raises(HeadstartError, match="one device, in single precision"):
            hs.refit(student, other, TEXTS, tokenizer=tiny_tokenizer())
        assert weights_fingerprint(student) == before
    trained = student_from(teacher, layers=2)
    with torch.no_grad():
        trained.classifier.bias += 1
    with pytest.raises(HeadstartError, match="no longer those"):
        hs.refit(trained, teacher.train(), TEXTS, tokenizer=tiny_tokenizer(), merge=True)
    assert teacher.training


def test_a_student_with_another_head_is_refitted_without_merging(
    teacher: str, student: str, text: Path, tmp_path: Path
) -> None:
    bare = AutoModel.from_pretrained(student)
    save_model(bare, tiny_tokenizer(), tmp_path / "bare", selection=read_selection(student))
    asked = Refit(tokens=600)
    refit_folder(str(tmp_path / "bare"), teacher, tmp_path / "out", text=text, asked=asked)
    with pytest.raises(HeadstartError, match="its head is another"):
        refit_folder(
            str(tmp_path / "bare"), teacher, tmp_path / "x", text=text, asked=asked, merge=True
        )


def test_principal_directions_are_told_on_disk_and_in_memory(
    teacher: str, text: Path, tmp_path: Path
) -> None:
    cut_checkpoint(teacher, tmp_path / "cut", shape={"hidden": 16})
    asked = ask(600, None, "principal")
    refit_folder(str(tmp_path / "cut"), teacher, tmp_path / "out", text=text, asked=asked)
    made = student_from(teacher, hidden=16)
    in_memory = hs.refit(made, teacher, TEXTS, tokens=600, directions="principal")
    on_disk = load_model(tmp_path / "out", task="classification")
    assert weights_fingerprint(in_memory) == weights_fingerprint(on_disk)
    assert read_selection(tmp_path / "out").rules["hidden"] == "principal"
    with pytest.raises(HeadstartError, match="along principal directions already"):
        hs.refit(in_memory, teacher, TEXTS)
    with pytest.raises(HeadstartError, match="kept"):
        ask(600, None, "principle")


def test_a_refitted_student_can_be_refitted_on() -> None:
    model = tiny_model("bert", max_position_embeddings=160)
    once = refit(student_from(model, layers=2), model, TEXTS, tokenizer=tiny_tokenizer())
    assert refit(once, model, TEXTS["aa"], tokenizer=tiny_tokenizer()) is once


def test_a_model_of_unknown_origin_is_refused(teacher: str) -> None:
    with pytest.raises(HeadstartError, match="not known what this model keeps"):
        refit(tiny_model("bert"), teacher, TEXTS)


def test_a_teacher_in_memory_needs_a_tokenizer() -> None:
    model = tiny_model("bert", max_position_embeddings=160)
    with pytest.raises(HeadstartError, match="does not bring its tokenizer"):
        refit(student_from(model, layers=2), model, TEXTS)


def test_another_teacher_is_refused(teacher: str) -> None:
    other = tiny_model("bert", layers=6)
    with pytest.raises(HeadstartError, match=r"shape is '6 layers x 32, .* this one's '4 layers"):
        refit(student_from(other, layers=2), teacher, TEXTS)


@pytest.mark.parametrize("source", ["scratch", "permuted"])
def test_a_student_that_copies_nothing_is_refused(teacher: str, source: str) -> None:
    made = make_student(teacher, shape={"layers": 2}, source=source)
    with pytest.raises(HeadstartError, match=f"no copy: its source is {source}"):
        refit(made.model, teacher, TEXTS)


def test_faults_of_folders_are_told(teacher: str, student: str, text: Path, tmp_path: Path) -> None:
    asked = Refit(tokens=600)
    with pytest.raises(HeadstartError, match=r"no selection\.json"):
        refit_folder(teacher, teacher, tmp_path / "out", text=text, asked=asked)
    with pytest.raises(HeadstartError, match="no folder with files"):
        refit_folder(student, teacher, tmp_path / "out", text=tmp_path / "none", asked=asked)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note").touch()
    with pytest.raises(HeadstartError, match="holds something already"):
        refit_folder(student, teacher, tmp_path / "full", text=text, asked=asked)
    assert not (tmp_path / "out").exists()


def test_models_that_only_look_alike_are_refused(teacher: str) -> None:
    others = {
        "labels": tiny_model("bert", labels=("a", "c", "b"), max_position_embeddings=160),
        "family": tiny_model("roberta", max_position_embeddings=160),
        "pieces": tiny_model("bert", vocab_size=50, max_position_embeddings=160),
    }
    many = tuple(f"l{i}" for i in range(12))
    swapped = (*many[:-2], many[-1], many[-2])
    model = tiny_model("bert", labels=many, max_position_embeddings=160)
    other = tiny_model("bert", labels=swapped, max_position_embeddings=160)
    with pytest.raises(HeadstartError, match="teacher's label 10 is 'l10', this one's 'l11'"):
        refit(student_from(model, layers=2), other, TEXTS, tokenizer=tiny_tokenizer())
    others["head"] = tiny_model("bert", "tagging", max_position_embeddings=160)
    told = {"pieces": "vocabulary", "labels": "label 1"}
    for name, other in others.items():
        student = student_from(teacher, layers=2)
        with pytest.raises(HeadstartError, match=f"its teacher's {told.get(name, name)} is"):
            refit(student, other, TEXTS, tokenizer=tiny_tokenizer())


def test_a_teacher_that_numbers_its_pieces_otherwise_is_refused(
    teacher: str, student: str, text: Path, tmp_path: Path
) -> None:
    shutil.copytree(teacher, tmp_path / "other")
    place = tmp_path / "other" / "tokenizer.json"
    tree = json.loads(place.read_text(encoding="utf-8"))
    vocab = tree["model"]["vocab"]
    vocab[-1], vocab[-2] = vocab[-2], vocab[-1]
    place.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(HeadstartError, match="its pieces are not the teacher's: 2 of"):
        refit_folder(student, str(tmp_path / "other"), tmp_path / "out", text=text, asked=Refit())


def test_a_bases_copy_keeps_its_head_whatever_stands_for_the_base(teacher: str) -> None:
    base = tiny_model("bert", "none", seed=3, max_position_embeddings=160)
    student = make_student(teacher, base=base, shape={"layers": 2}, source="base").model
    head = student.classifier.weight.clone()
    refit(student, teacher, TEXTS)
    assert torch.equal(student.classifier.weight, head)


@pytest.mark.parametrize("numbers", [{"ridge": 0.0}, {"tokens": 0}])
def test_numbers_out_of_range_are_told(teacher: str, numbers: dict[str, Any]) -> None:
    with pytest.raises(HeadstartError, match="greater than"):
        refit(student_from(teacher, layers=2), teacher, TEXTS, **numbers)


def test_a_text_of_a_language_is_not_taken_for_a_list_either(teacher: str) -> None:
    with pytest.raises(HeadstartError, match="one text, where a list is needed"):
        refit(student_from(teacher, layers=2), teacher, {"de": "ein Text"})  # type: ignore[arg-type]


def test_texts_may_come_one_by_one(teacher: str) -> None:
    students = [student_from(teacher, layers=2) for _ in range(2)]
    some = next(iter(TEXTS.values()))
    refit(students[0], teacher, {"en": some}, merge=False)
    refit(students[1], teacher, {"en": iter(some)}, merge=False)  # type: ignore[dict-item]
    for a, b in zip(students[0].parameters(), students[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_text_is_not_taken_for_a_list_of_letters(teacher: str) -> None:
    with pytest.raises(HeadstartError, match="one text, where a list is needed"):
        refit(student_from(teacher, layers=2), teacher, "one text")


@pytest.mark.parametrize("texts", [[], {}, {"aa": []}, [""]])
def test_no_text_is_told(teacher: str, texts: Any) -> None:
    with pytest.raises(HeadstartError, match="0 texts are too few"):
        refit(student_from(teacher, layers=2), teacher, texts)


def test_a_tiny_ridge_on_few_rows_is_solved(teacher: str) -> None:
    some = [f"wake me {i}" for i in range(12)]
    student = refit(student_from(teacher, layers=2), teacher, some, ridge=1e-12)
    assert all(bool(weight.isfinite().all()) for weight in student.parameters())


def test_half_precision_is_refused() -> None:
    model = tiny_model("bert", max_position_embeddings=160)
    student = student_from(model, layers=2)
    with pytest.raises(HeadstartError, match="in single precision"):
        refit(student, model.bfloat16(), TEXTS, tokenizer=tiny_tokenizer())


def test_a_teacher_keeps_its_mode() -> None:
    model = tiny_model("bert", max_position_embeddings=160)
    student = student_from(model, layers=2)
    model.train()
    refit(student, model, TEXTS, tokenizer=tiny_tokenizer())
    assert model.training
    assert not student.training


def test_a_model_of_few_positions_is_refitted_on_short_text() -> None:
    model = tiny_model("bert")
    long = [" ".join(["wake"] * 90)] * 20
    refit(student_from(model, layers=2), model, long, tokenizer=tiny_tokenizer())


def test_a_full_disk_is_told(teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, _: int) -> None: ...

        def close(self) -> None: ...

        def write(self, _: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.sides.TemporaryFile", Full)
    with pytest.raises(HeadstartError, match=r"no room .* No space left") as caught:
        refit(student_from(teacher, layers=2), teacher, TEXTS)
    assert "TMPDIR" in str(caught.value)
