"""Steps that are recorded: what is played is what would have been taken, and padding is nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

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
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.stride import Stride
    from headstart.train import Dev, Job, Progress

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
        self.loss.fill_(float(self.step()))


def fit_recorded(
    work: Job,
    monkeypatch: pytest.MonkeyPatch,
    tape: Tape | None,
    model: PreTrainedModel | None = None,
) -> Progress:
    """Train; with a tape as on a CUDA card, whose graphs it stands for."""
    model = model or fresh(work.data.task)
    model.set_attn_implementation("sdpa")
    with monkeypatch.context() as patched:
        if tape is not None:
            patched.setattr(
                stride, "Replay", lambda step, _: Replay(step, torch.device("cpu"), tape)
            )
            patched.setattr(train, "recorded", lambda given: stride.recorded(on_cuda(given)))
        return fit(model, work)


def on_cuda(given: Stride, *, processes: int = 1) -> Stride:
    """Let a stride believe that it runs on a card."""
    card = SimpleNamespace(
        device=SimpleNamespace(type="cuda"), num_processes=processes, process_index=0
    )
    return replace(given, accelerator=Card(given.accelerator, card))  # pyright: ignore


class Card:
    """An accelerator that says it is a card's, and else is what it was."""

    def __init__(self, real: Accelerator, told: SimpleNamespace) -> None:
        self.real, self.told, self.asked = real, told, 0

    @property
    def device(self) -> object:
        """Be a card once, where it is decided whether steps are recorded."""
        self.asked += 1
        return self.told.device if self.asked == 1 else self.real.device

    def __getattr__(self, name: str) -> object:
        found = vars(self.told).get(name)
        return getattr(self.real, name) if found is None else found


def padded_step(given: Stride, index: Ints, spoil: Callable[[Feed], Feed] | None = None) -> object:
    data = given.data
    more = {"pad_id": data.pad_id, "tagging": data.task == "tagging", "longest": data.longest}
    whole = padded(given.feed(index), **more)
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
        whole = padded(feed, pad_id=1, tagging=False, longest=data.longest)
        ids, mask = whole.batch.inputs.values()
        assert ids.shape == mask.shape
        assert count <= ids.shape[0] <= count * 1.25
        assert ids.shape[1] in (replay.GRID, data.longest)  # no longer than a model can read
        assert int(mask.sum(-1).min()) > 0
        assert isinstance(whole.weight, torch.Tensor)
        assert float(whole.weight.sum()) == pytest.approx(1.0)
        assert len(whole.weight) == len(whole.batch.rows) == len(whole.batch.gold)
        shapes.add(tuple(ids.shape))
    assert len(shapes) <= 24


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("task", ["classification", "tagging"])
def test_a_played_training_is_an_ordinary_one(
    accelerator: Accelerator, task: str, kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision rounding alone moves weights that hardly matter, such as a key's bias."""
    data = drawn(task=task)
    teacher = np.random.default_rng(1).normal(size=(len(data.gold), len(LABELS)))
    work = job(data, accelerator, objective={"labels": 1.0, "mse": 1.0}, dropout=0.0, epochs=6)
    work = replace(work, teacher=teacher.astype(np.float32))
    models = [fresh(task).to(kind) for _ in range(2)]  # type: ignore[arg-type]
    plain = fit_recorded(work, monkeypatch, None, models[0])
    played = fit_recorded(work, monkeypatch, tape := Tape(), models[1])
    assert tape.told.count("played") > 2 * tape.told.count("recorded") > 0
    assert played.tokens == plain.tokens
    for one, other in zip(played.curve, plain.curve, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=PLAYED[kind])
    if kind == torch.float64:
        assert far(models) < 1e-9


def far(models: Sequence[PreTrainedModel]) -> float:
    """Give the largest distance of two models' weights."""
    pairs = zip(*(model.parameters() for model in models), strict=True)
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


PLAYED = {torch.float32: 1e-3, torch.float64: 1e-6}  # losses are worked out in single precision


def test_a_stale_place_is_seen(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where places keep what was recorded, the training is another."""
    work = job(drawn(), accelerator, dropout=0.0, epochs=6)
    models = [fresh("classification").double() for _ in range(2)]
    plain = fit_recorded(work, monkeypatch, None, models[0])
    tensors = Feed.tensors
    monkeypatch.setattr(Feed, "tensors", lambda feed: [one.clone() for one in tensors(feed)])
    stale = fit_recorded(work, monkeypatch, Tape(), models[1])
    assert far(models) > 1e-3
    assert stale.curve[-1]["loss"] != pytest.approx(plain.curve[-1]["loss"], rel=1e-3)


def test_an_interrupted_training_goes_on(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Shapes are new to what goes on: its first steps are taken as ever, later ones are played."""
    work = job(drawn(), accelerator, dropout=0.0, max_steps=40, eval_every=10)
    whole = fit_recorded(work, monkeypatch, Tape())
    halves = replace(work, folder=tmp_path, settings=work.settings.model_copy(
        update={"checkpoint_minutes": 1e-9}))  # fmt: skip
    looks = iter(range(10))

    def interrupted(model: PreTrainedModel) -> Dev:
        if next(looks) == 2:
            raise InterruptedError
        return work.evaluate(model)

    with pytest.raises(InterruptedError):
        fit_recorded(replace(halves, evaluate=interrupted), monkeypatch, Tape())
    rest = fit_recorded(halves, monkeypatch, tape := Tape())
    assert "played" in tape.told
    assert [p["loss"] for p in rest.curve] == pytest.approx([p["loss"] for p in whole.curve])


def test_what_cannot_be_recorded_is_taken(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Tape):
        def record(self, step: object) -> tuple[Tape, torch.Tensor]:
            del step
            raise RuntimeError("operation not permitted when stream is capturing\nat line 3")

    replay._tell.cache_clear()
    work = job(drawn(), accelerator, dropout=0.0, epochs=6, precision="fp32")
    plain = fit_recorded(work, monkeypatch, None)
    fit_recorded(work, monkeypatch, Broken())
    played = fit_recorded(work, monkeypatch, Broken())
    assert played.curve[-1]["loss"] == pytest.approx(plain.curve[-1]["loss"], rel=1e-3)
    told = " ".join(capsys.readouterr().err.split())
    assert (
        told.count("not recorded as CUDA graphs: operation not permitted when stream is capturing")
        == 1
    )
    assert "line 3" not in told


def test_when_steps_are_recorded(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stride, "Replay", lambda *_: None)

    def recorded(tokens: int = 64, attention: str = "sdpa", **more: Any) -> bool:
        model = fresh()
        model.set_attn_implementation(attention)
        work = job(drawn(), accelerator, batch_tokens=tokens)
        given = replace(train.stride_of(work, model, optimizer_for(model, Train())), **more)
        assert stride.recorded(given) is given  # on a processor
        card = on_cuda(given, processes=processes)
        return stride.recorded(card) is not card

    processes = 1
    assert recorded()
    assert recorded(replay.LARGEST)
    assert not recorded(replay.LARGEST + 1)
    assert not recorded(attention="eager")
    assert not recorded(bound=object())
    processes = 2
    assert not recorded()


def test_a_rate_is_set_in_its_place(accelerator: Accelerator) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    plain = torch.optim.AdamW([weight])
    set_rate(plain, 0.5)
    assert plain.param_groups[0]["lr"] == 0.5
    placed = torch.optim.AdamW([weight], lr=torch.tensor(0.0), fused=True)
    running = accelerator.prepare(placed)  # which puts another tensor there
    place = placed.param_groups[0]["lr"]
    set_rate(placed, 0.5)
    assert running.param_groups[0]["lr"] is place
    assert float(place) == 0.5
