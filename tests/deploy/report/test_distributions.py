"""Percentiles, boxes, histograms and traces against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.report import distributions
from deploy.report.distributions import histogram, summarize, trace

SAMPLES = st.lists(
    st.floats(min_value=-1e9, max_value=1e9, allow_nan=False).map(lambda v: round(v, 3)),
    min_size=1,
    max_size=60,
)


@given(SAMPLES)
def test_a_summary_agrees_with_numpy(samples: list[float]) -> None:
    found, values = summarize(samples), np.array(samples)
    wanted = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    got = (found.low, found.q1, found.median, found.q3, found.high)
    assert got == pytest.approx(wanted, rel=1e-9, abs=1e-6)
    assert found.mad == pytest.approx(np.median(np.abs(values - np.median(values))), abs=1e-5)
    assert found.n == len(samples)
    # Whiskers are samples, within the reach and around the box.
    assert {found.fence_low, found.fence_high} <= set(samples)
    inside = [v for v in samples if found.fence_low <= v <= found.fence_high]
    assert min(inside) == found.fence_low
    reach = 1.5 * (found.q3 - found.q1) + 1e-6
    assert found.q1 - found.fence_low <= reach
    assert found.fence_high - found.q3 <= reach


@pytest.mark.parametrize(("n", "p90", "p99"), [(63, 0, 0), (64, 1, 0), (661, 1, 0), (662, 1, 1)])
def test_a_percentile_is_given_only_where_enough_samples_bear_it(
    n: int, p90: int, p99: int
) -> None:
    found = summarize([float(i) for i in range(n)])
    assert (found.p90 is not None, found.p99 is not None) == (bool(p90), bool(p99))
    if found.p99 is not None:
        assert found.p99 == pytest.approx(np.quantile(np.arange(n), 0.99))


def test_outliers_are_counted_on_both_sides_and_never_removed() -> None:
    quiet = [10.0 + 0.01 * (i % 5) for i in range(50)]
    found = summarize([*quiet, 500.0, -500.0])
    assert (found.outliers, found.high, found.low, found.n) == (2, 500.0, -500.0, 52)
    # Half of the samples equal: every other one would be infinitely far away.
    assert summarize([1.0, 1.0, 1.0, 2.0]).outliers == 0


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_what_has_no_distribution_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        summarize(bad)


@given(SAMPLES)
def test_a_histogram_holds_every_sample_once(samples: list[float]) -> None:
    found = histogram(samples)
    assert sum(found.counts) == len(samples)
    assert len(found.counts) <= 40
    assert found.start == min(samples)
    end = found.start + found.width * len(found.counts)
    assert end == pytest.approx(max(samples), rel=1e-9, abs=1e-6) or found.width == 0


def test_a_histogram_counts_as_numpy_does() -> None:
    draw = np.random.default_rng(3)
    samples = [float(v) for v in draw.lognormal(0, 0.4, 500)]
    found = histogram(samples)
    counts, edges = np.histogram(samples, bins=len(found.counts))
    assert list(found.counts) == list(counts)
    assert found.width == pytest.approx(edges[1] - edges[0])
    assert len(found.counts) > 8


def decoded(found: distributions.Trace) -> list[float]:
    places = np.cumsum([int(part) for part in found.deltas.split(",")])
    return [found.start + found.step * place for place in places]


@given(SAMPLES)
def test_a_trace_gives_samples_back_to_half_a_step(samples: list[float]) -> None:
    found = trace(samples)
    assert found.stretch == 1
    assert decoded(found) == pytest.approx(samples, abs=found.step / 2 * (1 + 1e-6))


def test_a_long_trace_keeps_every_peak() -> None:
    samples = [1.0 + 0.001 * (i % 7) for i in range(100_000)]
    samples[77_777], samples[5] = 9.0, 0.25
    found = trace(samples)
    points = decoded(found)
    assert len(points) <= distributions.TRACED
    assert found.stretch == 100
    assert (max(points), min(points)) == (9.0, 0.25)
    assert points.index(9.0) // 2 == 77_777 // 100
