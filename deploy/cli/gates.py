"""The gate: is head worse than base?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import SerialOption, TransportOption, WaitOption
from deploy.console import session

commands = typer.Typer()

_WHAT = "a pipeline file, a run or artifact folder, a model file, or a git revision (git:NAME)."


@commands.command()
def gate(
    base: Annotated[str, typer.Argument(help=f"What to compare with: {_WHAT}", show_default=False)],
    head: Annotated[str, typer.Argument(help=f"What to judge: {_WHAT}", show_default=False)],
    *,
    device: Annotated[
        str | None, typer.Option(help="A device profile; without it only files are compared.")
    ] = None,
    serial: SerialOption = None,
    transport: TransportOption = None,
    wait: WaitOption = None,
    pipeline: Annotated[
        Path | None, typer.Option(help="The pipeline file of a revision, from its top folder.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Compare this variant only; repeatable.")
    ] = None,
    format: Annotated[
        list[str] | None, typer.Option(help="Compare this format only; repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option(min=1, max=64, help="Thread count; repeatable.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(help="Pairs of sessions, 6 to 100.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="The relative change that counts: 0.03 is 3 %.")
    ] = None,
    primary: Annotated[str | None, typer.Option(help="The metric that decides.")] = None,
    accepted: Annotated[
        Path | None, typer.Option(help="File of changes that were signed off.")
    ] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Take base's figures as they were measured earlier.")
    ] = False,
    history: Annotated[
        str | None,
        typer.Option(help="A history (file or URL); BASE is the branch to compare with."),
    ] = None,
    across: Annotated[
        list[str] | None,
        typer.Option(help="Let earlier figures of another tier, device, runtime or os-build pass."),
    ] = None,
    reports: Annotated[
        Path | None, typer.Option(help="Folder for reports, in place of the pipeline's.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest gate of the same words.")
    ] = False,
    improved_exit_code: Annotated[
        int, typer.Option(min=0, max=125, help="Exit code where head is better than base.")
    ] = 0,
) -> None:
    """Measure BASE and HEAD in turn on one device and say whether head is worse."""
    with session("gate") as ui:
        from deploy.gating import command

        ui.exit_code = command.gate(
            base,
            head,
            ui,
            command.Options(
                device=device,
                serial=serial,
                transport=transport,
                wait_s=wait,
                pipeline=pipeline,
                variants=tuple(variant or ()),
                formats=tuple(format or ()),
                threads=tuple(threads or ()),
                pairs=pairs,
                threshold=threshold,
                primary=primary,
                accepted=accepted,
                stored=stored,
                history=history,
                across=tuple(across or ()),
                reports=reports,
                resume=resume,
                improved_exit_code=improved_exit_code,
            ),
        )
