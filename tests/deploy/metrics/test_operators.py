"""The runtimes' profiles: what is made of them, and that nothing in them is trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.metrics.layers import GraphNode, Layers, ProgramNode, with_layers
from deploy.metrics.operators import (
    DELEGATE_CALL,
    OUTSIDE,
    executorch_operators,
    onnxruntime_operators,
)
from deploy.types import OperatorCost

NAMES = [
    "Method::execute",
    "DELEGATE_CALL",
    "Convolution (NHWC, F32) GEMM #1",
    "OPERATOR_CALL",
    "native_call_cumsum.out",
    "Fully Connected (NC, F32) GEMM #1",
]


def inference(number: int, at: int, slower: int = 0) -> list[list[int]]:
    """A delegate call of 700 ns with 600 in a convolution, a kernel of 200, another call of 50."""
    return [
        [number, 0, 0, -1, 0, at, at + 1000 + slower],
        [number, 0, 1, 0, 0, at + 10, at + 710],
        [number, 1, 2, 0, 0, at + 20, at + 620],
        [number, 0, 3, 0, 1, at + 720, at + 920],
        [number, 0, 4, 0, 1, at + 730, at + 910],
        [number, 0, 1, 0, 2, at + 930, at + 980],
        [number, 1, 5, 0, 2, at + 930, at + 970],
    ]


def tracer(events: list[list[int]], **changes: Any) -> bytes:
    profile = {"truncated": False, "names": NAMES, "events": events}
    return json.dumps({**profile, **changes}).encode()


TWO = tracer(inference(0, 0, slower=5000) + inference(1, 10_000) + inference(2, 20_000, slower=7))


def test_executorch_rows_are_the_last_inferences_and_sum_to_the_whole() -> None:
    rows = executorch_operators(TWO, inferences=2, clock="icount")
    assert [(row.name, row.kind, row.backend, row.samples) for row in rows] == [
        (
            "0: Convolution (NHWC, F32) GEMM #1",
            "Convolution (NHWC, F32) GEMM",
            "xnnpack",
            (600.0, 600.0),
        ),
        ("0: delegate call", DELEGATE_CALL, "executorch", (100.0, 100.0)),
        ("1: cumsum.out", "cumsum", "executorch", (200.0, 200.0)),
        (
            "2: Fully Connected (NC, F32) GEMM #1",
            "Fully Connected (NC, F32) GEMM",
            "xnnpack",
            (40.0, 40.0),
        ),
        ("2: delegate call", DELEGATE_CALL, "executorch", (10.0, 10.0)),
        (OUTSIDE, OUTSIDE, "executorch", (50.0, 57.0)),
    ]
    assert [sum(column) for column in zip(*(row.samples for row in rows), strict=True)] == [
        1000.0,
        1007.0,
    ]
    assert {row.unit for row in rows} == {"instructions"}
    (first, *_) = executorch_operators(TWO, inferences=2, clock="monotonic")
    assert (first.unit, first.samples) == ("ms", (0.0006, 0.0006))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "JSON"),
        (tracer([]), "no operator"),
        (tracer(inference(0, 0), truncated=True), "more events"),
        (tracer([[0, 0, 99, 0, 0, 1, 2]]), "no name"),
        (tracer([[0, 0, 0, 0, 0, 2, 1]]), "before it begins"),
        (tracer([[0, 2, 0, 0, 0, 1, 2]]), "events.0.1"),
        (tracer(inference(0, 0) + inference(1, 5000)[:5]), "same operators"),
    ],
)
def test_damaged_executorch_profiles_are_refused(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        executorch_operators(text, inferences=3, clock="monotonic")
    assert "\n" not in str(error.value)


def node(name: str, kind: str, ts: int, dur: int) -> dict[str, Any]:
    arguments = {"op_name": kind, "provider": "CPUExecutionProvider", "anything": [{}]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": arguments}


def run(at: int, dur: int) -> list[dict[str, Any]]:
    """ONNX Runtime writes a run after its nodes."""
    return [
        node("a", "Conv", at + 1, 5),
        node("b", "Clip", at + dur, 0),  # in the microsecond in which the run ends
        {"cat": "Session", "name": "model_run", "ts": at, "dur": dur, "args": {}},
    ]


def test_onnxruntime_rows_are_of_the_last_runs() -> None:
    load = [{"cat": "Session", "name": "session_initialization", "ts": 0, "dur": 9, "args": {}}]
    text = json.dumps(load + run(10, 100) + run(111, 20) + run(132, 10)).encode()
    rows = onnxruntime_operators(text, inferences=2, clock="monotonic")
    assert [(row.name, row.kind, row.backend, row.samples) for row in rows] == [
        ("a", "Conv", "cpu", (0.005, 0.005)),
        ("b", "Clip", "cpu", (0.0, 0.0)),
        (OUTSIDE, OUTSIDE, "onnxruntime", (0.015, 0.005)),
    ]
    counted = onnxruntime_operators(text, inferences=1, clock="icount")
    assert counted[0].samples == (5000.0,)


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'[{"cat": 1}]', b"[" * 100_000])
def test_damaged_onnxruntime_profiles_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        onnxruntime_operators(text, inferences=1, clock="monotonic")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 1), st.integers(0, 6), st.integers(-1, 2),
        st.integers(0, 2), st.integers(0, 99), st.integers(0, 200),
    ).map(list),
    max_size=12,
)  # fmt: skip


@given(st.binary(max_size=60) | JSON.map(lambda v: json.dumps(v).encode()) | EVENTS.map(tracer))
def test_no_text_makes_a_parser_crash_or_invent_time(text: bytes) -> None:
    for parse in (executorch_operators, onnxruntime_operators):
        try:
            rows = parse(text, inferences=2, clock="icount")
        except ValueError:
            continue
        lengths = {len(row.samples) for row in rows}
        assert len(lengths) == 1
        assert lengths <= {1, 2}
        assert all(sample >= 0 for row in rows for sample in row.samples)


def cost(name: str, kind: str, backend: str) -> OperatorCost:
    return OperatorCost(name=name, kind=kind, backend=backend, unit="ms", samples=(1.0,))


PROGRAM = (
    ProgramNode("conv2d", "conv2d", "stem"),
    ProgramNode("hardtanh", "hardtanh", "act"),
    ProgramNode("conv2d_1", "conv2d", "body.0"),
    ProgramNode("cumsum", "cumsum", ""),
    ProgramNode("cumsum_1", "cumsum", "body.1"),
    ProgramNode("linear", "linear", "head"),
)


def layers_of(costs: list[OperatorCost], layers: Layers) -> list[tuple[str, ...]]:
    return [row.layers for row in with_layers(costs, layers)]


def test_xnnpack_is_joined_by_order_and_kernels_by_name() -> None:
    costs = [
        cost("0: Transpose #1", "Transpose (ND, X32)", "xnnpack"),
        cost("0: Convolution #1", "Convolution (NHWC, F32) IGEMM", "xnnpack"),
        # A 1x1 convolution.
        cost("0: Fully Connected #1", "Fully Connected (NC, F32) GEMM", "xnnpack"),
        cost("0: delegate call", DELEGATE_CALL, "executorch"),
        cost("1: cumsum.out", "cumsum", "executorch"),
        cost("2: cumsum.out", "cumsum", "executorch"),
        cost("3: Fully Connected #1", "Fully Connected (NC, F32) GEMM", "xnnpack"),
    ]
    expected = [(), ("stem",), ("body.0",), (), (), ("body.1",), ("head",)]
    assert layers_of(costs, Layers(PROGRAM)) == expected


def test_another_number_of_operators_is_not_guessed() -> None:
    two = [cost(f"{n}", "Convolution (NHWC, F32) GEMM", "xnnpack") for n in range(2)]
    assert layers_of(two, Layers(PROGRAM)) == [(), ()]
    # As many as there are, but a convolution where the program has its linear layer.
    three = [cost(f"{n}", "Convolution (NHWC, F32) GEMM", "xnnpack") for n in range(3)]
    assert layers_of(three, Layers(PROGRAM)) == [(), (), ()]


GRAPH = (
    GraphNode("node_Conv_30", "Conv", ("x", "stem.weight"), ("getitem",)),
    GraphNode("node_hardtanh", "Clip", ("getitem", "low", "high"), ("hardtanh",)),
    GraphNode("q", "DequantizeLinear", ("body.0.weight", "scale"), ("w",)),
    GraphNode("node_other", "Conv", ("hardtanh", "w"), ("conv2d_1",)),
    GraphNode("node_cumsum_1", "CumSum", ("conv2d_1",), ("cumsum_1",)),
)


def test_onnx_is_joined_by_names() -> None:
    costs = [
        cost("hardtanh_nchwc", "Conv", "cpu"),  # Conv and Clip in one, named after its output
        cost("node_other", "QLinearConv", "cpu"),  # its weight stands behind a DequantizeLinear
        cost("node_cumsum_1", "CumSum", "cpu"),  # no parameter, but the exporter's name
        cost("ReorderOutput", "ReorderOutput", "cpu"),
        cost("node_hardtanh", "Clip", "cpu"),
    ]
    expected = [("stem",), ("body.0",), ("body.1",), (), ("act",)]
    assert layers_of(costs, Layers(PROGRAM, GRAPH)) == expected


def test_onnx_without_names_is_joined_by_order() -> None:
    costs = [cost(f"Conv_token_{n}", "FusedConv", "cpu") for n in range(2)]
    assert layers_of(costs, Layers(PROGRAM, GRAPH)) == [("stem",), ("body.0",)]
