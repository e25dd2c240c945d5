"""Options that verbs have in common, and the recipe that a single step's options come to."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.recipe import Recipe

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="File, or shipped recipe.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the result.")]
NewOut = Annotated[Path, typer.Argument(metavar="OUT", help="A new folder for the result.")]
Made = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a run or a study.")]
Teacher = Annotated[str, typer.Argument(metavar="TEACHER", help="Folder or hub name.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable."),
]
Seed = Annotated[int, typer.Option(help="Seed of the result.")]
TaskName = Annotated[
    str | None,
    typer.Option(help="classification or tagging, unless a model or a known corpus tells."),
]
Corpus = Annotated[str, typer.Option(help="Known corpus, local, or hub name.")]
Folder = Annotated[Path | None, typer.Option(help="Where the corpus' files are.")]
Languages = Annotated[str, typer.Option(metavar="A,B,...", help="Languages to train on.")]
Known = Annotated[str, typer.Option(metavar="A,B,...", help="Languages that it was trained on.")]
ZeroShot = Annotated[str, typer.Option(metavar="A,B,...", help="Languages to test only.")]
Examples = Annotated[int | None, typer.Option(metavar="N", help="Train rows of each language.")]


PAGE = "computing intervals and writing the page"


@contextmanager
def loading(what: str = "loading torch and transformers") -> Generator[None]:
    """Say on a terminal what takes seconds and has no bar; the line goes away."""
    is_seen = sys.stderr.isatty()
    if is_seen:
        sys.stderr.write(f"{what} …")
        sys.stderr.flush()
    try:
        yield
    finally:
        if is_seen:
            sys.stderr.write("\r\x1b[K")


def data_tree(
    corpus: str, folder: Path | None, languages: str, zero_shot: str, examples: int | None
) -> dict[str, object]:
    """Write the options that name text as a recipe's part `data`."""
    return {
        "corpus": corpus,
        "folder": None if folder is None else str(folder),
        "languages": [code.strip() for code in languages.split(",") if code.strip()],
        "zero_shot": [code.strip() for code in zero_shot.split(",") if code.strip()],
        "examples_per_language": examples,
    }


def recipe_of(
    task: str | None,
    data: dict[str, object],
    train: dict[str, object],
    settings: list[str] | None,
    parts: tuple[str, ...] = ("data", "train"),
) -> "Recipe":
    """Check the options of one step as a recipe is checked; a known corpus tells its task."""
    from headstart.loading import load_recipe
    from headstart.settings import CORPUS_TASKS

    task = task or CORPUS_TASKS.get(str(data["corpus"]))
    if task is None:
        raise HeadstartError(
            f"the task of corpus {data['corpus']!r} is not known",
            where="--task",
            way_out="give --task classification or --task tagging",
        )
    plain = {"task": task, "data": data, "teacher": {"model": "given"}, "train": train}
    refuse_idle(settings, parts)
    return load_recipe(plain, settings or ())


def refuse_idle(settings: list[str] | None, parts: tuple[str, ...]) -> None:
    """Refuse settings of parts of a recipe that a step does not read."""
    for one in settings or ():
        key = one.partition("=")[0].strip()
        if key and key.partition(".")[0] not in parts:
            raise HeadstartError(
                f"this step does not read {key}",
                where=f"--set {one}",
                way_out=f"it reads settings of {' and '.join(parts)}; headstart run reads all",
            )


def task_of(model: str) -> str | None:
    """Say what a model was fine-tuned for, if that is known."""
    from headstart.reader import open_model

    head = open_model(model).head
    return None if head == "none" else head


def check_file(out: Path | None) -> None:
    """Refuse a folder where a file is to be written, before the work is done."""
    if out is not None and out.is_dir():
        raise HeadstartError(
            "it is a folder", where=f"--out {out}", way_out="name a file, such as numbers.json"
        )
