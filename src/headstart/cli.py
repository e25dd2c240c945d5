"""The command line: one verb, one function of the library. Heavy rooms load inside commands."""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart import verbs
from headstart.errors import HeadstartError, of_the_disk
from headstart.options import PAGE, Made, Out, RecipeName, Settings, loading

if TYPE_CHECKING:
    from headstart.record import Record

STOPPED = 130  # the exit code after Ctrl-C

app = typer.Typer(
    help="Small multilingual students that start as a piece of their fine-tuned teacher.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
recipes = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(recipes, name="recipes")


def main() -> None:
    """Run the command line; a fault of the input is told without a traceback, exit code 2."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it tells each attempt; the fault is ours
    try:
        app(prog_name="headstart")
    except (HeadstartError, OSError) as error:
        fault = error if isinstance(error, HeadstartError) else of_the_disk(error)
        if fault is None:
            raise
        from headstart.show import show_fault

        show_fault(fault)
        sys.exit(2)
    except SystemExit as left:
        if left.code == STOPPED:
            from headstart.show import show_stopped

            show_stopped(next(iter(sys.argv[1:]), ""))
        raise


def command_name() -> str:
    """Say how this program can be called again from the same folder."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m headstart"
    return called.name if shutil.which(called.name) else os.path.relpath(called)


def _print_version(wanted: bool) -> None:
    if wanted:
        from headstart.machine import versions

        typer.echo(versions().get("headstart", "not installed"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print it and exit."
        ),
    ] = False,
) -> None:
    """Small multilingual students that start as a piece of their fine-tuned teacher."""


@app.command()
def run(
    recipe: RecipeName,
    out: Out,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(help="Seed instead of the recipe's.")] = None,
) -> None:
    """Go the whole way: teacher, student, training, scores. Resumes where it was stopped."""
    from headstart.loading import load_recipe

    found = load_recipe(recipe, settings or (), seed=seed)  # its faults do not wait for torch
    with loading():
        from headstart.run import run as run_recipe
    from headstart.show import show_lines, told_end

    record = run_recipe(found, out)
    _show_records([record])
    again = ["run", recipe, *(() if seed is None else ("--seed", str(seed)))]
    with loading(PAGE):
        lines = told_end(command_name(), again, settings or (), out, [record])
    show_lines(*lines)


@app.command()
def study(  # noqa: PLR0913 - one for each thing that can be said
    recipe: RecipeName,
    out: Out,
    address: Annotated[
        str | None,
        typer.Argument(help="With --ray: a cluster's; default: the one here, or a new one."),
    ] = None,
    settings: Settings = None,
    dry: Annotated[bool, typer.Option("--dry", help="Only list the runs, and their time.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Make the runs on a Ray cluster.")] = False,
    cpus: Annotated[float, typer.Option(help="With --ray: processors of each run.")] = 1,
    gpus: Annotated[
        float, typer.Option(help="With --ray: share of a GPU for each run; 0.1: ten share one.")
    ] = 1,
) -> None:
    """Make every run of a recipe's arms, grid and seeds. Finished runs are not made again."""
    from headstart.loading import load_recipe

    found = load_recipe(recipe, settings or ())  # its faults do not wait for torch
    from headstart.show import show_lines, told_end

    if dry:
        from headstart.study import outlook

        show_lines(*outlook(found, out))
        return
    if address is not None and not ray:
        raise HeadstartError(
            f"{address} is one folder too many", where="headstart study", way_out="say --ray, too"
        )
    with loading():
        from headstart.study import study as run_study

    engine = None
    if ray:
        from headstart.cluster import OnRay

        engine = OnRay(address, cpus, gpus)
    records = run_study(found, out, engine=engine)
    _show_records(records)
    with loading(PAGE):
        lines = told_end(command_name(), ["study", recipe], settings or (), out, records)
    show_lines(*lines)


@app.command()
def report(out: Made) -> None:
    """Write one HTML page about a run's or study's folder."""
    from headstart.report import report as write_report
    from headstart.show import show_lines

    with loading(PAGE):
        page = write_report(out)
    show_lines(str(page))


@app.command()
def compare(
    first: Annotated[
        str,
        typer.Argument(metavar="A", help="Folder of a run, or STUDY:WAY, a column of its table."),
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    margin: Annotated[float, typer.Option(help="Points below which two are the same.")] = 1.0,
) -> None:
    """Compare two ways of making a student, by language."""
    from headstart.compare import compare as compare_ways
    from headstart.compare import comparison_note, comparison_rows
    from headstart.show import show_lines, show_table

    found = compare_ways(first, second, margin=margin / 100)
    show_table(*comparison_rows(found))
    show_lines(comparison_note(found))


@app.command()
def check(recipe: RecipeName, settings: Settings = None) -> None:
    """Find every fault of a recipe, its text and its models, before any work."""
    from headstart.loading import load_recipe

    loaded = load_recipe(recipe, settings or ())  # its faults do not wait for torch
    with loading():
        from headstart.checkup import check as check_recipe
    from headstart.checkup import told
    from headstart.show import show_lines

    found = check_recipe(loaded)
    show_lines(*told(found, loaded))


@app.command()
def plan(
    recipe: RecipeName,
    settings: Settings = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time the shapes, too.")] = False,
) -> None:
    """Tell shape, size and speed of every student of a recipe, and, from its text, the time."""
    from headstart.budget import megabytes
    from headstart.loading import expand, load_recipe

    found = load_recipe(recipe, settings or ())  # its faults do not wait for torch
    with loading():
        from headstart.checkup import time_of
        from headstart.plan import study_sizes
    from headstart.show import show_lines, show_table

    groups = study_sizes(found)
    head = [
        "model",
        "layers",
        "hidden",
        "heads",
        "ffn",
        "parameters",
        "word embeddings",
        "MB",
        "faster",
    ]
    rows = [
        [
            *map(str, (one.name, one.layers, one.hidden, one.heads, one.ffn)),
            *(f"{one.parameters[part]:,}" for part in ("total", "vocabulary")),
            megabytes(one.bytes),
            f"{sizes[0].work / one.work:.1f} x",
        ]
        for sizes in groups
        for one in sizes
    ]
    if measure or any(one.student.speedup for _, one in expand(found)):
        from headstart.pace import pace

        taken = [times for sizes in groups for times in pace([s.config for s in sizes], found.task)]
        rows = [[*row, f"{times:.1f} x"] for row, times in zip(rows, taken, strict=True)]
        head = [*head, "measured"]
    show_table(head, rows)
    timed = "; measured: timed here, with random weights" if head[-1] == "measured" else ""
    show_lines(f"faster: than its teacher, by estimate{timed}", f"time: {time_of(found)}")


for _name, _verb in verbs.STEPS.items():
    app.command(_name)(_verb)


@recipes.callback()
def recipes_options(
    context: typer.Context,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
) -> None:
    """List the shipped recipes, show one, or print the schema of all."""
    if schema:
        from headstart.loading import json_schema

        typer.echo(json.dumps(json_schema(), indent=2))
    elif context.invoked_subcommand is None:
        list_recipes()


@recipes.command("list")
def list_recipes() -> None:
    """List the shipped recipes."""
    from headstart.loading import shipped

    for name, path in shipped().items():
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        typer.echo(f"{name:<16}{first}")


@recipes.command("template")
def show_template() -> None:
    """Print a recipe to fill in: your teacher, your languages, your text."""
    from headstart.loading import template

    typer.echo(template(), nl=False)


@recipes.command("show")
def show_recipe(recipe: RecipeName, settings: Settings = None) -> None:
    """Print a recipe with every default written out."""
    from headstart.loading import load_recipe, to_yaml

    typer.echo(to_yaml(load_recipe(recipe, settings or ())), nl=False)


def _show_records(records: "list[Record]") -> None:
    """Print languages by runs, in percent, and what is wrong with a run."""
    from headstart.show import show_lines, show_table
    from headstart.tables import cells, heads, rising, tabulate

    table = tabulate(records)
    show_lines(f"{table.metric} on test, percent")
    show_table(heads(table), [cells(row) for row in table.rows])
    show_lines(
        *(f"{c.name}: {', '.join(c.marks)}: do not lean on it" for c in table.columns if c.marks),
        *rising(table.columns),
    )
