"""The exact clustering is no worse than any other, and Lloyd's ends where nothing moves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.errors import CompressError
from compress.sharing.bit_allocation import allocate
from compress.sharing.kmeans import EXACT_LIMIT, Points, distortion, kmeans, lloyd, nearest, optima

NUMBERS = st.lists(
    st.tuples(st.floats(-9, 9, width=32), st.floats(0.01, 5)), min_size=1, max_size=9
)


def points_of(pairs: list[tuple[float, float]]) -> Points:
    return Points.of(*(np.array(column) for column in zip(*pairs, strict=True)))


@settings(deadline=None)
@given(pairs=NUMBERS, clusters=st.integers(1, 9))
def test_exact_against_all_ways_to_cut(pairs: list[tuple[float, float]], clusters: int) -> None:
    points = points_of(pairs)
    size = len(points.values)
    best = float("inf")
    for count in range(1, min(clusters, size) + 1):
        for cuts in itertools.combinations(range(1, size), count - 1):
            runs = list(itertools.pairwise((0, *cuts, size)))
            total = 0.0
            for a, b in runs:
                x, w = points.values[a:b], points.weights[a:b]
                total += float((w * (x - np.average(x, weights=w)) ** 2).sum())
            best = min(best, total)
    found = kmeans(points, clusters)
    assert len(found) <= clusters
    assert list(found) == sorted(found)
    assert distortion(points, found) <= best + 1e-9


def test_exact_is_at_least_as_good_as_lloyd_from_any_start() -> None:
    values = np.random.default_rng(0).normal(size=1500)
    points = Points.of(values)
    for clusters in (2, 15, 40):
        exact = distortion(points, kmeans(points, clusters))
        for init in ("linear", "density", "random"):
            other = kmeans(points, clusters, init)
            assert len(other) <= clusters
            assert exact <= distortion(points, other) * (1 + 1e-12)
            assert np.array_equal(lloyd(points, other), other)


def test_large_layers_are_binned_without_much_loss() -> None:
    """Four well apart clusters with a far and tiny fifth: every start but the exact one misses."""
    generator = np.random.default_rng(1)
    parts = [generator.normal(centre, 0.01, 4000) for centre in (-2, -1, 1, 2)]
    values = np.concatenate([*parts, generator.normal(50, 0.01, 5)])
    points = Points.of(values)
    assert len(points.values) > EXACT_LIMIT
    found = kmeans(points, 5)
    np.testing.assert_allclose(found, [-2, -1, 1, 2, 50], atol=0.02)
    assert distortion(points, found) == pytest.approx(len(values) * 1e-4, rel=0.05)


def test_importance_pulls_centroids() -> None:
    values, weights = np.array([0.0, 1.0, 10.0]), np.array([3.0, 1.0, 1.0])
    assert kmeans(Points.of(values, weights), 2) == pytest.approx([0.25, 10.0], abs=1e-5)
    # No importance at all is equal importance.
    assert kmeans(Points.of(values, weights * 0), 2) == pytest.approx([0.5, 10.0])


def test_few_distinct_numbers_are_their_own_centroids() -> None:
    values = np.array([0.5, -0.25, 0.5, 1e-30])
    for init in ("exact", "linear", "density", "random"):
        assert list(kmeans(Points.of(values), 4, init)) == [-0.25, 1e-30, 0.5]


def test_one_table_serves_every_number_of_clusters() -> None:
    points = Points.of(np.random.default_rng(2).normal(size=300))
    together = optima(points, [1, 3, 7, 15])
    for clusters, found in together.items():
        assert np.array_equal(found, kmeans(points, clusters))
    assert together[1] == pytest.approx([points.centre])


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=20), st.lists(st.floats(-9, 9), min_size=1))
def test_nearest(values: list[float], centroids: list[float]) -> None:
    table = np.unique(centroids)
    found = table[nearest(np.array(values), table)]
    best = np.abs(np.array(values)[:, None] - table).min(1)
    np.testing.assert_allclose(np.abs(np.array(values) - found), best, atol=1e-12)


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 9), st.floats(0, 9)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 30),
)
def test_allocation_stays_in_the_budget_and_near_the_best(
    choices: list[list[tuple[float, float]]], budget: int
) -> None:
    all_of = [
        (sum(c[0] for c in picked), sum(c[1] for c in picked))
        for picked in itertools.product(*choices)
    ]
    smallest = sum(min(size for size, _ in layer) for layer in choices)
    if smallest > budget:
        with pytest.raises(CompressError, match="mean_bits"):
            allocate(choices, budget)
        return
    picked = [layer[index] for layer, index in zip(choices, allocate(choices, budget), strict=True)]
    assert sum(size for size, _ in picked) <= budget
    # The relaxed optimum that greedy steps on hulls reach is off by one layer's step at most.
    best = min(error for size, error in all_of if size <= budget)
    step = max(max(e for _, e in layer) - min(e for _, e in layer) for layer in choices)
    assert sum(error for _, error in picked) <= best + step + 1e-9
