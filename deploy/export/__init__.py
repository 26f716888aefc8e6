"""One exporter a format: a torch ExportedProgram in, files with their placement out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deploy.export import coreml, executorch, onnx, packed
from deploy.export.options import Written
from deploy.types import Format

Exporter = Callable[[Any, Any, Path, str], tuple[Written, ...]]
"""``(program, options, folder, stem) -> files``; raises ``ExportError``."""

EXPORTERS: dict[Format, Exporter] = {
    Format.EXECUTORCH: executorch.export,
    Format.ONNX: onnx.export,
    Format.COREML: coreml.export,
    Format.PACKED: packed.export,
}
