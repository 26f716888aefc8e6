"""A small network in both formats, for what does not depend on the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

from deploy.bench.job import Job
from deploy.files import sha256
from deploy.types import Artifact, Format, Placement, TensorSpec

SHAPE, CLASSES = (1, 3, 64, 64), 10


class SmallNetwork(torch.nn.Module):
    """Three convolutions and a linear layer: about a millisecond on a laptop's core."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        relu = torch.nn.ReLU
        self.features = torch.nn.Sequential(
            *(torch.nn.Conv2d(3, 16, 3, padding=1), relu()),
            *(torch.nn.Conv2d(16, 32, 3, padding=1, stride=2), relu()),
            *(torch.nn.Conv2d(32, 32, 3, padding=1), relu()),
        )
        self.classify = torch.nn.Linear(32, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] to [N, 10]."""
        return self.classify(self.features(x).mean((2, 3)))


@dataclass(frozen=True)
class Exported:
    """Files on this machine."""

    files: dict[Format, Path]
    inputs: Path
    reference: np.ndarray

    def job(self, fmt: Format) -> Job:
        """A case of one thread."""
        path = self.files[fmt]
        artifact = Artifact(
            name=f"small.{fmt.value}",
            variant="small",
            format=fmt,
            path=path.name,
            sha256=sha256(path),
            bytes=path.stat().st_size,
            source_sha256="0" * 64,
            tools={},
            placement=Placement(backend="cpu"),
            inputs=(TensorSpec(name="x", dtype="float32", shape=SHAPE),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=(1, CLASSES)),),
        )
        return Job(artifact, path, self.inputs, [self.reference], 1)


def export(folder: Path) -> Exported:
    """Write the network as ``.pte`` (XNNPACK) and ``.onnx``, and one input."""
    torch.set_num_threads(1)
    network = SmallNetwork().eval()
    x = torch.randn(SHAPE)
    inputs = folder / "inputs.bin"
    inputs.write_bytes(x.numpy().tobytes())
    files = {Format.EXECUTORCH: folder / "small.pte", Format.ONNX: folder / "small.onnx"}
    program = torch.export.export(network, (x,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    files[Format.EXECUTORCH].write_bytes(lowered.to_executorch().buffer)
    exported = torch.onnx.export(network, (x,), dynamo=True, input_names=["x"], verbose=False)
    assert exported is not None
    exported.save(str(files[Format.ONNX]))
    with torch.no_grad():
        return Exported(files, inputs, network(x).numpy())
