"""The layers behind a variant's operators, read from what the run folder holds of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.capture import load_program
from deploy.metrics.layers import GraphNode, Layers, ProgramNode
from deploy.types import Artifact, Format
from deploy.workspace import RunFolder


def layers_of(folder: RunFolder, artifacts: Sequence[Artifact], variant: str) -> Layers:
    """The calls of a variant's program, and the nodes of its ``.onnx`` if it has one."""
    onnx = [a for a in artifacts if a.variant == variant and a.format is Format.ONNX]
    return Layers(
        program=program_nodes(load_program(folder.compress / f"{variant}.pt2")),
        graph=graph_nodes(folder.artifacts / onnx[0].path) if onnx else (),
    )


def program_nodes(program: Any) -> tuple[ProgramNode, ...]:
    """Calls of an ``ExportedProgram`` in their order, each with the module that it stands in."""
    nodes = []
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        op = str(getattr(node.target, "__name__", node.target)).split(".")[0]
        nodes.append(ProgramNode(node.name, op, _plain_path(stack[-1][0]) if stack else ""))
    return tuple(nodes)


def _plain_path(path: str) -> str:
    """``L['self'].features.0``, as quantized programs have it, is ``features.0``."""
    path = re.sub(r"^L\['self'\]\.?", "", path)
    return re.sub(r"\._modules\['([^']+)'\]", r".\1", path).strip(".")


def graph_nodes(path: Path) -> tuple[GraphNode, ...]:
    """Nodes of an ONNX file in their order; none where it cannot be read."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # protobuf's own; an artifact that cannot be read was refused long before
        return ()
    return tuple(
        GraphNode(node.name, node.op_type, tuple(node.input), tuple(node.output))
        for node in model.graph.node
    )
