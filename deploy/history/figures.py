"""What the history keeps of a measurement: its summary in columns, and all of its samples packed.

Packed they are zlib over the shortest decimal text that reads back as the same number. That is
exact, and smaller than packing the eight bytes of each: times are counted nanoseconds, which are
short decimals and long binary fractions.
"""

from __future__ import annotations

import json
import math
import statistics
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.types import Measurement

LEVEL = 0.95
"""Coverage, at least, of the interval of a median."""

MAX_UNPACKED_BYTES = 1 << 30


def summary(measurement: Measurement) -> dict[str, Any]:
    """The columns of a figure; all None and ``n`` 0 where nothing was measured.

    ``mad`` is the median of absolute deviations from the median, not scaled. ``p90`` interpolates
    between order statistics (Hyndman and Fan's type 7, NumPy's default). ``low`` and ``high`` are
    the measurement's own interval where it has one, else :func:`median_interval`.
    """
    samples = sorted(measurement.samples)
    if not samples:
        names = ("median", "mad", "mean", "p90", "min", "max", "low", "high")
        return {"n": 0, **dict.fromkeys(names)}
    middle = statistics.median(samples)
    low, high = measurement.interval or median_interval(samples) or (None, None)
    return {
        "n": len(samples),
        "median": middle,
        "mad": statistics.median(abs(value - middle) for value in samples),
        "mean": statistics.fmean(samples),
        "p90": quantile(samples, 0.9),
        "min": samples[0],
        "max": samples[-1],
        "low": low,
        "high": high,
    }


def quantile(ordered: Sequence[float], share: float) -> float:
    """The quantile of an ascending list by linear interpolation (type 7)."""
    place = (len(ordered) - 1) * share
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def median_interval(ordered: Sequence[float]) -> tuple[float, float] | None:
    """Order statistics that hold the median with probability :data:`LEVEL` or more.

    For independent samples of any continuous distribution the number below the median is
    binomial(n, 1/2) (the sign test's interval). None below six samples: (min, max) covers less.
    """
    n = len(ordered)
    each = (1 - LEVEL) / 2
    if 0.5**n > each:
        return None
    if n > 1000:
        # The normal approximation, rounded outwards; the exact sum would only cost time.
        rank = math.floor(n / 2 - statistics.NormalDist().inv_cdf(1 - each) * math.sqrt(n) / 2)
        return ordered[max(rank - 1, 0)], ordered[n - max(rank, 1)]
    tail, rank = 0.5**n, 0
    while True:
        # P(X <= rank) for X binomial(n, 1/2) must stay within the tail.
        following = tail + math.comb(n, rank + 1) * 0.5**n
        if following > each:
            return ordered[rank], ordered[n - 1 - rank]
        tail, rank = following, rank + 1


def pack(samples: Mapping[str, Sequence[float]]) -> bytes:
    """The samples of a case by metric, exactly; ``unpack`` gives the same mapping."""
    rows = {name: list(values) for name, values in samples.items()}
    text = json.dumps(rows, separators=(",", ":"), allow_nan=False)
    return zlib.compress(text.encode(), 6)


def unpack(data: bytes) -> dict[str, tuple[float, ...]]:
    """What ``pack`` packed. Raises ``ValueError`` where it is damaged or far too large."""
    opened = zlib.decompressobj()
    try:
        text = opened.decompress(data, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"packed samples are damaged: {error}") from None
    if not opened.eof:
        raise ValueError("packed samples are cut off or too large")
    rows = json.loads(text)
    return {name: tuple(float(value) for value in values) for name, values in rows.items()}
