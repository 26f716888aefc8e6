"""Tiny real models, the real runner's bundle, and the two devices that every machine has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from adb_shell.auth.keygen import keygen

from deploy import harness
from deploy.bench.agent import bundle_folder_name
from deploy.bench.session import Job
from deploy.devices import profiles
from deploy.devices.base import Device
from deploy.devices.host import HostDevice
from deploy.files import sha256
from deploy.types import Artifact, Format, Placement, TensorSpec
from tests.deploy.native_adbd import NativeAdbd, running

FEATURES, CLASSES = 64, 10
SPECS = {
    "inputs": (TensorSpec(name="x", dtype="float32", shape=(1, FEATURES)),),
    "outputs": (TensorSpec(name="y", dtype="float32", shape=(1, CLASSES)),),
}


def artifact(path: Path, fmt: Format) -> Artifact:
    return Artifact(
        name=f"tiny.{fmt.value}",
        variant="tiny",
        format=fmt,
        path=path.name,
        sha256=sha256(path),
        bytes=path.stat().st_size,
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="cpu"),
        **SPECS,
    )


@dataclass(frozen=True)
class Models:
    """One matrix product in three formats, its inputs, and what it computes."""

    files: dict[Format, Path]
    inputs: Path
    reference: np.ndarray
    weight: np.ndarray

    def job(self, fmt: Format, *, path: Path | None = None, threads: int = 1) -> Job:
        file = path or self.files[fmt]
        return Job(artifact(file, fmt), file, self.inputs, [self.reference], threads)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models $(touch pwned) it's")
    rng = np.random.default_rng(7)
    weight = rng.standard_normal((CLASSES, FEATURES), dtype=np.float32)
    x = rng.standard_normal((1, FEATURES), dtype=np.float32)
    inputs = folder / "inputs.bin"
    inputs.write_bytes(x.tobytes())
    files = {
        Format.EXECUTORCH: folder / "tiny.pte",
        Format.ONNX: folder / "tiny.onnx",
        Format.ORT: folder / "tiny.ort",
        Format.COREML: folder / "tiny.mlpackage",
    }
    _export_executorch(weight, files[Format.EXECUTORCH])
    _export_onnx(weight, files[Format.ONNX], files[Format.ORT])
    # Never opened: Core ML does not run here.
    files[Format.COREML].write_bytes(b"")
    return Models(files, inputs, x @ weight.T, weight)


def _export_executorch(weight: np.ndarray, path: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    linear = torch.nn.Linear(FEATURES, CLASSES, bias=False).eval()
    linear.weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    program = torch.export.export(linear, (torch.zeros(1, FEATURES),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def _export_onnx(weight: np.ndarray, path: Path, ort_path: Path) -> None:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(ort_path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="session")
def bundle() -> harness.Bundle:
    return harness.bundle(HostDevice().profile.abi)


@pytest.fixture(scope="session")
def adb_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all daemons: making one takes longer than many a test."""
    key = tmp_path_factory.mktemp("key") / "adbkey"
    keygen(str(key))
    return key


@pytest.fixture
def adbd(tmp_path: Path, adb_key: Path) -> Iterator[NativeAdbd]:
    with running(harness.adbd(HostDevice().profile.abi), tmp_path / "adbd", adb_key) as daemon:
        yield daemon


@pytest.fixture
def host(tmp_path: Path) -> HostDevice:
    work_dir = str(tmp_path / "it's a $(touch pwned) device")
    return HostDevice(profiles.load("host").model_copy(update={"work_dir": work_dir}))


@pytest.fixture
def seeded(device: Device, bundle: harness.Bundle) -> Device:
    """``device`` with the bundle there already, since sending 50 MB takes its time."""
    folder = Path(device.profile.work_dir) / bundle_folder_name(bundle.files)
    folder.mkdir(parents=True)
    for name in bundle.files:
        shutil.copy(bundle.folder / name, folder / name)
    return device


@pytest.fixture(params=["host", "adb"])
def device(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Device]:
    if request.param == "host":
        yield request.getfixturevalue("host")
        return
    adbd: NativeAdbd = request.getfixturevalue("adbd")
    connected = adbd.connect(tmp_path / "it's a $(touch pwned) device")
    yield connected
    connected.close()
