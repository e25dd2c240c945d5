"""A training's state in one file: weights, best weights, optimizer, random numbers, progress.

The file is safetensors (no pickle), written beside and renamed, so it is whole or not there.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from headstart.errors import HeadstartError, not_written

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    from torch import Tensor

P = TypeVar("P")
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@contextmanager
def between_steps() -> Generator[Callable[[], bool]]:
    """Let Ctrl-C wait, so that a training can end its step and save what it has.

    A second Ctrl-C does not wait. Where another handler is at work, or the thread is not the main
    one, nothing is changed.

    Yields:
        What says whether it was pressed.
    """
    pressed: list[int] = []

    def note(number: int, _: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    is_ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _path(folder: Path) -> Path:
    return folder / f"state-{os.environ.get('RANK', '0')}.safetensors"


def save_state(
    folder: Path,
    learned: Mapping[str, Tensor],
    best: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
) -> None:
    """Write all that a training needs to go on.

    Args:
        folder: Made if it is missing; one file a process.
        learned: Parameters being trained.
        best: Their values at the best evaluation.
        optimizer: Over those parameters.
        progress: Plain data.
    """
    tensors = {f"now.{n}": p.detach() for n, p in learned.items()}
    tensors |= {f"best.{n}": p for n, p in best.items()}
    for name, parameter in learned.items():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"{key}.{name}": moments[key] for key in MOMENTS if key in moments}
    tensors["random"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random_cuda"] = torch.cuda.get_rng_state()
    folder.mkdir(parents=True, exist_ok=True)
    target = _path(folder)
    partial = target.with_suffix(".partial")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, partial, metadata={"progress": json.dumps(dict(progress))})
    except SafetensorError as fault:
        partial.unlink(missing_ok=True)
        raise not_written(target, fault) from fault
    partial.replace(target)


def load_state(
    folder: Path,
    learned: Mapping[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    progress: Callable[..., P],
) -> P | None:
    """Put a training back to where it stood; leave it at its beginning where no state is.

    Args:
        folder: Where `save_state` wrote.
        learned: Filled in place.
        best: Filled in place.
        optimizer: Its moments are set.
        progress: Made from the stored plain data.

    Returns:
        The progress; None where no state is.

    Raises:
        HeadstartError: The file is damaged, or belongs to a training of other parameters.
    """
    path = _path(folder)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:  # pyright: ignore[reportUnknownVariableType]
            names = set(file.keys())
            stored = {name: file.get_tensor(name) for name in names}
            values = json.loads(file.metadata()["progress"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise _foreign(path, f"cannot be read ({error})") from error
    if {f"now.{n}" for n in learned} != {n for n in names if n.startswith("now.")}:
        raise _foreign(path, "belongs to a training of other parameters")
    with torch.no_grad():
        for name, parameter in learned.items():
            parameter.copy_(stored[f"now.{name}"])
            best[name] = stored[f"best.{name}"].to(parameter.device)
            moments = {k: stored[f"{k}.{name}"] for k in MOMENTS if f"{k}.{name}" in names}
            if moments:
                optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items()}
    torch.set_rng_state(stored["random"])
    if "random_cuda" in names and torch.cuda.is_available():
        torch.cuda.set_rng_state(stored["random_cuda"])
    return progress(**values)


def drop_state(folder: Path) -> None:
    """Forget where this process' training stood."""
    _path(folder).unlink(missing_ok=True)


def _foreign(path: Path, why: str) -> HeadstartError:
    return HeadstartError(
        f"the state of an interrupted training {why}",
        where=str(path),
        way_out="delete it to train from the beginning",
    )
