"""Put models together from named tensors, with transformers' own classes and first weights."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor
from transformers.utils import logging

from headstart.errors import HeadstartError
from headstart.families import family_of
from headstart.layout import Family, Head, entries

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from transformers import PreTrainedConfig, PreTrainedModel

MAPPINGS: Mapping[Head, str] = {
    "classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "tagging": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING",
    "mlm": "MODEL_FOR_MASKED_LM_MAPPING",
    "none": "MODEL_MAPPING",
}


def class_for(config: PreTrainedConfig, head: Head) -> Any:  # noqa: ANN401
    """Find the class of a model; transformers' classes take seconds to import, so not before."""
    return getattr(transformers, MAPPINGS[head])[type(config)]


@contextmanager
def seeded(seed: int) -> Generator[None]:
    """Draw fresh weights under a seed, and leave the caller's generator where it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@contextmanager
def quiet() -> Generator[None]:
    """Keep transformers from reporting fresh weights: they are in the provenance."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def assemble(
    config: PreTrainedConfig, head: Head, tensors: Mapping[str, Tensor], *, seed: int
) -> PreTrainedModel:
    """Put a model together from named tensors; what is not among them is fresh.

    Args:
        config: The model's config; it is not changed.
        head: The model's head.
        tensors: Weights by name; the model takes them, without a copy.
        seed: Of the fresh weights, drawn as transformers draws them for this family.

    Returns:
        A model in evaluation mode on the CPU.

    Raises:
        HeadstartError: A tensor has no place in the model, or the model has one that the
            family's table does not know.
    """
    config = copy.deepcopy(config)
    kind = class_for(config, head)
    first = next(iter(tensors.values()), torch.empty(0))
    with quiet(), seeded(seed):
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=first.dtype,
            output_loading_info=True,
        )
    _check_names(model, head, report["unexpected_keys"])
    model.config.name_or_path = model.name_or_path = ""  # it would be "None"
    return model.eval()


def hollow(config: PreTrainedConfig, head: Head, kind: torch.dtype) -> PreTrainedModel:
    """Give a model without weights, to write tensors that are at hand under its config.

    Args:
        config: The model's config; it is not changed.
        head: The model's head.
        kind: Type of its weights.

    Raises:
        HeadstartError: As `assemble`.
    """
    config = copy.deepcopy(config)
    config.dtype = kind
    described = class_for(config, head)
    config.architectures = [described.__name__]
    with quiet(), torch.device("meta"):
        model = described(config)
    _check_names(model, head)
    return model


def _check_names(model: PreTrainedModel, head: Head, unexpected: Iterable[str] = ()) -> None:
    """Hold a model's tensors against its family's table."""
    plain = model.config.to_dict()
    family = family_of(plain)
    named = {e.name(prefix_of(family, head)) for e in entries(family, plain, head)}
    strays = {*unexpected, *(set(model.state_dict()) ^ named)}
    if strays:
        raise HeadstartError(
            f"the table of {family.model_type} and the installed transformers disagree about "
            f"{sorted(strays)[:5]}",
            where="headstart/families.py",
            way_out="install a transformers release that headstart was tested with",
        )


def prefix_of(family: Family, head: Head) -> str:
    """Say what stands before the encoder's names in a model with this head."""
    return "" if head == "none" else family.prefix
