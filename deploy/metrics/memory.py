"""Memory of the runner's process, as the kernel of the device accounts it."""

from __future__ import annotations

from deploy.metrics.latency import RunnerResult
from deploy.types import Measurement, Metric, Status, Tier


def memory_measurements(result: RunnerResult, *, tier: Tier) -> list[Measurement]:
    """``peak_rss_kib`` (VmHWM) and ``delta_rss_kib`` (peak minus the runner before any runtime).

    VmHWM counts mapped file pages, so a memory-mapped model is in it as far as it was touched.
    """
    peak, baseline = result.peak_rss_kib, result.baseline_rss_kib
    missing = "the kernel did not show VmHWM or VmRSS of the runner" if not peak else ""
    if not missing and not baseline:
        delta_missing = "the runner's memory before the load is not known"
    elif not missing and peak < baseline:
        delta_missing = f"the peak ({peak} KiB) is below the baseline ({baseline} KiB)"
    else:
        delta_missing = missing
    source = "VmHWM of /proc/self/status"
    return [
        _row(Metric.PEAK_RSS_KIB, tier, source, peak, missing),
        _row(
            Metric.DELTA_RSS_KIB,
            tier,
            f"{source} minus VmRSS before the runtime was opened",
            peak - baseline,
            delta_missing,
        ),
    ]


def _row(metric: Metric, tier: Tier, source: str, value: int, missing: str) -> Measurement:
    return Measurement(
        metric=metric,
        unit="KiB",
        tier=tier,
        source=source,
        status=Status.UNAVAILABLE if missing else Status.OK,
        reason=missing,
        samples=() if missing else (float(value),),
    )
