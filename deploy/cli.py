"""The command line: each command parses, calls, prints, and chooses the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy import __version__
from deploy.console import session

app = typer.Typer(
    name="pocketship",
    help="Take a PyTorch model to phones: compress, export, verify, bench, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 passed, 2 bad input, 3 compression, 4 export, 5 parity, 6 device, "
    "7 measurement missing or invalid, 8 over a limit, 9 inconclusive, 130 interrupted, 1 a bug.",
)
phone_app = typer.Typer(help="Emulated ARM64 phones.", no_args_is_help=True)
app.add_typer(phone_app, name="phone")

PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file (YAML).", show_default=False)]
RunArgument = Annotated[
    Path, typer.Argument(help="A run folder, as reports/NAME/latest.", show_default=False)
]
TransportOption = Annotated[
    str | None, typer.Option("--transport", help="Reach phones by tcp, usb or adb-server only.")
]
WaitOption = Annotated[
    float | None,
    typer.Option("--wait", min=0, help="Seconds to wait for a device that is in use."),
]


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


@app.command()
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


@app.command()
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


@app.command()
def export(folder: RunArgument) -> None:
    """Export the programs of a run folder again."""
    _stage("export", folder)


@app.command()
def verify(folder: RunArgument) -> None:
    """Hold the artifacts of a run folder against their programs again."""
    _stage("verify", folder)


@app.command()
def bench(folder: RunArgument, transport: TransportOption = None, wait: WaitOption = None) -> None:
    """Measure the artifacts of a run folder again, on every device of its pipeline."""
    with session("bench") as ui:
        from deploy import commands

        how = commands.reach(transport, wait)
        ui.exit_code = commands.stage("bench", folder, ui, how)


@app.command()
def report(folder: RunArgument) -> None:
    """Write the report of a run folder again from what is in it."""
    _stage("report", folder)


@app.command()
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


@app.command()
def record(
    device: Annotated[str, typer.Argument(help="A device profile: a name or a path.")],
    folder: Annotated[Path, typer.Argument(help="The new folder for the recording.")],
    serial: Annotated[
        str | None, typer.Option(help="Where the device is, as in a pipeline.")
    ] = None,
    run_folder: Annotated[
        Path | None, typer.Option("--run", help="A run folder whose cases are recorded too.")
    ] = None,
) -> None:
    """Record what a device answers, so that it can be replayed without the device."""
    with session("record") as ui:
        from deploy import commands

        commands.record(device, folder, serial, run_folder, ui)


@app.command()
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


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("pipeline.yaml"),
) -> None:
    """Write a commented pipeline file to start from."""
    with session("init") as ui:
        from deploy import commands

        commands.init(file)
        ui.say(f"wrote {file}; next: pocketship check {file}")


@app.command()
def schema(
    of: Annotated[str, typer.Option("--of", help="pipeline or report.")] = "pipeline",
) -> None:
    """Print the JSON Schema of pipeline files, or of report.json."""
    with session("schema") as ui:
        from deploy import commands

        ui.say(commands.schema(of).rstrip())


@app.command()
def check(pipeline: PipelineFile) -> None:
    """Check a pipeline file, its devices and its task without running anything."""
    with session("check") as ui:
        from deploy import commands

        ui.say(commands.check(pipeline, ui))


@app.command()
def pack(
    model: Annotated[Path, typer.Argument(help="A program (.pt2) or a state dict (.pt).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The packed file to write.")],
    coder: Annotated[str, typer.Option(help="auto, huffman or rans.")] = "auto",
) -> None:
    """Pack a model without loss: sparse indices, codebooks, entropy coding."""
    with session("pack") as ui:
        from deploy import packing

        packing.pack(model, output, coder, ui)


@app.command()
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


@phone_app.command("start")
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


@phone_app.command("list")
def phone_list() -> None:
    """List the phones that run."""
    with session("phone list") as ui:
        from deploy import commands

        commands.phone_list(ui)


@phone_app.command("stop")
def phone_stop(
    serial: Annotated[str | None, typer.Argument(help="127.0.0.1:PORT; the only one.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Stop all of them.")] = False,
) -> None:
    """Stop a phone."""
    with session("phone stop") as ui:
        from deploy.emulator import commands as phones

        for phone in phones.stop(serial, everyone=everyone):
            ui.say(f"stopped {phone.serial}")


@phone_app.command("shell", context_settings={"ignore_unknown_options": True})
def phone_shell(
    serial: Annotated[str, typer.Argument(help="127.0.0.1:PORT")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run; none: a shell.")] = None,
) -> None:
    """Run a command on a phone, or an interactive shell."""
    with session("phone shell", own_streams=True) as ui:
        from deploy.emulator import commands as phones

        ui.exit_code = phones.shell(serial, command or [])


@phone_app.command("image")
def phone_image() -> None:
    """Build the phone's kernel and RAM disk if they are not there yet."""
    with session("phone image") as ui:
        from deploy.emulator import image

        ui.say(str(image.build(ui.progress).initrd.parent))


def main() -> None:
    """Entry point of the command ``pocketship``."""
    app()


if __name__ == "__main__":
    main()
