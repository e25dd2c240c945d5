"""General distillation before the task: the student learns the base's states on unlabelled text.

The rival that initialization by copying is held against: first a small language model that is like
the base inside, then the task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from headstart import checkpoint
from headstart.calibration import BATCH_TOKENS
from headstart.encode import collate, pack
from headstart.features import Features
from headstart.initial import General
from headstart.settings import Term, Train
from headstart.train import Dev, Job, fit
from headstart.tune import sound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from accelerate import Accelerator
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from headstart.features import Bound
    from headstart.recipe import Recipe
    from headstart.stages import Teacher
    from headstart.student import Made
    from headstart.train import Progress
    from headstart.walk import Sample

    Ints = NDArray[np.int64]

JUDGED = 10  # how often


def generalize(
    recipe: Recipe, teacher: Teacher, sample: Sample, made: Made, accelerator: Accelerator
) -> Progress:
    """Train a student toward the base's states.

    Args:
        recipe: Says how long, on what, and with which loss: its `init.general`, or what
            that is by default.
        teacher: Names the base.
        sample: The text; what is held out of it chooses the weights.
        made: The student; changed in place.
        accelerator: Device and processes.

    Returns:
        How it went; the curve's `dev_loss` is the loss on held-out text, for each token.

    Source:
        Jiao et al. (2020), TinyBERT, arXiv:1909.10351, general distillation; the loss `relation` is
        MiniLMv2's (arXiv:2012.15828), which needs no learned map between widths.
    """
    asked = recipe.init.general or General()
    base = checkpoint.load_encoder(str(teacher.base)).to(accelerator.device).eval()
    features = Features(base, made.selection, {asked.objective: Term()})
    bound = features.bind(made.model)
    settings = Train.model_validate(
        {
            "objective": {asked.objective: 1.0},
            "max_steps": asked.steps,
            "learning_rate": asked.learning_rate,
            "batch_tokens": asked.batch_tokens,
            "dropout": "kept",
            "eval_every": max(asked.steps // JUDGED, 1),
            **recipe.train.model_dump(include={"word_embeddings", "precision"}),
        }
    )
    rows, judges = np.concatenate(sample.fit), judging(sample, asked.judge_tokens)

    def order(epoch: int) -> Ints:
        return np.random.default_rng((recipe.seed, epoch, 4)).permutation(rows)

    job = Job(
        data=sample.encoded,
        settings=settings,
        order=order,
        evaluate=lambda model: Dev(0.0, far(bound, model, sample, judges)),
        accelerator=accelerator,
        learning_rate=asked.learning_rate,
        seed=recipe.seed,
        features=features,
        label="general",
    )
    return sound(fit(made.model, job), job)


def judging(sample: Sample, tokens: int) -> list[Ints]:
    """Draw batches that judge: so many tokens of what is held out, or one text of it."""
    rows = np.random.default_rng(0).permutation(np.concatenate(sample.held_out))
    count = int(np.searchsorted(sample.encoded.lengths[rows].cumsum(), tokens, "right"))
    return pack(sample.encoded.lengths, rows[: max(count, 1)], tokens=BATCH_TOKENS)


@torch.no_grad()
def far(bound: Bound, model: PreTrainedModel, sample: Sample, judges: Sequence[Ints]) -> float:
    """Measure the loss on batches, for each token, without dropout."""
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    for index in judges:
        batch = collate(sample.encoded, index, device=model.device)
        with bound.watch() as seen:
            model(**batch.inputs)
        total += float(bound.loss(seen, batch))
        tokens += int(sample.encoded.lengths[index].sum())
    model.train(was_training)
    return total / tokens
