"""The loop: resumed equals uninterrupted, rows equal the whole table, batches do not matter."""

from __future__ import annotations

import copy
import gc
import json
import math
import signal
import traceback
import weakref
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import Tensor, nn

from headstart import state, stride, train
from headstart.encode import Encoded, collate, pack, unit_logits
from headstart.errors import HeadstartError
from headstart.evaluate import cross_entropy, predict
from headstart.families import FAMILIES
from headstart.objectives import weighted
from headstart.prepare import RowEmbedding, open_accelerator, optimizer_for, rate_at, trainable
from headstart.settings import Train
from headstart.stride import Stride
from headstart.train import Dev, Job, Progress, fit, total_steps
from headstart.tune import choose_rate, learn
from tiny import VARIANTS, tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.encode import Batch

LABELS = ("no", "yes", "maybe")
EXAMPLES = 60


def drawn(examples: int = EXAMPLES, *, task: str = "classification", seed: int = 0) -> Encoded:
    """Random pieces; the label is the first piece modulo three, so that it can be learned."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 12, examples)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ids = rng.integers(5, 40, starts[-1]).astype(np.int32)
    if task == "tagging":
        units, positions, owners = starts, _within(starts), ids
    else:
        units = np.arange(examples + 1)
        positions, owners = np.zeros(examples, np.int64), ids[starts[:-1]]
    gold = owners.astype(np.int64) % len(LABELS)
    return Encoded(
        task=task,
        pad_id=1,
        ids=ids,
        starts=starts,
        positions=positions,
        unit_starts=units,
        gold=gold,
        unit_words=np.arange(len(gold)),
        words=gold,
        word_starts=units,
        language_ids=np.arange(examples) % 2,
        languages=("xx", "yy"),
    )


def _within(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    sizes = np.diff(starts)
    return np.arange(starts[-1]) - np.repeat(starts[:-1], sizes)


def job(data: Encoded, accelerator: Accelerator, **settings: object) -> Job:
    chosen = Train.model_validate(
        {"objective": {"labels": 1.0}, "epochs": 3, "batch_tokens": 64, "word_embeddings": "train"}
        | settings
    )

    def order(epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((3, epoch)).permutation(len(data))

    def judge(model: PreTrainedModel) -> Dev:
        logits = predict(model, data, accelerator)
        return Dev(float((logits.argmax(-1) == data.gold).mean()), cross_entropy(data, logits))

    return Job(
        data=data,
        settings=chosen,
        order=order,
        evaluate=judge,
        accelerator=accelerator,
        learning_rate=3e-3,
        seed=5,
    )


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True)


def fresh(task: str = "classification", family: str = "bert") -> PreTrainedModel:
    torch.manual_seed(0)
    return tiny_model(family, task, layers=2, labels=LABELS)


def same(left: PreTrainedModel, right: PreTrainedModel) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_it_learns(accelerator: Accelerator) -> None:
    done = fit(fresh(), job(drawn(), accelerator, epochs=40))
    assert done.best_score > 0.75  # a third by chance
    assert [point["step"] for point in done.curve] == sorted({p["step"] for p in done.curve})


def test_the_best_weights_are_kept(accelerator: Accelerator) -> None:
    model, data = fresh(), drawn()
    task = job(data, accelerator, epochs=8)
    done = fit(model, task)
    assert task.evaluate(model) == (done.best_score, pytest.approx(done.best_loss))
    assert done.best_score == max(point["dev"] for point in done.curve)


class DeathError(Exception):
    """Stands for a process that dies."""


def _stop_at(task: Job, step: int) -> Job:
    """A job whose dev judge dies once the step is reached."""

    def judge(model: PreTrainedModel) -> Dev:
        calls.append(1)
        if len(calls) == step:
            raise DeathError
        return task.evaluate(model)

    calls: list[int] = []
    return replace(task, evaluate=judge)


def law_resumes(
    folder: Path, accelerator: Accelerator, family: str = "bert", head: str = "classification"
) -> None:
    """A training that died and went on ends with the bytes of one that did not."""
    task = job(drawn(task=head), accelerator, epochs=6, checkpoint_minutes=1e-9)
    whole, broken = fresh(head, family), fresh(head, family)
    expected = fit(whole, task)
    task = replace(task, folder=folder)
    with pytest.raises(DeathError):
        fit(broken, _stop_at(task, 3))
    again = fresh(head, family)
    done = fit(again, task)
    assert same(whole, again)
    assert [p["dev"] for p in done.curve] == [p["dev"] for p in expected.curve]
    assert [p["loss"] for p in done.curve] == [p["loss"] for p in expected.curve]


@pytest.mark.parametrize("head", ["classification", "tagging"])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_equals_uninterrupted(
    tmp_path: Path, accelerator: Accelerator, family: str, head: str
) -> None:
    law_resumes(tmp_path, accelerator, family, head)


@pytest.mark.parametrize("forgotten", ["exp_avg", "now", "random"])
def test_resuming_has_teeth(
    tmp_path: Path,
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    forgotten: str,
) -> None:
    """A state that loses the moments, the weights, or the random numbers is found out."""
    save = state.save_file

    def lossy(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        for name in tensors:
            if name.split(".")[0] == forgotten:
                tensors[name] = torch.zeros_like(tensors[name])
                if forgotten == "random":
                    tensors[name] = torch.Generator().manual_seed(99).get_state()
        save(tensors, path, metadata=metadata)

    monkeypatch.setattr(state, "save_file", lossy)
    with pytest.raises(AssertionError):
        law_resumes(tmp_path, accelerator)


def test_a_damaged_state_is_refused(tmp_path: Path, accelerator: Accelerator) -> None:
    (tmp_path / "state-0.safetensors").write_bytes(b"half a file")
    with pytest.raises(HeadstartError, match="interrupted training cannot be read"):
        fit(fresh(), replace(job(drawn(), accelerator), folder=tmp_path))


def test_a_state_that_finds_no_room_is_told(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_tensors: object, file: Path, **_: object) -> None:
        file.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("headstart.state.save_file", full)
    task = replace(job(drawn(), accelerator, checkpoint_minutes=1e-9), folder=tmp_path)
    with pytest.raises(HeadstartError, match="cannot be written: I/O error: No space"):
        fit(fresh(), task)
    assert not list(tmp_path.iterdir())


def test_a_state_of_other_parameters_is_refused(tmp_path: Path, accelerator: Accelerator) -> None:
    task = replace(job(drawn(), accelerator, checkpoint_minutes=1e-9), folder=tmp_path)
    fit(fresh(), task)
    with pytest.raises(HeadstartError, match="training of other parameters"):
        fit(tiny_model("bert", "classification", layers=3, labels=LABELS), task)


FETCHES = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__")


def law_a_step_fetches_nothing(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, step: Callable[..., torch.Tensor]
) -> None:
    """What would wait for an accelerator is not called in a step, but by transformers itself."""
    called: list[str] = []

    def fetching(name: str) -> Callable[..., object]:
        plain = getattr(torch.Tensor, name)

        def fetch(tensor: torch.Tensor, *args: object, **more: object) -> object:
            frames = {frame.filename for frame in traceback.extract_stack()}
            if not any("transformers" in file or "torch/optim" in file for file in frames):
                called.append(name)
            return plain(tensor, *args, **more)

        return fetch

    work = job(drawn(), accelerator, max_steps=3, eval_every=3)
    with trainable(model := fresh(), work.settings, torch.arange(10)):
        optimizer = optimizer_for(model, work.settings)
        with monkeypatch.context() as patched:
            for name in FETCHES:
                patched.setattr(torch.Tensor, name, fetching(name))
            step(train.stride_of(work, model, optimizer), np.arange(12))
    assert called == []


def test_a_step_fetches_nothing(accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    law_a_step_fetches_nothing(accelerator, monkeypatch, Stride.__call__)

    def waits(stride: Stride, index: NDArray[np.int64]) -> torch.Tensor:
        loss = stride(index)
        return loss * (float(loss) > 0)

    with pytest.raises(AssertionError):
        law_a_step_fetches_nothing(accelerator, monkeypatch, waits)


def test_losses_are_fetched_at_looks_at_dev_alone(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    gather, counts = train._gather, list[int]()

    def counted(progress: train.Progress, losses: list[torch.Tensor]) -> None:
        counts.append(len(losses))
        gather(progress, losses)

    monkeypatch.setattr(train, "_gather", counted)
    done = fit(fresh(), job(drawn(), accelerator, max_steps=11, eval_every=4))
    assert counts == [4, 4, 3]
    assert [point["step"] for point in done.curve] == [4, 8, 11]
    assert done.loss_sum == 0.0


def test_a_frozen_table_stays_and_its_rows_do_not(accelerator: Accelerator) -> None:
    models: dict[str, PreTrainedModel] = {}
    for mode in ("rows", "freeze"):
        models[mode] = fresh()
        fit(models[mode], job(drawn(), accelerator, word_embeddings=mode))
    table = {mode: model.get_input_embeddings().weight for mode, model in models.items()}
    assert torch.equal(table["freeze"], fresh().get_input_embeddings().weight)
    assert not torch.allclose(table["rows"], table["freeze"])
    assert list(models["rows"].state_dict()) == list(fresh().state_dict())


def test_a_row_embedding_reads_as_the_whole_one() -> None:
    full = nn.Embedding(20, 4, padding_idx=1)
    before = full.weight.detach().clone()
    rows = RowEmbedding(full, torch.tensor([1, 3, 7]))
    with torch.no_grad():
        rows.rows[1] += 1.0
    rows.eval()
    expected = before.clone()
    expected[3] += 1.0
    torch.testing.assert_close(rows(torch.arange(20)), expected)
    torch.testing.assert_close(rows.fold_back().weight, expected)
    assert rows.pad == 0


def ordinary(stride: Stride, index: NDArray[np.int64]) -> torch.Tensor:
    return stride(index)


def law_a_step_is_the_mean_over_units(
    accelerator: Accelerator,
    family: str = "bert",
    task: str = "tagging",
    step: Callable[[Stride, NDArray[np.int64]], torch.Tensor] = ordinary,
) -> None:
    """A step on a padded batch moves weights as its examples do, one by one, without padding."""
    data = drawn(12, task=task)
    work = job(data, accelerator, objective={"labels": 1.0, "mse": 1.0}, clip=1e9)
    teacher = np.random.default_rng(1).normal(size=(len(data.gold), len(LABELS)))
    model = fresh(task, family).double()
    for i in range(12):
        one = collate(data, np.array([i]))
        logits = unit_logits(model(**one.inputs).logits, one)
        losses = weighted(
            work.settings.objective, logits, torch.from_numpy(teacher[one.units]), one.gold
        )
        (losses.sum() / len(data.gold)).backward()
    before = [p.detach().clone() for p in model.parameters()]
    slopes = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    work = replace(work, teacher=teacher)
    step(train.stride_of(work, model, sgd), np.arange(12))
    moved = [old - p.detach() for old, p in zip(before, model.parameters(), strict=True)]
    torch.testing.assert_close(moved, slopes, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", ["classification", "tagging"])
@pytest.mark.parametrize("family", VARIANTS)
def test_a_step_ignores_padding_and_batch_split(
    accelerator: Accelerator, family: str, task: str
) -> None:
    law_a_step_is_the_mean_over_units(accelerator, family, task)


@pytest.mark.parametrize("mistake", ["padding is read", "mean of means", "shifted teacher"])
def test_the_law_of_steps_has_teeth(
    accelerator: Accelerator, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmasked(data: Encoded, index: NDArray[np.int64], **more: torch.device) -> Batch:
        batch = collate(data, index, **more)
        batch.inputs["attention_mask"].fill_(1)
        return batch

    def averaged(*parts: Any) -> Tensor:
        losses = weighted(*parts)
        return losses.mean().expand(12)  # as if the batch's units were its examples

    def shifted(terms: Any, logits: Tensor, teacher: Tensor, gold: Tensor) -> Tensor:
        return weighted(terms, logits, teacher.roll(1, 0), gold)

    planted = {
        "padding is read": ("collate", unmasked),
        "mean of means": ("weighted", averaged),
        "shifted teacher": ("weighted", shifted),
    }
    monkeypatch.setattr(stride, *planted[mistake])
    with pytest.raises(AssertionError):
        law_a_step_is_the_mean_over_units(accelerator)


def test_dropout_is_set_and_put_back() -> None:
    model = fresh()
    before = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    with trainable(model, Train(dropout=0.0), torch.arange(40)):
        assert all(m.p == 0.0 for m in model.modules() if isinstance(m, nn.Dropout))
        assert model.training
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == before
    assert any(before)
    assert not model.training


def test_decay_spares_tables_norms_and_biases() -> None:
    model = fresh()
    decayed = {id(p) for p in optimizer_for(model, Train()).param_groups[0]["params"]}
    names = {n for n, p in model.named_parameters() if id(p) in decayed}
    assert all(n.endswith("weight") and "LayerNorm" not in n for n in names)
    assert not any("embeddings" in n for n in names)
    assert any("query" in n for n in names)


def test_the_rate_rises_and_falls_in_lines() -> None:
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == pytest.approx(1.0)
    assert max(rates) == 1.0
    assert rates[99] == pytest.approx(1 / 90)
    assert min(rates) > 0


def test_patience_ends_training_early(accelerator: Accelerator) -> None:
    task = job(drawn(), accelerator, epochs=200, patience=2, eval_every=2)
    frozen = replace(task, evaluate=lambda _: Dev(0.5, 1.0))
    assert fit(fresh(), frozen).step == 6  # the first evaluation is the best one
    assert fit(fresh(), replace(frozen, start=Dev(0.9, 0.1))).step == 6  # a start is none


def test_untrained_weights_are_kept_where_no_later_ones_are_better(
    accelerator: Accelerator,
) -> None:
    scores = iter([0.4, 0.6, 0.5, 0.4, 0.6, 0.5])
    task = job(drawn(), accelerator, max_steps=6, eval_every=2)
    falling = replace(task, evaluate=lambda _: Dev(next(scores), 1.0))
    first = fresh()
    for start, best_step in ((Dev(0.7, 1.0), 0), (Dev(0.55, 1.0), 4)):
        model = fresh()
        progress = fit(model, replace(falling, start=start))
        assert progress.best_step == best_step
        assert same(model, first) == (best_step == 0)
        assert len(progress.curve) == 3


def test_max_steps_is_the_ceiling(accelerator: Accelerator) -> None:
    assert total_steps(job(drawn(), accelerator, epochs=50, max_steps=7)) == 7


def test_other_seeds_draw_otherwise(accelerator: Accelerator) -> None:
    task = job(drawn(), accelerator)
    first, second, other = fresh(), fresh(), fresh()
    fit(first, task)
    fit(second, task)
    fit(other, replace(task, seed=6))
    assert same(first, second)
    assert not same(first, other)


def test_batches_keep_to_the_budget_and_lose_nothing() -> None:
    lengths = np.random.default_rng(0).integers(1, 60, 500)
    order = np.random.default_rng(1).permutation(500)
    batches = pack(lengths, order, tokens=200)
    assert sorted(np.concatenate(batches).tolist()) == list(range(500))
    assert max(len(b) * int(lengths[b].max()) for b in batches) <= 200


@pytest.mark.parametrize("name", ["mse", "kl", "hidden", "relation"])
def test_an_objective_without_its_teacher_is_refused(accelerator: Accelerator, name: str) -> None:
    with pytest.raises(HeadstartError, match=f"{name} needs a teacher"):
        fit(tiny_model("bert"), job(drawn(), accelerator, objective={name: 1.0}))


AUTO = {"learning_rate": "auto"}


def _rigged(
    scores: dict[float, float], steps_needed: int
) -> Callable[[PreTrainedModel, Job], Progress]:
    """A training whose dev score is known; below the steps needed it is 0.5 for all."""

    def fake(model: PreTrainedModel, task: Job) -> Progress:
        del model
        enough = total_steps(task) >= steps_needed
        score = scores[task.learning_rate] if enough else 0.54  # four points above the floor
        return Progress(best_score=score, best_loss=1.0, seconds=1.0)

    return fake


def test_the_best_rate_on_dev_is_chosen(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.tune.fit", _rigged({1e-4: 0.6, 1e-3: 0.8, 1e-2: 0.7}, 1))
    task = job(drawn(), accelerator, max_steps=100, **AUTO, learning_rates=[1e-4, 1e-3, 1e-2])
    trials = choose_rate(fresh(), task, floor=0.5)
    assert [t.learning_rate for t in trials] == [1e-3, 1e-2, 1e-4]
    assert trials[0].steps == 20


LADDERS: Mapping[str, tuple[dict[float, float], list[float]]] = {
    "inside": ({1e-4: 0.6, 3e-4: 0.8, 1e-3: 0.7}, [3e-4, 1e-3, 1e-4]),
    "below": (
        {1e-4: 0.8, 3e-4: 0.7, 1e-3: 0.6, 3e-5: 0.9, 1e-5: 0.5}, [3e-5, 1e-4, 3e-4, 1e-3, 1e-5]
    ),
    "above": ({1e-4: 0.6, 3e-4: 0.7, 1e-3: 0.8, 3e-3: 0.75}, [1e-3, 3e-3, 3e-4, 1e-4]),
    "to the end": (
        {1e-4: 0.6, 3e-4: 0.7, 1e-3: 0.8, 3e-3: 0.85, 1e-2: 0.9}, [1e-2, 3e-3, 1e-3, 3e-4, 1e-4]
    ),
}  # fmt: skip


def test_auto_does_not_climb_while_nothing_is_learned(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = {3e-5: 0.5, 1e-4: 0.5, 3e-4: 0.5, 1e-3: 0.505, 1e-5: 0.5}
    monkeypatch.setattr("headstart.tune.fit", _rigged(flat, 1))
    trials = choose_rate(fresh(), job(drawn(), accelerator, max_steps=100, **AUTO), floor=0.5)
    assert max(t.learning_rate for t in trials) == 1e-3


@pytest.mark.parametrize("ladder", LADDERS)
def test_auto_goes_on_beyond_an_edge_that_is_best(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, ladder: str
) -> None:
    scores, expected = LADDERS[ladder]
    monkeypatch.setattr("headstart.tune.fit", _rigged(scores, 1))
    trials = choose_rate(fresh(), job(drawn(), accelerator, max_steps=100, **AUTO), floor=0.5)
    assert [t.learning_rate for t in trials] == expected


def test_a_loss_that_is_no_number_is_the_worst(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = {3e-5: 3.7, 1e-5: 3.7, 1e-4: 3.66, 3e-4: math.nan, 1e-3: 3.61}

    def fake(model: PreTrainedModel, task: Job) -> Progress:
        del model
        return Progress(best_score=0.5, best_loss=losses[task.learning_rate])

    monkeypatch.setattr("headstart.tune.fit", fake)
    trials = choose_rate(fresh(), job(drawn(), accelerator, max_steps=100, **AUTO), floor=0.5)
    assert [t.learning_rate for t in trials[:1] + trials[-1:]] == [1e-3, 3e-4]


def test_near_the_floor_the_loss_chooses(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handful of examples above the majority class is chance; the loss is not."""
    losses = {3e-5: 3.64, 1e-4: 3.61, 3e-4: 3.66, 1e-3: 3.65, 1e-5: 3.7}
    for score, chosen in ((0.512, 1e-4), (0.56, 3e-5)):

        def fake(_model: object, task: Job, score: float = score) -> Progress:
            rate = task.learning_rate
            best = score if rate == 3e-5 else 0.511
            return Progress(best_score=best, best_loss=losses[rate], seconds=1.0)

        monkeypatch.setattr("headstart.tune.fit", fake)
        task = job(drawn(), accelerator, max_steps=100, **AUTO, learning_rates=[*losses])
        assert choose_rate(fresh(), task, floor=0.5)[0].learning_rate == chosen


def test_trials_grow_until_they_say_something(
    accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.tune.fit", _rigged({1e-4: 0.6, 1e-3: 0.8}, 80))
    task = job(drawn(), accelerator, max_steps=100, **AUTO, learning_rates=[1e-4, 1e-3])
    trials = choose_rate(fresh(), task, floor=0.5)
    assert trials[0].learning_rate == 1e-3
    assert [t.steps for t in trials] == [80, 80, 20, 20, 40, 40]  # all of them cost time


class Falls:
    """A training that gets to 0.8 in a trial; whole, at too high a rate, it stays at the floor."""

    def __init__(self, *, high: float) -> None:
        self.high = high
        self.whole: list[tuple[float, bool]] = []  # rates, and whether from the first weights
        self.first = fresh()

    def fit(self, model: PreTrainedModel, task: Job) -> Progress:
        whole = not task.label.startswith("trying")
        if whole:
            self.whole.append((task.learning_rate, same(model, self.first)))
            if task.folder is not None:
                assert not (task.folder / "state-0.safetensors").exists()
                (task.folder / "state-0.safetensors").write_text("where it stood")
            with torch.no_grad():
                next(model.parameters()).add_(1)
        fell = whole and task.learning_rate >= self.high
        score = 0.5 if fell else 0.7 + task.learning_rate
        return Progress(step=100 if whole else 20, best_score=score, best_loss=1.0, seconds=1.0)


@pytest.mark.parametrize(
    ("high", "rates"),
    [(1.0, [1e-2]), (1e-2, [1e-2, 1e-3]), (1e-3, [1e-2, 1e-3, 1e-4]), (0, [1e-2, 1e-3, 1e-4])],
)
def test_a_whole_training_that_falls_below_its_trial_starts_again_lower(
    accelerator: Accelerator,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    high: float,
    rates: list[float],
) -> None:
    falls = Falls(high=high)
    monkeypatch.setattr("headstart.tune.fit", falls.fit)
    settings = {**AUTO, "learning_rates": [1e-3, 1e-2, 1e-4]}
    task = replace(job(drawn(), accelerator, max_steps=100, **settings), folder=tmp_path)
    progress, trials = learn(fresh(), task, floor=0.5)
    assert falls.whole == [(rate, True) for rate in rates]
    assert trials[0].learning_rate == rates[-1]
    assert len(trials) == 3 + len(rates) - 1
    assert [t.learning_rate for t in trials if t.steps == progress.step] == rates[:-1]
    kept = json.loads((tmp_path / "trials.json").read_text())
    assert kept == [asdict(trial) for trial in trials]
    # interrupted in its last training, a run goes on with that
    (tmp_path / "state-0.safetensors").unlink()
    falls.whole.clear()
    assert learn(fresh(), task, floor=0.5)[1] == trials
    assert falls.whole == [(rates[-1], True)]


def test_trials_leave_the_model_as_it_is(accelerator: Accelerator) -> None:
    model = fresh()
    before = copy.deepcopy(model)
    task = job(drawn(), accelerator, max_steps=5, **AUTO, learning_rates=[1e-3, 1e-2])
    choose_rate(model, task, floor=0.0)
    assert same(model, before)


def test_steps_follow_from_the_seed_alone(accelerator: Accelerator) -> None:
    task = job(drawn(), accelerator)
    first, again = train.batches_of(task, 0), train.batches_of(task, 0)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [len(b) for b in first] != [len(b) for b in train.batches_of(task, 1)]


@pytest.mark.parametrize(
    ("objective", "dropout", "rate"),
    [
        ({"mse": 1.0}, "auto", 0.0),
        ({"kl": 0.5, "labels": 0.0}, "auto", 0.0),  # what has no weight is not learned from
        ({"relation": 1.0}, "auto", 0.0),
        ({"labels": 1.0}, "auto", None),
        ({"labels": 0.5, "mse": 0.5}, "auto", None),
        ({"mse": 1.0}, "kept", None),
        ({"mse": 1.0}, None, None),  # as recipes before had it written out
        ({"labels": 1.0}, 0.0, 0.0),
        ({"mse": 1.0}, 0.3, 0.3),
    ],
)
def test_a_teacher_alone_is_learned_from_without_dropout(
    objective: dict[str, float], dropout: float | str | None, rate: float | None
) -> None:
    model = fresh()
    before = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    settings = Train.model_validate({"objective": objective, "dropout": dropout})
    with trainable(model, settings, torch.arange(40)):
        rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
        assert rates == (before if rate is None else [rate] * len(before))
    assert 0.0 not in before


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("bert", {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}),
        ("deberta-v2", {"pooler_dropout": 0}),
        ("modernbert", {"attention_dropout": 0.0}),
        ("distilbert", {}),
        ("electra", {}),
    ],
)
def test_dropout_reaches_every_place_of_every_family(
    family: str, settings: dict[str, float]
) -> None:
    """Rates stored as integers, and places that a rate of 0 has closed, are set like all others."""
    model = tiny_model(family, "classification", **settings)
    layers = str(model)
    with trainable(model, Train(dropout=0.3), torch.arange(40)):
        rates = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
        assert rates
        assert set(rates) == {0.3}
        names = [n for n, m in model.named_modules() if isinstance(m, nn.Identity) and "drop" in n]
        assert not names
    assert str(model) == layers


def test_a_training_of_other_processes_is_not_resumed(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(job(drawn(), accelerator, checkpoint_minutes=1e-9), folder=tmp_path)
    model = fresh()
    fit(model, task)
    monkeypatch.setattr(train, "Progress", lambda **kept: Progress(**kept | {"processes": 2}))
    with pytest.raises(HeadstartError, match="shared by other processes"):
        fit(model, task)


def test_the_precision_is_kept_when_resuming(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(job(drawn(), accelerator, checkpoint_minutes=1e-9), folder=tmp_path)
    assert fit(fresh(), task).precision in ("fp32", "bf16")
    monkeypatch.setattr(train, "choose_precision", lambda *_: "other")
    assert fit(fresh(), task).precision != "other"


def test_trained_models_are_let_go(accelerator: Accelerator) -> None:
    model = fresh()
    fit(model, job(drawn(), accelerator, max_steps=2))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_tracker_that_is_not_there_is_refused() -> None:
    with pytest.raises(HeadstartError, match=r"unknown tracker 'tensorbord'(.|\n)*tensorboard"):
        open_accelerator("tensorbord")
    with pytest.raises(HeadstartError, match=r"not installed(.|\n)*pip install aim"):
        open_accelerator("aim")


@pytest.mark.parametrize("step", [1, 3, 7])
def test_ctrl_c_keeps_what_was_learned(
    tmp_path: Path, accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """The state is that of the last whole step, wherever in it the key was pressed."""
    task = replace(job(drawn(), accelerator), folder=tmp_path)
    whole = fresh()
    fit(whole, replace(task, folder=None))
    taken: list[int] = []
    go = Stride.__call__

    def press(stride: Stride, index: NDArray[np.int64]) -> Tensor:
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(signal.SIGINT)
        return go(stride, index)

    with monkeypatch.context() as patched:
        patched.setattr(Stride, "__call__", press)
        with pytest.raises(KeyboardInterrupt):
            fit(fresh(), task)
    assert len(taken) == step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = fresh()
    progress = fit(resumed, task)
    assert same(whole, resumed)
    assert progress.step == total_steps(task) > step


def test_a_second_ctrl_c_does_not_wait() -> None:
    with state.between_steps() as pressed:
        signal.raise_signal(signal.SIGINT)
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
