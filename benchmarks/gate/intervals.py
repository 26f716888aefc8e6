"""How often intervals miss: one-sided errors of six pairs at a nominal 2.5 %.

The gate's interval is the exact bootstrap percentile interval of the median. Beside it: the same of
the mean, BCa and studentized bootstrap of the mean, and Student's t.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats as scipy_stats

from benchmarks.gate.devices import KINDS, Floats, abba, measure
from deploy.report import paired, stats

RESAMPLES = 999
SHOWN = ("independent", "heavy tails", "busy")

Ends = tuple[Floats, Floats]


def _gate(values: Floats, alpha: float) -> Ends:
    found = [stats.median_interval(list(row), alpha) for row in values]
    ends = np.array([(one.low, one.high) for one in found if one is not None])
    return ends[:, 0], ends[:, 1]


def _scipy(method: str) -> Callable[[Floats, float], Ends]:
    def interval(values: Floats, alpha: float) -> Ends:
        found = scipy_stats.bootstrap(
            (values,), np.mean, axis=1, method=method, confidence_level=1 - 2 * alpha,
            n_resamples=RESAMPLES, rng=np.random.default_rng(0), vectorized=True, batch=100,
        ).confidence_interval  # fmt: skip
        return found.low, found.high

    return interval


def _studentized(values: Floats, alpha: float) -> Ends:
    random = np.random.default_rng(0)
    n = values.shape[1]
    lows, highs = [], []
    for row in values:
        drawn = row[random.integers(0, n, (RESAMPLES, n))]
        spread = drawn.std(axis=1, ddof=1) / np.sqrt(n)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (drawn.mean(axis=1) - row.mean()) / spread
        low, high = np.quantile(t[np.isfinite(t)], [alpha, 1 - alpha])
        own = row.std(ddof=1) / np.sqrt(n)
        lows.append(row.mean() - high * own)
        highs.append(row.mean() - low * own)
    return np.array(lows), np.array(highs)


def _t(values: Floats, alpha: float) -> Ends:
    n = values.shape[1]
    half = scipy_stats.t.ppf(1 - alpha, n - 1) * values.std(axis=1, ddof=1) / np.sqrt(n)
    return values.mean(axis=1) - half, values.mean(axis=1) + half


INTERVALS: dict[str, Callable[[Floats, float], Ends]] = {
    "bootstrap of the median, exact (the gate's)": _gate,
    "bootstrap of the mean, percentile": _scipy("percentile"),
    "bootstrap of the mean, BCa": _scipy("BCa"),
    "bootstrap of the mean, studentized": _studentized,
    "Student's t of the mean": _t,
}


def misses(devices: int, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """By interval and kind of device: how often each end lies beyond the true change, and width.

    A/A sessions with 3 % variation, so that the true change is 0; width is the median's.
    """
    base, head = abba(6)
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in INTERVALS}
    for kind in (one for one in KINDS if one.name in SHOWN):
        random = np.random.default_rng([seed, KINDS.index(kind)])
        sessions = measure(random, kind, 0.03, devices).sessions
        values = np.log(sessions[:, head] / sessions[:, base])
        for name, interval in INTERVALS.items():
            low, high = interval(values, paired.ALPHA)
            found[name][kind.name] = {
                "above": float(np.mean(low > 0)),
                "below": float(np.mean(high < 0)),
                "width": float(np.median(high - low)),
            }
    return found
