"""Model files without a manifest: what can be known of them by looking.

The native runner of this machine is asked for the inputs and outputs, as a device would be; who
made the file, of what, and what was delegated stays unknown and is said to be. How much memory a
``.pte`` plans it says itself.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from deploy.bench.runner import BACKENDS, interpret_exit
from deploy.errors import ConfigError, ExportError
from deploy.export.planned_memory import planned_bytes
from deploy.files import tree_digest
from deploy.harness import bundle, native_abi
from deploy.types import Artifact, Format, Placement, Progress, Status, TensorSpec

SUFFIXES: dict[str, Format] = {
    ".pte": Format.EXECUTORCH,
    ".onnx": Format.ONNX,
    ".ort": Format.ORT,
}
"""Files that the native runner can describe."""

UNKNOWN_PLACEMENT = Placement(backend="unknown", reason="a file came without a manifest")
"""Of a file of which nobody says what was delegated."""

_TIMEOUT_S = 120.0


def described(path: Path, progress: Progress) -> Artifact:
    """A manifest for a bare ``.pte``, ``.onnx`` or ``.ort`` file, named by the file's stem.

    Raises ``ExportError`` where its runtime cannot load it or it was built for inputs that are not
    fixed, ``DeviceError`` where this machine's runner cannot be built.
    """
    file_format = SUFFIXES[path.suffix]
    inputs, outputs = _specs(path, BACKENDS[file_format], progress)
    digest, size = tree_digest(path)
    planned, no_plan = planned_bytes(path, file_format)
    return Artifact(
        name=f"{path.stem}.{file_format}",
        variant=path.stem,
        format=file_format,
        path=path.name,
        sha256=digest,
        bytes=size,
        inputs=inputs,
        outputs=outputs,
        source_sha256="",
        tools={},
        placement=UNKNOWN_PLACEMENT,
        planned_bytes=planned,
        unknown={"macs": UNKNOWN_PLACEMENT.reason}
        | ({"planned_bytes": no_plan} if no_plan else {}),
    )


def _specs(
    path: Path, backend: str, progress: Progress
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    runner = bundle(native_abi(), progress)
    asked = ("--describe", "--backend", backend, "--model", str(path.resolve()))
    try:
        done = subprocess.run(
            [*runner.launch, *asked],
            cwd=runner.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ExportError(
            f"its runtime did not load it in {_TIMEOUT_S:.0f} s", where=str(path)
        ) from None
    status, reason = interpret_exit(done.returncode, done.stderr)
    if status is not Status.OK:
        raise ExportError(
            reason, where=str(path), hint="Is it whole, and of this runtime's version?"
        )
    try:
        answer = json.loads(done.stdout)
        return _tensors(answer["inputs"]), _tensors(answer["outputs"])
    except (ValueError, KeyError, TypeError, ValidationError):
        raise ExportError(
            "the runner's description of it cannot be read", where=str(path)
        ) from None


def _tensors(rows: object) -> tuple[TensorSpec, ...]:
    kept = [
        {key: row[key] for key in ("name", "dtype", "shape")}
        for row in TypeAdapter(list[dict[str, object]]).validate_python(rows)
    ]
    return TypeAdapter(tuple[TensorSpec, ...]).validate_python(kept)


def refuse_open_shapes(artifact: Artifact, where: Path) -> None:
    """``ConfigError`` for a model with an input whose size is not fixed: the runner runs none."""
    for spec in artifact.inputs:
        if any(size < 0 for size in spec.shape):
            raise ConfigError(
                f"its input '{spec.name}' has the shape {list(spec.shape)}, which is not fixed",
                where=str(where),
                hint="Export it with fixed shapes.",
            )
