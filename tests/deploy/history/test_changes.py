"""Change points: the statistic against its definition, and what the search finds and leaves."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.history import changes
from deploy.history.changes import Split, e_divisive


def by_definition(values: list[float], min_size: int) -> tuple[float, list[int]]:
    """Equation 5 of Matteson & James with α = 1, pair by pair; every τ that reaches the maximum."""

    def within(part: list[float]) -> float:
        n = len(part)
        total = sum(abs(part[i] - part[k]) for i in range(n) for k in range(i + 1, n))
        return total / (n * (n - 1) / 2)

    best, at = -float("inf"), []
    for kappa in range(2 * min_size, len(values) + 1):
        for tau in range(min_size, kappa - min_size + 1):
            left, right = values[:tau], values[tau:kappa]
            m, n = len(left), len(right)
            between = sum(abs(a - b) for a in left for b in right) / (m * n)
            score = m * n / (m + n) * (2 * between - within(left) - within(right))
            if score > best + 1e-9:
                best, at = score, [tau]
            elif score > best - 1e-9:
                at.append(tau)
    return best, at


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=6, max_size=12), st.integers(2, 3))
def test_the_statistic_is_that_of_the_paper(whole: list[int], min_size: int) -> None:
    values = [float(value) for value in whole]
    series = np.asarray(values)
    distances = np.abs(series[:, None] - series[None, :])
    score, tau = changes._Scores(len(values), min_size).best(distances)
    best, at = by_definition(values, min_size)
    assert score == pytest.approx(best, abs=1e-9)
    assert tau in at


def noise(count: int, seed: int, level: float = 1.0, share: float = 0.01) -> list[float]:
    drawn = random.Random(seed)
    return [level * (1 + share * drawn.gauss(0, 1)) for _ in range(count)]


def test_noise_alone_is_seldom_a_change() -> None:
    """1 % are to be expected; 8 of 200 or more would come by chance once in a thousand."""
    alarms = sum(bool(e_divisive(noise(30, seed), seed=seed)) for seed in range(200))
    assert alarms <= 7


def test_heavy_tails_are_no_change_either() -> None:
    def tailed(seed: int) -> list[float]:
        drawn = random.Random(seed)
        return [1 + 0.01 * drawn.gauss(0, 1) / max(drawn.random(), 0.01) for _ in range(30)]

    assert sum(bool(e_divisive(tailed(seed), seed=seed)) for seed in range(100)) <= 5


def test_a_step_of_five_per_cent_at_one_per_cent_noise_is_found() -> None:
    extra = 0
    for seed in range(10):
        found = e_divisive([*noise(12, seed), *noise(8, seed + 500, 1.05)], seed=seed)
        assert 12 in {split.index for split in found}
        assert all(split.p_value <= changes.SIGNIFICANCE for split in found)
        extra += len(found) - 1
    assert extra <= 1


def test_several_changes_are_found_in_their_order() -> None:
    values = [*noise(15, 1), *noise(15, 2, 1.1), *noise(15, 3), *noise(15, 4, 0.9)]
    assert [split.index for split in e_divisive(values)] == [15, 30, 45]


def test_a_short_excursion_is_found_from_both_sides() -> None:
    values = [*noise(20, 1), *noise(6, 2, 1.2), *noise(20, 3)]
    assert [split.index for split in e_divisive(values)] == [20, 26]


def test_exact_counts_that_change_once() -> None:
    assert e_divisive([100.0] * 6 + [101.0] * 6) == [Split(6, pytest.approx(0.004, abs=0.004))]
    assert e_divisive([100.0] * 50) == []


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 4 + [2.0] * 4, [1.0] * 3 + [9.0]])
def test_too_few_points_have_no_change(values: list[float]) -> None:
    assert e_divisive(values) == []
    # Of twelve, 2 of 924 orders are as clear.
    assert e_divisive([1.0] * 6 + [2.0] * 6) != []


def test_it_is_deterministic_and_blind_to_unit_and_level() -> None:
    values = [*noise(14, 7), *noise(14, 8, 1.02)]
    first = e_divisive(values, seed=3)
    assert first == e_divisive(values, seed=3)
    scaled = e_divisive([1000 * value + 5 for value in values], seed=3)
    assert [one.index for one in scaled] == [one.index for one in first]


@pytest.mark.parametrize(
    ("values", "more"),
    [
        ([float("nan")] * 20, {}),
        ([1.0] * 501, {}),
        ([1.0] * 20, {"min_size": 1}),
        ([1.0] * 20, {"permutations": 0}),
        ([1.0] * 20, {"significance": 0.0}),
        ([1.0] * 20, {"permutations": 50}),
    ],
)
def test_senseless_arguments_are_refused(values: list[float], more: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        e_divisive(values, **more)  # type: ignore[arg-type]
