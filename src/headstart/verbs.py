"""Verbs of the command line that do one step alone, folder to folder."""

# Signatures are the options here: they are as long as the verbs need.
# ruff: noqa: PLR0913

import json
from pathlib import Path
from typing import Annotated

import typer

from headstart.errors import HeadstartError
from headstart.options import (
    Corpus,
    Examples,
    Folder,
    Known,
    Languages,
    NewOut,
    Seed,
    Settings,
    TaskName,
    Teacher,
    ZeroShot,
    check_file,
    data_tree,
    loading,
    recipe_of,
    refuse_idle,
    task_of,
)  # fmt: skip

FOREIGN = (
    "that is more than answers which are always the same leave: was the student cut from this "
    "teacher, and not trained?"
)


def init(
    teacher: Teacher,
    out: NewOut,
    layers: Annotated[int | None, typer.Option(help="Layers of the student.")] = None,
    hidden: Annotated[int | None, typer.Option(help="Width of its residual stream.")] = None,
    heads: Annotated[
        int | None, typer.Option(help="Its attention heads; fewer make the stream narrower, too.")
    ] = None,
    ffn: Annotated[int | None, typer.Option(help="Its feed-forward neurons.")] = None,
    params: Annotated[
        str | None, typer.Option(help="Or a budget: at most so many, such as 60M.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--bytes", help="At most so many, such as 200MB.")
    ] = None,
    speedup: Annotated[
        float | None, typer.Option(help="At least so many times as fast, such as 4.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="The teacher's base, for source base.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as init.layers=first."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Cut a student out of a teacher, without training it. Writes an ordinary model folder."""
    from headstart.loading import load_recipe
    from headstart.show import show_lines

    with loading():
        from headstart.student import cut_checkpoint

    shape = {"layers": layers, "hidden": hidden, "heads": heads, "ffn": ffn,
             "params": params, "bytes": size, "speedup": speedup}  # fmt: skip
    refuse_idle(settings, ("init", "student"))
    recipe = load_recipe(  # checks names and settings; a cut reads neither task nor data
        {
            "task": "classification",
            "data": {"corpus": "quickstart", "languages": ["en-US"]},
            "teacher": {"model": teacher, "base": base},
            "student": shape,
        },
        settings or (),
        seed=seed,
    )
    if recipe.init.refit is not None:
        raise HeadstartError(
            "init copies, and has no text to refit on",
            where="recipe key init.refit",
            way_out="leave it out, and run headstart refit on what init writes",
        )
    selection, parameters = cut_checkpoint(
        teacher,
        out,
        base=base if recipe.init.source == "base" else None,
        shape=recipe.student.model_dump(exclude_none=True),
        rules=recipe.init.rules,
        source=recipe.init.source,
        seed=seed,
    )
    new = selection.student
    show_lines(f"{out}: {new.layers} layers, {new.hidden} channels, {parameters:,} parameters")
    if selection.teacher == new:
        show_lines("it is as large as its teacher: --layers, --params or --speedup make it smaller")


def refit(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="Its folder; left as it is.")],
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="What it was cut from.")],
    out: NewOut,
    text: Annotated[Path, typer.Option(help="Folder of unlabelled text, a file a language.")],
    tokens: Annotated[int, typer.Option(help="How much text is refitted on.")] = 50_000,
    ridge: Annotated[
        float | None,
        typer.Option(help="Ridge strength; default: each map's best on held-out text."),
    ] = None,
    directions: Annotated[
        str, typer.Option(help="Of a narrower stream: kept channels, principal, or auto.")
    ] = "auto",
    merge: Annotated[
        bool | None,
        typer.Option(help="Choose heads and neurons anew, from all layers; default: where it can."),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Repair an untrained student in closed form, from text without labels."""
    with loading():
        from headstart.repair import ask, refit_folder
    from headstart.ridge import describe
    from headstart.show import show_lines

    asked = ask(tokens, ridge, directions)
    fitted = refit_folder(student, teacher, out, text=text, asked=asked, merge=merge, seed=seed)
    left = 100 * fitted[-1].held_out_after
    show_lines(
        f"{out}: {describe(fitted)}",
        f"{fitted[-1].name}: {left:.0f} % of the teacher's variance unexplained on held-out text",
        *([FOREIGN] if left > 100 else []),
    )


def finetune(
    base: Annotated[str, typer.Argument(metavar="BASE", help="Folder or hub name.")],
    out: NewOut,
    languages: Languages,
    task: TaskName = None,
    corpus: Corpus = "local",
    folder: Folder = None,
    zero_shot: ZeroShot = "",
    examples_per_language: Examples = None,
    settings: Settings = None,
    seed: Seed = 0,
) -> None:
    """Fine-tune a pre-trained encoder on labelled text, and write the model's folder."""
    from headstart.recipe import FINETUNE_DEFAULTS

    with loading():
        from headstart.steps import finetune as run_finetune

    tree = data_tree(corpus, folder, languages, zero_shot, examples_per_language)
    recipe = recipe_of(task, tree, dict(FINETUNE_DEFAULTS), settings)
    progress = run_finetune(
        base, out, task=recipe.task, data=recipe.data, train=recipe.train, seed=seed
    )
    _show_progress(out, progress.step, progress.best_score)


def distil(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="Its folder; left as it is.")],
    teacher: Teacher,
    out: NewOut,
    languages: Languages,
    task: TaskName = None,
    corpus: Corpus = "local",
    folder: Folder = None,
    zero_shot: ZeroShot = "",
    examples_per_language: Examples = None,
    settings: Settings = None,
    seed: Seed = 0,
) -> None:
    """Distil a teacher into a student that exists, and write the new student's folder."""
    with loading():
        from headstart.steps import distil as run_distil

    tree = data_tree(corpus, folder, languages, zero_shot, examples_per_language)
    recipe = recipe_of(task or task_of(teacher), tree, {}, settings)
    progress = run_distil(
        student, teacher, out, task=recipe.task, data=recipe.data, train=recipe.train, seed=seed
    )
    _show_progress(out, progress.step, progress.best_score)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or hub name.")],
    languages: Known,
    task: TaskName = None,
    corpus: Corpus = "local",
    folder: Folder = None,
    zero_shot: ZeroShot = "",
    settings: Settings = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the scores.")] = None,
) -> None:
    """Score a model on each language's test rows."""
    from headstart.folders import atomic_write
    from headstart.show import show_scores

    with loading():
        from headstart.steps import evaluate_model

    check_file(out)
    task = task or task_of(model)
    tree = data_tree(corpus, folder, languages, zero_shot, None)
    recipe = recipe_of(task, tree, {}, settings, parts=("data",))
    scores = evaluate_model(model, task=recipe.task, data=recipe.data)
    show_scores(scores, recipe.data.zero_shot)
    if out is not None:
        atomic_write(out, json.dumps(scores, indent=2) + "\n")


def bench(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Folders or hub names, teacher first.")
    ],
    text: Annotated[
        Path | None,
        typer.Option(help="Folder of sentences, a file a language."),
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.1, help="For each model: one by one, then in batches."),
    ] = 5.0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Annotated[Path | None, typer.Option(help="JSON file for the numbers.")] = None,
) -> None:
    """Measure size and speed of models side by side, on real sentences."""
    with loading():
        from headstart.bench import bench as measure
    from headstart.bench import rows, sentences
    from headstart.folders import atomic_write
    from headstart.machine import told
    from headstart.show import show_lines, show_table

    check_file(out)
    found = measure(models, sentences(text), seconds=seconds, threads=threads, device=device)
    show_table(*rows(found))
    if out is not None:
        atomic_write(out, json.dumps(found.plain(), indent=2) + "\n")
    shortest, median, longest = found.pieces
    precisions = ", ".join(dict.fromkeys(one.precision for one in found.speeds))
    show_lines(
        "ms: one sentence, text to logits, median and 95th percentile; sentences/s and "
        "faster: in batches of 32",
        f"{found.sentences} sentences of {shortest} to {longest} pieces (median {median}); "
        f"{found.device}, {found.threads} thread(s), {precisions}; {told(found.hardware)}, "
        f"torch {found.versions['torch']}",
    )


def _show_progress(out: Path, steps: int, score: float) -> None:
    from headstart.show import show_lines

    best = f", best score on dev {100 * score:.1f}" if steps else ""
    show_lines(f"{out}: {steps:,} steps{best}")


STEPS = {"init": init, "refit": refit, "finetune": finetune, "distil": distil, "eval": evaluate,
         "bench": bench}  # fmt: skip
"""Verbs by their names on the command line."""
