"""Steps that are recorded: what is played is what would have been taken, and padding is nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from headstart import replay, stride, train
from headstart.encode import collate
from headstart.prepare import open_accelerator, optimizer_for, set_rate
from headstart.replay import Feed, Replay, padded
from headstart.settings import Train
from headstart.train import fit
from test_train import LABELS, drawn, fresh, job, law_a_step_is_the_mean_over_units
from tiny import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from accelerate import Accelerator
    from numpy.typing import NDArray

    from headstart.stride import Stride
    from headstart.train import Job, Progress

    Ints = NDArray[np.int64]


@pytest.fixture
def accelerator() -> Accelerator:
    return open_accelerator()


class Tape:
    """Records a step on a processor: it is taken when it is played, as a graph's kernels are."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def take(self, step: Callable[[], torch.Tensor]) -> torch.Tensor:
        self.told.append("taken")
        return step()

    def record(self, step: Callable[[], torch.Tensor]) -> tuple[Tape, torch.Tensor]:
        self.told.append("recorded")
        self.step, self.loss = step, torch.zeros(())
        tape = Tape()
        tape.told, tape.step, tape.loss = self.told, step, self.loss
        return tape, self.loss

    def replay(self) -> None:
        self.told.append("played")
        self.loss.copy_(self.step())


def playing(tape: Tape) -> Callable[[Stride], Callable[[Ints], torch.Tensor]]:
    """Record a stride's steps, as on CUDA."""

    def recorded(given: Stride) -> Callable[[Ints], torch.Tensor]:
        player = Replay(given.take, torch.device("cpu"), tape)
        more = {"pad_id": given.data.pad_id, "tagging": given.data.task == "tagging"}
        return lambda index: player(padded(given.feed(index), **more))

    return recorded


def padded_step(given: Stride, index: Ints, spoil: Callable[[Feed], Feed] | None = None) -> object:
    feed = given.feed(index)
    whole = padded(feed, pad_id=given.data.pad_id, tagging=given.data.task == "tagging")
    return given.take(spoil(whole) if spoil else whole)


@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("family", VARIANTS)
def test_padding_to_a_shape_changes_no_step(
    accelerator: Accelerator, family: str, task: str
) -> None:
    law_a_step_is_the_mean_over_units(accelerator, family, task, step=padded_step)


def counted(feed: Feed) -> Feed:
    return replace(feed, weight=1 / 12)


def moved(feed: Feed) -> Feed:
    return replace(feed, batch=replace(feed.batch, rows=feed.batch.rows.roll(1)))


def unmasked(feed: Feed) -> Feed:
    feed.batch.inputs["attention_mask"].fill_(1)
    return feed


@pytest.mark.parametrize("mistake", [counted, moved, unmasked])
def test_the_law_of_padding_has_teeth(
    accelerator: Accelerator, mistake: Callable[[Feed], Feed]
) -> None:
    with pytest.raises(AssertionError):
        law_a_step_is_the_mean_over_units(accelerator, step=partial(padded_step, spoil=mistake))


def test_shapes_are_few_and_no_row_is_empty() -> None:
    shapes: set[tuple[int, ...]] = set()
    data = drawn(400)
    for count in range(1, 100):
        feed = Feed(collate(data, np.arange(count)), None, 1.0 / count)
        whole = padded(feed, pad_id=1, tagging=False)
        ids, mask = whole.batch.inputs.values()
        assert ids.shape == mask.shape
        assert ids.shape[0] >= count
        assert ids.shape[1] % replay.GRID == 0
        assert int(mask.sum(-1).min()) > 0
        assert isinstance(whole.weight, torch.Tensor)
        assert float(whole.weight.sum()) == pytest.approx(1.0)
        assert len(whole.weight) == len(whole.batch.rows) == len(whole.batch.gold)
        shapes.add(tuple(ids.shape))
    assert len(shapes) <= 16
    assert {rows for rows, _ in shapes} <= {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128}


def trained(work: Job, monkeypatch: pytest.MonkeyPatch, tape: Tape | None) -> Progress:
    with monkeypatch.context() as patched:
        if tape is not None:
            patched.setattr(train, "recorded", playing(tape))
        return fit(fresh(work.data.task), work)


@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_played_training_is_an_ordinary_one(
    accelerator: Accelerator, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = drawn(task=task)
    teacher = np.random.default_rng(1).normal(size=(len(data.gold), len(LABELS)))
    work = job(data, accelerator, objective={"labels": 1.0, "mse": 1.0}, dropout=0.0, epochs=6)
    work = replace(work, teacher=teacher.astype(np.float32))
    plain = trained(work, monkeypatch, None)
    played = trained(work, monkeypatch, tape := Tape())
    assert tape.told.count("played") > 2 * tape.told.count("recorded") > 0
    assert played.tokens == plain.tokens
    for one, other in zip(played.curve, plain.curve, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_a_stale_place_is_seen(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where places keep what was recorded, the training is another."""
    work = job(drawn(), accelerator, dropout=0.0, epochs=6)
    plain = trained(work, monkeypatch, None)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda place, *_, **__: place)  # pyright: ignore
    stale = trained(work, monkeypatch, Tape())
    assert stale.curve[-1]["loss"] != pytest.approx(plain.curve[-1]["loss"], rel=1e-3)


def test_what_cannot_be_recorded_is_taken(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Tape):
        def record(self, step: object) -> tuple[Tape, torch.Tensor]:
            del step
            raise RuntimeError("operation not permitted when stream is capturing\nat line 3")

    replay._tell.cache_clear()
    work = job(drawn(), accelerator, dropout=0.0, epochs=6)
    plain = trained(work, monkeypatch, None)
    trained(work, monkeypatch, Broken())
    played = trained(work, monkeypatch, Broken())
    assert played.curve[-1]["loss"] == pytest.approx(plain.curve[-1]["loss"], rel=1e-3)
    told = " ".join(capsys.readouterr().err.split())
    assert (
        told.count("not recorded as CUDA graphs: operation not permitted when stream is capturing")
        == 1
    )
    assert "line 3" not in told


def test_steps_are_recorded_on_cuda_alone(accelerator: Accelerator) -> None:
    model = fresh()
    given = train.stride_of(job(drawn(), accelerator), model, optimizer_for(model, Train()))
    assert stride.recorded(given) is given


def test_a_rate_is_set_in_its_place() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    plain = torch.optim.AdamW([weight])
    set_rate(plain, 0.5)
    assert plain.param_groups[0]["lr"] == 0.5
    placed = torch.optim.AdamW([weight], lr=torch.tensor(0.0), fused=True)
    place = placed.param_groups[0]["lr"]
    set_rate(placed, 0.5)
    assert placed.param_groups[0]["lr"] is place
    assert float(place) == 0.5
