"""Pages for people: two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.console import session

commands = typer.Typer()

_RUN = "A run folder, as reports/NAME/latest, or a report.json."


@commands.command()
def compare(
    first: Annotated[Path, typer.Argument(help=_RUN, show_default=False)],
    second: Annotated[Path, typer.Argument(help=_RUN, show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for compare.html and its assets.")
    ],
    gate: Annotated[
        Path | None,
        typer.Option(help="A gate's folder: its intervals are drawn where it judged these files."),
    ] = None,
) -> None:
    """Show the figures of two runs side by side on a page; nothing is decided."""
    with session("compare") as ui:
        from deploy.errors import ConfigError
        from deploy.report import store
        from deploy.report.pages import comparison

        left, right = store.load(first), store.load(second)
        decided = store.load_gate(gate) if gate else None
        try:
            ui.say(f"Comparison: {comparison.write(left, right, output, gate=decided)}")
        except OSError as error:
            raise ConfigError(
                f"cannot be written ({error.strerror or error})",
                where=str(output),
                hint="Choose a folder that you can write to, with space left.",
            ) from error
