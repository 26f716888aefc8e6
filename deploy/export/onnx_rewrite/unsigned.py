"""int8 activations become uint8: the same steps, counted from 0 instead of -128."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from deploy.export.onnx_rewrite.graph import Graph, runs
from deploy.export.onnx_rewrite.qparams import qparams

_SHIFT = 128
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def make_activations_unsigned(graph: Graph) -> int:
    """Add 128 to all zero points of int8 activations; the number of tensors that became uint8.

    ``saturate(round(x / scale) + zero_point)`` to [-128, 127] plus 128 is the same with
    ``zero_point + 128`` to [0, 255], and ``(q - zero_point) * scale`` sees the same difference:
    each integer is 128 larger and each float the same, bit by bit.

    On x86 ONNX Runtime fuses operators of unsigned activations only. Its own transformer shifts
    signed ones, but not those with several readers, as before each residual Add. On ARM it fuses
    both.

    Weights (the second operand of a convolution or matrix product) stay int8. Other quantized
    constants follow, because an Add is fused only where all types are equal. For the same reason it
    is all or nothing: where one int8 activation cannot be shifted (its integers are read by
    something else than a DequantizeLinear, are an input or output of the model, or go into control
    flow; a zero point is not constant), none is.
    """
    quantizers = graph.of_type("QuantizeLinear")
    dequantizers = [n for n in graph.of_type("DequantizeLinear") if not _is_weight(graph, n)]
    types = {id(node): _zero_type(graph, node) for node in (*quantizers, *dequantizers)}
    if None in types.values():
        return 0
    quantizers = [node for node in quantizers if types[id(node)] == np.int8]
    dequantizers = [node for node in dequantizers if types[id(node)] == np.int8]
    nodes = [*quantizers, *dequantizers]
    shiftable = {id(node) for node in dequantizers}
    tensors = {node.output[0] for node in quantizers}
    constants = {node.input[0] for node in dequantizers} - tensors
    if not tensors or not all(graph.is_constant(name) for name in constants):
        return 0
    for name in tensors | constants:
        if name in graph.pinned or any(id(r) not in shiftable for r in graph.readers(name)):
            return 0
    shifted: dict[str, str] = {}

    def shift(node: Any, position: int) -> None:
        name = node.input[position]
        if name not in shifted:
            value = graph.constant(name)
            assert value is not None
            unsigned = (value.astype(np.int16) + _SHIFT).astype(np.uint8)
            shifted[name] = graph.add_constant(f"{name}.uint8", unsigned)
        graph.set_input(node, position, shifted[name])

    for node in nodes:
        if node.input[0] in constants:
            shift(node, 0)
        shift(node, 2)
        for attribute in node.attribute:
            if attribute.name == "output_dtype" and node.op_type == "QuantizeLinear":
                attribute.i = onnx.TensorProto.UINT8
    for name in tensors:
        graph.forget_type(name)
    return len(tensors) + len(constants)


def _zero_type(graph: Graph, node: Any) -> Any:
    """The integers' type; None where it is not known."""
    params = qparams(graph, node)
    return None if params is None else params.zero_point.dtype


def _is_weight(graph: Graph, dequantizer: Any) -> bool:
    """Whether this dequantizes constants of which every reader makes a weight or bias."""
    return graph.is_constant(dequantizer.input[0]) and _only_weighs(graph, dequantizer.output[0])


def _only_weighs(graph: Graph, name: str) -> bool:
    readers = graph.readers(name)
    if name in graph.pinned or not readers:
        return False
    return all(
        (runs(node, *_WEIGHTED) and node.input[0] != name)
        or (runs(node, "Transpose", "Reshape") and _only_weighs(graph, node.output[0]))
        for node in readers
    )
