"""Noise certificates of devices, and changes that are accepted on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import SerialOption, TransportOption, WaitOption
from deploy.console import session

commands = typer.Typer()


@commands.command()
def calibrate(  # noqa: PLR0917 - Typer makes options of them
    device: Annotated[
        str | None, typer.Argument(help="A device profile: a name or a path.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Argument(
            help="A run folder, a folder of artifacts or a model file; none: a built-in model."
        ),
    ] = None,
    serial: SerialOption = None,
    transport: TransportOption = None,
    wait: WaitOption = None,
    pairs: Annotated[int, typer.Option(min=6, max=100, help="Pairs of sessions.")] = 12,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of the runtime.")] = 1,
    preset: Annotated[str, typer.Option(help="quick, release, sustained or exact.")] = "quick",
    format: Annotated[
        str | None, typer.Option(help="executorch, onnx, ort or coreml; default: what runs there.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option(help="Which artifact of the model, as VARIANT.FORMAT.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for certificates, in place of your own."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the same calibration.")
    ] = False,
    listed: Annotated[
        bool, typer.Option("--list", help="List the certificates there are.")
    ] = False,
) -> None:
    """Measure a device's noise (A/A) and write its certificate, which the gate reads."""
    with session("calibrate") as ui:
        from deploy import commands as commands_
        from deploy.config import DeviceConfig
        from deploy.errors import ConfigError
        from deploy.gating import calibrate as calibrating
        from deploy.types import Format

        where = output or calibrating.folder()
        if listed:
            calibrating.show_all(where, ui)
            return
        if device is None:
            raise ConfigError("names no device", where="calibrate", hint="See: pocketship devices.")
        formats = {one.value: one for one in Format if one is not Format.PACKED}
        if format is not None and format not in formats:
            choices = ", ".join(formats)
            raise ConfigError(
                f"no format '{format}'", where="--format", hint=f"Choose one of: {choices}."
            )
        how = commands_.reach(transport, wait)
        given = {"profile": device, "serial": serial, "transport": how.transport}
        wanted = DeviceConfig.model_validate({**given, "wait_s": how.wait_s or 0})
        calibrating.calibrate(
            calibrating.Wish(
                device=wanted,
                folder=where,
                model=model,
                artifact=artifact,
                format_=formats[format] if format else None,
                threads=threads,
                preset=preset,
                pairs=pairs,
            ),
            ui,
            resume=resume,
        )


@commands.command()
def accept(  # noqa: PLR0917 - as above
    gate: Annotated[Path, typer.Argument(help="The folder of a gate, with its gate.json.")],
    reason: Annotated[str, typer.Option(help="Why the change is wanted.")],
    by: Annotated[str, typer.Option(help="Who signs it off.")],
    until: Annotated[str, typer.Option(help="The last day on which it holds, YEAR-MONTH-DAY.")],
    since: Annotated[
        str | None, typer.Option(help="The first day on which it holds; default: today.")
    ] = None,
    subject: Annotated[str, typer.Option(help="Only these subjects; * and ? match.")] = "*",
    metric: Annotated[str | None, typer.Option(help="Only this metric.")] = None,
    file: Annotated[
        Path, typer.Option("--file", "-f", help="The file of accepted changes.")
    ] = Path("pocketship-accepted.yaml"),
) -> None:
    """Accept the regressions that a gate found, on purpose and until a day."""
    with session("accept") as ui:
        from deploy.gating import accept as accepting

        accepting.accept(
            gate,
            file,
            ui,
            reason=reason,
            by=by,
            until=until,
            since=since,
            subject=subject,
            metric=metric,
        )
