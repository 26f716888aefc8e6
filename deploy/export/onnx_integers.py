"""ONNX for layers that torch.onnx cannot translate: dynamic activations, groups, 4 bits.

What a torch program says with several operators is put into it as the ONNX operators that mean the
same, before torch.onnx sees it:

* dynamic activations and scales a channel: ``DynamicQuantizeLinear`` and ``MatMulInteger``, with
  the integers of the program (activations counted from 0 instead of -128);
* groups and 4 bits: ``DequantizeLinear`` with ``block_size`` and INT4 weights (opset 21).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from deploy.export.integer_layers import IntegerLayer, closed, integer_layers, opened

_OPSET = 21
"""The first that has INT4 and blocks."""
_FOUR_BITS, _FOUR_BITS_FUSED = "weight_int4", "fused_int4"
_MIDDLE = 128


@dataclass(frozen=True)
class ForOnnx:
    """The program for torch.onnx, the opset it needs (None: torch.onnx's own), words for the user.

    Weights of 4 bits are int8 tensors still, for :func:`pack_int4` to find by their names.
    """

    program: ExportedProgram
    opset: int | None = None
    notes: tuple[str, ...] = ()


def for_onnx(program: ExportedProgram) -> ForOnnx:
    """Put ONNX operators into a copy of the program; the same where nothing is to be done."""
    graph = opened(program)
    every = integer_layers(graph)
    # The others torch.onnx translates.
    layers = [layer for layer in every if layer.dynamic or layer.bits == 4 or layer.block]
    if not layers:
        return ForOnnx(program)
    integers = blocks = 0
    for number, layer in enumerate(layers):
        name = f"_onnx_{number}"
        if layer.dynamic is None:
            graph.add_submodule(name, _Dequantize(layer))
            with graph.graph.inserting_before(layer.node):
                made = graph.graph.call_module(name)
            layer.node.replace_input_with(layer.dequantize, made)
            continue
        graph.add_submodule(
            name, _MultiplyBlocks(layer) if layer.block else _MultiplyIntegers(layer)
        )
        integers, blocks = integers + (layer.block is None), blocks + (layer.block is not None)
        bias = layer.node.args[2] if len(layer.node.args) > 2 else None
        with graph.graph.inserting_before(layer.node):
            made = graph.graph.call_module(name, (layer.dynamic, bias))
        layer.node.replace_all_uses_with(made)
    notes = [f"{integers} linear layers multiply integers"] if integers else []
    if blocks:
        notes.append(
            f"{blocks} linear layers have weights in 4-bit blocks; ONNX Runtime chooses the "
            "precision of their activations"
        )
    newest = any(layer.bits == 4 or layer.block for layer in layers)
    return ForOnnx(closed(graph, program), _OPSET if newest else None, tuple(notes))


def pack_int4(model: Any, *, only_fused: bool = False) -> int:
    """Store weights of 4 bits as INT4, two in a byte, in place: how many there were.

    A ``MatMulInteger`` reads them through a cast to int8, which is exact. ``only_fused`` leaves out
    those that ONNX Runtime does not pack into an operator of its own: its ORT format has no INT4
    tensors.
    """
    endings = (_FOUR_BITS_FUSED,) if only_fused else (_FOUR_BITS, _FOUR_BITS_FUSED)
    named = [tensor for tensor in model.graph.initializer if tensor.name.endswith(endings)]
    for tensor in named:
        values = onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(
            onnx.helper.make_tensor(
                tensor.name, onnx.TensorProto.INT4, values.shape, values.flatten()
            )
        )
        readers = [node for node in model.graph.node if tensor.name in node.input]
        if any(node.op_type == "MatMulInteger" for node in readers):
            wide = f"{tensor.name}.int8"
            for node in readers:
                node.input[list(node.input).index(tensor.name)] = wide
            cast = onnx.helper.make_node("Cast", [tensor.name], [wide], to=onnx.TensorProto.INT8)
            model.graph.node.insert(0, cast)
    # What describes them says int8 still.
    names = {tensor.name for tensor in named}
    for value in [value for value in model.graph.value_info if value.name in names]:
        model.graph.value_info.remove(value)
    return len(named)


class _Dequantize(nn.Module):
    """The float weight of a layer."""

    scales: Tensor

    def __init__(self, layer: IntegerLayer) -> None:
        super().__init__()
        self.block = layer.block
        self.name = _hold(self, layer, layer.integers)
        scales = layer.scales if self.block else layer.scales.flatten()
        self.register_buffer("scales", scales.contiguous())
        self.axis = next((i for i, size in enumerate(layer.scales.shape) if size > 1), 0)

    def forward(self) -> Tensor:
        """[outputs, inputs / groups, ...]."""
        return _dequantized(getattr(self, self.name), self.scales, self.axis, self.block)


class _MultiplyIntegers(nn.Module):
    """A linear layer: activations to uint8 with the range that they have, integers multiplied.

    Weights of 8 bits are uint8 around 128: products of uint8 with int8 saturate on x86 without
    VNNI, and an ``.ort`` could not be kept from it. Those of 4 bits are too small for that.
    """

    scales: Tensor

    def __init__(self, layer: IntegerLayer) -> None:
        super().__init__()
        integers = layer.integers.T.contiguous()
        self.zero: Tensor | None = None
        if layer.bits == 8:
            integers = (integers.to(torch.int16) + _MIDDLE).to(torch.uint8)
            self.zero = torch.tensor(_MIDDLE, dtype=torch.uint8)
        self.name = _hold(self, layer, integers)
        self.register_buffer("scales", layer.scales.flatten().contiguous())

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        weight = getattr(self, self.name)
        steps, scale, zero = torch.onnx.ops.symbolic_multi_out(
            "DynamicQuantizeLinear",
            (x,),
            dtypes=(torch.uint8, torch.float32, torch.uint8),
            shapes=(x.shape, (), ()),
            version=11,
        )
        sums = torch.onnx.ops.symbolic(
            "MatMulInteger",
            (steps, weight, zero) if self.zero is None else (steps, weight, zero, self.zero),
            dtype=torch.int32,
            shape=(*x.shape[:-1], weight.shape[1]),
            version=10,
        )
        made = sums.to(torch.float32) * (scale * self.scales)
        return made if bias is None else made + bias


class _MultiplyBlocks(nn.Module):
    """A linear layer in the form that ONNX Runtime makes a MatMulNBits of."""

    scales: Tensor

    def __init__(self, layer: IntegerLayer) -> None:
        super().__init__()
        assert layer.block is not None
        self.block = (0, layer.block[1])
        self.name = _hold(self, layer, layer.integers.T.contiguous(), fused=True)
        self.register_buffer("scales", layer.scales.T.contiguous())

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        made = x @ _dequantized(getattr(self, self.name), self.scales, 0, self.block)
        return made if bias is None else made + bias


def _hold(module: nn.Module, layer: IntegerLayer, integers: Tensor, *, fused: bool = False) -> str:
    name = (_FOUR_BITS_FUSED if fused else _FOUR_BITS) if layer.bits == 4 else "weight"
    module.register_buffer(name, integers)
    return name


def _dequantized(
    integers: Tensor, scales: Tensor, axis: int, block: tuple[int, int] | None
) -> Tensor:
    attributes: dict[str, Any] = (
        {"axis": axis} if block is None else {"axis": block[0], "block_size": block[1]}
    )
    return torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (integers, scales.reshape(()) if scales.numel() == 1 else scales),
        attributes,
        dtype=torch.float32,
        shape=integers.shape,
        version=_OPSET,
    )
