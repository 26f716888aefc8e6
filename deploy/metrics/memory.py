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


def polled_measurements(result: RunnerResult, *, tier: Tier) -> list[Measurement]:
    """``pss_kib`` and ``private_dirty_kib``: every sample that was polled after the warm-up.

    PSS counts a page that several processes map in shares; private dirty pages are the model's own
    and cannot be dropped by the kernel. What the load takes for a moment is in ``peak_rss_kib``.
    """
    memory = result.memory
    pss: tuple[int, ...] = ()
    dirty: tuple[int, ...] = ()
    interval, missing = "", "the runner did not poll its memory"
    if memory is not None:
        interval = f" every {memory.interval_ms} ms"
        if len(memory.pss_kib) != len(memory.private_dirty_kib):
            missing = "the runner's two lists of samples differ in length"
        else:
            pss = memory.pss_kib[memory.steady_from :]
            dirty = memory.private_dirty_kib[memory.steady_from :]
            missing = "" if pss else memory.reason or "no sample was taken after the warm-up"
    source = f"of /proc/self/smaps_rollup{interval} after the warm-up, in a process of its own"
    return [
        Measurement(
            metric=metric,
            unit="KiB",
            tier=tier,
            source=f"{name} {source}",
            status=Status.UNAVAILABLE if missing else Status.OK,
            reason=missing,
            samples=tuple(float(kib) for kib in samples),
        )
        for metric, name, samples in (
            (Metric.PSS_KIB, "Pss", pss),
            (Metric.PRIVATE_DIRTY_KIB, "Private_Dirty", dirty),
        )
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
