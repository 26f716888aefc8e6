"""Weight-only and dynamic programs, and half precision, in each format: run, or decoded."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import onnx
import pytest
import torch
from coremltools.converters.mil.frontend.milproto import load as milproto
from coremltools.converters.mil.mil import types
from torch import Tensor, nn

from compress.capture import load_program
from compress.quality import compare, run_all
from compress.quantize import Quantize
from compress.recipe import Compressed, apply
from deploy.export import EXPORTERS
from deploy.export.integer_layers import IntegerLayer, integer_layers, opened
from deploy.export.options import CoreMLTarget, ExecuTorchTarget, OnnxTarget, Written
from deploy.types import Format
from deploy.verify.parity import RUNTIMES
from tests.compress.networks import NO_TARGET, Small, seeded, task_of

TARGETS: dict[Format, Any] = {
    Format.EXECUTORCH: ExecuTorchTarget(format=Format.EXECUTORCH),
    Format.ONNX: OnnxTarget(format=Format.ONNX),
    Format.COREML: CoreMLTarget(format=Format.COREML),
}


class Mixed(nn.Module):
    """A convolution and linear layers whose input channels divide into groups of 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(64, 64, 3, padding=1)
        self.hidden = nn.Linear(64, 96)
        self.head = nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.hidden(x)))


SHAPE = (1, 64, 4, 3)


@functools.cache
def made(**keys: Any) -> Compressed:
    return apply(task_of(seeded(Mixed), SHAPE), [Quantize(**keys)])


def export(program: Any, fmt: Format, folder: Path) -> dict[Format, Written]:
    return {w.format: w for w in EXPORTERS[fmt](program, TARGETS[fmt], folder, "m")}


def sqnr(reference: list[Any], written: Written) -> float:
    samples = list(task_of(seeded(Mixed), SHAPE).evaluation)
    outputs = run_all(RUNTIMES[written.format](written.path), samples)
    found = compare(reference, outputs, NO_TARGET, [None] * len(samples)).sqnr_db
    return float("inf") if found is None else found


def weights(program: Any) -> list[IntegerLayer]:
    return integer_layers(opened(program))


GROUPS = {"bits": 4, "group_size": 32}


def test_four_bits_are_packed_and_multiplied_as_the_program_does(tmp_path: Path) -> None:
    result = made(mode="weight_only", **GROUPS)
    files = export(result.program, Format.ONNX, tmp_path)
    for written in files.values():
        assert sqnr(result.program_outputs, written) > 90
    model = onnx.load(files[Format.ONNX].path)
    packed = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT4]
    layers = weights(result.program)
    assert len(packed) == len(layers) == 3
    for tensor, layer in zip(packed, layers, strict=True):
        assert len(tensor.raw_data or tensor.int32_data) <= layer.integers.numel() // 2
        values = onnx.numpy_helper.to_array(tensor).astype(np.int8)
        assert np.array_equal(values, layer.integers.numpy())


def test_dynamic_layers_multiply_the_programs_integers(tmp_path: Path) -> None:
    result = made(mode="dynamic")
    files = export(result.program, Format.ONNX, tmp_path)
    for written in files.values():
        assert sqnr(result.program_outputs, written) > 90
    kinds = [node.op_type for node in onnx.load(files[Format.ONNX].path).graph.node]
    assert kinds.count("MatMulInteger") == kinds.count("DynamicQuantizeLinear") == 2
    assert "2 linear layers multiply integers" in files[Format.ONNX].placement.reason


def test_four_bits_in_executorch_are_delegated_and_small(tmp_path: Path) -> None:
    result = made(mode="dynamic", **GROUPS)
    written = export(result.program, Format.EXECUTORCH, tmp_path)[Format.EXECUTORCH]
    # XNNPACK finds a range for each row, the program one for the tensor.
    assert sqnr(result.program_outputs, written) > 30
    assert written.placement.left == {}
    convolution = 4 * 64 * 64 * 9
    assert written.path.stat().st_size < convolution + (64 * 96 + 96 * 5) / 2 + 12_000


def test_executorch_says_that_weight_only_buys_nothing(tmp_path: Path) -> None:
    result = made(mode="weight_only", **GROUPS)
    written = export(result.program, Format.EXECUTORCH, tmp_path)[Format.EXECUTORCH]
    assert sqnr(result.program_outputs, written) > 90
    assert "3 integer weights stored as float32" in written.placement.reason


def operations(path: Path) -> list[Any]:
    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    program = milproto.load(spec, spec.specificationVersion, file_weights_dir=model.weights_dir)
    return list(program.functions["main"].operations)


@pytest.mark.parametrize("mode", ["weight_only", "dynamic"])
def test_core_ml_has_the_same_weights_in_four_bits(mode: str, tmp_path: Path) -> None:
    result = made(mode=mode, **GROUPS)
    written = export(result.program, Format.COREML, tmp_path)[Format.COREML]
    found = [op for op in operations(written.path) if op.op_type.startswith("constexpr")]
    layers = weights(result.program)
    assert len(found) == len(layers)
    for op, layer in zip(found, layers, strict=True):
        assert types.builtin_to_string(op.data.dtype) == "int4"
        value = torch.from_numpy(np.asarray(op.materialized_val_inference(), np.float32))
        assert torch.allclose(value, layer.weight(), rtol=2e-3, atol=1e-6)
    assert ("float activations" in written.placement.reason) == (mode == "dynamic")


def test_half_precision_with_relu6_is_the_float_network_in_core_ml(tmp_path: Path) -> None:
    result = apply(task_of(seeded(Small)), [Quantize(mode="fp16")])
    kinds, values = [], []
    for number, program in enumerate((result.program, result.baseline)):
        folder = tmp_path / str(number)
        done = operations(export(program, Format.COREML, folder)[Format.COREML].path)
        kinds.append([op.op_type for op in done if op.op_type not in {"const", "batch_norm"}])
        values.append(next(op for op in done if op.op_type == "linear").weight.val)
        convolutions = [op for op in done if op.op_type == "conv"]
        assert all(op.weight.val.dtype == np.float16 for op in convolutions)
    assert kinds[0] == kinds[1]
    assert np.array_equal(values[0], values[1])


def test_a_program_with_groups_is_loaded_again(tmp_path: Path) -> None:
    program = made(mode="weight_only", **GROUPS).program
    path = tmp_path / "p.pt2"
    torch.export.save(program, path)
    assert [layer.bits for layer in weights(load_program(path))] == [4, 4, 4]
