"""Memory that is polled while the model runs: polling disturbs times, so they are not looked at."""

from __future__ import annotations

from deploy.bench.passes.base import CaseRun, Gathered
from deploy.bench.runner import brief
from deploy.metrics.memory import polled_measurements
from deploy.types import Metric

INTERVAL_MS = 50


class Memory:
    """PSS and private dirty pages, polled by a thread of the runner."""

    name = "memory"
    metrics = (Metric.PSS_KIB, Metric.PRIVATE_DIRTY_KIB)

    def wants_cool(self, run: CaseRun) -> bool:
        """Pages do not depend on heat."""
        return False

    def measure(self, run: CaseRun) -> Gathered:
        """At least 20 inferences and half a second, where the timing pass has as many."""
        limits = brief(run.limits, warmup=3, iterations=20, seconds=0.5)
        result, _ = run.run(run.request(limits=limits, poll_memory_ms=INTERVAL_MS))
        return Gathered(measurements=tuple(polled_measurements(result, tier=run.info.tier)))
