"""Half precision: weights of 16 bits, and arithmetic of 16 or of 32 bits."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn
from torch.fx import GraphModule

from compress.errors import CompressError

_ATEN = torch.ops.aten


def half(graph: GraphModule, compute: Literal["fp32", "fp16"]) -> tuple[GraphModule, list[str]]:
    """Turn float32 weights to float16, in place; inputs and outputs keep their types.

    With ``compute`` fp16 the inputs are turned to float16 too and the outputs back, so that every
    operator works in half precision; with fp32 each weight is turned back in front of its reader.
    Raises ``CompressError`` for a weight beyond 65504, the largest float16.
    """
    changed = 0
    for name, value in (*graph.named_parameters(), *graph.named_buffers()):
        if value.dtype != torch.float32:
            continue
        small = value.detach().half()
        if not bool(torch.isfinite(small).all()):
            largest = float(value.detach().abs().max())
            raise CompressError(
                f"the weight '{name}' reaches {largest:.3g}, beyond float16",
                hint="Use mode: static or weight_only, or exclude half precision.",
            )
        owner, _, attribute = name.rpartition(".")
        module = graph.get_submodule(owner)
        if isinstance(value, nn.Parameter):
            setattr(module, attribute, nn.Parameter(small, requires_grad=False))
        else:
            setattr(module, attribute, small)
        changed += 1
    (_cast_ends if compute == "fp16" else _cast_weights)(graph)
    graph.recompile()
    return graph, [f"{changed} tensors in float16, computed in {compute}"]


def _cast_weights(graph: GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.op != "get_attr" or not node.users:
            continue
        value: Any = graph
        for part in str(node.target).split("."):
            value = getattr(value, part)
        if isinstance(value, torch.Tensor) and value.dtype == torch.float16:
            _cast_after(graph, node, torch.float32)


def _cast_ends(graph: GraphModule) -> None:
    for node in list(graph.graph.nodes):
        if node.op == "placeholder":
            value = node.meta.get("val")
            if isinstance(value, torch.Tensor) and value.dtype == torch.float32 and node.users:
                _cast_after(graph, node, torch.float16)
        if node.op == "output":
            for source in node.all_input_nodes:
                value = source.meta.get("val")
                if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
                    with graph.graph.inserting_before(node):
                        back = graph.graph.call_function(_ATEN.to.dtype, (source, torch.float32))
                    node.replace_input_with(source, back)
        # A type that the model names, such as in x.float(), would mix two precisions.
        if node.target is _ATEN.to.dtype and node.args[1] is torch.float32 and node.meta:
            node.args = (node.args[0], torch.float16, *node.args[2:])


def _cast_after(graph: GraphModule, node: Any, dtype: torch.dtype) -> None:
    with graph.graph.inserting_after(node):
        cast = graph.graph.call_function(_ATEN.to.dtype, (node, dtype))
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)
