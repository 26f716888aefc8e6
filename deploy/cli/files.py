"""A pipeline file to start from and its check; packed models; what is missing here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.options import PipelineFile
from deploy.console import session

commands = typer.Typer()


@commands.command()
def check(pipeline: PipelineFile) -> None:
    """Check a pipeline file, its devices and its task without running anything."""
    with session("check") as ui:
        from deploy import commands

        ui.say(commands.check(pipeline, ui))


@commands.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("pipeline.yaml"),
) -> None:
    """Write a commented pipeline file to start from."""
    with session("init") as ui:
        from deploy import commands

        commands.init(file)
        ui.say(f"wrote {file}; next: pocketship check {file}")


@commands.command()
def schema(
    of: Annotated[str, typer.Option("--of", help="pipeline, report or gate.")] = "pipeline",
) -> None:
    """Print the JSON Schema of pipeline files, of report.json, or of gate.json."""
    with session("schema") as ui:
        from deploy import commands

        ui.say(commands.schema(of).rstrip())


@commands.command()
def doctor(json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Show what works here, what is missing, and how to get it."""
    with session("doctor") as ui:
        from deploy import doctor as checks

        found = checks.check()
        if json:
            ui.say("[" + ",\n".join(check.model_dump_json() for check in found) + "]")
        else:
            for one in found:
                if one.ok:
                    ui.say(f"ok       {one.name}: {one.found}")
                else:
                    lack = one.found or f"needed for {one.needed_for}"
                    ui.say(f"missing  {one.name}: {lack}; {one.how}")
            ui.say(checks.summary(found))
        ui.exit_code = checks.exit_code(found)


@commands.command()
def pack(
    model: Annotated[Path, typer.Argument(help="A program (.pt2) or a state dict (.pt).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The packed file to write.")],
    coder: Annotated[str, typer.Option(help="auto, huffman or rans.")] = "auto",
) -> None:
    """Pack a model without loss: sparse indices, codebooks, entropy coding."""
    with session("pack") as ui:
        from deploy import packing

        packing.pack(model, output, coder, ui)


@commands.command()
def unpack(
    packed: Annotated[Path, typer.Argument(help="A packed file (.psk).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model to write.")],
    max_bytes: Annotated[
        int, typer.Option(min=0, help="Refuse tensors of more bytes than this in sum.")
    ] = 1 << 31,
) -> None:
    """Give back the model that was packed, bit for bit."""
    with session("unpack") as ui:
        from deploy import packing

        packing.unpack(packed, output, max_bytes, ui)
