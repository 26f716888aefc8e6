"""The first pass: one fresh process that loads, infers and repeats, with nothing beside it."""

from __future__ import annotations

from deploy.bench import outputs
from deploy.bench.passes.base import CaseRun, Gathered
from deploy.metrics.latency import latency_measurements
from deploy.metrics.memory import memory_measurements
from deploy.types import Measurement, Metric, Status


class Timing:
    """Load, first and steady inference, peak memory, and the outputs' difference from here."""

    name = "timing"
    metrics: tuple[Metric, ...] = ()
    """None owed: where this pass fails there is no case."""

    def measure(self, run: CaseRun) -> Gathered:
        """Run once with the preset's limits."""
        result, answer = run.run(run.request())
        tier = run.info.tier
        return Gathered(
            measurements=(
                *latency_measurements(result, tier=tier, clock=run.info.clock),
                *memory_measurements(result, tier=tier),
                _output_difference(run, answer.outputs),
            ),
            runtime=result.runtime_version,
            raw=answer.result,
        )


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
