"""Devices: which there are, and a recording of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import SerialOption
from deploy.console import session

commands = typer.Typer()


@commands.command()
def devices(
    serial: Annotated[
        list[str] | None, typer.Option(help="HOST:PORT of a phone to ask too; repeatable.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List phones and emulators with their state and what to do, and the known profiles."""
    with session("devices") as ui:
        from deploy import device_list

        device_list.show(serial or [], ui, as_json=json)


@commands.command()
def record(
    device: Annotated[str, typer.Argument(help="A device profile: a name or a path.")],
    folder: Annotated[Path, typer.Argument(help="The new folder for the recording.")],
    serial: SerialOption = None,
    run_folder: Annotated[
        Path | None, typer.Option("--run", help="A run folder whose cases are recorded too.")
    ] = None,
) -> None:
    """Record what a device answers, so that it can be replayed without the device."""
    with session("record") as ui:
        from deploy import commands

        commands.record(device, folder, serial, run_folder, ui)
