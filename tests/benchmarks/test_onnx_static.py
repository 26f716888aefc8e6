"""The comparison with ONNX Runtime's own quantization: what is timed, and against what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.onnx_static import Result, interleaved, quantize_statically


def convolution(path: Path) -> Path:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4])
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph([conv], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def test_the_ratio_is_that_of_each_turn() -> None:
    """The second turn met a busy machine, which the ratio of the medians would show as 4."""
    samples = {"ours": [1.0, 40.0, 10.0], "onnxruntime": [1.0, 40.0, 2.5]}
    result = Result("1", samples)
    assert result.ratio == 1.0
    assert result.medians_ms == {"ours": 10.0, "onnxruntime": 2.5}


def test_both_models_run_as_often_and_the_other_one_is_static_int8(tmp_path: Path) -> None:
    fp32 = convolution(tmp_path / "fp32.onnx")
    random = np.random.default_rng(1)
    feeds = [{"x": random.normal(size=(1, 3, 6, 6)).astype(np.float32)} for _ in range(3)]
    static = tmp_path / "static.onnx"
    quantize_statically(fp32, static, feeds)
    model = onnx.load(static).graph
    known = {tensor.name: tensor for tensor in model.initializer}
    zeros = {
        node.op_type: known[node.input[2]].data_type
        for node in model.node
        if node.op_type == "QuantizeLinear"
    }
    assert zeros == {"QuantizeLinear": TensorProto.UINT8}
    (weight,) = [t for t in model.initializer if list(t.dims) == [4, 3, 3, 3]]
    assert weight.data_type == TensorProto.INT8
    result = interleaved({"fp32": fp32, "onnxruntime": static}, [feeds[0]["x"]], 5)
    assert {name: len(samples) for name, samples in result.samples_ms.items()} == {
        "fp32": 5,
        "onnxruntime": 5,
    }
    assert all(sample > 0 for samples in result.samples_ms.values() for sample in samples)
    assert "QLinearConv" in result.kernels["onnxruntime"]
    assert not {"QLinearConv", "QuantizeLinear"} & set(result.kernels["fp32"])
    with pytest.raises(ValueError, match="zip"):
        interleaved({"fp32": fp32}, [], 1)
