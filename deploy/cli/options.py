"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PipelineFile = Annotated[Path, typer.Argument(help="The pipeline file (YAML).", show_default=False)]
RunArgument = Annotated[
    Path, typer.Argument(help="A run folder, as reports/NAME/latest.", show_default=False)
]
SerialOption = Annotated[
    str | None, typer.Option("--serial", help="Where the device is, as in a pipeline.")
]
TransportOption = Annotated[
    str | None, typer.Option("--transport", help="Reach phones by tcp, usb or adb-server only.")
]
WaitOption = Annotated[
    float | None,
    typer.Option("--wait", min=0, help="Seconds to wait for a device that is in use or absent."),
]
