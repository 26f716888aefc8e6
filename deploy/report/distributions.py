"""Raw samples as few numbers: percentiles, a box, a histogram, a trace short enough for a page.

Pure functions. A percentile is given only where enough samples stand behind it: p90 from 64 on, p99
from 662 on (the least for which MLPerf Inference's early stopping lets them be stated).
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

P90_FROM = 64
P99_FROM = 662
OUTLIER_Z = 14.826
"""(sample - median) / MAD beyond which hyperfine calls it an outlier; none is ever removed."""
STEPS = 1000
"""How finely a trace shows a sample: a thousandth of the range between lowest and highest."""
TRACED = 2000
"""A trace of more samples shows the lowest and the highest of each stretch of them instead."""
_BINS = 40


@dataclass(frozen=True)
class Summary:
    """Of ``n`` samples, in their unit. ``fence_low`` and ``fence_high`` are the furthest samples
    within 1.5 interquartile ranges of the box (Tukey). p90 and p99 are None with too few samples.
    """

    n: int
    low: float
    fence_low: float
    q1: float
    median: float
    q3: float
    fence_high: float
    high: float
    mean: float
    mad: float
    p90: float | None
    p99: float | None
    outliers: int


def summarize(samples: Sequence[float]) -> Summary:
    """The summary of at least one finite sample; ``ValueError`` otherwise."""
    values = sorted(samples)
    if not values or not all(map(math.isfinite, values)):
        raise ValueError("a distribution needs at least one sample, and all of them finite")
    q1, median, q3 = (quantile(values, share) for share in (0.25, 0.5, 0.75))
    reach = 1.5 * (q3 - q1)
    mad = statistics.median([abs(value - median) for value in values])
    far = OUTLIER_Z * mad
    return Summary(
        n=len(values),
        low=values[0],
        fence_low=next(value for value in values if value >= q1 - reach),
        q1=q1,
        median=median,
        q3=q3,
        fence_high=next(value for value in reversed(values) if value <= q3 + reach),
        high=values[-1],
        mean=statistics.fmean(values),
        mad=mad,
        p90=quantile(values, 0.9) if len(values) >= P90_FROM else None,
        p99=quantile(values, 0.99) if len(values) >= P99_FROM else None,
        # Where half of the samples are equal every other one would be infinitely far away.
        outliers=len(values)
        - bisect_right(values, median + far)
        + bisect_left(values, median - far)
        if mad
        else 0,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The ``share`` quantile of sorted values, interpolated (Hyndman and Fan's type 7)."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    low, high = ordered[below], ordered[above]
    return low if low == high else low + (place - below) * (high - low)


@dataclass(frozen=True)
class Histogram:
    """``counts[i]`` samples lie from ``start + i * width``; ``width`` 0: all are ``start``."""

    start: float
    width: float
    counts: tuple[int, ...]


def histogram(samples: Sequence[float]) -> Histogram:
    """Bins of equal width by Freedman and Diaconis's rule, at most 40 of them."""
    values = sorted(samples)
    low, high = values[0], values[-1]
    if low == high:
        return Histogram(low, 0.0, (len(values),))
    wide = 2 * (quantile(values, 0.75) - quantile(values, 0.25)) / len(values) ** (1 / 3)
    wanted = (high - low) / wide if wide > 0 else math.inf
    bins = max(1, math.ceil(min(wanted, _BINS)))
    edges = [low + (high - low) * number / bins for number in range(1, bins)]
    places = [0, *(bisect_left(values, edge) for edge in edges), len(values)]
    counts = tuple(after - before for before, after in pairwise(places))
    return Histogram(low, (high - low) / bins, counts)


@dataclass(frozen=True)
class Trace:
    """Samples in the order in which they came, rounded for drawing.

    The i-th value is ``start + step * (sum of the first i + 1 numbers in deltas)``. Each point
    stands for ``stretch`` samples; beyond 1 there are two a stretch, its lowest and its highest.
    """

    start: float
    step: float
    stretch: int
    deltas: str


def trace(samples: Sequence[float]) -> Trace:
    """At least one finite sample as a short text; off by at most half a ``step``."""
    values, stretch = list(samples), 1
    if len(values) > TRACED:
        stretch = math.ceil(len(values) / (TRACED // 2))
        parts = [values[i : i + stretch] for i in range(0, len(values), stretch)]
        values = [edge for part in parts for edge in (min(part), max(part))]
    low, high = min(values), max(values)
    step = (high - low) / STEPS
    places = [round((value - low) / step) if step else 0 for value in values]
    deltas = [after - before for before, after in pairwise([0, *places])]
    return Trace(low, step, stretch, ",".join(map(str, deltas)))
