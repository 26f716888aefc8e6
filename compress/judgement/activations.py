"""How much memory the activations of one inference need at once: an estimate from liveness.

Every tensor of the graph lives from the node that makes it to its last reader; the largest sum of
tensors that are alive at one node is the least that any memory planner needs without reordering.
What a mobile runtime adds (scratch of kernels, padding of the planner) or saves (fused chains of
its own) is not in it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from compress.judgement.macs import is_fixed

# Behind the layer that feeds them alone, runtimes do these in that layer's own output.
_IN_PLACE = frozenset(
    {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "batch_norm", "dropout"}
    | {"_native_batch_norm_legit_no_training", "quantize_per_tensor", "quantize_per_channel"}
)


@dataclass
class _Storage:
    bytes: int
    first: int
    last: int


def peak_activation_bytes(program: ExportedProgram) -> int | None:
    """Largest sum of bytes of inputs, activations and outputs that are alive at the same time.

    Views share their input's memory. An activation that only a quantize node reads is stored in its
    quantized form, and a dequantize node makes no copy, because kernels read int8. What depends on
    weights alone is no activation. None where a size is not fixed.
    """
    inputs = set(program.graph_signature.user_inputs)
    nodes = list(program.graph.nodes)
    storages: list[_Storage] = []
    where: dict[fx.Node, _Storage] = {}
    for index, node in enumerate(nodes):
        read = [where[argument] for argument in node.all_input_nodes if argument in where]
        for storage in read:
            storage.last = index
        is_input = node.op == "placeholder" and node.name in inputs
        if not is_input and (node.op != "call_function" or not read):
            continue
        value = node.meta.get("val")
        size = _bytes(value)
        if size is None:
            return None
        if (shared := _shared(node)) is not None and shared in where:
            where[node] = where[shared]
            if _is_in_place(node):
                where[node].bytes = size
            continue
        if size:
            # Inputs are there before the first operator runs.
            where[node] = _Storage(size, 0 if is_input else index, index)
            storages.append(where[node])
    return _peak(storages, len(nodes))


def _peak(storages: list[_Storage], count: int) -> int:
    change = [0] * (count + 1)
    for storage in storages:
        change[storage.first] += storage.bytes
        change[storage.last + 1] -= storage.bytes
    alive = peak = 0
    for step in change:
        alive += step
        peak = max(peak, alive)
    return peak


def _bytes(value: Any) -> int | None:
    """Bytes of a node's tensors; 0 for what is no tensor, None where a size is not fixed."""
    total = 0
    for leaf in torch.utils._pytree.tree_leaves(value):
        if isinstance(leaf, Tensor):
            if not is_fixed(leaf):
                return None
            total += leaf.numel() * leaf.element_size()
    return total


def _dtype(node: fx.Node) -> torch.dtype | None:
    value = node.meta.get("val")
    return value.dtype if isinstance(value, Tensor) else None


def _name(node: fx.Node) -> str:
    schema = getattr(node.target, "_schema", None)
    return "" if schema is None else str(schema.name).partition("::")[2]


def _is_in_place(node: fx.Node) -> bool:
    return _name(node) in _IN_PLACE


def _shared(node: fx.Node) -> fx.Node | None:
    """The node in whose memory this one's result lies, None where it has memory of its own."""
    if node.op != "call_function" or not node.all_input_nodes:
        return None
    first = node.args[0] if node.args and isinstance(node.args[0], fx.Node) else None
    if _is_in_place(node):
        # A view's memory may have other readers; an input's belongs to the caller.
        if first is None or first.op != "call_function" or len(first.users) > 1:
            return None
        return None if _viewed(first) is not None else first
    return _viewed(node)


def _viewed(node: fx.Node) -> fx.Node | None:
    if node.target is operator.getitem or _name(node).startswith("dequantize"):
        first = node.args[0]
        return first if isinstance(first, fx.Node) else None
    schema = getattr(node.target, "_schema", None)
    if schema is None or not any(result.alias_info for result in schema.returns):
        return None
    for argument, given in zip(schema.arguments, node.args, strict=False):
        if argument.alias_info is not None and isinstance(given, fx.Node):
            # `to` is declared a view, but another dtype is a copy.
            copied = None not in (_dtype(given), _dtype(node)) and _dtype(given) != _dtype(node)
            return None if copied else given
    return None
