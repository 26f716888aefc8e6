"""Change points of a series: E-divisive (Matteson & James, JASA 109, 2014, arXiv:1306.4933).

The series is split where the energy distance between the stretch before and a stretch after is
largest; a permutation test says whether that could be chance; both parts are split again. Nothing
is assumed of the noise's distribution. MongoDB judges its performance tests by this method (Daly et
al., "The Use of Change Point Detection to Identify Software Performance Regressions in a Continuous
Integration System", ICPE 2020, arXiv:2003.00584).

Differences to the paper: each part is tested by itself, not the best split of all parts at once,
so that a noisy stretch cannot hide a small step in a quiet one; and the permutations end where so
many of them were as good that the rest could not change the answer, which makes most series cheap.
``ruptures`` offers other searches and no test: its penalty would
have to be tuned to each device's noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

SIGNIFICANCE = 0.01
PERMUTATIONS = 499
MIN_SIZE = 4
"""Points on each side of a change. Of 8 points, 2 of 70 orders split as clearly as the clearest, so
no p-value is below 0.02: it takes 9 points before anything can be found."""

MAX_POINTS = 500
"""The work grows with the square of the points."""

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """``index`` is the first point after the change; ``p_value`` is its test's, if it had any."""

    index: int
    p_value: float | None


def e_divisive(
    values: Sequence[float],
    *,
    significance: float = SIGNIFICANCE,
    permutations: int = PERMUTATIONS,
    min_size: int = MIN_SIZE,
    seed: int = 0,
) -> list[Split]:
    """Change points of ``values`` in their order, each with at least ``min_size`` points around.

    Deterministic: equal arguments give equal splits. The test takes the points for exchangeable
    where nothing changed; where neighbours depend on each other it finds more than ``significance``
    says.

    Raises:
        ValueError: more than :data:`MAX_POINTS` points, one that is not finite, or an argument that
            makes no sense.
    """
    series = np.asarray(values, dtype=np.float64)
    if len(series) > MAX_POINTS:
        raise ValueError(f"{len(series)} points; at most {MAX_POINTS}")
    if not np.isfinite(series).all():
        raise ValueError("a point is not finite")
    if min_size < 2 or permutations < 1 or not 0 < significance < 1:
        raise ValueError("min_size from 2, permutations from 1, significance within (0, 1)")
    # So many permutations as good as the truth refute the change, whatever the others are.
    enough = int(significance * (permutations + 1) + 1e-9)
    if enough < 1:
        raise ValueError(f"{permutations} permutations cannot reach {significance}")
    random = np.random.default_rng(seed)
    found: list[Split] = []
    parts = [(0, len(series))]
    while parts:
        begin, end = parts.pop()
        split = _split(series[begin:end], enough, permutations, min_size, random)
        if split is not None:
            found.append(Split(begin + split.index, split.p_value))
            parts += [(begin + split.index, end), (begin, begin + split.index)]
    return sorted(found, key=lambda one: one.index)


def differences(values: Sequence[float]) -> list[Split]:
    """Every point that is not as the one before it: the changes of figures without any noise."""
    return [Split(index, None) for index, (a, b) in enumerate(pairwise(values), 1) if a != b]


def _split(
    part: _Array, enough: int, permutations: int, min_size: int, random: np.random.Generator
) -> Split | None:
    if len(part) < 2 * min_size or part.min() == part.max():
        return None
    scores = _Scores(len(part), min_size)
    distances = np.abs(part[:, None] - part[None, :])
    best, index = scores.best(distances)
    # A permutation that reaches the same value by another order of additions counts as reaching it.
    reached = best * (1 - 1e-9)
    as_good = 0
    for _ in range(permutations):
        order = random.permutation(len(part))
        if scores.best(distances[np.ix_(order, order)])[0] >= reached:
            as_good += 1
            if as_good >= enough:
                return None
    return Split(index, (as_good + 1) / (permutations + 1))


class _Scores:
    """The statistic of every pair (τ, κ): the points before τ against those from τ to κ.

    With m and n points on the two sides it is mn/(m+n) · (2·A − B − C), where A is the mean
    distance between the sides, and B and C are those within each (the paper's equation 5 with
    α = 1: U-statistics, each pair once).
    """

    def __init__(self, length: int, min_size: int) -> None:
        tau = np.arange(min_size, length - min_size + 1)
        kappa = np.arange(2 * min_size, length + 1)
        rows, columns = np.meshgrid(tau, kappa, indexing="ij")
        usable = columns - rows >= min_size
        self._tau, self._kappa = rows[usable], columns[usable]
        left = self._tau.astype(np.float64)
        right = (self._kappa - self._tau).astype(np.float64)
        scale = left * right / (left + right)
        self._between = 2 * scale / (left * right)
        # The sums below count each pair twice.
        self._left = scale / (left * (left - 1))
        self._right = scale / (right * (right - 1))
        self._sums = np.zeros((length + 1, length + 1))

    def best(self, distances: _Array) -> tuple[float, int]:
        """The largest statistic, and its τ; the first of equal ones."""
        np.cumsum(np.cumsum(distances, axis=0), axis=1, out=self._sums[1:, 1:])
        both = self._sums[self._tau, self._kappa]
        left = self._sums[self._tau, self._tau]
        right = self._sums[self._kappa, self._kappa] - 2 * both + left
        scores = self._between * (both - left) - self._left * left - self._right * right
        place = int(scores.argmax())
        return float(scores[place]), int(self._tau[place])
