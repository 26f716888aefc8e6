"""Weight-only int8: weights take a quarter of the bytes, everything is computed in float.

The program holds int8 tensors with a ``dequantize`` in front of each layer. Whether a runtime
keeps that, and so its small file, is the runtime's affair.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from compress.quantization.grid import weight_scale
from compress.quantization.lockstep import TRANSPOSED, layers_of
from compress.quantization.sqnr_gate import chosen

_QMAX = 127


def weight_only_int8(
    graph: GraphModule, per_channel: bool, layers: Sequence[str], exclude: Sequence[str]
) -> tuple[GraphModule, list[str]]:
    """Replace each chosen layer's weight, in place; returns the module and notes."""
    # Registers the quantized_decomposed operators.

    known = layers_of(graph)
    taken, left = chosen(list(known), layers, exclude)
    for number, name in enumerate(taken):
        node = known[name]
        weight = node.args[1]
        assert isinstance(weight, Node)
        axis = 1 if node.target in TRANSPOSED else 0
        _replace(graph, node, weight, axis if per_channel else None, f"_weight_{number}")
    graph.graph.eliminate_dead_code()
    graph.recompile()
    notes = [f"weights of {len(taken)} layers in int8, activations in float"]
    if left:
        notes.append(f"{len(left)} layers stay float as asked for")
    return graph, notes


def _replace(graph: GraphModule, node: Node, weight: Node, axis: int | None, name: str) -> None:
    value = graph.get_parameter(str(weight.target)).detach()
    scale = weight_scale(value, _QMAX, axis=axis)
    shape = [-1 if place == axis else 1 for place in range(value.ndim)]
    steps = (value / scale.view(shape)).round().clamp(-_QMAX, _QMAX).to(torch.int8)
    graph.register_buffer(f"{name}_int8", steps)
    operators = torch.ops.quantized_decomposed
    with graph.graph.inserting_before(node):
        held = graph.graph.get_attr(f"{name}_int8")
        if axis is None:
            again = graph.graph.call_function(
                operators.dequantize_per_tensor.default,
                (held, float(scale), 0, -_QMAX, _QMAX, torch.int8),
            )
        else:
            graph.register_buffer(f"{name}_scale", scale)
            graph.register_buffer(f"{name}_zero", torch.zeros(len(scale), dtype=torch.int64))
            scales = graph.graph.get_attr(f"{name}_scale")
            zeros = graph.graph.get_attr(f"{name}_zero")
            again = graph.graph.call_function(
                operators.dequantize_per_channel.default,
                (held, scales, zeros, axis, -_QMAX, _QMAX, torch.int8),
            )
    node.replace_input_with(weight, again)
