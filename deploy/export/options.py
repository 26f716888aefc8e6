"""What a pipeline file may say about each format, and what an exporter leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from deploy.types import Format, Model, Placement


class ExecuTorchTarget(Model):
    """``.pte`` for ExecuTorch, delegated to XNNPACK where it can be."""

    format: Literal[Format.EXECUTORCH]

    def formats(self) -> tuple[Format, ...]:
        """The formats that come out, the first being the target's own."""
        return (self.format,)


class OnnxTarget(Model):
    """``.onnx`` for ONNX Runtime; ``ort`` adds the reduced ``.ort`` format of its mobile build.

    ``activations`` is how the ``.onnx`` of an int8 program stores them: uint8 is what x86 fuses,
    int8 takes fewer instructions on ARM. The steps are the same; the ``.ort`` always has int8.
    """

    format: Literal[Format.ONNX]
    ort: bool = True
    activations: Literal["uint8", "int8"] = "uint8"

    def formats(self) -> tuple[Format, ...]:
        """The formats that come out, the first being the target's own."""
        return (self.format, Format.ORT) if self.ort else (self.format,)


class CoreMLTarget(Model):
    """``.mlpackage`` for Core ML (ML Program), converted on any machine, run on Apple's only.

    ``palettes`` ``auto`` stores weights that have few values as look-up tables, without a change.
    """

    format: Literal[Format.COREML]
    minimum_deployment_target: Literal["iOS16", "iOS17", "iOS18"] = "iOS18"
    palettes: Literal["auto", "off"] = "auto"

    def formats(self) -> tuple[Format, ...]:
        """The formats that come out, the first being the target's own."""
        return (self.format,)


class PackedTarget(Model):
    """``.psk``: the program packed without loss (docs/packing.md); unpacked before it is run."""

    format: Literal[Format.PACKED]
    coder: Literal["auto", "huffman", "rans"] = "auto"

    def formats(self) -> tuple[Format, ...]:
        """The formats that come out, the first being the target's own."""
        return (self.format,)


Target = Annotated[
    ExecuTorchTarget | OnnxTarget | CoreMLTarget | PackedTarget, Field(discriminator="format")
]


@dataclass(frozen=True)
class Written:
    """One file (or ``.mlpackage`` folder) that an exporter wrote, and the tools that made it."""

    format: Format
    path: Path
    placement: Placement
    tools: dict[str, str]
