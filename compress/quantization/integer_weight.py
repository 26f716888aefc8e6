"""A weight that the program holds as integers of 8 or 4 bits, with the node that scales them.

The scales are one for the whole weight, one a channel, or one for each ``group_size`` input
channels of a channel. Integers of both widths are int8 tensors in the program for want of an int4;
the range that the ``dequantize`` names tells them apart, and exporters pack two of four bits into
a byte.

The operators are those that ExecuTorch's XNNPACK backend and coremltools read:
``quantized_decomposed`` of torch, and ``dequantize_affine`` of torchao for groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from compress.quantization.grid import weight_scale
from compress.quantization.lockstep import LINEAR, TRANSPOSED

Bits = Literal[4, 8]
Settle = Callable[[Sequence[str]], tuple[dict[str, Tensor], list[str]]]
"""Rounds the weights of these layers: returns their scales, and notes."""
_LARGEST = {4: 7, 8: 127}
# XNNPACK takes a weight for one of four bits by exactly the range -8 to 7; -8 is never used.
_SMALLEST = {4: -8, 8: -127}


@dataclass(frozen=True)
class IntegerWeights:
    """How weights become integers.

    Args:
        bits: 8 or 4, symmetric: integers of -127 to 127 or of -7 to 7.
        per_channel: a scale for each output channel, else one for the weight.
        group_size: input channels that share a scale; None for all of them.
        scale_by: ``max`` or ``mse``, see :func:`.grid.weight_scale`.
    """

    bits: Bits = 8
    per_channel: bool = True
    group_size: int | None = None
    scale_by: Literal["max", "mse"] = "max"

    @property
    def qmax(self) -> int:
        """The largest integer, which is as far from 0 as the smallest."""
        return _LARGEST[self.bits]

    def grouped(self, layer: Node, weight: Tensor) -> bool:
        """Whether the layer's weight gets groups: not where they do not come out even."""
        size = self.group_size
        if size is None or layer.target in TRANSPOSED or weight.ndim < 2:
            return False
        return weight.shape[1] > size and weight.shape[1] % size == 0

    def scales(self, layer: Node, weight: Tensor) -> Tensor:
        """Scales with as many axes as the weight, which they broadcast against block by block."""
        share = 1.0 if self.scale_by == "max" else 0.5
        size = self.group_size
        if size is not None and self.grouped(layer, weight):
            parts = weight.reshape(weight.shape[0], -1, size, *weight.shape[2:])
            blocks = parts.movedim(2, -1)
            found = weight_scale(
                blocks.reshape(-1, blocks.shape[-1]), self.qmax, smallest_share=share
            )
            # XNNPACK stores them as bfloat16: as such they mean the same in each runtime.
            return found.bfloat16().float().view(blocks.shape[:-1])
        axis = (1 if layer.target in TRANSPOSED else 0) if self.per_channel else None
        found = weight_scale(weight, self.qmax, smallest_share=share, axis=axis)
        return found.view([-1 if place == axis else 1 for place in range(weight.ndim)])

    def integers(self, weight: Tensor, scales: Tensor) -> Tensor:
        """The nearest integers, int8, of the weight's shape."""
        steps = (weight / spread(scales, weight.shape)).round()
        return steps.clamp(-self.qmax, self.qmax).to(torch.int8)


def spread(scales: Tensor, shape: torch.Size) -> Tensor:
    """The scales for each element along the axes that are divided into blocks."""
    for axis, (count, size) in enumerate(zip(scales.shape, shape, strict=True)):
        if 1 < count < size:
            scales = scales.repeat_interleave(size // count, dim=axis)
    return scales


def hold(
    graph: GraphModule,
    layer: Node,
    weights: IntegerWeights,
    name: str,
    scales: Tensor | None = None,
) -> int:
    """Let the layer read its weight as integers, in place; returns how many scales there are.

    ``name`` is what the new buffers' names start with; ``scales`` are those that the weight was
    rounded with already, if it was.
    """
    source: Any = layer.args[1]
    value = graph.get_parameter(str(source.target)).detach()
    scales = weights.scales(layer, value) if scales is None else scales
    graph.register_buffer(f"{name}_int{weights.bits}", weights.integers(value, scales))
    with graph.graph.inserting_before(layer):
        held = graph.graph.get_attr(f"{name}_int{weights.bits}")
        if weights.grouped(layer, value):
            again = _in_blocks(graph, held, scales, weights)
        else:
            again = _in_channels(graph, held, scales, weights, layer.target)
    layer.replace_input_with(source, again)
    return scales.numel()


def _in_blocks(graph: GraphModule, held: Node, scales: Tensor, weights: IntegerWeights) -> Node:
    # Registers torch.ops.torchao; takes seconds, so only who has groups pays for it.
    import torchao.quantization.quant_primitives  # noqa: F401

    block = [1, weights.group_size, *[1] * (scales.ndim - 2)]
    scale, zero = _qparams(graph, str(held.target), scales, torch.int32)
    bounds = (_SMALLEST[weights.bits], weights.qmax)
    return graph.graph.call_function(
        torch.ops.torchao.dequantize_affine.default,
        (held, block, scale, zero, torch.int8, *bounds, torch.float32),
    )


def _in_channels(
    graph: GraphModule, held: Node, scales: Tensor, weights: IntegerWeights, operator: Any
) -> Node:
    decomposed = torch.ops.quantized_decomposed
    rest = (_SMALLEST[weights.bits], weights.qmax, torch.int8)
    if not weights.per_channel and operator is not LINEAR:
        return graph.graph.call_function(
            decomposed.dequantize_per_tensor.default, (held, float(scales), 0, *rest)
        )
    # A linear layer has its one scale once for each channel: XNNPACK knows no other form there.
    axis = 1 if operator in TRANSPOSED else 0
    count = graph.get_buffer(str(held.target)).shape[axis]
    each = scales.flatten().expand(count).contiguous()
    scale, zero = _qparams(graph, str(held.target), each, torch.int64)
    return graph.graph.call_function(
        decomposed.dequantize_per_channel.default, (held, scale, zero, axis, *rest)
    )


def _qparams(
    graph: GraphModule, name: str, scales: Tensor, integer: torch.dtype
) -> tuple[Node, Node]:
    graph.register_buffer(f"{name}_scale", scales)
    graph.register_buffer(f"{name}_zero", torch.zeros(scales.shape, dtype=integer))
    return graph.graph.get_attr(f"{name}_scale"), graph.graph.get_attr(f"{name}_zero")
