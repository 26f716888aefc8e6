"""Statistics of measurements: pure functions on sequences of floats, each with its source.

What holds for all of them: nothing is rounded, nothing is dropped. Where the values cannot answer
(too few, not finite, none) the result is None, never an invented number and never an exception;
a parameter that makes no sense (a share outside 0 to 1) is the caller's mistake: ``ValueError``.
Whatever is random takes a seed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats as scipy_stats

Floats = npt.NDArray[np.float64]

OUTLIER_Z = 14.8
"""Modified z-scores above this are flagged: hyperfine's threshold (10 standard deviations)."""

EXACT_UP_TO = 16
"""Most differences whose sign flips are all enumerated (65,536 of them)."""

MONTE_CARLO = 50_000
"""Random flips or resamples where there are too many to enumerate."""

_TIE = 1e-12  # Relative: sums of the same values in another order differ in their last digits.


class OneSided(NamedTuple):
    """p-values against "no difference": that the first is greater, that it is less."""

    greater: float
    less: float


class Interval(NamedTuple):
    """Low and high end."""

    low: float
    high: float


def usable(values: Sequence[float]) -> bool:
    """Whether there is at least one value and all are finite."""
    return len(values) > 0 and all(math.isfinite(value) for value in values)


def median(values: Sequence[float]) -> float | None:
    """The middle value, or the mean of the two in the middle."""
    if not usable(values):
        return None
    low, high = statistics.median_low(values), statistics.median_high(values)
    middle = (low + high) / 2
    return float(middle if math.isfinite(middle) else low / 2 + high / 2)


def mad(values: Sequence[float]) -> float | None:
    """Median absolute deviation from the median, unscaled (Hampel 1974)."""
    middle = median(values)
    return None if middle is None else median([abs(value - middle) for value in values])


def modified_z(values: Sequence[float]) -> tuple[float, ...] | None:
    """``0.6745 (x - median) / MAD`` of each value (Iglewicz and Hoaglin 1993).

    Where the MAD is 0 (more than half of the values are equal) a value has 0 if it is the median,
    else an infinite score with its sign.
    """
    middle, spread = median(values), mad(values)
    if middle is None or spread is None:
        return None
    if spread == 0:
        return tuple(math.copysign(math.inf, v - middle) if v != middle else 0.0 for v in values)
    return tuple(0.6745 * (value - middle) / spread for value in values)


def outliers(values: Sequence[float], limit: float = OUTLIER_Z) -> tuple[int, ...]:
    """Positions of the values whose modified z is beyond ``limit``. They are flagged, never cut.

    Where the MAD is 0 nothing is flagged: a coarse clock's next tick would be.
    """
    if not mad(values):
        return ()
    return tuple(i for i, z in enumerate(modified_z(values) or ()) if abs(z) > limit)


@lru_cache
def minimum_count(share: float, confidence: float = 0.99) -> int:
    """Fewest samples from which the percentile ``share`` is reported: 64 for 0.9, 662 for 0.99.

    MLPerf's early stopping with one sample above the percentile: the least n for which at most one
    of n samples lies beyond it with probability no more than ``1 - confidence``.
    """
    if not (0 < share < 1 and 0 < confidence < 1):
        raise ValueError("a percentile and a confidence lie between 0 and 1")
    beyond, n = 1 - share, 2
    while True:
        at_most_one = share**n + n * beyond * share ** (n - 1)
        if at_most_one <= 1 - confidence:
            return n
        n += 1


def percentile(values: Sequence[float], share: float) -> float | None:
    """The percentile by linear interpolation, None below :func:`minimum_count` samples."""
    if len(values) < minimum_count(share) or not usable(values):
        return None
    ordered = sorted(map(float, values))
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    part = position - below
    above = ordered[min(below + 1, len(ordered) - 1)]
    return (1 - part) * ordered[below] + part * above


def log_ratio(base: float, head: float) -> float | None:
    """``ln(head / base)``; None unless both are finite and above 0."""
    if not (usable((base, head)) and base > 0 and head > 0):
        return None
    return math.log(head) - math.log(base)


def sign_flip(differences: Sequence[float], *, seed: int = 0) -> OneSided | None:
    """Exact sign-flip permutation test of paired differences; the statistic is their sum.

    Fisher's randomization test of a paired design (Fisher 1935, section 21; Pitman 1937): under
    "no difference" each sign is as likely as its opposite, whatever the distribution, so the
    p-value is the share of the ``2**n`` flips whose sum is at least the observed one, which counts
    itself: the least is ``2**-n``. The median is no statistic for this test: flipping small
    values does not move it, and six pairs would never come below 4/64.

    Above :data:`EXACT_UP_TO` differences :data:`MONTE_CARLO` seeded flips stand for all of them;
    the observed one is counted in, so p is never 0 (Phipson and Smyth 2010).
    """
    if not usable(differences):
        return None
    d = np.asarray(differences, dtype=float)
    largest = float(np.abs(d).max())
    if largest == 0:
        return OneSided(1.0, 1.0)
    d = d / largest  # No overflow, and one scale for ties.
    n, observed = len(d), float(d.sum())
    tie = _TIE * n
    if n <= EXACT_UP_TO:
        sums = signs(n) @ d
        return OneSided(
            float(np.mean(sums >= observed - tie)), float(np.mean(sums <= observed + tie))
        )
    random = np.random.default_rng(seed)
    sums = _random_signs(random, n) @ d
    count = MONTE_CARLO + 1
    return OneSided(
        float((1 + np.count_nonzero(sums >= observed - tie)) / count),
        float((1 + np.count_nonzero(sums <= observed + tie)) / count),
    )


@lru_cache(maxsize=4)
def signs(n: int) -> Floats:
    """All ``2**n`` rows of n signs, +1 and -1; the first row flips nothing. Read-only."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    table = np.where(bits == 1, -1.0, 1.0)
    table.flags.writeable = False
    return table


def _random_signs(random: np.random.Generator, n: int) -> Floats:
    return random.integers(0, 2, (MONTE_CARLO, n)).astype(np.float64) * 2 - 1


def median_interval(values: Sequence[float], alpha: float) -> Interval | None:
    """Bootstrap percentile interval of the median, ``alpha`` on each side, without simulation.

    The resamples' medians are averages of two of the values (or single values), and how often
    each occurs depends on n alone, so the whole bootstrap distribution is known in closed form
    (Efron 1979, section 3; Hutson and Ernst 2000). Not BCa: its acceleration is a jackknife, which
    is inconsistent for a median (Efron 1982, section 3.4). Not studentized: with six values a
    resample's own spread is often 0.
    """
    _check_alpha(alpha)
    if not usable(values):
        return None
    first, second, weights = median_resamples(len(values))
    x = np.sort(np.asarray(values, dtype=float))
    atoms = x[first] / 2 + x[second] / 2
    order = np.argsort(atoms, kind="stable")
    atoms, weights = atoms[order], weights[order]
    low = atoms[_first_beyond(weights, alpha)]
    high = atoms[len(atoms) - 1 - _first_beyond(weights[::-1], alpha)]
    return Interval(float(low), float(high))


def _first_beyond(weights: Floats, alpha: float) -> int:
    """Position of the first atom up to which more than ``alpha`` of the mass lies."""
    return min(int(np.searchsorted(np.cumsum(weights), alpha, side="right")), len(weights) - 1)


@lru_cache
def median_resamples(n: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Which two of n sorted values a resample's median lies between, and with which probability.

    Positions from 0; both are the same where the median is one value. The weights add up to 1.
    """
    edges = np.arange(n + 1) / n
    half = n // 2
    if n % 2:
        at_most = scipy_stats.binom.sf(half, n, edges)
        positions = np.arange(n)
        return positions, positions, np.diff(at_most)
    # The lower of the two middle values is the i-th: exactly half of the draws end there (and the
    # other half begins at j > i), or both middle values are the i-th.
    middle = np.diff(scipy_stats.binom.sf(half - 1, n, edges))
    ends = np.diff(edges**half)
    begins = -np.diff((1 - edges) ** half)
    joint = np.triu(math.comb(n, half) * np.outer(ends, begins), 1)
    joint[np.diag_indices(n)] = np.clip(middle - joint.sum(axis=1), 0, None)
    first, second = np.triu_indices(n)
    weights = joint[first, second]
    return first, second, weights / weights.sum()


def two_sample(base: Sequence[float], head: Sequence[float], *, seed: int = 0) -> OneSided | None:
    """Permutation test of two independent samples; the statistic is head's sum (Pitman 1937).

    ``greater`` is that head is greater. All splits are enumerated up to :data:`MONTE_CARLO` of
    them, above that as many are drawn and the observed one is counted in.
    """
    if not (usable(base) and usable(head)):
        return None
    both = np.asarray((*base, *head), dtype=float)
    both = both / (float(np.abs(both).max()) or 1.0)  # No overflow.
    both = both - np.median(both)
    largest = float(np.abs(both).max())
    if largest == 0:
        return OneSided(1.0, 1.0)
    both = both / largest
    n, m = len(both), len(head)
    observed, tie = float(both[len(base) :].sum()), _TIE * n
    if math.comb(n, m) <= MONTE_CARLO:
        sums = both[_subsets(n, m)].sum(axis=1)
        extra = 0
    else:
        random = np.random.default_rng(seed)
        sums = random.permuted(np.tile(both, (MONTE_CARLO, 1)), axis=1)[:, :m].sum(axis=1)
        extra = 1
    count = len(sums) + extra
    return OneSided(
        float((extra + np.count_nonzero(sums >= observed - tie)) / count),
        float((extra + np.count_nonzero(sums <= observed + tie)) / count),
    )


def _subsets(n: int, m: int) -> npt.NDArray[np.intp]:
    from itertools import combinations

    return np.array(list(combinations(range(n), m)), dtype=np.intp)


def difference_interval(
    base: Sequence[float], head: Sequence[float], alpha: float, *, seed: int = 0
) -> Interval | None:
    """Seeded bootstrap percentile interval of ``median(head) - median(base)``.

    Both samples are resampled (Efron and Tibshirani 1993, section 13.3); ``alpha`` on each side.
    """
    _check_alpha(alpha)
    if not (usable(base) and usable(head)):
        return None
    random = np.random.default_rng(seed)
    middles = []
    for values in (np.asarray(base, dtype=float), np.asarray(head, dtype=float)):
        drawn = random.integers(0, len(values), (MONTE_CARLO // 5, len(values)))
        middles.append(np.median(values[drawn], axis=1))
    low, high = np.quantile(middles[1] - middles[0], [alpha, 1 - alpha])
    return Interval(float(low), float(high)) if usable((low, high)) else None


def holm(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Which hypotheses Holm's step-down procedure rejects at family-wise ``alpha`` (Holm 1979).

    A p-value that is not a number is never rejected, and counts as a member of the family.
    """
    _check_alpha(alpha)
    rejected = [False] * len(p_values)
    ordered = sorted(
        range(len(p_values)), key=lambda i: math.inf if math.isnan(p_values[i]) else p_values[i]
    )
    for rank, index in enumerate(ordered):
        if not p_values[index] < alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return tuple(rejected)


def welch(base: Sequence[float], head: Sequence[float]) -> float | None:
    """Two-sided p of Welch's unequal-variances t-test (Welch 1947), as hyperfine's script does it.

    None with fewer than two values a side, or where neither side varies.
    """
    spreads = [standard_deviation(values) for values in (base, head)]
    if spreads[0] is None or spreads[1] is None or not any(spreads):
        return None
    p = scipy_stats.ttest_ind_from_stats(
        statistics.fmean(head), spreads[1], len(head),
        statistics.fmean(base), spreads[0], len(base),
        equal_var=False,
    ).pvalue  # fmt: skip
    return float(p) if math.isfinite(p) else None


def mann_whitney(base: Sequence[float], head: Sequence[float]) -> float | None:
    """Two-sided p of the Mann-Whitney U test (1947), as Google Benchmark's compare.py does it.

    1 where all values are equal; None where a side has none.
    """
    if not (usable(base) and usable(head)):
        return None
    if len({*base, *head}) == 1:
        return 1.0
    return float(scipy_stats.mannwhitneyu(head, base, alternative="two-sided").pvalue)


def standard_deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (n - 1); None with fewer than two values."""
    if len(values) < 2 or not usable(values):
        return None
    x = np.asarray(values, dtype=float)
    largest = float(np.abs(x).max())
    if x.min() == x.max():
        return 0.0
    spread = float(np.std(x / largest, ddof=1)) * largest
    return spread if math.isfinite(spread) else None


def minimum_detectable_effect(
    log_ratios: Sequence[float], *, pairs: int, alpha: float, power: float = 0.9
) -> float | None:
    """The relative change that a gate of ``pairs`` pairs tells from nothing with ``power``.

    ``log_ratios`` are of pairs of sessions of the same file (A/A). The formula is that of a
    one-sided t-test, ``(t(alpha) + t(1 - power)) s / sqrt(n)``, times ``sqrt(pi / 2)``, since the
    interval that decides is the median's, whose standard error is larger than a mean's by that;
    ``make bench-gate`` prints the power that is reached there. 0 where nothing varies; None with
    fewer than two ratios or pairs.
    """
    _check_alpha(alpha)
    if not 0 < power < 1:
        raise ValueError("a power lies between 0 and 1")
    spread = standard_deviation(log_ratios)
    if spread is None or pairs < 2:
        return None
    effect = _t_sum(alpha, power, pairs - 1) * spread * math.sqrt(math.pi / 2 / pairs)
    try:
        return math.expm1(effect)
    except OverflowError:
        return None


@lru_cache
def _t_sum(alpha: float, power: float, freedom: int) -> float:
    return float(scipy_stats.t.ppf([1 - alpha, power], freedom).sum())


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise ValueError("alpha lies between 0 and 0.5")
