"""The native runner's result: checked as the untrusted text that it is, then made measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from deploy.types import Measurement, Metric, Model, Status, Tier

MAX_RESULT_BYTES = 64 << 20
"""A result with eight million steady samples fits; more is refused, not truncated."""

Clock = Literal["monotonic", "icount"]

_Nanoseconds = Annotated[int, Field(ge=0, le=10**18)]
_Kib = Annotated[int, Field(ge=0, le=2**42)]
_Name = Annotated[str, Field(max_length=512)]
_Dimension = Annotated[int, Field(ge=0, le=2**40)]


class RunnerTensor(Model):
    """One input or output as the runner saw it in the model."""

    name: _Name
    dtype: _Name
    shape: Annotated[tuple[_Dimension, ...], Field(max_length=64)]
    bytes: Annotated[int, Field(ge=0, le=2**42)]


class RunnerFootprint(Model):
    """``phys_footprint`` of the runner's process: what iOS holds an app's memory limit against."""

    baseline_kib: _Kib
    loaded_kib: _Kib
    peak_kib: _Kib


class RunnerResult(Model):
    """The JSON that ``bench_runner --result`` writes (docs/architecture.md).

    ``phys_footprint`` is there on Apple's systems alone.
    """

    schema_: Literal[1] = Field(alias="schema")
    runner_version: _Name
    backend: Literal["executorch", "onnxruntime", "coreml"]
    runtime_version: _Name
    arch: _Name
    model_bytes: Annotated[int, Field(ge=0, le=2**42)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    cpu_mask: _Name | None
    affinity_applied: bool
    load_ns: _Nanoseconds
    first_ns: _Nanoseconds
    warmup_ns: tuple[_Nanoseconds, ...]
    steady_ns: tuple[_Nanoseconds, ...]
    steady_minutes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    stopped_by: _Name
    samples: Annotated[int, Field(ge=0)] = 0
    baseline_rss_kib: _Kib
    loaded_rss_kib: _Kib
    peak_rss_kib: _Kib
    phys_footprint: RunnerFootprint | None = None
    inputs: Annotated[tuple[RunnerTensor, ...], Field(max_length=4096)]
    outputs: Annotated[tuple[RunnerTensor, ...], Field(max_length=4096)]


def parse_runner_result(text: bytes) -> RunnerResult:
    """Read a runner's result. ``ValueError`` says in one line what is wrong with it."""
    if len(text) > MAX_RESULT_BYTES:
        raise ValueError(f"the result has {len(text)} bytes, more than {MAX_RESULT_BYTES}")
    try:
        return RunnerResult.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])[:100]
        raise ValueError(f"{key}: {first['msg']}" if key else str(first["msg"])) from None


def latency_measurements(result: RunnerResult, *, tier: Tier, clock: Clock) -> list[Measurement]:
    """Load, first and steady inference times; instructions where the clock counts those.

    Under QEMU's ``-icount shift=0`` the guest's clock advances 1 ns for each instruction while it
    computes, and with real time while it waits for a disk or a network: steady inferences wait for
    nothing, a load may.
    """
    pinned = (
        f"cores {result.cpu_mask}" if result.affinity_applied and result.cpu_mask else "not pinned"
    )
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    if result.backend == "coreml":
        threads = "CPU only, threads chosen by Core ML"
    runner = (
        f"bench_runner {result.runner_version}, {result.backend} {result.runtime_version}, "
        f"{threads}, {pinned}"
    )
    if clock == "icount":
        source = f"{runner}; QEMU -icount shift=0: 1 ns of CLOCK_MONOTONIC = 1 instruction"
        waits = f"{source}; waits for storage count with real time"
        unit = Metric.INSTRUCTIONS.value
        return [
            _row(Metric.LOAD_INSTRUCTIONS, unit, tier, waits, [float(result.load_ns)]),
            _row(Metric.FIRST_INSTRUCTIONS, unit, tier, waits, [float(result.first_ns)]),
            _row(Metric.INSTRUCTIONS, unit, tier, source, [float(ns) for ns in result.steady_ns]),
            Measurement(
                metric=Metric.LATENCY_MS,
                unit="ms",
                tier=tier,
                source=source,
                status=Status.UNAVAILABLE,
                reason="the emulated phone's clock counts instructions, not time",
            ),
        ]
    source = f"{runner}; {'CLOCK_UPTIME_RAW' if result.backend == 'coreml' else 'CLOCK_MONOTONIC'}"
    if tier is Tier.SIMULATOR:
        source += "; computed by the Mac, no statement about a phone's time"
    return [
        _row(Metric.LOAD_MS, "ms", tier, source, [result.load_ns / 1e6]),
        _row(Metric.FIRST_MS, "ms", tier, source, [result.first_ns / 1e6]),
        _row(Metric.LATENCY_MS, "ms", tier, source, [ns / 1e6 for ns in result.steady_ns]),
    ]


def _row(
    metric: Metric, unit: str, tier: Tier, source: str, samples: Sequence[float]
) -> Measurement:
    if samples:
        return Measurement(
            metric=metric,
            unit=unit,
            tier=tier,
            source=source,
            status=Status.OK,
            samples=tuple(samples),
        )
    return Measurement(
        metric=metric,
        unit=unit,
        tier=tier,
        source=source,
        status=Status.UNAVAILABLE,
        reason="no steady inference ended before the time limit",
    )
