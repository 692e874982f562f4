"""The typer app. Only the module of the command that is called gets imported; help needs none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer

EPILOG = (
    "Exit codes: 0 all scored, 2 your mistake (one line says which), 3 some samples failed, 1 anything else."
)


class Command(NamedTuple):
    """A command, where it lives, and its line in the overview (the first line of its docstring)."""

    name: str
    module: str
    help: str

    def load(self) -> Callable[..., None]:
        function: Callable[..., None] = import_module(f"harness.cli.{self.module}").run
        return function


COMMANDS = (
    Command("eval", "evaluate", "Score checkpoints on suites and tasks."),
    Command("train", "train", "Train one checkpoint from another."),
    Command("train-then-eval", "train_then_eval", "Train a plan's stages, score them, write the report."),
    Command("report", "report", "Write the report of a runs folder."),
    Command("compare", "compare", "Compare two runs sample by sample."),
    Command("forgetting", "forgetting", "Show what training lost, sample by sample."),
    Command("judge", "judge", "Let a judge compare two runs, grade one, or be held against labels."),
    Command("parity", "parity", "Hold engines against each other, sample by sample."),
    Command("next", "propose", "Propose the next training runs, as plan files."),
    Command("suite", "suite", "Check a suite file: prompts, requests, time."),
    Command("cache", "cache", "Show, prune or verify the answers that are kept for --cache."),
    Command("list", "listing", "List what is installed, and who brings it."),
    Command("doctor", "doctor", "Check what this machine offers."),
    Command("schema", "schema", "Print the JSON Schema of a plan or a suite file."),
)


def _print_version(value: bool) -> None:
    if value:
        from harness import __version__

        typer.echo(f"harness {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False,
) -> None:
    """Score post-trained language models, weigh their energy, draw the front, propose the next run."""


def _not_loaded() -> None:
    """Stands in the overview for a command that was not called."""


def build(arguments: Sequence[str] | None = None) -> typer.Typer:
    """The app with the commands that the arguments name; all of them where arguments is None.

    Help is plain text: rich costs more time than all the rest.
    """
    app = typer.Typer(name="harness", add_completion=False, rich_markup_mode=None, epilog=EPILOG)
    app.callback()(_root)
    for command in COMMANDS:
        if arguments is None or command.name in arguments:
            app.command(command.name)(command.load())
        else:
            app.command(command.name, help=command.help)(_not_loaded)
    return app


def command(arguments: Sequence[str] | None = None) -> Any:
    """The command object that parses arguments."""
    return typer.main.get_command(build(arguments))
