"""A half precision program as Core ML is given it: in float32.

Core ML computes every float program in float16. It gets there by casts that its converter puts in,
while a program that is float16 already is refused at several operators (``hardtanh``, which ReLU6
is, and ``group_norm``): coremltools 9.0 pairs a float16 tensor with float32 bounds or constants. So
the program's own casts are taken out for the converter to put its own in. Each weight is the same
number, and each operator computes in float16 as before.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node

from deploy.export.integer_layers import closed, opened


def in_single_precision(program: ExportedProgram) -> ExportedProgram:
    """The program with float32 wherever it names float16.

    Unchanged where nothing is float16, or where an input is: that is the program's interface.
    """
    graph = opened(program)
    half = [
        (name, value)
        for name, value in (*graph.named_parameters(), *graph.named_buffers())
        if value.dtype == torch.float16
    ]
    if not half or any(_is_half(node) for node in graph.graph.find_nodes(op="placeholder")):
        return program
    for name, value in half:
        owner, _, attribute = name.rpartition(".")
        wide: torch.Tensor = value.detach().float()
        if isinstance(value, nn.Parameter):
            wide = nn.Parameter(wide, requires_grad=False)
        setattr(graph.get_submodule(owner), attribute, wide)
    for node in graph.graph.nodes:
        node.args = torch.fx.node.map_aggregate(node.args, _single)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, _single)
    return closed(graph, program)


def _single(value: Any) -> Any:
    return torch.float32 if value is torch.float16 else value


def _is_half(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype == torch.float16
