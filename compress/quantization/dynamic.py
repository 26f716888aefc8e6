"""Dynamic quantization: linear layers whose activations get their range anew in each inference.

Right for transformers and other networks of linear layers whose activations differ much from input
to input; needs no calibration data. Convolutions stay float. Weights have 8 or 4 bits; the latter,
with groups of input channels that share a scale, is what torchao and ExecuTorch call 8da4w.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node

from compress.errors import CompressError
from compress.quantization.integer_weight import IntegerWeights, Settle, hold
from compress.quantization.lockstep import LINEAR, layers_of
from compress.quantization.sqnr_gate import chosen

# Not torchao's 2**-12, which would leave values that all lie within 0.03 a part of the steps only.
_SMALLEST_SCALE = float(torch.finfo(torch.float32).eps)


def dynamic(
    graph: GraphModule,
    weights: IntegerWeights,
    layers: Sequence[str],
    exclude: Sequence[str],
    settle: Settle | None = None,
) -> tuple[GraphModule, list[str]]:
    """Quantize the chosen linear layers, in place; returns the module and notes.

    Activations are affine int8 with one range for the tensor. ``settle`` rounds the weights of the
    layers it is given; without it they go to the nearest step. Raises ``CompressError`` where there
    is no linear layer.
    """
    known = {name: node for name, node in layers_of(graph).items() if node.target is LINEAR}
    if not known:
        raise CompressError(
            "the model has no linear layer, which is all that dynamic quantization covers",
            hint="Use mode: static or weight_only for convolutions.",
        )
    taken, left = chosen(list(known), layers, exclude)
    scales, said = settle(taken) if settle else ({}, [])
    for number, name in enumerate(taken):
        hold(graph, known[name], weights, f"_weight_{number}", scales.get(name))
        _quantize_input(graph, known[name])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    notes = [f"{len(taken)} linear layers with dynamic activations, weights in int{weights.bits}"]
    if left:
        notes.append(f"{len(left)} linear layers stay float as asked for")
    return graph, [*notes, *said]


def _quantize_input(graph: GraphModule, layer: Node) -> None:
    """Each layer gets its own, also where several read the same value: XNNPACK wants it so."""
    source = layer.args[0]
    decomposed = torch.ops.quantized_decomposed
    bounds = (-128, 127, torch.int8)
    with graph.graph.inserting_before(layer):
        pair = graph.graph.call_function(
            decomposed.choose_qparams.tensor, (source, -128, 127, _SMALLEST_SCALE, torch.int8)
        )
        scale = graph.graph.call_function(operator.getitem, (pair, 0))
        zero = graph.graph.call_function(operator.getitem, (pair, 1))
        steps = graph.graph.call_function(
            decomposed.quantize_per_tensor.tensor, (source, scale, zero, *bounds)
        )
        again = graph.graph.call_function(
            decomposed.dequantize_per_tensor.tensor, (steps, scale, zero, *bounds)
        )
    layer.args = (again, *layer.args[1:])
