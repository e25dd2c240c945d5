"""General distillation: the student comes closer to the base on text that it did not learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headstart.calibration import Unlabelled
from headstart.checking import apply
from headstart.errors import HeadstartError
from headstart.general import generalize, judging
from headstart.groundwork import pools_of, samples_for
from headstart.prepare import open_accelerator
from headstart.run import run
from headstart.selection import Selection
from headstart.stages import open_teacher
from headstart.stride import Stride
from headstart.student import make_student
from headstart.study import study
from headstart.tokenized import open_text
from world import world

if TYPE_CHECKING:
    from pathlib import Path

    from headstart.recipe import Recipe
    from headstart.train import Progress
    from headstart.walk import Sample

GENERAL = {"tokens": 600, "steps": 30, "learning_rate": 3e-3, "batch_tokens": 128}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    folder = tmp_path_factory.mktemp("general")
    recipe = world(folder / "world", init={"source": "scratch", "general": GENERAL})
    out = folder / "out"
    open_teacher(recipe, out, open_accelerator(None, out))  # trained here: no test counts its steps
    return recipe, out


def sampled(recipe: Recipe, out: Path) -> Sample:
    """Draw what the recipe's general distillation reads."""
    teacher = open_teacher(recipe, out, open_accelerator(None, out))
    text = open_text(recipe.data, recipe.task, teacher.tokenizer)
    pools = pools_of(recipe, text.corpus, Unlabelled({}), Unlabelled({}))
    return samples_for(recipe, pools, teacher.tokenizer)["general"]


def learned(recipe: Recipe, out: Path) -> Progress:
    """Make a student of the recipe, and distil the base into it."""
    accelerator = open_accelerator(None, out)
    teacher = open_teacher(recipe, out, accelerator)
    sample = sampled(recipe, out)
    student = make_student(
        teacher.model,
        base=teacher.base if recipe.init.source == "base" else None,
        shape=recipe.student.model_dump(exclude_none=True),
        source=recipe.init.source,
    )
    return generalize(recipe, teacher, sample, student, accelerator)


@pytest.mark.parametrize("objective", ["relation", "hidden"])
@pytest.mark.parametrize("source", ["scratch", "base"])
def test_the_student_comes_closer_on_held_out_text(
    made: tuple[Recipe, Path], objective: str, source: str
) -> None:
    narrow = {} if source == "scratch" else {"student.hidden": 16}  # else it has nothing to learn
    asked = {"init.general.objective": objective, "init.source": source, **narrow}
    recipe = apply(made[0], asked)
    losses = [point["dev_loss"] for point in learned(recipe, made[1]).curve]
    assert len(losses) == 10
    assert losses[-1] < 0.95 * losses[0]


def test_all_of_it_is_trained_with_dropout(
    made: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judging leaves the model as it was: in training mode for every step."""
    modes: list[bool] = []
    take = Stride.__call__

    def seen(self: Stride, index: Any) -> Any:
        modes.append(self.model.training)
        return take(self, index)

    monkeypatch.setattr(Stride, "__call__", seen)
    learned(made[0], made[1])
    assert modes == [True] * GENERAL["steps"]


def test_a_loss_that_is_no_number_is_not_taken_for_a_copy(made: tuple[Recipe, Path]) -> None:
    wild = apply(made[0], {"init.general.learning_rate": 1e38})
    with pytest.raises(HeadstartError, match="general: the loss is no number"):
        learned(wild, made[1])


def test_without_a_rate_nothing_is_learned(made: tuple[Recipe, Path]) -> None:
    """Planted: a training that does not train is seen by the same measure."""
    still = apply(made[0], {"init.general.learning_rate": 1e-12})
    losses = [point["dev_loss"] for point in learned(still, made[1]).curve]
    assert losses[-1] > 0.999 * losses[0]


@pytest.mark.parametrize(("tokens", "least"), [(1, 0), (40, 20), (10**6, 60)])
def test_as_much_text_judges_as_is_asked_for(
    made: tuple[Recipe, Path], tokens: int, least: int
) -> None:
    sample = sampled(*made)
    rows = np.concatenate(judging(sample, tokens))
    spent = int(sample.encoded.lengths[rows].sum())
    assert set(rows) <= set(np.concatenate(sample.held_out))
    assert least < spent <= tokens or len(rows) == 1
    assert (len(rows) == sum(map(len, sample.held_out))) == (tokens == 10**6)


def test_arms_share_it_and_its_cost_is_counted(made: tuple[Recipe, Path]) -> None:
    arms: dict[str, Any] = {
        "labels": {"train.objective": {"labels": 1.0}},
        "mse": {"train.objective": {"mse": 1.0}},
    }
    recipe = apply(made[0], {"arms": arms, "seeds": [0]})
    records = study(recipe, made[1])
    assert len(list((made[1] / "starts").glob("*/start.json"))) == 1
    costs = [record.costs["general_seconds"] for record in records]
    assert costs[0] == costs[1] > 0
    assert records[0].general_curve == records[1].general_curve
    assert [point["step"] for point in records[0].general_curve] == [*range(3, 31, 3)]
    assert records[0].scores["step0"] == records[1].scores["step0"]


def test_it_decides_the_result(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    plain = apply(made[0], {"init.general": None, "train.max_steps": 0})
    asked = apply(made[0], {"train.max_steps": 0})
    first, second = (
        run(one, tmp_path / str(i), shared=made[1]) for i, one in enumerate((plain, asked))
    )
    assert first.signature != second.signature
    assert first.costs["general_seconds"] == 0


def test_a_student_without_a_base_to_learn_from_is_refused(made: tuple[Recipe, Path]) -> None:
    with pytest.raises(HeadstartError, match="does not name an encoder"):
        apply(made[0], {"teacher.base": None, "teacher.model": "tuned"})


def test_too_little_text_is_named(made: tuple[Recipe, Path], tmp_path: Path) -> None:
    with pytest.raises(HeadstartError) as caught:
        run(apply(made[0], {"init.general.tokens": 3}), tmp_path / "out")
    assert "init.general" in caught.value.where


def test_what_is_trained_of_the_embeddings_tells_starts_apart(made: tuple[Recipe, Path]) -> None:
    grid = {"train.word_embeddings": ["rows", "freeze"]}
    study(apply(made[0], {"grid": grid, "train.max_steps": 0}), made[1] / "grid")
    assert len(list((made[1] / "grid" / "starts").glob("*/start.json"))) == 2


def test_states_are_compared_in_channels_that_are_there(made: tuple[Recipe, Path]) -> None:
    asked = {"refit": {"tokens": 400}, "general": {**GENERAL, "objective": "hidden", "steps": 1}}
    recipe = apply(made[0], {"init": asked, "student.hidden": 8, "train.max_steps": 0})
    run(recipe, made[1] / "kept")
    kept = Selection.from_json((made[1] / "kept" / "student" / "selection.json").read_text())
    assert kept.rules["hidden"] == "uniform"
    turned = apply(recipe, {"init.general.objective": "relation"})
    run(turned, made[1] / "turned")
    kept = Selection.from_json((made[1] / "turned" / "student" / "selection.json").read_text())
    assert kept.rules["hidden"] == "principal"
    with pytest.raises(HeadstartError, match="compares kept channels"):
        apply(recipe, {"init.refit.directions": "principal"})
