import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as judge

from deploy.report import stats

FINITE = st.floats(-1e6, 1e6, allow_subnormal=False)
FEW = st.lists(FINITE, min_size=1, max_size=8)
GRID = st.integers(-1000, 1000).map(lambda i: i / 8)  # Sums are exact, so ties are ties.
UNUSABLE = [[], [math.nan], [1.0, math.inf], [1.0, math.nan, 2.0]]
ONE_SAMPLE = [
    stats.median,
    stats.mad,
    stats.modified_z,
    stats.sign_flip,
    stats.standard_deviation,
    lambda values: stats.percentile(values * 100, 0.9),
    lambda values: stats.median_interval(values, 0.025),
    lambda values: stats.minimum_detectable_effect(values, pairs=12, alpha=0.0125),
]
TWO_SAMPLES = [
    stats.two_sample,
    stats.welch,
    stats.mann_whitney,
    lambda base, head: stats.difference_interval(base, head, 0.025),
]


@pytest.mark.parametrize("function", ONE_SAMPLE)
@pytest.mark.parametrize("values", UNUSABLE)
def test_what_cannot_be_answered_is_none(function, values):
    assert function(values) is None


@pytest.mark.parametrize("function", TWO_SAMPLES)
@pytest.mark.parametrize("values", UNUSABLE)
def test_two_samples_of_which_one_is_unusable_have_no_answer(function, values):
    assert function(values, [1.0, 2.0]) is None
    assert function([1.0, 2.0], values) is None


@pytest.mark.parametrize("function", ONE_SAMPLE)
def test_the_largest_floats_are_no_crash_and_no_nan(function):
    answer = function([1.7e308, 1.7e308, -1.7e308, 1.6e308])
    flat = np.ravel(np.asarray(answer, dtype=float)) if answer is not None else []
    assert not np.isnan(flat).any()


@given(st.lists(FINITE, min_size=2, max_size=8))
def test_the_standard_deviation_is_that_of_exact_fractions(values):
    expected = statistics.stdev(values)
    assert stats.standard_deviation(values) == pytest.approx(expected, rel=1e-6, abs=1e-9)


@given(FEW)
def test_median_and_mad_are_scipys(values):
    assert stats.median(values) == pytest.approx(statistics.median(values))
    assert stats.mad(values) == pytest.approx(judge.median_abs_deviation(values))


def test_an_outlier_is_flagged_and_kept():
    values = [10.0, 10.1, 9.9, 10.2, 9.8, 30.0]
    assert stats.outliers(values) == (5,)
    z = stats.modified_z(values)
    assert z[5] == pytest.approx(0.6745 * (30 - 10.05) / 0.15)


def test_a_clock_that_ticks_coarsely_has_no_outliers():
    ticks = [1.0, 1.0, 1.0, 2.0, 0.0]
    assert stats.outliers(ticks) == ()
    assert stats.modified_z(ticks) == (0, 0, 0, math.inf, -math.inf)


@pytest.mark.parametrize(("share", "fewest"), [(0.9, 64), (0.99, 662)])
def test_percentiles_begin_at_mlperfs_counts(share, fewest):
    assert stats.minimum_count(share) == fewest
    values = [float(i) for i in range(fewest)]
    assert stats.percentile(values, share) == pytest.approx(np.quantile(values, share))
    assert stats.percentile(values[1:], share) is None


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, math.nan])
def test_a_percentile_outside_0_to_1_is_the_callers_mistake(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.percentile([1.0] * 1000, share)


@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (-1, 2), (1, math.nan), (math.inf, 1)])
def test_no_ratio_of_what_is_not_positive(pair):
    assert stats.log_ratio(*pair) is None


@settings(max_examples=20, deadline=None)
@given(st.lists(GRID, min_size=2, max_size=7))
def test_the_sign_flip_test_is_scipys_exact_permutation_test(differences):
    for direction in ("greater", "less"):
        expected = judge.permutation_test(
            (np.array(differences),),
            np.sum,
            permutation_type="samples",
            alternative=direction,
            n_resamples=np.inf,
        )
        assert getattr(stats.sign_flip(differences), direction) == pytest.approx(expected.pvalue)


@given(st.lists(GRID, min_size=1, max_size=8), st.sampled_from([1e-3, 0.5, 1e6]))
def test_flipping_all_signs_swaps_the_sides_and_units_do_not_matter(differences, unit):
    p = stats.sign_flip(differences)
    assert stats.sign_flip([-d for d in differences]) == (p.less, p.greater)
    assert stats.sign_flip([unit * d for d in differences]) == pytest.approx(p)
    assert p.greater >= 2.0 ** -len(differences)
    assert p.greater + p.less >= 1


def test_six_pairs_can_come_below_alpha_by_their_sum_but_not_by_their_median():
    worse = np.array([0.09, 0.1, 0.08, 0.11, 0.1, 0.12])
    flips = stats.signs(6) * worse
    assert stats.sign_flip(worse).greater == 1 / 64
    by_median = np.mean(np.median(flips, axis=1) >= np.median(worse) - 1e-12)
    assert by_median == 4 / 64


def test_many_pairs_are_sampled_with_the_seed_and_never_give_0():
    d = np.random.default_rng(1).normal(0.3, 1, 20)
    exact = judge.ttest_1samp(d, 0, alternative="greater").pvalue
    assert stats.sign_flip(d, seed=5) == stats.sign_flip(d, seed=5)
    assert stats.sign_flip(d, seed=5).greater == pytest.approx(exact, rel=0.1)
    assert stats.sign_flip(np.abs(d) + 5).greater == 1 / 50_001


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6])
def test_the_bootstrap_of_the_median_is_that_of_all_resamples(n):
    values = np.sort(np.random.default_rng(n).normal(size=n))
    first, second, weights = stats.median_resamples(n)
    every = np.median(values[list(itertools.product(range(n), repeat=n))], axis=1)
    for i, j, weight in zip(first, second, weights, strict=True):
        share = np.mean(np.isclose(every, (values[i] + values[j]) / 2, atol=1e-12))
        assert weight == pytest.approx(share, abs=1e-12)
    low, high = stats.median_interval(values, 0.1)
    assert np.mean(every < low - 1e-12) <= 0.1 < np.mean(every <= low + 1e-12)
    assert np.mean(every > high + 1e-12) <= 0.1 < np.mean(every >= high - 1e-12)


@given(st.lists(FINITE, min_size=1, max_size=40), st.floats(-100, 100))
def test_the_interval_holds_the_median_and_moves_with_the_values(values, shift):
    low, high = stats.median_interval(values, 0.0125)
    assert min(values) <= low <= stats.median(values) <= high <= max(values)
    wide = stats.median_interval(values, 0.001)
    assert wide.low <= low <= high <= wide.high
    moved = stats.median_interval([v + shift for v in values], 0.0125)
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-6)


def test_constant_values_have_an_interval_of_no_width_and_no_evidence():
    assert stats.median_interval([3.0] * 6, 0.025) == (3.0, 3.0)
    assert stats.sign_flip([0.0] * 6) == (1.0, 1.0)
    assert stats.two_sample([2.0] * 4, [2.0] * 4) == (1.0, 1.0)
    assert stats.mann_whitney([2.0], [2.0]) == 1.0
    assert stats.welch([2.0, 2.0], [2.0, 2.0]) is None
    assert stats.minimum_detectable_effect([0.0] * 6, pairs=12, alpha=0.0125) == 0


@settings(max_examples=20, deadline=None)
@given(st.lists(GRID, min_size=2, max_size=5), st.lists(GRID, min_size=2, max_size=5))
def test_two_samples_are_permuted_as_scipy_does(base, head):
    def statistic(x, y, axis=-1):
        return np.mean(x, axis=axis) - np.mean(y, axis=axis)

    p = stats.two_sample(base, head)
    for direction in ("greater", "less"):
        expected = judge.permutation_test(
            (head, base), statistic, alternative=direction, vectorized=True, n_resamples=np.inf
        )
        assert getattr(p, direction) == pytest.approx(expected.pvalue)


def test_large_samples_are_permuted_with_the_seed():
    random = np.random.default_rng(2)
    base, head = random.normal(0, 1, 30), random.normal(0.6, 1, 30)
    expected = judge.ttest_ind(head, base, alternative="greater").pvalue
    assert stats.two_sample(base, head, seed=1) == stats.two_sample(base, head, seed=1)
    assert stats.two_sample(base, head).greater == pytest.approx(expected, rel=0.2)
    low, high = stats.difference_interval(base, head, 0.025, seed=3)
    assert low < np.median(head) - np.median(base) < high
    other = stats.difference_interval(head, base, 0.025, seed=3)
    assert other == pytest.approx((-high, -low), abs=0.1)


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(0.001, 0.2))
def test_holm_is_the_closed_bonferroni_test(p_values, alpha):
    every = range(len(p_values))

    def rejects(index):  # Marcus, Peritz and Gabriel: every intersection with it is rejected.
        sets = (s for n in range(1, 7) for s in itertools.combinations(every, n) if index in s)
        return all(min(p_values[i] for i in s) < alpha / len(s) for s in sets)

    assert stats.holm(p_values, alpha) == tuple(rejects(index) for index in every)


def test_holm_never_rejects_what_is_not_a_number_and_counts_it():
    assert stats.holm([math.nan, 0.02], 0.03) == (False, False)
    assert stats.holm([math.nan, 0.01], 0.03) == (False, True)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=2, max_size=9))
def test_welch_is_scipys(values):
    base, head = [*values, 60], [1.5, 2.5, 7.0]
    expected = judge.ttest_ind(head, base, equal_var=False).pvalue
    assert stats.welch(base, head) == pytest.approx(expected)


def test_the_effect_that_is_called_detectable_is_detected():
    spread, pairs = 0.05, 12
    ratios = np.array([-1.0, 1.0] * 6)
    ratios *= spread / np.std(ratios, ddof=1)
    mde = stats.minimum_detectable_effect(ratios, pairs=pairs, alpha=0.0125)
    drawn = np.random.default_rng(7).normal(math.log1p(mde), spread, (400, pairs))
    found = [stats.median_interval(row, 0.0125).low > 0 for row in drawn]
    assert 0.86 < np.mean(found) < 0.97
    assert stats.minimum_detectable_effect(2 * ratios, pairs=pairs, alpha=0.0125) > mde
    assert stats.minimum_detectable_effect(ratios, pairs=24, alpha=0.0125) < mde


@pytest.mark.parametrize("alpha", [0, 0.5, -1, math.nan])
def test_an_alpha_that_makes_no_sense_is_the_callers_mistake(alpha):
    with pytest.raises(ValueError, match="alpha"):
        stats.median_interval([1.0, 2.0], alpha)
    with pytest.raises(ValueError, match="alpha"):
        stats.holm([0.1], alpha)
