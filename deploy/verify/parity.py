"""Run an artifact on this machine and hold it against the program that it came from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress import archive
from compress.capture import forward_of, load_program
from compress.errors import CompressError
from compress.quality import Forward, Outputs, compare, run_all
from compress.task import Inputs, Sample, TaskMetric
from deploy.errors import ConfigError, ExportError, first_line
from deploy.types import Artifact, Format, Model, Parity, Quality, Status


class ParityLimits(Model):
    """How far an artifact may be from its program; what is None is not judged.

    ``max_metric_drop`` is in the metric's own unit: program's value minus artifact's (the other way
    round for a metric where lower is better).
    """

    max_abs_diff: float | None = None
    min_sqnr_db: float | None = None
    min_top1_agreement: float | None = None
    max_metric_drop: float | None = None


def executorch(path: Path) -> Forward:
    """Open a ``.pte`` with ExecuTorch's Python runtime; checks the file's structure first."""
    # Registers the quantized kernels that a partly delegated int8 program needs.
    import executorch.kernels.quantized  # noqa: F401
    from executorch.runtime import Runtime, Verification

    program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
    method = program.load_method("forward")
    if method is None:
        raise RuntimeError("the program has no method 'forward'")

    def forward(inputs: Inputs) -> Outputs:
        # The runtime reuses its output memory; a copy keeps each sample's own.
        return tuple(t.clone() for t in method.execute([t.contiguous() for t in inputs]))

    return forward


def onnxruntime(path: Path) -> Forward:
    """Open an ``.onnx`` or ``.ort`` with ONNX Runtime's CPU provider."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # x86 without VNNI saturates u8 x s8 products in 16 bits, which no ARM core does; this option
    # of ONNX Runtime keeps them exact (its documentation: kOrtSessionOptionsAvx2PrecisionMode).
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def forward(inputs: Inputs) -> Outputs:
        if len(inputs) != len(names):
            raise ValueError(f"the model takes {len(names)} inputs, the sample has {len(inputs)}")
        arrays = (tensor.contiguous().numpy() for tensor in inputs)
        return tuple(
            torch.from_numpy(array)
            for array in session.run(None, dict(zip(names, arrays, strict=True)))
        )

    return forward


def packed(path: Path) -> Forward:
    """Unpack a ``.psk`` and run the program that was in it with torch."""
    with tempfile.TemporaryDirectory(prefix="pocketship-") as scratch:
        program = Path(scratch) / "program.pt2"
        program.write_bytes(archive.unpack_file(path.read_bytes(), where=str(path)))
        return forward_of(load_program(program))


RUNTIMES: dict[Format, Callable[[Path], Forward]] = {
    Format.EXECUTORCH: executorch,
    Format.ONNX: onnxruntime,
    Format.ORT: onnxruntime,
    Format.PACKED: packed,
}

NOT_HERE: dict[Format, str] = {
    Format.COREML: "Core ML predicts on macOS only; its program was converted but not run",
}


def open_artifact(artifact: Artifact, path: Path) -> Forward:
    """A callable that runs the artifact; ``ExportError`` where its runtime cannot load it."""
    try:
        return RUNTIMES[artifact.format](path)
    except Exception as error:
        raise ExportError(
            f"its runtime cannot load it: {first_line(error)}",
            where=str(path),
            hint="It may be cut off or made by another runtime version; export it again.",
        ) from error


def verify(
    artifact: Artifact,
    path: Path,
    samples: Sequence[Sample],
    reference: Sequence[Outputs],
    *,
    metric: TaskMetric,
    limits: ParityLimits,
) -> Parity:
    """Judge one artifact on all samples against ``reference`` (its program's outputs).

    Returns FAILED with the violated limits' names where it is too far away or cannot run; NOT_RUN
    with the reason where its runtime does not exist on this machine.
    """
    if reason := NOT_HERE.get(artifact.format):
        return Parity(artifact=artifact.name, status=Status.NOT_RUN, reason=reason)
    targets: list[Tensor | None] = [sample.target for sample in samples]
    set_limits = limits.model_dump(exclude_none=True)
    try:
        outputs = run_all(open_artifact(artifact, path), samples)
        quality = compare(reference, outputs, metric, targets)
    except ConfigError:
        raise  # The user's metric failed, which says nothing about the artifact.
    except (ExportError, CompressError) as error:
        return Parity(
            artifact=artifact.name, status=Status.FAILED, reason=str(error), limits=set_limits
        )
    except Exception as error:
        reason = f"inference failed: {type(error).__name__}: {first_line(error)}"
        return Parity(
            artifact=artifact.name, status=Status.FAILED, reason=reason, limits=set_limits
        )
    violated = violations(quality, limits, higher_is_better=metric.higher_is_better)
    return Parity(
        artifact=artifact.name,
        status=Status.FAILED if violated else Status.OK,
        reason="; ".join(violated.values()),
        quality=quality,
        limits=set_limits,
        violated=tuple(violated),
    )


def violations(
    quality: Quality, limits: ParityLimits, *, higher_is_better: bool = True
) -> dict[str, str]:
    """The limits that ``quality`` breaks: name -> figure and limit in words."""
    broken: dict[str, str] = {}

    def check(name: str, value: float | None, *, at_least: bool) -> None:
        limit: Any = getattr(limits, name)
        if limit is None:
            return
        if value is None:
            broken[name] = f"{name}: cannot be computed for this model (limit {limit:g})"
        elif not (value >= limit if at_least else value <= limit):
            broken[name] = f"{name}: {value:.4g} breaks the limit {limit:g}"

    check("max_abs_diff", quality.max_abs_diff, at_least=False)
    infinite = float("inf") if quality.sqnr_db is None else quality.sqnr_db
    check("min_sqnr_db", infinite, at_least=True)
    check("min_top1_agreement", quality.top1_agreement, at_least=True)
    # Rounded, because 1.0 - 0.95 is a little more than 0.05 in binary.
    drop = round(quality.metric_reference - quality.metric_value, 12)
    check("max_metric_drop", drop if higher_is_better else -drop, at_least=False)
    return broken
