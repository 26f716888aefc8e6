"""The model that a device is calibrated with where the user names none.

A small convolutional network of the usual kind, made here with seeded weights: what it computes is
nothing, how long it takes varies as a real one's does.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from compress.capture import capture
from deploy import stored, workspace
from deploy.errors import ConfigError
from deploy.export import EXPORTERS
from deploy.export.options import CoreMLTarget, ExecuTorchTarget, OnnxTarget
from deploy.types import Artifact, Format

NAME = "calibration"
DESCRIPTION = (
    "built-in: 7 convolutions (3 of them depthwise) with ReLU and a linear layer, float32, "
    "1 x 3 x 224 x 224, 22 million multiply-accumulates, seeded weights"
)
INPUT = (1, 3, 224, 224)
FORMATS = (Format.EXECUTORCH, Format.ONNX, Format.COREML)


def model() -> nn.Module:
    """The network, the same every time; it leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *_convolution(3, 16, stride=2, size=3),
            *_separable(16, 32, stride=2),
            *_separable(32, 64, stride=1),
            *_separable(64, 128, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, 10),
        ).eval()


def _convolution(
    inputs: int, outputs: int, *, stride: int, size: int, groups: int = 1
) -> tuple[nn.Module, nn.Module]:
    return (
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, groups=groups),
        nn.ReLU(),
    )


def _separable(inputs: int, outputs: int, *, stride: int) -> tuple[nn.Module, ...]:
    return (
        *_convolution(inputs, inputs, stride=stride, size=3, groups=inputs),
        *_convolution(inputs, outputs, stride=1, size=1),
    )


def export(format_: Format, folder: Path) -> Artifact:
    """Write the model in this format with its manifest into ``folder``, which is made.

    Raises ``ConfigError`` for a format that it is not made in, and what the exporter raises.
    """
    if format_ not in FORMATS:
        raise ConfigError(
            f"the built-in model is not made in {format_.value}",
            where="calibrate --format",
            hint=f"Choose one of {', '.join(FORMATS)}, or name a model of your own.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    program = capture(model(), (torch.zeros(INPUT),), name=NAME)
    source = folder / f"{NAME}.pt2"
    torch.export.save(program, source)
    targets = {
        Format.EXECUTORCH: ExecuTorchTarget(format=Format.EXECUTORCH),
        Format.ONNX: OnnxTarget(format=Format.ONNX, ort=False),
        Format.COREML: CoreMLTarget(format=Format.COREML),
    }
    (written,) = EXPORTERS[format_](program, targets[format_], folder, NAME)
    artifact = stored.described(NAME, program, source, written)
    # The manifest is the last thing written: it vouches for the file.
    workspace.write_json(folder / f"{artifact.name}.manifest.json", artifact)
    return artifact
