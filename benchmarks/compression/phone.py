"""Instructions of one inference, counted on the emulated ARM64 phone.

The count depends on the file and the runtimes alone, not on the machine's load, so it is kept under
the hash of both and never made twice.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.compression import results
from compress.quality import flat_outputs
from compress.task import Task
from deploy import harness
from deploy.bench.runner import preset
from deploy.bench.session import Job, run_device
from deploy.config import DeviceConfig
from deploy.connect import connected
from deploy.errors import PocketshipError
from deploy.files import sha256, write_bytes, write_text
from deploy.types import Artifact, Format, Metric, Placement, TensorSpec

PHONE = "emulated-arm64"
FORMATS = {"pte": Format.EXECUTORCH, "onnx": Format.ONNX}

Say = Callable[[str], None]


def _kept(path: Path) -> Path:
    return results.folder() / "instructions" / f"{sha256(path)}.json"


def known(path: Path) -> float | None:
    """The count of a file that was counted before with the same runtimes."""
    try:
        found = json.loads(_kept(path).read_text(encoding="utf-8"))
        if found["tools"] == results.tool_versions():
            return float(found["instructions"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def count(files: Sequence[tuple[str, Path]], task: Task, say: Say) -> dict[Path, float | str]:
    """Instructions of each ``(kind, file)``, or the reason why there are none.

    All files belong to networks with the inputs and outputs of ``task``; one phone counts them all.
    """
    answers: dict[Path, float | str] = {}
    missing = []
    for kind, path in files:
        value = known(path)
        if value is None:
            missing.append((kind, path))
        else:
            answers[path] = value
    if not missing:
        return answers
    try:
        with tempfile.TemporaryDirectory(prefix="pocketship-bench-") as scratch:
            answers.update(_counted(missing, task, Path(scratch), say))
    except (PocketshipError, OSError) as error:
        reason = f"the emulated phone cannot be had: {error}"
        answers.update({path: reason for _, path in missing})
    return answers


def _counted(
    files: Sequence[tuple[str, Path]], task: Task, scratch: Path, say: Say
) -> dict[Path, float | str]:
    inputs = scratch / "inputs.bin"
    write_bytes(inputs, b"".join(t.contiguous().numpy().tobytes() for t in task.example_inputs))
    # Cases are found again by their artifact's name, which the file's place in the list makes.
    jobs = [
        Job(_artifact(str(number), kind, path, task), path, inputs)
        for number, (kind, path) in enumerate(files)
    ]
    with connected(DeviceConfig(profile=PHONE), say) as device:
        runner = harness.bundle(device.profile.abi, say)
        run, cases = run_device(device, jobs, runner, preset("exact"), progress=say)
    answers: dict[Path, float | str] = {}
    for (_, path), case in zip(files, cases, strict=True):
        found = case.measurement(Metric.INSTRUCTIONS)
        if found is None or found.median is None:
            answers[path] = case.reason or run.reason or "the phone gave no count"
            continue
        answers[path] = found.median
        kept = {"instructions": found.median, "source": found.source}
        text = json.dumps({**kept, "tools": results.tool_versions()})
        write_text(_kept(path), text + "\n")
    return answers


def _artifact(name: str, kind: str, path: Path, task: Task) -> Artifact:
    from torch import nn

    assert isinstance(task.model, nn.Module)
    answers = flat_outputs(task.model(*task.example_inputs))
    digest = sha256(path)
    return Artifact(
        name=f"{name}.{kind}",
        variant=name,
        format=FORMATS[kind],
        path=path.name,
        sha256=digest,
        bytes=path.stat().st_size,
        inputs=tuple(_spec(f"input_{i}", t) for i, t in enumerate(task.example_inputs)),
        outputs=tuple(_spec(f"output_{i}", t) for i, t in enumerate(answers)),
        source_sha256=digest,
        tools={},
        placement=Placement(backend="", reason="not looked at here"),
    )


def _spec(name: str, tensor: object) -> TensorSpec:
    import torch

    assert isinstance(tensor, torch.Tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    return TensorSpec(name=name, dtype=dtype, shape=tuple(tensor.shape))
