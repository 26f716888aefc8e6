"""The native runner's result: checked as the untrusted text that it is, then made measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from deploy.types import Measurement, Metric, Model, Status, Tier

MAX_RESULT_BYTES = 64 << 20
"""A result with eight million steady samples fits; more is refused, not truncated."""

MAX_POLLED = 40_000
MAX_MINUTES = 24 * 60 + 1
"""A runner ends after a day at the latest."""

_MINUTE_NS = 60 * 10**9

Clock = Literal["monotonic", "icount"]

_Nanoseconds = Annotated[int, Field(ge=0, le=10**18)]
_Count = Annotated[int, Field(ge=0, le=10**9)]
_Kib = Annotated[int, Field(ge=0, le=2**42)]
_Name = Annotated[str, Field(max_length=512)]
_Dimension = Annotated[int, Field(ge=0, le=2**40)]


class RunnerTensor(Model):
    """One input or output as the runner saw it in the model."""

    name: _Name
    dtype: _Name
    shape: Annotated[tuple[_Dimension, ...], Field(max_length=64)]
    bytes: Annotated[int, Field(ge=0, le=2**42)]


class RunnerMemory(Model):
    """What was polled beside the inferences; ``steady_from`` is the first sample after warm-up."""

    interval_ms: Annotated[int, Field(ge=1, le=60_000)]
    steady_from: Annotated[int, Field(ge=0)]
    pss_kib: Annotated[tuple[_Kib, ...], Field(max_length=MAX_POLLED)]
    private_dirty_kib: Annotated[tuple[_Kib, ...], Field(max_length=MAX_POLLED)]
    reason: _Name


class RunnerFootprint(Model):
    """``phys_footprint`` of the runner's process: what iOS holds an app's memory limit against."""

    baseline_kib: _Kib
    loaded_kib: _Kib
    peak_kib: _Kib


class RunnerResult(Model):
    """The JSON that ``bench_runner --result`` writes (docs/architecture.md).

    What has a default came with runner 0.2.0; a runner that leaves it out was not asked for it.
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
    steady_minutes: Annotated[tuple[_Count, ...], Field(max_length=MAX_MINUTES)] = ()
    stopped_by: _Name
    samples: _Count = 0
    baseline_rss_kib: _Kib
    loaded_rss_kib: _Kib
    peak_rss_kib: _Kib
    memory: RunnerMemory | None = None
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


def latency_measurements(
    result: RunnerResult, *, tier: Tier, clock: Clock, per_minute: bool = False
) -> list[Measurement]:
    """Steady inference times; instructions where the clock counts those.

    ``per_minute``: the samples are the medians of the inferences that began in each full minute
    (of all of them where there is no full minute), so that hours of samples stay a short list and
    drift shows. A counting clock has no minutes.

    Under QEMU's ``-icount shift=0`` the guest's clock advances 1 ns for each instruction while it
    computes, and with real time while it waits for a disk or a network: steady inferences wait for
    nothing, a load may.
    """
    if clock == "icount":
        source = f"{_runner(result)}; {_ICOUNT}"
        steady = [float(ns) for ns in result.steady_ns]
        return [
            _row(Metric.INSTRUCTIONS, tier, source, steady),
            Measurement(
                metric=Metric.LATENCY_MS,
                unit="ms",
                tier=tier,
                source=source,
                status=Status.UNAVAILABLE,
                reason="the emulated phone's clock counts instructions, not time",
            ),
        ]
    source = f"{_runner(result)}; {_clock(result, tier)}"
    steady = [ns / 1e6 for ns in result.steady_ns]
    if not per_minute:
        return [_row(Metric.LATENCY_MS, tier, source, steady)]
    source += f"; median of each minute, {len(result.steady_ns)} inferences in all"
    medians = minute_medians(result)
    row = _row(Metric.LATENCY_MS, tier, source, list(medians.values()))
    return [row.model_copy(update={"minutes": tuple(medians)})]


def minute_medians(result: RunnerResult) -> dict[int, float]:
    """Minute from 0 on -> milliseconds: the median of the inferences that began in it.

    A minute in which none began has no entry. The last minute is left out where its inferences fill
    less than nine tenths of it, unless it is the only one. ``ValueError`` where the minutes do not
    add up to the inferences.
    """
    counts = result.steady_minutes
    if sum(counts) != len(result.steady_ns):
        raise ValueError(
            f"its minutes hold {sum(counts)} inferences and there are {len(result.steady_ns)}"
        )
    last = counts[-1] if counts else 0
    cut_short = last == 0 or sum(result.steady_ns[-last:]) < _MINUTE_NS * 9 // 10
    medians = {}
    at = 0
    for minute, count in enumerate((counts[:-1] if cut_short else counts) or counts):
        # An inference that lasts longer than a minute leaves minutes in which none began.
        if count:
            medians[minute] = statistics.median(result.steady_ns[at : at + count]) / 1e6
        at += count
    return medians


def load_measurements(
    results: Sequence[RunnerResult], *, tier: Tier, clock: Clock
) -> list[Measurement]:
    """Load and first inference: one sample for each fresh process."""
    loads = [float(result.load_ns) for result in results]
    firsts = [float(result.first_ns) for result in results]
    processes = f"{len(results)} fresh process{'' if len(results) == 1 else 'es'}"
    source = f"{_runner(results[0])}, {processes}; "
    if clock == "icount":
        source += f"{_ICOUNT}; waits for storage count with real time"
        return [
            _row(Metric.LOAD_INSTRUCTIONS, tier, source, loads),
            _row(Metric.FIRST_INSTRUCTIONS, tier, source, firsts),
        ]
    source += _clock(results[0], tier)
    return [
        _row(Metric.LOAD_MS, tier, source, [ns / 1e6 for ns in loads]),
        _row(Metric.FIRST_MS, tier, source, [ns / 1e6 for ns in firsts]),
    ]


def install_load_measurement(result: RunnerResult, *, tier: Tier) -> Measurement:
    """The one load that came first after this run pushed the model. ``result`` is that process's.

    The content was just written, so it mostly is in the page cache: this is no cold start.
    """
    source = f"{_runner(result)}, first load after a push; {_clock(result, tier)}"
    return _row(Metric.INSTALL_LOAD_MS, tier, source, [result.load_ns / 1e6])


_ICOUNT = "QEMU -icount shift=0: 1 ns of CLOCK_MONOTONIC = 1 instruction"


def _runner(result: RunnerResult) -> str:
    pinned = (
        f"cores {result.cpu_mask}" if result.affinity_applied and result.cpu_mask else "not pinned"
    )
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    if result.backend == "coreml":
        threads = "CPU only, threads chosen by Core ML"
    return (
        f"bench_runner {result.runner_version}, {result.backend} {result.runtime_version}, "
        f"{threads}, {pinned}"
    )


def _clock(result: RunnerResult, tier: Tier) -> str:
    name = "CLOCK_UPTIME_RAW" if result.backend == "coreml" else "CLOCK_MONOTONIC"
    mac = "; computed by the Mac, no statement about a phone's time"
    return name + (mac if tier is Tier.SIMULATOR else "")


def _row(metric: Metric, tier: Tier, source: str, samples: Sequence[float]) -> Measurement:
    unit = "ms" if metric.value.endswith("_ms") else Metric.INSTRUCTIONS.value
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
