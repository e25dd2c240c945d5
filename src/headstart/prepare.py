"""What of a model is trained, in which precision, and how fast: set before the loop starts."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from headstart.errors import HeadstartError, nearest

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from accelerate import Accelerator
    from transformers import PreTrainedModel

    from headstart.settings import Train


class RowEmbedding(nn.Module):
    """A word embedding of which only some rows are trained.

    The whole table stays in place, frozen; in train mode only the trained rows may be read.
    Optimizer states exist for those rows only.

    Args:
        full: The embedding to stand in for.
        rows: Piece ids to train, distinct, int64, shape (rows,).
    """

    def __init__(self, full: nn.Embedding, rows: Tensor) -> None:
        """Copy the rows out of the table."""
        super().__init__()
        self.full = full.requires_grad_(False)
        self.rows = nn.Parameter(full.weight.detach()[rows].clone())
        place = torch.full((full.num_embeddings,), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        self.register_buffer("place", place, persistent=False)
        self.place: Tensor
        pad = full.padding_idx
        self.pad = None if pad is None or place[pad] < 0 else int(place[pad])

    def forward(self, ids: Tensor) -> Tensor:
        """Look up pieces: int64 of any shape to that shape x embedding size."""
        place = self.place[ids]
        if self.training:
            return F.embedding(place, self.rows, self.pad)
        known = F.embedding(place.clamp(min=0), self.rows)
        return torch.where((place >= 0).unsqueeze(-1), known, self.full(ids))

    def fold_back(self) -> nn.Embedding:
        """Put the trained rows back into the table, and return it."""
        with torch.no_grad():
            self.full.weight[self.place >= 0] = self.rows[self.place[self.place >= 0]]
        return self.full


@contextmanager
def trainable(model: PreTrainedModel, settings: Train, pieces: Tensor) -> Generator[None]:
    """Make a model trainable as the settings say, and an ordinary model again afterwards.

    Args:
        model: Changed in place: train mode, word embeddings, dropout.
        settings: `word_embeddings`, `dropout`.
        pieces: Distinct piece ids of the training text, int64.
    """
    words = cast("nn.Embedding", model.get_input_embeddings())
    dropout = rate_of_dropout(settings)
    opened = _open_dropouts(model) if dropout else []
    dropouts = _dropouts(model)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    model.requires_grad_(True)
    if settings.word_embeddings == "rows":
        model.set_input_embeddings(RowEmbedding(words, pieces.to(words.weight.device)))
    words.requires_grad_(settings.word_embeddings == "train")
    if dropout is not None:
        _set_dropout(dropouts, [dropout] * len(dropouts))
    model.train()
    try:
        yield
    finally:
        _set_dropout(dropouts, [p for _, _, p in dropouts])
        for parent, name in opened:
            setattr(parent, name, nn.Identity())
        embedding = model.get_input_embeddings()
        if isinstance(embedding, RowEmbedding):
            model.set_input_embeddings(embedding.fold_back())
        model.requires_grad_(True)
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.eval()


def accelerator_name(device: torch.device) -> str | None:
    """Name an accelerator; None for the processor."""
    if device.type == "cpu":
        return None
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def rate_of_dropout(settings: Train) -> float | None:
    """Give the rate of all dropout in a training; None leaves the model's own.

    Refitted students that learn nothing but their teacher's logits ended higher without, or within
    noise: see docs/results.md.
    """
    if isinstance(settings.dropout, float):
        return settings.dropout
    return None if settings.dropout == "kept" or reads_labels(settings) else 0.0


def reads_labels(settings: Train) -> bool:
    """Whether labels are learned from, not the teacher alone."""
    labels = settings.objective.get("labels")
    return labels is not None and labels.weight > 0


Dropouts = list[tuple[nn.Module, str, float]]


def _dropouts(model: nn.Module) -> Dropouts:
    """Every place that holds a dropout rate: module, attribute, rate."""
    names = ("p", "drop_prob", "attention_dropout", "dropout_prob")
    return [
        (module, name, value)
        for module in model.modules()
        for name in names
        if isinstance(value := vars(module).get(name), int | float) and not isinstance(value, bool)
    ]


def _open_dropouts(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Put dropouts where a family has left them out for a rate of 0; return their places."""
    closed = [
        (parent, name)
        for parent in model.modules()
        for name, module in parent.named_children()
        if isinstance(module, nn.Identity) and "drop" in name
    ]
    for parent, name in closed:
        setattr(parent, name, nn.Dropout(0.0))
    return closed


def _set_dropout(places: Dropouts, rates: list[float]) -> None:
    for (module, name, _), rate in zip(places, rates, strict=True):
        setattr(module, name, rate)


def optimizer_for(model: nn.Module, settings: Train) -> torch.optim.AdamW:
    """AdamW over what is trainable; decay on matrices only, never on embeddings or norms."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    tables |= {id(m.rows) for m in model.modules() if isinstance(m, RowEmbedding)}
    decay: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            is_matrix = parameter.ndim > 1 and id(parameter) not in tables
            (decay if is_matrix else plain).append(parameter)
    groups = [
        {"params": decay, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    device = next(model.parameters()).device
    if device.type != "cuda":
        return torch.optim.AdamW(groups, betas=settings.betas, fused=True)
    rate = torch.zeros((), device=device)  # read from its place by steps that are recorded
    return torch.optim.AdamW(groups, lr=rate, betas=settings.betas, fused=True, capturable=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, in its place where it has one."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def rate_at(step: int, total: int, warmup: float) -> float:
    """Linear warm-up, then linear decay to zero: the factor for one step.

    Args:
        step: 0 for the first step.
        total: Steps in all.
        warmup: Share of the steps that warm up.

    Returns:
        A factor in (0, 1].
    """
    rising = max(round(total * warmup), 1)
    return min((step + 1) / rising, (total - step) / max(total - rising, 1), 1.0)


@contextmanager
def half(kind: str, *, bf16: bool) -> Generator[None]:
    """Make products in bf16, if asked.

    On a processor attention becomes plain products, too: in bf16 the backward pass of PyTorch's
    fused one is slow there (docs/performance.md).

    Args:
        kind: Of the device.
        bf16: Whether to.
    """
    plain = sdpa_kernel(SDPBackend.MATH) if bf16 and kind == "cpu" else nullcontext()
    with torch.autocast(kind, torch.bfloat16, enabled=bf16), plain:
        yield


def open_accelerator(tracker: str | None = None, folder: str | Path = ".") -> Accelerator:
    """Join the processes that `torchrun` started, or be the only one.

    The tracker writes nothing before `init_trackers`, so that a folder can be looked at first.

    Args:
        tracker: Name of a tracker of Accelerate, such as tensorboard.
        folder: Where the tracker writes.

    Raises:
        HeadstartError: Accelerate knows no such tracker, or its package is missing.
    """
    from accelerate import Accelerator  # a check of a recipe needs none

    if tracker:
        check_tracker(tracker)
    # Without an accelerator, Accelerate joins processes only where the processor is asked for.
    on_processor = not torch.accelerator.is_available()
    return Accelerator(cpu=on_processor, log_with=tracker, project_dir=str(folder))


def check_tracker(name: str) -> None:
    """Refuse a tracker that Accelerate does not know, or whose package is missing.

    Raises:
        HeadstartError: It is one of these.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        raise HeadstartError(
            f"unknown tracker {name!r}",
            where="recipe key train.tracker",
            way_out=nearest(name, LOGGER_TYPE_TO_CLASS),
        )
    if name not in map(str, get_available_trackers()):
        raise HeadstartError(
            f"the package of tracker {name!r} is not installed",
            where="recipe key train.tracker",
            way_out=f"pip install {name}",
        )


@cache
def has_fast_bf16(device: str) -> bool:
    """Whether bf16 pays: on a processor, 1.3 times the speed of fp32, measured once."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        return False  # it has no units for it: not worth the time to ask

    def seconds(dtype: torch.dtype) -> float:
        a = torch.ones(768, 768, dtype=dtype, device=device)
        times: list[float] = []
        for _ in range(3):
            start = time.perf_counter()
            float((a[:128] @ a)[0, 0])  # little: without bf16 units each takes a tenth of a second
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(torch.bfloat16) * 1.3 < seconds(torch.float32)


def choose_precision(settings: Train, accelerator: Accelerator) -> str:
    """Decide on fp32 or bf16; all processes follow the first."""
    if settings.precision != "auto":
        return settings.precision
    fast = first_says(accelerator, has_fast_bf16(accelerator.device.type))
    return "bf16" if fast else "fp32"


def first_says(accelerator: Accelerator, answer: bool) -> bool:
    """Give the first process' answer to all, so that they do the same."""
    if accelerator.num_processes == 1:
        return answer
    told = torch.tensor(float(answer), device=accelerator.device)
    torch.distributed.broadcast(told, 0)
    return bool(told.item())
