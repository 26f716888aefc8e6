"""Load and first inference in fresh processes: what a user waits for when an app starts."""

from __future__ import annotations

from deploy.bench.passes.base import CaseRun, Gathered
from deploy.bench.runner import load_only
from deploy.metrics.latency import load_measurements
from deploy.types import Metric

PROCESSES = 3


class Loads:
    """The runner started :data:`PROCESSES` times for nothing but load and first inference."""

    name = "loads"
    metrics = (Metric.LOAD_MS, Metric.FIRST_MS)

    def wants_cool(self, run: CaseRun) -> bool:
        """Loads are times too."""
        return True

    def measure(self, run: CaseRun) -> Gathered:
        """The content is in the page cache by now: these are warm starts."""
        request = run.request(limits=load_only(run.limits))
        results = [run.run(request)[0] for _ in range(PROCESSES)]
        rows = load_measurements(results, tier=run.info.tier, clock=run.info.clock)
        return Gathered(measurements=tuple(rows))
