"""Layers of a torch program that read integer weights, and what can be done to them before export.

A statically quantized layer reads activations in fixed steps, which every exporter knows. Left are
layers whose activations are float (weight-only quantization) or whose range is found in each
inference (dynamic): each runtime knows one of the two only, so that a program is rewritten for it
where that can be done, and the exporter says what that means for the user.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from compress.capture import capture

_ATEN = torch.ops.aten
_LAYERS = frozenset(
    {
        _ATEN.conv1d.default,
        _ATEN.conv2d.default,
        _ATEN.conv_transpose1d.default,
        _ATEN.conv_transpose2d.input,
        _ATEN.linear.default,
    }
)
_PER_CHANNEL = "quantized_decomposed.dequantize_per_channel.default"
_PER_TENSOR = "quantized_decomposed.dequantize_per_tensor.default"
_BLOCKS = "torchao.dequantize_affine.default"


@dataclass(frozen=True)
class IntegerLayer:
    """A layer with an integer weight whose activations have no fixed steps.

    ``dequantize`` makes its weight out of ``integers`` and ``scales``, the latter with as many
    axes. ``dynamic`` is the float value that is quantized with a range of its own for the layer;
    None where the layer reads floats.
    """

    node: Node
    dequantize: Node
    integers: Tensor
    scales: Tensor
    bits: int
    dynamic: Node | None

    @property
    def block(self) -> tuple[int, int] | None:
        """Axis and width of the blocks that share a scale, where an axis is divided."""
        for axis, (count, size) in enumerate(
            zip(self.scales.shape, self.integers.shape, strict=True)
        ):
            if 1 < count < size:
                return axis, size // count
        return None

    def weight(self) -> Tensor:
        """The weight as the program computes with it, float32."""
        scales = self.scales
        if (block := self.block) is not None:
            scales = scales.repeat_interleave(block[1], dim=block[0])
        return self.integers.to(torch.float32) * scales


def opened(program: ExportedProgram) -> GraphModule:
    """The program as a module that can be rewritten; the program stays as it is."""
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    return graph


def closed(graph: GraphModule, program: ExportedProgram) -> ExportedProgram:
    """A program of the rewritten module, with the inputs of the one that it was."""
    graph.graph.eliminate_dead_code()
    graph.recompile()
    assert program.example_inputs is not None
    return capture(graph, program.example_inputs[0], name="the rewritten program")


def integer_layers(graph: GraphModule) -> list[IntegerLayer]:
    """Such layers in the order of the graph; those with activations in fixed steps are left out."""
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in _LAYERS:
            continue
        dequantize = node.args[1]
        held = _held(graph, dequantize) if isinstance(dequantize, Node) else None
        source = node.args[0]
        if held is None or str(source.target) == _PER_TENSOR:
            continue
        bits = 4 if held[2] == (-8, 7) else 8
        found.append(IntegerLayer(node, dequantize, held[0], held[1], bits, _dynamic(source)))
    return found


def fold_weights(program: ExportedProgram) -> tuple[ExportedProgram, int]:
    """Float weights for layers with float activations, and how many there were; exact."""
    graph, count = opened(program), 0
    for count, layer in enumerate(_weight_only(graph), start=1):
        name = f"_folded_{count}"
        graph.register_parameter(name, nn.Parameter(layer.weight(), requires_grad=False))
        with graph.graph.inserting_before(layer.node):
            weight = graph.graph.get_attr(name)
        layer.node.replace_input_with(layer.dequantize, weight)
    return (closed(graph, program) if count else program), count


def float_activations(program: ExportedProgram) -> tuple[ExportedProgram, int]:
    """Dynamic layers read what would have been quantized, and how many there were.

    Not the same numbers: the rounding of activations is left out.
    """
    graph, count = opened(program), 0
    for layer in integer_layers(graph):
        if layer.dynamic is not None:
            layer.node.args = (layer.dynamic, *layer.node.args[1:])
            count += 1
    return (closed(graph, program) if count else program), count


def _weight_only(graph: GraphModule) -> list[IntegerLayer]:
    return [layer for layer in integer_layers(graph) if layer.dynamic is None]


def _held(graph: GraphModule, node: Node) -> tuple[Tensor, Tensor, tuple[int, int]] | None:
    """Integers, scales of as many axes, and the range of integers, of a symmetric weight."""
    kind = str(node.target)
    if kind not in (_PER_CHANNEL, _PER_TENSOR, _BLOCKS):
        return None
    integers = _constant(graph, node.args[0])
    if kind == _BLOCKS:
        scales, zeros = _constant(graph, node.args[2]), _constant(graph, node.args[3])
        low, high = node.args[5:7]
    elif kind == _PER_CHANNEL:
        scales, zeros = _constant(graph, node.args[1]), _constant(graph, node.args[2])
        low, high = node.args[4:6]
    else:
        scales, zeros = torch.tensor(node.args[1]), torch.tensor(node.args[2])
        low, high = node.args[3:5]
    if integers is None or scales is None or (zeros is not None and bool(zeros.any())):
        return None
    if kind != _BLOCKS:
        axis: Any = node.args[3] if kind == _PER_CHANNEL else None
        scales = scales.view([-1 if place == axis else 1 for place in range(integers.ndim)])
    return integers, scales, (int(low), int(high))  # type: ignore[arg-type]


def _dynamic(source: Any) -> Node | None:
    """What a dequantize of a range that is found at run time was made of."""
    if str(source.target) != "quantized_decomposed.dequantize_per_tensor.tensor":
        return None
    steps, scale = source.args[:2]
    if str(steps.target) != "quantized_decomposed.quantize_per_tensor.tensor":
        return None
    if scale.target is not operator.getitem or "choose_qparams" not in str(scale.args[0].target):
        return None
    value: Node = steps.args[0]
    return value


def _constant(graph: GraphModule, node: Any) -> Tensor | None:
    if not isinstance(node, Node) or node.op != "get_attr":
        return None
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else None
