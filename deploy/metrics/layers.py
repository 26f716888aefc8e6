"""Which layer of the model an operator of a profile came from, as far as names and order say it.

Runtimes fuse, split and rename operators. A row gets a layer only by one of these:

* ONNX Runtime keeps a node's name, or names what it fused after its output; that leads to a node of
  the exported file, and its parameters' names (``features.0.weight``), or the exporter's name for
  it (``node_conv2d_3``), lead to the layer;
* convolutions, fully connected layers, and kernels that are named like the program's operators run
  in the program's order: where a profile has as many of a family as the program, the nth is its nth
  of them.

Otherwise the row has no layer: a guess would be worse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from deploy.types import OperatorCost


class ProgramNode(NamedTuple):
    """One call of the exported program: its name, its operator (``conv2d``), its layer or ''."""

    name: str
    op: str
    layer: str


class GraphNode(NamedTuple):
    """One node of the ONNX file."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Layers:
    """What is known of a model's layers; ``graph`` is empty where there is no ONNX file."""

    program: tuple[ProgramNode, ...] = ()
    graph: tuple[GraphNode, ...] = ()


_CONVOLUTION = "convolution"
_TRANSPOSED = "transposed convolution"
_LINEAR = "linear"

_PROGRAM_FAMILIES = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), _CONVOLUTION),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _TRANSPOSED),
    **dict.fromkeys(("linear", "addmm"), _LINEAR),
}
# XNNPACK runs a 1x1 convolution as a fully connected layer, so the two are counted together.
_WEIGHTED = "convolution or linear"
_XNNPACK_FAMILIES = (
    ("Convolution", _WEIGHTED),
    ("Fully Connected", _WEIGHTED),
    ("Deconvolution", _TRANSPOSED),
)
_ONNX_FAMILIES = {
    "ConvTranspose": _TRANSPOSED,
    "Conv": _CONVOLUTION,
    "Gemm": _LINEAR,
}
_STEPS_BACK = 4


def with_layers(costs: Sequence[OperatorCost], layers: Layers) -> list[OperatorCost]:
    """``costs`` with their ``layers`` filled in where they are known."""
    found = _by_name(costs, layers)
    for family_of in (_xnnpack_family, _kernel_family, _onnx_family):
        _by_order(costs, layers.program, family_of, found)
    return [
        cost.model_copy(update={"layers": (found[index],)}) if index in found else cost
        for index, cost in enumerate(costs)
    ]


def _xnnpack_family(cost: OperatorCost) -> str:
    if cost.backend != "xnnpack":
        return ""
    return next((name for word, name in _XNNPACK_FAMILIES if cost.kind.startswith(word)), "")


def _kernel_family(cost: OperatorCost) -> str:
    """Kernels of ExecuTorch are named like the operators of the program."""
    if cost.backend != "executorch" or cost.kind.startswith("("):
        return ""
    return _PROGRAM_FAMILIES.get(cost.kind, cost.kind)


def _onnx_family(cost: OperatorCost) -> str:
    if cost.backend in ("xnnpack", "executorch", "onnxruntime"):
        return ""
    # FusedConv, QLinearConv, NhwcFusedConv, QGemm, ...
    return next((f for word, f in _ONNX_FAMILIES.items() if cost.kind.endswith(word)), "")


def _by_order(
    costs: Sequence[OperatorCost],
    program: Sequence[ProgramNode],
    family_of: Callable[[OperatorCost], str],
    found: dict[int, str],
) -> None:
    """The nth of a family in the profile is the nth in the program, where both have as many."""
    rows: dict[str, list[int]] = {}
    for index, cost in enumerate(costs):
        if family := family_of(cost):
            rows.setdefault(family, []).append(index)
    for family, indices in rows.items():
        calls = [node for node in program if _is_of(family, node.op)]
        if len(calls) != len(indices) or any(index in found for index in indices):
            continue
        if any(
            costs[index].kind.startswith("Convolution") and _is_of(_LINEAR, node.op)
            for index, node in zip(indices, calls, strict=True)
        ):
            continue
        for index, node in zip(indices, calls, strict=True):
            if node.layer:
                found[index] = node.layer


def _is_of(family: str, op: str) -> bool:
    of_op = _PROGRAM_FAMILIES.get(op, op)
    return of_op in (_CONVOLUTION, _LINEAR) if family == _WEIGHTED else of_op == family


def _by_name(costs: Sequence[OperatorCost], layers: Layers) -> dict[int, str]:
    """Row number to layer, for rows whose names lead to a node of the ONNX file."""
    if not layers.graph:
        return {}
    names = {node.name: node for node in layers.graph if node.name}
    makers = {output: node for node in layers.graph for output in node.outputs}
    of_call = {node.name: node.layer for node in layers.program}
    known = {node.layer for node in layers.program if node.layer}
    found = {}
    for index, cost in enumerate(costs):
        name = re.sub(r"_nchwc$", "", cost.name)
        node = names.get(name) or makers.get(name)
        if node is None:
            continue
        node = _of_kind(node, cost.kind, makers)
        layer = _layer_of_parameters(node, makers, known)
        layer = layer or of_call.get(node.name.removeprefix("node_"), "")
        if layer:
            found[index] = layer
    return found


def _of_kind(node: GraphNode, kind: str, makers: Mapping[str, GraphNode]) -> GraphNode:
    """``node``, or the node before it that gave a fused operator its kind (Conv of Conv + Clip)."""
    at = node
    for _ in range(_STEPS_BACK):
        if kind.endswith(at.op):
            return at
        before = makers.get(at.inputs[0]) if at.inputs else None
        if before is None:
            break
        at = before
    return node


def _layer_of_parameters(node: GraphNode, makers: Mapping[str, GraphNode], known: set[str]) -> str:
    """The layer whose parameter the node reads, also through a DequantizeLinear."""
    for name in node.inputs:
        parameter, maker = name, makers.get(name)
        if maker is not None and maker.op == "DequantizeLinear" and maker.inputs:
            parameter = maker.inputs[0]
        layer = parameter.rpartition(".")[0]
        if layer in known:
            return layer
    return ""
