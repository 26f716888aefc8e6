"""Numbers as people read them: few digits where noise is, all of them where counts are exact."""

from __future__ import annotations

import math

from deploy.types import Metric

UNITS: dict[str, str] = {
    Metric.INSTALL_LOAD_MS: "ms",
    Metric.LOAD_MS: "ms",
    Metric.FIRST_MS: "ms",
    Metric.LATENCY_MS: "ms",
    Metric.LOAD_INSTRUCTIONS: "instructions",
    Metric.FIRST_INSTRUCTIONS: "instructions",
    Metric.INSTRUCTIONS: "instructions",
    Metric.PEAK_RSS_KIB: "KiB",
    Metric.DELTA_RSS_KIB: "KiB",
    Metric.PSS_KIB: "KiB",
    Metric.PRIVATE_DIRTY_KIB: "KiB",
    Metric.PHYS_FOOTPRINT_KIB: "KiB",
    Metric.ENERGY_MJ: "mJ",
    Metric.TASK_METRIC: "",
    Metric.TASK_METRIC_DROP: "",
    Metric.OUTPUT_MAX_ABS_DIFF: "",
    "bytes": "bytes",
    "macs": "MACs",
    "planned_bytes": "bytes",
}
"""Unit of each metric, as it stands in table headers; empty where there is none."""

TITLES: dict[str, str] = {
    Metric.INSTALL_LOAD_MS: "First load after a push",
    Metric.LOAD_MS: "Load",
    Metric.FIRST_MS: "First inference",
    Metric.LATENCY_MS: "Steady inference",
    Metric.LOAD_INSTRUCTIONS: "Load",
    Metric.FIRST_INSTRUCTIONS: "First inference",
    Metric.INSTRUCTIONS: "Steady inference",
    Metric.PEAK_RSS_KIB: "Peak RSS",
    Metric.DELTA_RSS_KIB: "RSS above the empty runner",
    Metric.PSS_KIB: "PSS, steady",
    Metric.PRIVATE_DIRTY_KIB: "Private dirty, steady",
    Metric.PHYS_FOOTPRINT_KIB: "Peak physical footprint",
    Metric.ENERGY_MJ: "Energy an inference",
    Metric.TASK_METRIC: "Task metric on the device",
    Metric.TASK_METRIC_DROP: "Worse than here by",
    Metric.OUTPUT_MAX_ABS_DIFF: "Largest difference of outputs",
    "bytes": "File",
    "macs": "Multiply-accumulates",
    "planned_bytes": "Planned memory",
}
"""What each metric is called in table headers."""

_WHOLE = frozenset({"instructions", "KiB", "bytes", "MACs"})


def title(metric: str) -> str:
    """Header of a metric's column: name and unit."""
    unit = UNITS.get(metric, "")
    name = TITLES.get(metric, metric)
    return f"{name}, {unit}" if unit else name


def figure(metric: str, value: float) -> str:
    """A value in its metric's unit: counts in full, times and differences to four digits."""
    if UNITS.get(metric) in _WHOLE or metric == "partitions":
        return count(value)
    return significant(value)


def count(value: float) -> str:
    """An exact count with separators: ``84,590,607``; a median's ``.5`` stays."""
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def significant(value: float, digits: int = 4) -> str:
    """``digits`` significant digits: ``14.43``, ``0.02601``, ``12,346``, ``3.200e-06``."""
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -3:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - magnitude)}f}"


def limit(value: float) -> str:
    """A limit as it was written: ``13``, ``0.8``, ``86,000,000``; no digits that nobody gave."""
    return f"{value:,.10g}" if math.isfinite(value) else "not finite"


def ratio(value: float) -> str:
    """``0.54x``; near 1 a digit more (``0.998x``), because counts are exact; ``0.0071x``."""
    if abs(value - 1) < 0.05:
        return f"{value:.3f}x"
    if value >= 100:
        return f"{value:,.0f}x"
    return f"{value:.2f}x" if value >= 0.1 else f"{significant(value, 2)}x"


def share(value: float) -> str:
    """A share in [0, 1] as per cent: ``84.0 %``."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else "not finite"


def threads(count: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} thread{'' if count == 1 else 's'}"


def from_to(before: float, after: float, scale: float) -> str:
    """``18.57 → 4.91``: two figures in the same unit, each divided by ``scale``."""
    return f"{significant(before / scale)} → {significant(after / scale)}"
