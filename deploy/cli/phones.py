"""Emulated ARM64 phones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.console import session

commands = typer.Typer(help="Emulated ARM64 phones.", no_args_is_help=True)


@commands.command("start")
def phone_start(
    profile: Annotated[str, typer.Argument(help="A profile with an emulator.")] = "emulated-arm64",
    key: Annotated[
        list[Path] | None, typer.Option(help="A public ADB key to trust besides your own.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port on 127.0.0.1; default: a free one.")
    ] = None,
) -> None:
    """Start a phone that stays until `phone stop`; prints its serial last."""
    with session("phone start") as ui:
        from deploy import commands

        ui.say(commands.phone_start(profile, key or [], port, ui))


@commands.command("list")
def phone_list() -> None:
    """List the phones that run."""
    with session("phone list") as ui:
        from deploy import commands

        commands.phone_list(ui)


@commands.command("stop")
def phone_stop(
    serial: Annotated[str | None, typer.Argument(help="127.0.0.1:PORT; the only one.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Stop all of them.")] = False,
) -> None:
    """Stop a phone."""
    with session("phone stop") as ui:
        from deploy.emulator import commands as phones

        for phone in phones.stop(serial, everyone=everyone):
            ui.say(f"stopped {phone.serial}")


@commands.command("shell", context_settings={"ignore_unknown_options": True})
def phone_shell(
    serial: Annotated[str, typer.Argument(help="127.0.0.1:PORT")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run; none: a shell.")] = None,
) -> None:
    """Run a command on a phone, or an interactive shell."""
    with session("phone shell", own_streams=True) as ui:
        from deploy.emulator import commands as phones

        ui.exit_code = phones.shell(serial, command or [])


@commands.command("image")
def phone_image() -> None:
    """Build the phone's kernel and RAM disk if they are not there yet."""
    with session("phone image") as ui:
        from deploy.emulator import image

        ui.say(str(image.build(ui.progress).initrd.parent))
