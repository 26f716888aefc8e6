"""The command line: each command parses, calls, prints, and chooses the exit code.

A module a theme has a Typer of its own, and this one joins them. What a command needs is imported
when it runs, so that ``--help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from deploy import __version__
from deploy.cli import calibration, devices, files, gates, history, pages, phones, sharing, stages

app = typer.Typer(
    name="pocketship",
    help="Take a PyTorch model to phones: compress, export, verify, bench, report, gate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 passed, 2 bad input, 3 compression, 4 export, 5 parity, 6 device, "
    "7 measurement missing or invalid, 8 over a limit, 9 inconclusive, 130 interrupted, 1 a bug.",
)
for _part in (stages, gates, calibration, pages, sharing, devices, files):
    app.add_typer(_part.commands)
app.add_typer(phones.commands, name="phone")
app.add_typer(history.commands, name="history")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"pocketship {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the command ``pocketship``."""
    app()
