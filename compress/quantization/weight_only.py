"""Weights as integers of 8 or 4 bits, everything computed in float.

The program holds integers with a ``dequantize`` in front of each layer. Whether a runtime keeps
that, and so its small file, is the runtime's affair.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import GraphModule

from compress.quantization.integer_weight import IntegerWeights, Settle, hold
from compress.quantization.lockstep import layers_of
from compress.quantization.sqnr_gate import chosen


def weight_only(
    graph: GraphModule,
    weights: IntegerWeights,
    layers: Sequence[str],
    exclude: Sequence[str],
    settle: Settle | None = None,
) -> tuple[GraphModule, list[str]]:
    """Replace each chosen layer's weight, in place; returns the module and notes.

    ``settle`` rounds the weights of the layers it is given; without it they go to the nearest step.
    """
    known = layers_of(graph)
    taken, left = chosen(list(known), layers, exclude)
    scales, said = settle(taken) if settle else ({}, [])
    count = 0
    for number, name in enumerate(taken):
        count += hold(graph, known[name], weights, f"_weight_{number}", scales.get(name))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    notes = [f"weights of {len(taken)} layers in int{weights.bits}, activations in float"]
    if weights.group_size is not None:
        notes.append(f"{count} scales, one for {weights.group_size} input channels at most")
    if left:
        notes.append(f"{len(left)} layers stay float as asked for")
    return graph, [*notes, *said]
