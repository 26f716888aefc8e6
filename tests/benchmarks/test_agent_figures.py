"""What the agent's benchmark calls met."""

import pytest

from benchmarks.agent.figures import Row, interval


@pytest.mark.parametrize(
    ("value", "relation", "target", "within", "verdict"),
    [
        (1.0, ">=", 0.9, None, "met"),
        (0.8, ">=", 0.9, None, "missed"),
        (0.95, ">=", 0.9, (0.85, 1.1), "unclear"),
        (0.95, ">=", 0.9, (0.91, 1.1), "met"),
        (1.02, "<=", 1.01, (1.015, 1.03), "missed"),
        (0, "==", 0, None, "met"),
        (3.0, ">=", None, (1.0, 4.0), ""),
    ],
)
def test_a_target_within_the_noise_is_not_called_met(value, relation, target, within, verdict):
    assert Row("x", value, "", relation, target, interval=within).verdict == verdict


def test_the_interval_is_of_ratios():
    assert interval([1.5] * 8) == pytest.approx((1.5, 1.5, 1.5))
    low, middle, high = interval([0.5, 1.0, 2.0, 0.5, 2.0, 1.0])
    assert low < middle < high
    assert middle == pytest.approx(1.0)
    # Swapping the two sides turns every figure over.
    assert interval([2.0, 1.0, 0.5, 2.0, 0.5, 1.0]) == pytest.approx((1 / high, 1.0, 1 / low))
