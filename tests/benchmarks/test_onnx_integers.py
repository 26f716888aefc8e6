"""The comparison of integers: which tensors are the same ones, and what counts as a difference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from benchmarks.onnx_integers import Difference, Tap, compare, onnx_taps, taps, with_outputs
from compress.capture import forward_of
from tests.compress.networks import Small, images, made_of


def test_a_difference_counts_steps_not_values() -> None:
    a, b = np.array([[0, 5, -128, 3]]), np.array([[0, 4, -126, 3]])
    assert Difference.of("t", "a/b", a, b) == Difference("t", "a/b", 4, 0.5, 0.75, 2)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return made_of(Small).program


def test_the_shown_tensors_are_those_of_the_program(program: torch.export.ExportedProgram) -> None:
    """Recomputed by hand for the input, and the program's own output stays what it was."""
    (x,) = images(1, 3)
    first = taps(program)[0]
    shown = forward_of(with_outputs(program, [first.name], x))(x)
    expected = (x[0] / first.scale).round().clamp(-128 - first.zero, 127 - first.zero)
    assert np.array_equal(first.integers(shown[0]), expected.long().numpy() + first.zero)
    assert torch.equal(shown[1], forward_of(program)(x)[0])


def test_a_tensor_of_another_scale_is_not_the_same() -> None:
    def constant(name: str, value: object) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.asarray(value), name)

    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])
    initial = [constant("s", np.float32(0.5)), constant("z", np.uint8(130))]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], initial))
    tap = Tap("q", 0.5, 2)
    assert onnx_taps(model, [tap]) == {"q": "q"}
    others = [replace(tap, scale=0.25), replace(tap, zero=130), replace(tap, name="p")]
    assert onnx_taps(model, others) == {}


@pytest.mark.soak
def test_both_runtimes_are_compared(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    inputs = images(2, 3)
    found = compare(program, inputs, tmp_path, 3)
    assert {row.pair for row in found} == {"onnx/pte", "pte/program", "onnx/program"}
    tensors = [row.tensor for row in found if row.pair == "onnx/pte"]
    assert len(set(tensors)) == 3
    assert all(row.count > 0 and row.equal_share > 0.9 and row.largest <= 3 for row in found)
    # The input is quantized by each in the same way, but for ties.
    assert all(row.equal_share > 0.999 for row in found if row.tensor == tensors[0])
