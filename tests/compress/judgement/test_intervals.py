"""Intervals against values from the literature, against theory, and against what metrics do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compress.errors import ConfigError
from compress.judgement.intervals import bootstrap_mean, interval_of, wilson
from compress.task import TOP1, TaskMetric


def test_wilson_as_published() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3."""
    for successes, count, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = wilson(successes, count)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


@given(count=st.integers(1, 10_000), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_is_symmetric(count: int, share: float) -> None:
    hits = round(share * count)
    found, mirrored = wilson(hits, count), wilson(count - hits, count)
    assert 0 <= found.low <= hits / count <= found.high <= 1
    assert found.low < found.high
    assert math.isclose(found.low, 1 - mirrored.high, abs_tol=1e-12)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    scores = torch.randn(10_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = bootstrap_mean(scores.tolist(), seed=3)
    half = 1.96 * float(scores.std()) / 100
    assert found.low == pytest.approx(float(scores.mean()) - half, abs=0.1 * half)
    assert found.high == pytest.approx(float(scores.mean()) + half, abs=0.1 * half)
    assert (found.method, found.resamples) == ("bootstrap", 2000)
    assert bootstrap_mean(scores.tolist(), seed=3) == found
    assert bootstrap_mean(scores.tolist(), seed=4) != found


def classes(hits: list[int]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs [1, 2] whose class is 1, and targets that make each a hit or a miss."""
    return [torch.tensor([[0.0, 1.0]])] * len(hits), [torch.tensor([hit]) for hit in hits]


def test_hits_give_wilson() -> None:
    outputs, targets = classes([1] * 9 + [0] * 3)
    assert interval_of(TOP1, outputs, targets) == wilson(9, 12)
    assert interval_of(TOP1, outputs[:1], targets[:1]) is None


def _mean(outputs: list[Tensor], targets: list[Tensor | None]) -> float:
    return float(torch.stack([output.mean() for output in outputs]).mean())


def _terms(outputs: list[Tensor], targets: list[Tensor | None]) -> list[float]:
    return [float(output.mean()) for output in outputs]


def numbers(count: int) -> tuple[list[Tensor], list[Tensor | None]]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(1, 3, generator=generator) for _ in range(count)], [None] * count


def test_other_scores_and_no_scores_agree() -> None:
    outputs, targets = numbers(300)
    with_scores = interval_of(TaskMetric("mean", _mean, scores=_terms), outputs, targets)
    without = interval_of(TaskMetric("mean", _mean), outputs, targets)
    assert with_scores is not None
    assert without is not None
    assert (with_scores.resamples, without.resamples) == (2000, 200)
    width = with_scores.high - with_scores.low
    assert without.low == pytest.approx(with_scores.low, abs=0.2 * width)
    assert without.high == pytest.approx(with_scores.high, abs=0.2 * width)


def test_the_users_code_is_called_a_bounded_number_of_times() -> None:
    calls = []

    def compute(outputs: list[Tensor], targets: list[Tensor | None]) -> float:
        calls.append(len(outputs))
        return 0.5

    found = interval_of(TaskMetric("m", compute), [torch.zeros(1)] * 10_000, [None] * 10_000)
    assert found is not None
    assert calls == [10_000] * 40
    assert (found.low, found.high, found.resamples) == (0.5, 0.5, 40)


def test_a_metric_without_a_value_on_a_resample_has_no_interval() -> None:
    """As a correlation is not defined where all values are equal."""

    def compute(outputs: list[Tensor], targets: list[Tensor | None]) -> float:
        return 1 / len({float(output.sum()) for output in outputs} - {0.0})

    outputs = [torch.zeros(1)] * 9 + [torch.ones(1)]
    assert interval_of(TaskMetric("m", compute), outputs, [None] * 10) is None


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda o, t: [0.0] * len(o), "has scores of mean 0, but is"),
        (lambda o, t: [math.nan] * len(o), "not finite"),
        (lambda o, t: o["x"], "scores failed: TypeError"),
    ],
)
def test_wrong_scores_are_the_users_mistake(scores: object, message: str) -> None:
    outputs, targets = numbers(20)
    with pytest.raises(ConfigError, match=message):
        interval_of(TaskMetric("m", _mean, scores=scores), outputs, targets)  # type: ignore[arg-type]
