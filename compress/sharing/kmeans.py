"""k-means of numbers on a line: exact by dynamic programming, or Lloyd's from a chosen start.

Among sorted numbers a cluster is a run of neighbours, and the last run of the best clustering of
the first j numbers begins the later the larger j is. So one table gives the optimum for every
number of clusters up to k in O(k n log n) (Wu, *Optimal Quantization by Matrix Searching*, 1991;
Wang & Song, *Ckmeans.1d.dp*, 2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Init = Literal["exact", "linear", "density", "random"]

EXACT_LIMIT = 2048
"""Up to so many distinct numbers the optimum is exact; more are first put into as many bins."""


@dataclass(frozen=True)
class Points:
    """Distinct numbers in rising order, each with a weight above zero."""

    values: Floats
    weights: Floats

    @classmethod
    def of(cls, values: NDArray[Any], weights: NDArray[Any] | None = None) -> Points:
        """Equal numbers become one point. Weights count relative to each other."""
        distinct, where, counts = np.unique(
            values.astype(np.float64).ravel(), return_inverse=True, return_counts=True
        )
        if weights is None:
            return cls(distinct, counts.astype(np.float64))
        flat = weights.astype(np.float64).ravel()
        mean = flat.mean()
        # What has no weight at all still wants a centroid near by.
        even = flat / mean + 1e-6 if mean > 0 else np.ones_like(flat)
        summed = np.bincount(where.ravel(), even, minlength=len(distinct))
        return cls(distinct, np.asarray(summed, dtype=np.float64))

    def sums(self) -> Floats:
        """Running sums [3, n + 1] of weight, weight * value and weight * value^2."""
        w, x = self.weights, self.values - self.centre
        return np.pad(np.cumsum([w, w * x, w * x * x], axis=1), ((0, 0), (1, 0)))

    @property
    def centre(self) -> float:
        """The mean: sums of squares around it lose no digits to a distant origin."""
        return float(np.average(self.values, weights=self.weights))


def kmeans(points: Points, clusters: int, init: Init = "exact", seed: int = 0) -> Floats:
    """At most ``clusters`` centroids in rising order.

    ``linear``, ``density`` and ``random`` (k-means++) start Lloyd's algorithm as in Han et al.
    (arXiv 1510.00149) and end in a local optimum.
    """
    if len(points.values) <= clusters:
        return points.values
    if init == "exact":
        return optima(points, [clusters])[clusters]
    return lloyd(points, _start(points, clusters, init, seed))


def optima(points: Points, counts: list[int], limit: int = EXACT_LIMIT) -> dict[int, Floats]:
    """The best centroids for each number of clusters; one table serves all of them.

    Above ``limit`` points it is the best clustering of bins, improved by Lloyd's algorithm.
    """
    binned = _binned(points, limit)
    most = min(max(counts), len(binned.values))
    begins = _best_begins(binned, most)
    found = {}
    for count in counts:
        if len(points.values) <= count:
            found[count] = points.values
            continue
        edges = [len(binned.values)]
        for row in range(min(count, most) - 1, -1, -1):
            edges.append(int(begins[row, edges[-1]]))
        centroids = _means(binned, np.array(edges[::-1]))
        found[count] = centroids if binned is points else lloyd(points, centroids)
    return found


def lloyd(points: Points, centroids: Floats, rounds: int = 100) -> Floats:
    """Alternate nearest centroid and mean until nothing moves; empty clusters stay in place."""
    sums = points.sums()
    for _ in range(rounds):
        edges = np.concatenate(([0], nearest_edges(points.values, centroids), [len(sums[0]) - 1]))
        weight, first = np.diff(sums[:2, edges], axis=1)
        alive = weight > 0
        moved = centroids.copy()
        moved[alive] = first[alive] / weight[alive] + points.centre
        if np.array_equal(moved, centroids):
            break
        centroids = np.sort(moved)
    return centroids


def nearest_edges(values: Floats, centroids: Floats) -> NDArray[np.intp]:
    """Where, in rising values, the next centroid becomes the nearest one; the lower has ties."""
    return np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2, side="right")


def nearest(values: Floats, centroids: Floats) -> NDArray[np.intp]:
    """Index of the nearest of rising centroids for each value."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values, side="left")


def distortion(points: Points, centroids: Floats) -> float:
    """Sum of weight * (value - nearest centroid)^2."""
    away = points.values - centroids[nearest(points.values, centroids)]
    return float((points.weights * away**2).sum())


def _start(points: Points, clusters: int, init: Init, seed: int) -> Floats:
    low, high = points.values[0], points.values[-1]
    if init == "linear":
        return np.linspace(low, high, clusters)
    share = np.cumsum(points.weights) / points.weights.sum()
    if init == "density":
        middles = (np.arange(clusters) + 0.5) / clusters
        return np.unique(points.values[np.searchsorted(share, middles)])
    generator = np.random.default_rng(seed)
    chosen = [int(np.searchsorted(share, generator.random()))]
    away = np.full(len(points.values), np.inf)
    while len(chosen) < clusters:
        away = np.minimum(away, (points.values - points.values[chosen[-1]]) ** 2)
        chance = np.cumsum(away * points.weights)
        chosen.append(int(np.searchsorted(chance, generator.random() * chance[-1], side="right")))
    return np.sort(points.values[np.minimum(chosen, len(points.values) - 1)])


def _binned(points: Points, limit: int) -> Points:
    """At most ``limit`` points: means of bins, half of them equally wide, half equally full.

    The wide ones keep the tails apart, the full ones the middle.
    """
    if len(points.values) <= limit:
        return points
    half = limit // 2
    low, high = float(points.values[0]), float(points.values[-1])
    share = np.cumsum(points.weights)
    full = np.searchsorted(share, share[-1] * np.arange(1, half) / half)
    wide = np.searchsorted(points.values, np.linspace(low, high, half + 1)[1:-1])
    edges = np.unique(np.concatenate(([0], full, wide, [len(share)])))
    weights = np.diff(points.sums()[0][edges])
    return Points(_means(points, edges), weights)


def _means(points: Points, edges: NDArray[Any]) -> Floats:
    weight, first = np.diff(points.sums()[:2, edges], axis=1)
    means = first / weight + points.centre
    return np.asarray(means, dtype=np.float64)


def _best_begins(points: Points, clusters: int) -> NDArray[np.int32]:
    """[clusters, n + 1]: where the last of c + 1 clusters of the first j points begins."""
    sums = points.sums()
    size = len(points.values)

    def cost(begin: NDArray[Any], end: NDArray[Any]) -> Floats:
        weight, first, second = sums[:, end] - sums[:, begin]
        return np.asarray(np.maximum(second - first**2 / weight, 0.0), dtype=np.float64)

    begins = np.zeros((clusters, size + 1), dtype=np.int32)
    best = np.full(size + 1, np.inf)
    best[0] = 0.0
    ends = np.arange(1, size + 1)
    best[1:] = cost(np.zeros(size, dtype=np.intp), ends)
    for row in range(1, clusters):
        best = _next_row(best, begins[row], row, size, cost)
    return begins


def _next_row(best: Floats, begins: NDArray[np.int32], row: int, size: int, cost: Any) -> Floats:
    """One more cluster. Fills ``begins``; between two solved ends lie the begins of all between."""
    found = np.full(size + 1, np.inf)
    # Ends from row + 1 on have enough points. A stride halves until every end is solved.
    stride = 1 << ((size - row).bit_length() - 1)
    while stride:
        ends = np.arange(row + stride, size + 1, 2 * stride)
        before, after = ends - stride, np.minimum(ends + stride, size)
        low = np.where(before > row, begins[before], row)
        high = np.where(ends + stride <= size, begins[after], ends - 1)
        high = np.minimum(high, ends - 1)
        lengths = high - low + 1
        firsts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
        owner = np.repeat(np.arange(len(ends)), lengths)
        candidates = np.arange(lengths.sum()) - firsts[owner] + low[owner]
        totals = best[candidates] + cost(candidates, ends[owner])
        least = np.minimum.reduceat(totals, firsts)
        hits = np.flatnonzero(totals == least[owner])[::-1]
        begins[ends[owner[hits]]] = candidates[hits]
        found[ends] = least
        stride //= 2
    return found
