"""ExportedProgram -> ``.pte`` with the XNNPACK backend.

Flow of the ExecuTorch documentation: ``to_edge_transform_and_lower`` -> ``to_executorch``.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy.errors import ExportError, first_line
from deploy.export.integer_layers import fold_weights
from deploy.export.options import ExecuTorchTarget, Written
from deploy.export.placement import placement
from deploy.files import write_bytes
from deploy.types import Format


def export(program: Any, options: ExecuTorchTarget, folder: Path, stem: str) -> tuple[Written, ...]:
    """Lower ``program`` to XNNPACK and write ``<stem>.pte``."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.devtools.backend_debug import get_delegation_info
    from executorch.exir import to_edge_transform_and_lower

    try:
        program, folded = fold_weights(program)
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
        info = get_delegation_info(edge.exported_program().graph_module)
        buffer = edge.to_executorch().buffer
    except Exception as error:
        raise ExportError(
            f"ExecuTorch refuses the program: {type(error).__name__}: {first_line(error)}",
            where=stem,
            hint="Operators outside ATen core need a decomposition or an own kernel.",
        ) from error
    path = folder / f"{stem}.pte"
    write_bytes(path, buffer)
    per_operator = info.delegation_by_operator.items()
    delegated = {name: ops.delegated for name, ops in per_operator}
    left = {name: ops.non_delegated for name, ops in per_operator}
    where = placement("xnnpack", delegated, left, info.num_delegated_subgraphs)
    if folded:
        where = where.model_copy(
            update={
                "reason": f"{where.reason}; "
                * bool(where.reason)
                + f"{folded} integer weights stored as float32: XNNPACK multiplies them with "
                "integer activations only (modes static and dynamic)"
            }
        )
    tools = {name: version(name) for name in ("torch", "executorch", "torchao")}
    return (Written(Format.EXECUTORCH, path, where, tools),)
