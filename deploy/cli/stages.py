"""The one command for a whole run, and each of its stages alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import PipelineFile, RunArgument, TransportOption, WaitOption
from deploy.console import session

commands = typer.Typer()


@commands.command()
def run(
    pipeline: PipelineFile,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of the same pipeline.")
    ] = False,
    reports: Annotated[
        Path | None, typer.Option(help="Folder for reports, in place of the file's.")
    ] = None,
    transport: TransportOption = None,
    wait: WaitOption = None,
) -> None:
    """Compress, export, verify, measure and report, in one go."""
    with session("run") as ui:
        from deploy import commands

        how = commands.reach(transport, wait)
        ui.exit_code = commands.run(pipeline, ui, resume=resume, reports=reports, how=how)


@commands.command()
def compress(
    pipeline: PipelineFile,
    reports: Annotated[Path | None, typer.Option(help="Folder for reports.")] = None,
    transport: TransportOption = None,
    wait: WaitOption = None,
) -> None:
    """Apply the recipe only; prints the new run folder last."""
    with session("compress") as ui:
        from deploy import commands

        how = commands.reach(transport, wait)
        ui.say(str(commands.compress(pipeline, ui, reports=reports, how=how)))


def _stage(name: str, folder: Path) -> None:
    with session(name) as ui:
        from deploy import commands

        ui.exit_code = commands.stage(name, folder, ui)


@commands.command()
def export(folder: RunArgument) -> None:
    """Export the programs of a run folder again."""
    _stage("export", folder)


@commands.command()
def verify(folder: RunArgument) -> None:
    """Hold the artifacts of a run folder against their programs again."""
    _stage("verify", folder)


@commands.command()
def bench(folder: RunArgument, transport: TransportOption = None, wait: WaitOption = None) -> None:
    """Measure the artifacts of a run folder again, on every device of its pipeline."""
    with session("bench") as ui:
        from deploy import commands

        how = commands.reach(transport, wait)
        ui.exit_code = commands.stage("bench", folder, ui, how)


@commands.command()
def report(
    folder: Annotated[
        Path, typer.Argument(help="A run folder; with --format also a gate's.", show_default=False)
    ],
    format_: Annotated[
        str | None,
        typer.Option(
            "--format", help="comment, csv, github, junit, markdown or summary; changes nothing."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; else printed.")
    ] = None,
    link: Annotated[str, typer.Option(help="Where the whole report is, for a comment.")] = "",
    key: Annotated[str, typer.Option(help="Tells comments on one pull request apart.")] = "",
) -> None:
    """Write the report of a run folder again; or give one in another format."""
    if format_ is None:
        if output or link or key:
            raise typer.BadParameter("--output, --link and --key go with --format")
        _stage("report", folder)
        return
    with session("report") as ui:
        from deploy import sharing
        from deploy.report.formats import Options

        sharing.show(folder, format_, output or sharing.STDOUT, Options(link, key), ui)
