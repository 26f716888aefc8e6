"""The rewritten graph has the same integers, and a rule that must not fire does not.

Graphs are built by hand in the shape that PT2E programs are exported in, and run before and after
by ONNX Runtime with all optimizations off, which computes every node as ONNX defines it. Scales of
what a convolution reads are small multiples of powers of two: its float sums are then exact, so
that no order of additions can move an integer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.export.onnx_rewrite import make_unsigned, rewrite

SHAPE = (1, 3, 6, 7)
Array = NDArray[Any]


class Draft:
    """A graph under construction: every method adds a node and gives its output's name."""

    def __init__(self, shape: tuple[int, ...] = SHAPE) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self.inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        self.outputs: list[str] = []

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value, dtype=dtype)
        return name

    def quantize(self, x: str, scale: Any, zero: Any, dtype: Any = np.int8, axis: int = 1) -> str:
        qparams = self.constant(scale), self.constant(zero, dtype)
        return self.node("QuantizeLinear", x, *qparams, axis=axis)

    def dequantize(self, q: str, scale: Any, zero: Any, dtype: Any = np.int8, axis: int = 1) -> str:
        qparams = self.constant(scale), self.constant(zero, dtype)
        return self.node("DequantizeLinear", q, *qparams, axis=axis)

    def pair(self, x: str, scale: Any, zero: Any, dtype: Any = np.int8) -> str:
        return self.dequantize(self.quantize(x, scale, zero, dtype), scale, zero, dtype)

    def clip(self, x: str, low: float | None, high: float | None) -> str:
        bounds = ["" if bound is None else self.constant(bound) for bound in (low, high)]
        return self.node("Clip", x, *bounds)

    def pad(self, x: str, amounts: list[int], value: float = 0.0, mode: str = "constant") -> str:
        return self.node(
            "Pad", x, self.constant(amounts, np.int64), self.constant(value), mode=mode
        )

    def conv(self, x: str, weight: Array, **attributes: Any) -> str:
        """``weight``: int8, [out, in / group, kernel...]; one scale for each output channel."""
        scale = 2.0 ** -(np.arange(weight.shape[0]) % 3 + 2.0)
        zero = np.zeros(weight.shape[0])
        w = self.dequantize(self.constant(weight, np.int8), scale, zero, axis=0)
        bias = self.constant(np.arange(weight.shape[0]) - 1.0)
        return self.node("Conv", x, w, bias, **attributes)

    def model(self, *outputs: str, opset: int = 20) -> Any:
        values = [helper.make_empty_tensor_value_info(name) for name in outputs]
        initializers = [numpy_helper.from_array(v, name) for name, v in self.constants.items()]
        graph = helper.make_graph(self.nodes, "g", self.inputs, values, initializers)
        opsets = [helper.make_opsetid("", opset)]
        # What shape inference finds stands in the model, as it does in exported ones.
        return onnx.shape_inference.infer_shapes(
            helper.make_model(graph, opset_imports=opsets, ir_version=10), strict_mode=True
        )


def weights(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-15, 16, shape, dtype=np.int8)


def quantized_tensors(model: Any) -> list[str]:
    return [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]


def run(model: Any, x: Array, names: list[str]) -> dict[str, Array]:
    """The named values, with ONNX Runtime's optimizations off."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(probe.SerializeToString(), options)
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def inside(padded: Array, like: Array, before: tuple[int, ...]) -> Array:
    return padded[tuple(slice(b, b + n) for b, n in zip(before, like.shape, strict=True))]


def images(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    # Some values far outside every range, exact zeros, and what lies at the ties of rounding.
    values = random.normal(scale=4.0, size=shape)
    values.flat[::7] = random.integers(-40, 40, values.flat[::7].shape) / 8.0
    values.flat[3:6] = 0.0, 1e6, -1e6
    return values.astype(np.float32)


def rewritten(model: Any, *, unsigned: bool = True) -> tuple[Any, dict[str, int]]:
    """A rewritten copy, checked to be valid, and what was done."""
    after = onnx.ModelProto()
    after.CopyFrom(model)
    done: dict[str, int] = dict(rewrite(after))
    if unsigned and (shifted := make_unsigned(after)):
        done["unsigned"] = shifted
    onnx.checker.check_model(after, full_check=True)
    assert [v.name for v in after.graph.output] == [v.name for v in model.graph.output]
    if not done:
        assert after.SerializeToString() == model.SerializeToString()
    return after, done


def assert_same_integers(before: Any, after: Any, x: Array) -> None:
    """Every quantized tensor that is left, and the outputs bit by bit."""
    kept, outputs = quantized_tensors(after), [value.name for value in before.graph.output]
    assert set(kept) <= set(quantized_tensors(before))
    names = list(dict.fromkeys([*kept, *outputs]))
    old, new = run(before, x, names), run(after, x, names)
    for name in names:
        was, now = old[name], new[name]
        if name in outputs:
            assert was.dtype == now.dtype, name
        elif was.dtype != now.dtype:
            assert (was.dtype, now.dtype) == (np.int8, np.uint8), name
            was = was.astype(np.int16) + 128
        np.testing.assert_array_equal(was, now, err_msg=name)


# Clamps


def grid() -> Array:
    """Ties, their neighbours in float32, zeros, and what is outside every range."""
    ties = np.arange(-600, 601) / 2.0
    near = np.concatenate([ties, np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)])
    return np.concatenate([near, [-1e30, 1e30, -np.inf, np.inf]]).astype(np.float32)[None]


ENDS = st.builds(
    lambda end, part: end + part,
    st.sampled_from([-128, -127, -1, 0, 126, 127, 255, 300]),
    st.sampled_from([-0.51, -0.5, -0.49, 0.0, 0.49, 0.5, 0.51]),
)


@settings(deadline=None, max_examples=300)
@given(
    dtype=st.sampled_from([np.int8, np.uint8]),
    zero=st.sampled_from(["low", "low + 1", "middle", "high"]),
    scale=st.sampled_from([1.0, 0.25, 0.0235294122, 3.0]),
    ends=st.tuples(ENDS, ENDS).map(sorted),
    absent=st.sampled_from(["", "low", "high", "relu"]),
)
def test_a_clamp_goes_if_and_only_if_nobody_can_tell(
    dtype: Any, zero: str, scale: float, ends: list[float], absent: str
) -> None:
    """The oracle is a grid on which quantizing with and without the clamp is compared."""
    info = np.iinfo(dtype)
    places = {"low": info.min, "low + 1": info.min + 1, "middle": (info.min + 1 + info.max) // 2}
    zero_point = places.get(zero, info.max)
    draft = Draft(grid().shape)
    steps = [np.float32((end - zero_point) * scale) for end in ends]
    if absent == "relu":
        clamped = draft.node("Relu", "x")
    else:
        low, high = (
            None if absent == n else s for n, s in zip(("low", "high"), steps, strict=True)
        )
        clamped = draft.clip("x", low, high)
    with_clamp = draft.quantize(clamped, scale, zero_point, dtype)
    without = draft.quantize("x", scale, zero_point, dtype)
    x = grid() * np.float32(scale)
    out = run(draft.model(with_clamp, without), x, [with_clamp, without])
    same = bool((out[with_clamp] == out[without]).all())
    before = draft.model(draft.dequantize(with_clamp, scale, zero_point, dtype))
    after, done = rewritten(before, unsigned=False)
    assert done == ({"dropped_clamps": 1} if same else {})
    assert_same_integers(before, after, x)


def test_relu_then_clip_go_one_after_the_other() -> None:
    draft = Draft()
    clamped = draft.clip(draft.node("Relu", "x"), -1.0, 6.0)
    before = draft.model(draft.pair(clamped, 6 / 255, -128))
    after, done = rewritten(before)
    assert done == {"dropped_clamps": 2, "unsigned": 1}
    assert [n.op_type for n in after.graph.node] == ["QuantizeLinear", "DequantizeLinear"]
    assert_same_integers(before, after, images())


def test_a_clamp_read_by_two_quantizers_must_be_implied_by_both() -> None:
    for zero, goes in ((-128, True), (-127, False)):
        draft = Draft()
        clamped = draft.node("Relu", "x")
        first, second = draft.pair(clamped, 0.25, -128), draft.pair(clamped, 0.25, zero)
        before = draft.model(draft.node("Add", first, second))
        after, done = rewritten(before)
        assert ("dropped_clamps" in done) == goes
        assert_same_integers(before, after, images())


def test_every_channel_must_imply_the_clamp() -> None:
    for last, goes in ((-128, True), (-127, False)):
        draft = Draft()
        scale, zero = [0.5, 0.25, 0.125], [-128, -128, last]
        q = draft.quantize(draft.node("Relu", "x"), scale, zero)
        before = draft.model(draft.dequantize(q, scale, zero))
        after, done = rewritten(before)
        assert ("dropped_clamps" in done) == goes
        assert_same_integers(before, after, images())


def _clamp_is_an_output(draft: Draft) -> tuple[str, ...]:
    clamped = draft.node("Relu", "x")
    return draft.pair(clamped, 0.25, -128), clamped


def _another_operator_reads_the_clamp(draft: Draft) -> tuple[str, ...]:
    clamped = draft.node("Relu", "x")
    return (draft.node("Add", draft.pair(clamped, 0.25, -128), clamped),)


def _a_branch_reads_the_clamp(draft: Draft) -> tuple[str, ...]:
    clamped = draft.node("Relu", "x")
    out = helper.make_tensor_value_info("branch_out", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Neg", [clamped], ["branch_out"])], "b", [], [out])
    condition = draft.constant(True, np.bool_)
    branch = draft.node("If", condition, then_branch=body, else_branch=body)
    return draft.pair(clamped, 0.25, -128), branch


def _the_bound_is_computed(draft: Draft) -> tuple[str, ...]:
    bound = draft.node("ReduceMin", "x", keepdims=0)
    return (draft.pair(draft.node("Clip", "x", bound), 0.25, -128),)


def _the_bound_can_be_overridden(draft: Draft) -> tuple[str, ...]:
    bound = draft.constant(0.0)
    draft.inputs.append(helper.make_tensor_value_info(bound, TensorProto.FLOAT, []))
    return (draft.pair(draft.node("Clip", "x", bound), 0.25, -128),)


def _the_bounds_are_crossed(draft: Draft) -> tuple[str, ...]:
    return (draft.pair(draft.clip("x", 1e5, -1e5), 0.25, -128),)


def _the_zero_point_is_computed(draft: Draft) -> tuple[str, ...]:
    zero = draft.node("Cast", draft.constant(-128.0), to=TensorProto.INT8)
    scale = draft.constant(0.25)
    q = draft.node("QuantizeLinear", draft.node("Relu", "x"), scale, zero)
    return (draft.node("DequantizeLinear", q, scale, zero),)


@pytest.mark.parametrize(
    "make",
    [
        _clamp_is_an_output,
        _another_operator_reads_the_clamp,
        _a_branch_reads_the_clamp,
        _the_bound_is_computed,
        _the_bound_can_be_overridden,
        _the_bounds_are_crossed,
        _the_zero_point_is_computed,
    ],
)
def test_a_clamp_stays_where(make: Any) -> None:
    draft = Draft()
    before = draft.model(*make(draft))
    after, done = rewritten(before)
    assert "dropped_clamps" not in done
    assert {"Relu", "Clip"} & {node.op_type for node in after.graph.node}
    assert_same_integers(before, after, images())


# Pads

SCALES = st.sampled_from([1 / 8, 3 / 16, 5 / 32, 7 / 32])
ZEROS = st.sampled_from([-128, -127, -5, 0, 100, 127])
SIDES = st.integers(0, 3)


@settings(deadline=None, max_examples=120)
@given(
    scale=SCALES,
    zero=ZEROS,
    sides=st.tuples(SIDES, SIDES, SIDES, SIDES),
    own=st.tuples(SIDES, SIDES, SIDES, SIDES),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    depthwise=st.booleans(),
    form=st.sampled_from(["before", "behind", "between", "axes"]),
    seed=st.integers(0, 9),
)
def test_a_pad_becomes_the_convolutions_own(
    scale: float,
    zero: int,
    sides: tuple[int, int, int, int],
    own: tuple[int, int, int, int],
    stride: int,
    dilation: int,
    depthwise: bool,
    form: str,
    seed: int,
) -> None:
    """``form``: where the quantization stands; "between" is what PT2E makes, one on each side."""
    top, left, bottom, right = sides
    draft = Draft()

    def pad(x: str) -> str:
        if form != "axes":
            return draft.pad(x, [0, 0, top, left, 0, 0, bottom, right])
        amounts = draft.constant([left, top, right, bottom], np.int64)
        axes = draft.constant([-1, 2], np.int64)
        return draft.node("Pad", x, amounts, "", axes)

    if form == "before":
        x = draft.pair(pad("x"), scale, zero)
    elif form == "behind":
        x = pad(draft.pair("x", scale, zero))
    else:
        x = draft.pair(pad(draft.pair("x", scale, zero)), scale, zero)
    weight = weights(3, 1, 3, 2, seed=seed) if depthwise else weights(4, 3, 3, 2, seed=seed)
    attributes = {"pads": own, "strides": [stride] * 2, "dilations": [dilation] * 2}
    conv = draft.conv(x, weight, group=3 if depthwise else 1, **attributes)
    before = draft.model(draft.pair(conv, 0.3, -3))
    after, done = rewritten(before)
    pairs = 3 if form in ("between", "axes") else 2
    expected = {"folded_pads": 1, "unsigned": 2}
    assert done == (expected if pairs == 2 else {**expected, "dropped_requantizations": 1})
    assert "Pad" not in {node.op_type for node in after.graph.node}
    last = quantized_tensors(before)[-1]
    x_values = images(seed=seed)
    was, now = (run(m, x_values, [last])[last].astype(int) for m in (before, after))
    np.testing.assert_array_equal(was + 128, now)
    first = quantized_tensors(after)[0]
    was, now = (run(m, x_values, [first])[first].astype(int) for m in (before, after))
    offset = (0, 0, top, left) if form == "before" else (0, 0, 0, 0)
    np.testing.assert_array_equal(inside(was, now, offset) + 128, now)


def _value_is_not_zero(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, 1, 1, 0, 0, 1, 1], value=0.25)
    return (draft.conv(draft.pair(pad, 0.25, 0), weights(4, 3, 3, 3)),)


def _mode_is_not_constant(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, 1, 1, 0, 0, 1, 1], mode="edge")
    return (draft.conv(draft.pair(pad, 0.25, 0), weights(4, 3, 3, 3)),)


def _it_crops(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, -1, 1, 0, 0, 1, 1])
    return (draft.conv(pad, weights(4, 3, 3, 3)),)


def _it_pads_channels(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 1, 0, 0, 0, 0, 0, 0])
    return (draft.conv(pad, weights(4, 4, 3, 3)),)


def _amounts_are_computed(draft: Draft) -> tuple[str, ...]:
    amounts = draft.node("Neg", draft.constant([0, 0, -1, -1, 0, 0, 0, 0], np.int64))
    return (draft.conv(draft.node("Pad", draft.pair("x", 0.25, 0), amounts), weights(4, 3, 3, 3)),)


def _another_operator_reads_the_padded(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, 1, 1, 0, 0, 1, 1])
    return draft.conv(pad, weights(4, 3, 3, 3)), draft.node("Neg", pad)


def _another_operator_reads_the_quantized(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad("x", [0, 0, 1, 1, 0, 0, 1, 1])
    pair = draft.pair(pad, 0.25, 0)
    return draft.conv(pair, weights(4, 3, 3, 3)), draft.node("Neg", pair)


def _the_padded_is_an_output(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, 1, 1, 0, 0, 1, 1])
    return draft.conv(draft.pair(pad, 0.25, 0), weights(4, 3, 3, 3)), pad


def _the_quantized_is_an_output(draft: Draft) -> tuple[str, ...]:
    q = draft.quantize(draft.pad("x", [0, 0, 1, 1, 0, 0, 1, 1]), 0.25, 0)
    return draft.conv(draft.dequantize(q, 0.25, 0), weights(4, 3, 3, 3)), q


def _zero_is_not_zero_any_more(draft: Draft) -> tuple[str, ...]:
    q = draft.quantize(draft.pad("x", [0, 0, 1, 1, 0, 0, 1, 1]), 0.25, 3)
    return (draft.conv(draft.dequantize(q, 0.25, 4), weights(4, 3, 3, 3)),)


def _the_padding_is_automatic(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, 1, 1, 0, 0, 1, 1])
    return (draft.conv(pad, weights(4, 3, 3, 3), auto_pad="SAME_UPPER"),)


def _the_convolution_is_float(draft: Draft) -> tuple[str, ...]:
    return (draft.pair(draft.conv(draft.pad("x", [0, 0, 1, 1] * 2), weights(4, 3, 3, 3)), 1.0, 0),)


def _a_pool_reads_it(draft: Draft) -> tuple[str, ...]:
    pad = draft.pad(draft.pair("x", 0.25, 0), [0, 0, 1, 1, 0, 0, 1, 1])
    return (draft.pair(draft.node("MaxPool", pad, kernel_shape=[3, 3]), 0.25, 0),)


def _the_scale_differs_along_a_padded_axis(draft: Draft) -> tuple[str, ...]:
    scale, zero = np.full(9, 0.25), np.zeros(9)
    q = draft.quantize(draft.pad("x", [0, 0, 1, 1, 0, 0, 1, 1]), scale, zero, axis=3)
    return (draft.conv(draft.dequantize(q, scale, zero, axis=3), weights(4, 3, 3, 3)),)


@pytest.mark.parametrize(
    "make",
    [
        _value_is_not_zero,
        _mode_is_not_constant,
        _it_crops,
        _it_pads_channels,
        _amounts_are_computed,
        _another_operator_reads_the_padded,
        _another_operator_reads_the_quantized,
        _the_padded_is_an_output,
        _the_quantized_is_an_output,
        _zero_is_not_zero_any_more,
        _the_padding_is_automatic,
        _the_convolution_is_float,
        _a_pool_reads_it,
        _the_scale_differs_along_a_padded_axis,
    ],
)
def test_a_pad_stays_where(make: Any) -> None:
    draft = Draft()
    before = draft.model(*make(draft))
    after, done = rewritten(before)
    assert "folded_pads" not in done
    assert "Pad" in {node.op_type for node in after.graph.node}
    assert_same_integers(before, after, images())


def test_a_pad_before_several_convolutions_is_added_to_each() -> None:
    draft = Draft()
    pad = draft.pad("x", [0, 0, 1, 2, 0, 0, 0, 1])
    q = draft.quantize(pad, 0.25, -7)
    one = draft.conv(draft.dequantize(q, 0.25, -7), weights(4, 3, 3, 3), auto_pad="VALID")
    two = draft.conv(draft.dequantize(q, 0.25, -7), weights(4, 3, 3, 3, seed=1), pads=[1, 0, 0, 0])
    three = draft.conv(draft.pair(pad, 0.5, 9), weights(4, 3, 3, 3, seed=2))
    before = draft.model(*(draft.pair(out, 0.5, 0) for out in (one, two, three)))
    after, done = rewritten(before)
    assert done["folded_pads"] == 1
    names = [value.name for value in before.graph.output]
    was, now = run(before, images(), names), run(after, images(), names)
    for name in names:
        np.testing.assert_array_equal(was[name], now[name])


# Quantizing twice


@pytest.mark.parametrize(
    ("scale", "zero", "goes"),
    [
        (0.1, 3, True),
        (0.1, 4, False),
        (0.10001, 3, False),
        (1e-38, 3, True),
        (1e-45, 3, True),  # the smallest float; its multiples are exact
        (3e38, 3, False),  # 2 * 3e38 is infinite
    ],
)
def test_a_second_quantization_goes_if_it_changes_nothing(
    scale: float, zero: int, goes: bool
) -> None:
    draft = Draft()
    first = (scale if goes or scale > 1 else 0.1, 3)
    before = draft.model(draft.pair(draft.pair("x", *first), scale, zero))
    after, done = rewritten(before)
    assert ("dropped_requantizations" in done) == goes
    assert_same_integers(before, after, images() * np.float32(min(scale * 30, 1e30)))


def test_what_else_reads_the_first_dequantized_keeps_it() -> None:
    draft = Draft()
    first = draft.pair("x", 0.1, 3)
    before = draft.model(draft.node("Add", draft.pair(first, 0.1, 3), first))
    after, done = rewritten(before)
    assert done == {"dropped_requantizations": 1, "unsigned": 1}
    assert_same_integers(before, after, images())


def test_a_second_quantization_that_is_an_output_stays() -> None:
    draft = Draft()
    q = draft.quantize(draft.pair("x", 0.1, 3), 0.1, 3)
    before = draft.model(draft.dequantize(q, 0.1, 3), q)
    after, done = rewritten(before)
    assert done == {}
    assert_same_integers(before, after, images())


# Unsigned activations


@settings(deadline=None, max_examples=40)
@given(
    scale=st.floats(2**-10, 8.0, width=32),
    zero=st.integers(-128, 127),
    other=st.integers(-128, 127),
    constant=st.integers(-128, 127),
    seed=st.integers(0, 99),
)
def test_unsigned_activations_are_the_same_steps(
    scale: float, zero: int, other: int, constant: int, seed: int
) -> None:
    """A product with a quantized constant and a residual: all types stay equal."""
    draft = Draft()
    x = draft.pair("x", scale, zero)
    factor = draft.dequantize(draft.constant(constant, np.int8), 0.01, other)
    total = draft.node("Add", draft.pair(draft.node("Mul", x, factor), 0.05, other), x)
    before = draft.model(draft.pair(total, 0.07, zero))
    after, done = rewritten(before)
    assert done == {"unsigned": 4}
    types = {t.data_type for t in after.graph.initializer}
    assert types == {TensorProto.FLOAT, TensorProto.UINT8}
    assert_same_integers(before, after, images(seed=seed))


def test_weights_stay_signed_also_behind_a_transpose() -> None:
    draft = Draft((1, 4, 5))
    weight = draft.constant(weights(6, 5), np.int8)
    w = draft.dequantize(weight, np.full(6, 0.5), np.zeros(6), axis=0)
    product = draft.node("MatMul", draft.pair("x", 0.25, 3), draft.node("Transpose", w))
    before = draft.model(draft.pair(product, 0.5, -4))
    after, done = rewritten(before)
    assert done == {"unsigned": 2}
    kept = {t.name: t for t in after.graph.initializer}
    np.testing.assert_array_equal(numpy_helper.to_array(kept[weight]), weights(6, 5))
    assert_same_integers(before, after, images((1, 4, 5)))


def _integers_are_an_output(draft: Draft) -> tuple[str, ...]:
    q = draft.quantize("x", 0.25, 3)
    return draft.dequantize(q, 0.25, 3), q


def _integers_are_read_as_such(draft: Draft) -> tuple[str, ...]:
    q = draft.quantize("x", 0.25, 3)
    return draft.dequantize(q, 0.25, 3), draft.node("Cast", q, to=TensorProto.INT32)


def _integers_are_an_input(draft: Draft) -> tuple[str, ...]:
    given = draft.constant([5], np.int8)
    draft.inputs.append(helper.make_tensor_value_info(given, TensorProto.INT8, [1]))
    return (draft.node("Add", draft.pair("x", 0.25, 3), draft.dequantize(given, 0.25, 3)),)


def _a_branch_reads_the_integers(draft: Draft) -> tuple[str, ...]:
    q = draft.quantize("x", 0.25, 3)
    out = helper.make_tensor_value_info("branch_out", TensorProto.INT8, None)
    body = helper.make_graph([helper.make_node("Identity", [q], ["branch_out"])], "b", [], [out])
    condition = draft.constant(True, np.bool_)
    branch = draft.node("If", condition, then_branch=body, else_branch=body)
    return draft.dequantize(q, 0.25, 3), branch


@pytest.mark.parametrize(
    "make",
    [
        _integers_are_an_output,
        _integers_are_read_as_such,
        _integers_are_an_input,
        _a_branch_reads_the_integers,
        _the_zero_point_is_computed,
    ],
)
def test_one_activation_that_cannot_be_shifted_keeps_all_signed(make: Any) -> None:
    draft = Draft()
    extra = draft.pair(draft.node("Neg", "x"), 0.5, 1)
    before = draft.model(*make(draft), extra)
    after, done = rewritten(before)
    assert "unsigned" not in done
    assert_same_integers(before, after, images())


def test_a_declared_output_type_follows() -> None:
    draft = Draft()
    qparams = draft.constant(0.25), draft.constant(3, np.int8)
    q = draft.node("QuantizeLinear", "x", *qparams, output_dtype=TensorProto.INT8)
    before = draft.model(draft.node("DequantizeLinear", q, *qparams), opset=21)
    after, done = rewritten(before)
    assert done == {"unsigned": 1}
    assert_same_integers(before, after, images())


def test_other_types_are_left_alone() -> None:
    draft = Draft()
    before = draft.model(
        draft.pair("x", 0.25, 3, np.uint8),
        draft.pair("x", 0.25, 3, np.int16),
        draft.node("Relu", "x"),
        opset=21,
    )
    assert rewritten(before)[1] == {}


def test_a_model_without_quantized_activations_is_left_alone() -> None:
    """Only its weights are quantized; a table of embeddings is no activation."""
    draft = Draft()
    conv = draft.conv(draft.pad("x", [0, 0, 1, 1, 0, 0, 1, 1]), weights(4, 3, 3, 3))
    table = draft.dequantize(draft.constant(weights(5, 4), np.int8), 0.5, 0)
    rows = draft.node("Gather", table, draft.constant([1, 3], np.int64))
    assert rewritten(draft.model(draft.clip(conv, 0.0, 6.0), rows))[1] == {}


def test_only_constants_that_nobody_reads_any_more_go() -> None:
    """A branch reads one of those that stay; the other is a default that a caller may override."""
    draft = Draft()
    in_branch, default = draft.constant([1.0]), draft.constant([2.0])
    draft.inputs.append(helper.make_tensor_value_info(default, TensorProto.FLOAT, [1]))
    out = helper.make_tensor_value_info("branch_out", TensorProto.FLOAT, None)
    body = helper.make_graph([helper.make_node("Neg", [in_branch], ["branch_out"])], "b", [], [out])
    condition = draft.constant(True, np.bool_)
    branch = draft.node("If", condition, then_branch=body, else_branch=body)
    before = draft.model(draft.pair(draft.clip("x", -1e9, 1e9), 0.25, 3), branch)
    after, done = rewritten(before)
    assert done == {"dropped_clamps": 1, "unsigned": 1}
    names = {tensor.name for tensor in after.graph.initializer}
    read = {name for node in after.graph.node for name in node.input} - {"x"}
    made = {name for node in after.graph.node for name in node.output}
    assert names == (read - made) | {in_branch, default}
    assert_same_integers(before, after, images())


# Whole blocks


def block(relu6: bool) -> Any:
    """An inverted residual block as PT2E and the exporter leave it."""
    draft = Draft((1, 4, 8, 8))
    s = 6 / 255 if relu6 else 1 / 16
    x = draft.pair("x", 1 / 16, 4)

    def clamped(conv: str) -> str:
        return draft.pair(
            draft.clip(conv, 0.0, 6.0) if relu6 else draft.node("Relu", conv), s, -128
        )

    wide = clamped(draft.conv(x, weights(8, 4, 1, 1)))
    padded = draft.pair(draft.pad(wide, [0, 0, 1, 1, 0, 0, 1, 1]), s, -128)
    deep = clamped(draft.conv(padded, weights(8, 1, 3, 3), group=8))
    narrow = draft.pair(draft.conv(deep, weights(4, 8, 1, 1)), 1 / 8, 9)
    return draft.model(draft.pair(draft.node("Add", narrow, x), 1 / 8, -2))


@pytest.mark.parametrize("relu6", [True, False])
def test_onnxruntime_fuses_all_of_a_block(relu6: bool, tmp_path: Path) -> None:
    """What the rewrites are for; as it comes, floats are left between the integer kernels."""
    before = block(relu6)
    after, done = rewritten(before)
    assert done == {
        "folded_pads": 1,
        "dropped_requantizations": 1,
        "dropped_clamps": 2,
        "unsigned": 5,
    }

    def kernels(model: Any) -> list[str]:
        path = tmp_path / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options)
        found = {node.op_type for node in onnx.load(path).graph.node}
        return sorted(found - {"Transpose", "QuantizeLinear", "DequantizeLinear"})

    assert kernels(after) == ["QLinearAdd", "QLinearConv"]
    assert kernels(before) != kernels(after)
    x = images((1, 4, 8, 8))
    last = quantized_tensors(before)[-1]
    was, now = (run(model, x, [last])[last].astype(int) for model in (before, after))
    # 6 / 255 is no multiple of a power of two: a sum may round otherwise, and so may its integer.
    assert abs(was + 128 - now).max() <= (1 if relu6 else 0)
