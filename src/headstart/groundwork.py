"""What a run does with text without labels before its training: check, measure, refit."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from headstart import checkpoint
from headstart.calibration import all_texts, languages_of, sample_texts, together, unlabelled
from headstart.console import say
from headstart.corpus import load_corpus, narrowed
from headstart.errors import HeadstartError
from headstart.folders import atomic_write
from headstart.measure import measure
from headstart.pieces import load_tokenizer
from headstart.prepare import choose_precision
from headstart.reader import read_config
from headstart.recipe import RESULT_VERSION
from headstart.refit import refit
from headstart.ridge import describe
from headstart.rules import MEASURED
from headstart.stream import after, settled
from headstart.teacher import alone, pieces_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from accelerate import Accelerator
    from transformers import PreTrainedTokenizerBase

    from headstart.calibration import Pools, Unlabelled
    from headstart.corpus import Corpus
    from headstart.recipe import Recipe
    from headstart.ridge import Fitted
    from headstart.rules import Measured, Scores
    from headstart.selection import Selection
    from headstart.settings import Data
    from headstart.stages import Teacher
    from headstart.student import Made
    from headstart.walk import Sample

    Prints = Callable[[Data, str, bool, Path | None], Mapping[str, str]]


REFIT_TEXT = "init.refit.text"
ENOUGH = 0.9  # of the tokens that are asked for; texts are not cut to fit


def measured_rules(recipe: Recipe) -> set[str]:
    """List the rules of a recipe that look at text."""
    return {str(rule) for rule in recipe.init.rules.values()} & {*MEASURED}


def reads_text(recipe: Recipe) -> bool:
    """Say whether a run reads `data.text`, where its recipe names it."""
    learns = recipe.data.text_per_language is not None
    refit, general = recipe.init.refit, recipe.init.general
    refits = refit is not None and refit.text is None
    return learns or refits or general is not None or bool(measured_rules(recipe))


def text_fingerprints(data: Data, task: str, more: bool, own: Path | None) -> dict[str, str]:
    """Hash what there is to read.

    Args:
        data: Names the corpus, and unlabelled text.
        task: classification or tagging.
        more: Whether the unlabelled text is read.
        own: The folder that refit alone reads.

    Raises:
        HeadstartError: Text is not there, or at fault.
    """
    corpus = load_corpus(data, task)
    found = {"data": corpus.fingerprint}
    if more:
        found["text"] = unlabelled(corpus, data.text).fingerprint()
    if own is not None:
        found["refit"] = unlabelled(corpus, own, REFIT_TEXT).fingerprint()
    return found


def pools_of(recipe: Recipe, corpus: Corpus, more: Unlabelled, own: Unlabelled) -> dict[str, Pools]:
    """Say what may be looked at for each purpose of `drawn`.

    Args:
        recipe: Says whether refit has text of its own.
        corpus: Its training rows come first, but not where text is to be general.
        more: The texts of `data.text`.
        own: Those of `init.refit.text`.

    Returns:
        Under each purpose, texts by language, pool by pool.
    """
    texts = all_texts(corpus, more)
    pools = {"refit": [own.texts] if recipe.init.refit_text else texts, "measure": texts}
    return {**pools, "general": together(texts)} if recipe.init.general else pools


def drawn(recipe: Recipe) -> dict[str, tuple[int, tuple[str, ...] | None]]:
    """Say for what a recipe draws texts, how many tokens of them, and in which languages."""
    init = recipe.init
    wanted: dict[str, tuple[int, tuple[str, ...] | None]] = {}
    if init.refit is not None:
        wanted["refit"] = init.refit.tokens, init.refit.languages
    if init.general is not None:
        wanted["general"] = init.general.tokens, None
    if measured_rules(recipe):
        wanted["measure"] = init.measure_tokens, init.measure_languages
    return wanted


def check_texts(recipe: Recipe, named: str) -> list[str]:
    """Find the faults of text without labels before any work.

    Args:
        recipe: Says what looks at text.
        named: Folder or hub name of the teacher or its base.

    Returns:
        How much there is to look at for each purpose, and in which languages there is nothing.

    Raises:
        HeadstartError: Text is missing or too little, or longer than the model can read.
    """
    if not (drawn(recipe) or reads_text(recipe)):
        return []
    corpus = narrowed(load_corpus(recipe.data, recipe.task), recipe.train.languages)
    folder = recipe.data.text if reads_text(recipe) else None
    own = recipe.init.refit_text
    more = unlabelled(corpus, folder), unlabelled(corpus, own, REFIT_TEXT)
    pools = pools_of(recipe, corpus, *more)
    samples = samples_for(recipe, pools, load_tokenizer(named))
    if folder is not None or own is not None:
        checkpoint.check_length(read_config(named).to_dict(), recipe.data.max_length)
    every = (*corpus.languages, *corpus.zero_shot)
    missing = {k: [one for one in every if one not in languages_of(pools[k])] for k in samples}
    return [_told(recipe, purpose, one, missing[purpose]) for purpose, one in samples.items()]


def _key(purpose: str) -> str:
    """Give the recipe's key that asks for text."""
    return "init.measure_tokens" if purpose == "measure" else f"init.{purpose}"


def _told(recipe: Recipe, purpose: str, sample: Sample, missing: list[str]) -> str:
    """Say how much of the text that is asked for is there."""
    tokens, languages = drawn(recipe)[purpose]
    folder = REFIT_TEXT if purpose == "refit" and recipe.init.refit_text else "data.text"
    found = sum(int(sample.encoded.lengths[index].sum()) for index in sample.batches)
    without = [] if languages else missing
    none = f"; none in {', '.join(without)}: put a file of it into {folder}" if without else ""
    few = "" if found >= ENOUGH * tokens else ", since some languages have less than their share"
    return f"text for {_key(purpose)}: {found:,} of {tokens:,} tokens{few}{none}"


def samples_for(
    recipe: Recipe, pools: Mapping[str, Pools], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Sample]:
    """Draw the texts that a run looks at before its training.

    Args:
        recipe: Says what looks at text, at how much, and the seed.
        pools: As `pools_of` gives them.
        tokenizer: The teacher's.

    Returns:
        Under `refit`, `general` and `measure`, where the recipe asks for them.

    Raises:
        HeadstartError: There is too little text, or none in a language that is named.
    """
    return {
        name: sample_texts(
            pools[name],
            tokenizer,
            task=recipe.task,
            tokens=tokens,
            max_length=recipe.data.max_length,
            languages=languages,
            seed=recipe.seed,
            where=_key(name),
        )
        for name, (tokens, languages) in drawn(recipe).items()
    }


def scores_for(
    recipe: Recipe, teacher: Teacher, sample: Sample | None, folder: Path, accelerator: Accelerator
) -> tuple[Measured, float]:
    """Measure the teacher for the rules of a recipe that look at text, or read what was measured.

    Students of any shape that look at the same text share what was measured for each rule; rules
    that are yet to be measured share a pass over the text.

    Args:
        recipe: Says which rules, and the seed.
        teacher: Is measured.
        sample: The text; None where no rule looks at text.
        folder: Holds a file for each measurement.
        accelerator: Its first process' scores are those of all.

    Returns:
        The scores, and the seconds that they took whoever measured.

    Raises:
        HeadstartError: What lies there is damaged.
    """
    if sample is None:
        return {}, 0.0
    pieces, languages = pieces_fingerprint(sample.encoded), sample.encoded.language_ids.tolist()
    what = json.dumps([teacher.weights, recipe.seed, pieces, languages, RESULT_VERSION])
    stem = f"measured-{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    paths = {r: folder / f"{stem}-{r}.safetensors" for r in sorted(measured_rules(recipe))}
    with alone(accelerator, folder / stem):
        found = {rule: _read_scores(path) for rule, path in paths.items() if path.exists()}
        if rules := [rule for rule in paths if rule not in found]:
            began = time.perf_counter()
            measured = measure(teacher.model, sample, rules, seed=recipe.seed)
            if accelerator.num_processes > 1:
                for scores in (scores for rule in rules for scores in measured[rule].values()):
                    told = torch.from_numpy(scores).to(accelerator.device)
                    torch.distributed.broadcast(told, 0)
                    scores[...] = told.cpu().numpy()
            spent = (time.perf_counter() - began) / len(rules)
            found |= {rule: (measured[rule], spent) for rule in rules}
            if accelerator.is_main_process:
                for rule in rules:
                    atomic_write(paths[rule], save(dict(measured[rule]), {"seconds": repr(spent)}))
            accelerator.wait_for_everyone()
    return {r: found[r][0] for r in paths}, sum(seconds for _, seconds in found.values())


def _read_scores(path: Path) -> tuple[Mapping[str, Scores], float]:
    """Read what was measured for one rule, by size, and the seconds that it took."""
    try:
        with safe_open(path, "np") as file:
            scores = {size: file.get_tensor(size) for size in file.keys()}  # noqa: SIM118
            return scores, float(file.metadata()["seconds"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as fault:
        raise HeadstartError(
            f"what was measured of a teacher is damaged: {fault}",
            where=str(path),
            way_out="delete that file and run again",
        ) from fault


def refit_run(
    recipe: Recipe,
    teacher: Teacher,
    sample: Sample | None,
    made: Made,
    accelerator: Accelerator,
) -> tuple[tuple[Fitted, ...], Selection]:
    """Repair the student of a run, where its recipe asks for it.

    Args:
        recipe: Says how.
        teacher: What the student is refitted toward; its base, if that is what was copied.
        sample: The text; None where no refit is asked for.
        made: The student; changed in place.
        accelerator: Device and processes.

    Returns:
        What became of each map and norm, and the student's selection from now on.
    """
    asked, aim = recipe.init.refit, teacher.model
    if asked is None or sample is None:
        return (), made.selection
    if asked.directions == "auto" and recipe.compares_channels:
        asked = asked.model_copy(update={"directions": "kept"})
    asked = settled(asked, made.model, made.selection)
    if recipe.init.source == "base":
        aim = checkpoint.load_encoder(str(teacher.base)).to(accelerator.device)
    fitted = refit(
        made.model,
        aim,
        made.selection,
        sample,
        asked=asked,
        accelerator=accelerator,
        bf16=choose_precision(recipe.train, accelerator) == "bf16",
    )
    say(f"refit: {describe(fitted)}")
    return fitted, after(made.selection, asked)
