"""Small real models and a way to run the runner on them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from onnx import TensorProto, helper

import deploy.harness

DTYPES = {
    "float32": (torch.float32, TensorProto.FLOAT),
    "float16": (torch.float16, TensorProto.FLOAT16),
    "float64": (torch.float64, TensorProto.DOUBLE),
    "int64": (torch.int64, TensorProto.INT64),
    "int32": (torch.int32, TensorProto.INT32),
    "int8": (torch.int8, TensorProto.INT8),
    "uint8": (torch.uint8, TensorProto.UINT8),
    "bool": (torch.bool, TensorProto.BOOL),
}


class TwoHeads(torch.nn.Module):
    """An image and token numbers in; logits and features out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.linear = torch.nn.Linear(8, 5)
        self.embedding = torch.nn.Embedding(10, 5)

    def forward(self, image: torch.Tensor, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = torch.relu(self.convolution(image))
        return self.linear(features.mean((2, 3))) + self.embedding(tokens).sum(1), features


class Doubled(torch.nn.Module):
    """Each input joined with itself: works on every element type."""

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.cat([tensor, tensor], 1) for tensor in tensors)


@dataclass(frozen=True)
class Outcome:
    """What one run of the runner did."""

    code: int
    stdout: str
    stderr: str
    result: dict[str, Any] | None
    outputs: bytes | None


@dataclass(frozen=True)
class Runner:
    """``bench_runner`` of a bundle; results lie in ``folder``."""

    bundle: deploy.harness.Bundle
    folder: Path

    def command(self, *arguments: str | Path) -> list[str]:
        return [*self.bundle.launch, *map(str, arguments)]

    def call(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.bundle.folder,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    def arguments(self, backend: str, model: Path, inputs: bytes) -> list[str | Path]:
        source = self.folder / "inputs"
        source.write_bytes(inputs)
        arguments: list[str | Path] = ["--backend", backend, "--model", model, "--inputs", source]
        arguments += ["--outputs", self.folder / "outputs", "--result", self.folder / "result.json"]
        return arguments

    def run(self, backend: str, model: Path, inputs: bytes, *options: str | Path) -> Outcome:
        done = self.call(*self.arguments(backend, model, inputs), *options)
        outputs, result = self.folder / "outputs", self.folder / "result.json"
        return Outcome(
            done.returncode,
            done.stdout,
            done.stderr,
            json.loads(result.read_text()) if result.exists() else None,
            outputs.read_bytes() if outputs.exists() else None,
        )

    def left_behind(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} - {"inputs"}


def lower(model: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> bytes:
    program = torch.export.export(model.eval(), arguments)
    edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(edge.to_executorch().buffer)


@pytest.fixture(scope="session")
def bundle() -> deploy.harness.Bundle:
    return deploy.harness.bundle(deploy.harness.native_abi())


@pytest.fixture
def runner(bundle: deploy.harness.Bundle, tmp_path: Path) -> Runner:
    folder = tmp_path / "run"
    folder.mkdir()
    return Runner(bundle, folder)


@pytest.fixture(scope="session")
def image_and_tokens() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(4)
    return torch.randn(1, 3, 16, 16), torch.tensor([[1, 2, 9]])


@pytest.fixture(scope="session")
def content(image_and_tokens: tuple[torch.Tensor, ...]) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in image_and_tokens)


@pytest.fixture(scope="session")
def models(
    tmp_path_factory: pytest.TempPathFactory, image_and_tokens: tuple[torch.Tensor, ...]
) -> dict[str, Path]:
    """``TwoHeads`` as pte, onnx and ort; the ort file is named as on a device, without extension."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "two.pte").write_bytes(lower(TwoHeads(), image_and_tokens))
    exported = torch.onnx.export(
        TwoHeads().eval(), image_and_tokens, dynamo=True, input_names=["image", "tokens"]
    )
    exported.save(folder / "two.onnx")
    subprocess.run(
        [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", folder]
        + ["--optimization_style", "Fixed"],
        check=True,
        capture_output=True,
    )
    (folder / "two.ort").rename(folder / "two-in-ort-format")
    return {
        "pte": folder / "two.pte",
        "onnx": folder / "two.onnx",
        "ort": folder / "two-in-ort-format",
    }


@pytest.fixture(scope="session")
def all_types(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A model with one input of each element type, for both runtimes, and what it must give."""
    folder = tmp_path_factory.mktemp("types")
    generator = np.random.default_rng(5)
    arrays = []
    for name in DTYPES:
        values = generator.integers(0, 2 if name == "bool" else 100, (1, 3))
        arrays.append(values.astype(np.bool_ if name == "bool" else name))
    tensors = tuple(torch.from_numpy(array) for array in arrays)
    (folder / "types.pte").write_bytes(lower(Doubled(), tensors))
    nodes = [helper.make_node("Concat", [f"i{n}", f"i{n}"], [f"o{n}"], axis=1) for n in DTYPES]
    graph = helper.make_graph(
        nodes,
        "types",
        [helper.make_tensor_value_info(f"i{n}", t, [1, 3]) for n, (_, t) in DTYPES.items()],
        [helper.make_tensor_value_info(f"o{n}", t, [1, 6]) for n, (_, t) in DTYPES.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        folder / "types.onnx",
    )
    return {
        "pte": folder / "types.pte",
        "onnx": folder / "types.onnx",
        "inputs": b"".join(array.tobytes() for array in arrays),
        "outputs": b"".join(np.concatenate([array, array], 1).tobytes() for array in arrays),
    }
