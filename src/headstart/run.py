"""One recipe to one record: the whole way, and nothing twice."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import checkpoint
from headstart.calibration import unlabelled
from headstart.checking import apply
from headstart.console import say
from headstart.errors import HeadstartError
from headstart.evaluate import cross_entropy, predict, score_languages
from headstart.features import Features
from headstart.folders import settle
from headstart.forecast import describe, how_long
from headstart.groundwork import (
    REFIT_TEXT,
    check_texts,
    pools_of,
    reads_text,
    text_fingerprints,
)
from headstart.loading import expand, load_recipe, signature
from headstart.objectives import needs_features, needs_teacher
from headstart.prepare import open_accelerator
from headstart.record import Record, read_record, remarks
from headstart.results import Costs, Trained, record_of, write_predictions
from headstart.runfolder import alone_in, clear, let_go, refuse_taken, take
from headstart.stages import base_of, fingerprint_of, job_for, open_teacher, teacher_data
from headstart.starts import start_of
from headstart.teacher import teacher_pass
from headstart.tokenized import add_unlabelled, open_text
from headstart.train import Dev
from headstart.tune import learn, trials_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from accelerate import Accelerator
    from numpy.typing import NDArray

    from headstart.calibration import Unlabelled
    from headstart.groundwork import Prints
    from headstart.recipe import Recipe
    from headstart.stages import Teacher
    from headstart.tokenized import Text
    from headstart.tune import Trial


def run(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    seed: int | None = None,
    overrides: Sequence[str] = (),
    shared: Path | None = None,
    rate_from: Path | None = None,
) -> Record:
    """Make, train and judge one student.

    Args:
        recipe: A recipe, its file, or the name of a shipped one.
        out: The run's folder; a finished run of the same recipe there is returned as it is.
        seed: Replaces the recipe's.
        overrides: `key.path=value` settings.
        shared: Where teachers and their answers are kept; None for the run's own folder.
        rate_from: A finished run's folder, whose trials of learning rates serve this one, too.

    Returns:
        What came out; also in `out/record.json`.

    Raises:
        HeadstartError: The recipe, its data or models are at fault, or the folder is taken.
    """
    recipe = load_recipe(recipe, overrides, seed=seed)
    _refuse_many(recipe)
    out = Path(out)
    tracker = recipe.train.tracker or recipe.teacher.finetune.tracker  # follows both
    tried = None if rate_from is None else read_record(rate_from / "record.json")
    trials = trials_of(tried, recipe.train) if tried else []
    tried_by = tried and tried.signature
    accelerator = open_accelerator(tracker, out)
    session = Session(recipe, out, shared or out, accelerator, tried_by, trials)
    with ExitStack() as held:
        with accelerator.main_process_first():
            refuse_taken(out)
            if accelerator.is_main_process and not (out / "record.json").exists():
                held.enter_context(alone_in(out))
            key = run_signature(recipe, session.shared, rate_of=tried_by)
            earlier = take(recipe, out, key)
        if earlier is not None:
            if accelerator.is_main_process:
                clear(out)
            say(f"{out} holds this run already; nothing to do")
            return earlier
        return _whole(session, key)


def _whole(session: Session, key: str) -> Record:
    """Make a run in a folder that is its own."""
    recipe, out = session.recipe, session.out
    try:
        check_texts(recipe, str(recipe.teacher.model or base_of(recipe, session.shared)))
        _say_how_long(session)
        session.accelerator.init_trackers("tracker")
        record = _work(session, key)
    except HeadstartError:
        let_go(out)
        raise
    session.accelerator.end_training()
    if session.accelerator.is_main_process:
        clear(out)
    return record


def _refuse_many(recipe: Recipe) -> None:
    many = len(expand(recipe))
    if many > 1:
        raise HeadstartError(
            f"the recipe asks for {many} runs",
            where="recipe keys arms, grid and seeds",
            way_out="make them with `headstart study RECIPE OUT`",
        )


def _say_how_long(session: Session) -> None:
    """Tell the time that a run will take, unless a study has told it."""
    if session.shared == session.out:
        say(describe(how_long([session.recipe], session.shared)))


def run_signature(
    recipe: Recipe, shared: Path, *, rate_of: str | None = None, read: Prints = text_fingerprints
) -> str:
    """Hash what decides a run's result: recipe, text, and the weights that it starts from.

    Args:
        recipe: One run.
        shared: Where a packed base is written.
        rate_of: The signature of the run whose learning rate it takes.
        read: Hashes text; a study's remembers what it has read.
    """
    own = recipe.init.refit_text
    extra = {**read(recipe.data, recipe.task, reads_text(recipe), own)}
    if rate_of is not None:
        extra["rate"] = rate_of
    base = base_of(recipe, shared)
    if recipe.teacher.model is not None:
        extra["teacher"] = fingerprint_of(recipe.teacher.model)
    else:
        extra["taught"] = read(teacher_data(recipe), recipe.task, False, None)["data"]
    if base is not None and (recipe.teacher.model is None or recipe.reads_base):
        extra["base"] = fingerprint_of(base)
    if base is not None and "base" not in extra:
        recipe = apply(recipe, {"teacher.base": None})  # nothing reads it: where it lies is idle
    return signature(recipe, **extra)


@dataclass(frozen=True, slots=True)
class Session:
    """What every stage of one run shares."""

    recipe: Recipe
    out: Path
    shared: Path
    accelerator: Accelerator
    tried_by: str | None = None  # signature of the run whose trials of learning rates serve this
    trials: Sequence[Trial] = ()
    costs: Costs = field(default_factory=Costs)


def _work(session: Session, key: str) -> Record:
    """Go the whole way; the record is written last."""
    recipe, accelerator = session.recipe, session.accelerator
    teacher = open_teacher(recipe, session.shared, accelerator)
    session.costs.teacher_seconds = teacher.seconds
    learned = recipe.train.languages
    text = open_text(recipe.data, recipe.task, teacher.tokenizer, learned=learned)
    checkpoint.check_length(teacher.model.config.to_dict(), text.longest)
    more = unlabelled(text.corpus, recipe.data.text if reads_text(recipe) else None)
    if recipe.data.text_per_language is not None:
        count = recipe.data.text_per_language
        text = add_unlabelled(text, more, teacher.tokenizer, count, seed=recipe.seed)
    answers = _answers(session, teacher, text)
    own = unlabelled(text.corpus, recipe.init.refit_text, REFIT_TEXT)
    trained = _train(session, teacher, text, answers, (more, own))
    began = time.perf_counter()
    logits = {n: predict(trained.model, text.splits[n], accelerator) for n in ("dev", "test")}
    session.costs.eval_seconds = time.perf_counter() - began
    record = record_of(
        recipe,
        key,
        text=text,
        teacher=teacher,
        trained=trained,
        logits={"teacher": answers, "student": logits},
        costs=session.costs,
    )
    if accelerator.is_main_process:
        out = session.out
        checkpoint.save_model(
            trained.model, teacher.tokenizer, out / "student", selection=trained.selection
        )
        kept = out / "predictions" / "test.parquet"
        write_predictions(kept, text, logits["test"], answers["test"])
        settle(out / "student", kept)
        record.write(out / "record.json")
    accelerator.wait_for_everyone()
    for line in remarks(record):
        say(line)
    return record


def _answers(session: Session, teacher: Teacher, text: Text) -> dict[str, NDArray[np.float32]]:
    """Collect the teacher's logits on the splits that need them."""
    wanted = ["dev", "test"]
    if needs_teacher(session.recipe.train.learned):
        wanted.append("train")
    answers: dict[str, NDArray[np.float32]] = {}
    for name in wanted:
        done = teacher_pass(
            teacher.model,
            text.splits[name],
            session.shared / "passes",
            weights=teacher.weights,
            accelerator=session.accelerator,
        )
        answers[name] = done.logits
        session.costs.teacher_pass_seconds += done.seconds
    return answers


def _train(
    session: Session,
    teacher: Teacher,
    text: Text,
    answers: Mapping[str, NDArray[np.float32]],
    read: tuple[Unlabelled, Unlabelled],
) -> Trained:
    """Make the student, judge it untrained, and train it."""
    recipe, accelerator = session.recipe, session.accelerator
    pools = pools_of(recipe, text.corpus, *read)
    start = start_of(recipe, teacher, pools, session.shared / "starts", accelerator)
    model = start.model
    session.costs.init_seconds = start.init_seconds
    session.costs.refit_seconds = start.refit_seconds
    session.costs.general_seconds = start.general_seconds
    dev = text.splits["dev"]
    untrained = predict(model, dev, accelerator)
    step0 = score_languages(dev, untrained, text.corpus.labels)
    job = job_for(
        text,
        recipe.train,
        accelerator,
        seed=recipe.seed,
        teacher=answers.get("train"),
        folder=session.out / "state",
    )
    if needs_features(recipe.train.learned):
        features = Features(teacher.model, start.selection, recipe.train.objective)
        job = replace(job, features=features)
    job = replace(job, start=Dev(text.score(dev, untrained), cross_entropy(dev, untrained)))
    progress, trials = learn(model, job, floor=text.floor, trials=session.trials)
    session.costs.trial_seconds = sum(trial.seconds for trial in trials)
    session.costs.train_seconds = progress.seconds
    prints = zip(("text", "refit text"), read, strict=True)
    return Trained(
        model, start.selection, {name: one.fingerprint() for name, one in prints if one.texts},
        sum(one.left_out for one in read), start.fitted, start.general_curve, step0,
        trials, progress, session.tried_by,
    )  # fmt: skip
