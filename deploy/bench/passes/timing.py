"""The first pass: one fresh process that loads, infers and repeats, with nothing beside it."""

from __future__ import annotations

from deploy.bench import outputs
from deploy.bench.passes.base import CaseRun, Gathered, PassFailed
from deploy.metrics.latency import (
    install_load_measurement,
    latency_measurements,
    load_measurements,
)
from deploy.metrics.memory import memory_measurements
from deploy.types import Measurement, Metric, Status


class Timing:
    """Load, first and steady inference, peak memory, and the outputs' difference from here."""

    name = "timing"
    metrics: tuple[Metric, ...] = ()
    """None owed: where this pass fails there is no case."""

    def __init__(self, *, loads: bool = True) -> None:
        """``loads``: the rows of load and first inference are this pass's, from one process."""
        self._loads = loads

    def wants_cool(self, run: CaseRun) -> bool:
        """Always."""
        return True

    def measure(self, run: CaseRun) -> Gathered:
        """Run once with the preset's limits."""
        pushed = _push_model(run)
        request = run.request()
        result, answer = run.run(request)
        tier, clock = run.info.tier, run.info.clock
        loads = load_measurements([result], tier=tier, clock=clock) if self._loads else []
        if pushed and clock == "monotonic":
            loads.insert(0, install_load_measurement(result, tier=tier))
        try:
            steady = latency_measurements(
                result, tier=tier, clock=clock, per_minute=request.limits.per_minute
            )
        except ValueError as error:
            reason = f"the runner's result cannot be used: {error}"
            raise PassFailed(Status.INVALID, reason) from None
        return Gathered(
            measurements=(
                *loads,
                *steady,
                *memory_measurements(result, tier=tier),
                _output_difference(run, answer.outputs),
            ),
            runtime=result.runtime_version,
            raw=answer.result,
        )


def _push_model(run: CaseRun) -> bool:
    """Have the model on the device; whether it had to be sent just now."""
    before = run.agent.traffic.bytes_pushed
    run.agent.push_content(run.job.path, run.job.artifact.sha256)
    return run.agent.traffic.bytes_pushed > before


def _output_difference(run: CaseRun, raw: bytes) -> Measurement:
    status, reason = Status.OK, ""
    samples: tuple[float, ...] = ()
    job = run.job
    if job.reference is None:
        status, reason = Status.NOT_RUN, "there are no reference outputs to compare with"
    else:
        try:
            samples = (outputs.max_abs_diff(raw, job.artifact.outputs, job.reference),)
        except (OSError, ValueError) as error:
            status, reason = Status.FAILED, str(error)
    return Measurement(
        metric=Metric.OUTPUT_MAX_ABS_DIFF,
        unit="",
        tier=run.info.tier,
        source="first inference on the device against this machine's outputs",
        status=status,
        reason=reason,
        samples=samples,
    )
