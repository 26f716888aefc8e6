"""The figures of quality against formulas written independently in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compress.errors import CompressError, ConfigError
from compress.quality import compare, flat_outputs, run_all, sqnr_db
from compress.task import TOP1, Sample, TaskMetric
from tests.compress.networks import NO_TARGET

FINITE = st.floats(-1e6, 1e6, width=32)
ROWS = hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=FINITE)


def pairs() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    return ROWS.flatmap(
        lambda a: st.tuples(st.just(a), hnp.arrays(np.float32, a.shape, elements=FINITE))
    )


@given(pairs())
def test_against_numpy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    reference, got = pair
    expected = [(torch.from_numpy(row[None]),) for row in reference]
    outputs = [(torch.from_numpy(row[None]),) for row in got]
    a, b = reference.astype(np.float64), got.astype(np.float64)
    signal, noise = np.sum(a * a), np.sum((a - b) ** 2)
    if noise and not signal:
        with pytest.raises(CompressError, match="all zero"):
            compare(expected, outputs, NO_TARGET, [None] * len(a))
        return
    quality = compare(expected, outputs, NO_TARGET, [None] * len(a))
    assert quality.samples == len(a)
    assert quality.max_abs_diff == np.max(np.abs(a - b))
    assert quality.top1_agreement == np.mean(np.argmax(a, 1) == np.argmax(b, 1))
    if noise:
        assert quality.sqnr_db is not None
        decibel = 10 * (np.log10(signal) - np.log10(noise))
        assert math.isclose(quality.sqnr_db, decibel, abs_tol=1e-9)
    else:
        assert quality.sqnr_db is None


def test_all_outputs_count_but_only_the_first_is_ranked() -> None:
    first = torch.tensor([[1.0, 2.0]])
    reference, got = [(first, torch.zeros(1, 3))], [(first, torch.full((1, 3), 2.0))]
    quality = compare(reference, got, NO_TARGET, [None])
    assert quality.max_abs_diff == 2.0
    assert quality.top1_agreement == 1.0
    assert quality.sqnr_db == pytest.approx(10 * math.log10(5 / 12))


def test_no_class_axis() -> None:
    one = [(torch.ones(1, 1),)]
    assert compare(one, one, NO_TARGET, [None]).top1_agreement is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", ["reference output", "output"])
def test_not_finite(bad: float, side: str) -> None:
    good, spoilt = [(torch.ones(1, 2),)], [(torch.tensor([[1.0, bad]]),)]
    pair = (spoilt, good) if side == "reference output" else (good, spoilt)
    with pytest.raises(CompressError, match=f"an? {side} holds NaN or infinity"):
        compare(*pair, NO_TARGET, [None])


def test_shape_or_count_mismatch() -> None:
    with pytest.raises(CompressError, match=r"shapes \[\[1, 3\]\], expected \[\[1, 2\]\]"):
        compare([(torch.ones(1, 2),)], [(torch.ones(1, 3),)], NO_TARGET, [None])
    with pytest.raises(CompressError, match="2 outputs, but the reference has 1"):
        compare([(torch.ones(1, 2),)], [(torch.ones(1, 2),)] * 2, NO_TARGET, [None])


def test_sqnr_of_extreme_energies_is_finite() -> None:
    assert sqnr_db(1e300, 1e-300) == pytest.approx(6000.0)
    assert sqnr_db(1.0, 0.0) is None


def test_metric_sees_first_outputs_and_targets() -> None:
    targets = [torch.tensor([1]), torch.tensor([0])]
    reference = [(torch.tensor([[0.0, 1.0]]),), (torch.tensor([[1.0, 0.0]]),)]
    outputs = [(torch.tensor([[0.0, 1.0]]),), (torch.tensor([[0.0, 1.0]]),)]
    quality = compare(reference, outputs, TOP1, targets)
    assert (quality.metric, quality.metric_value, quality.metric_reference) == ("top1", 0.5, 1.0)


def _raising(*_: object) -> float:
    raise KeyError("labels")


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (_raising, "task.metric 'mine': failed: KeyError"),
        (lambda o, t: math.nan, "task.metric 'mine': gave nan"),
        (lambda o, t: "high", "task.metric 'mine': failed: ValueError"),
    ],
)
def test_faulty_metric_is_named(compute: object, says: str) -> None:
    one = [(torch.ones(1, 2),)]
    with pytest.raises(ConfigError) as caught:
        compare(one, one, TaskMetric("mine", compute), [None])  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_top1_refuses_missing_or_misshapen_targets() -> None:
    one = [(torch.ones(1, 2),)]
    with pytest.raises(ConfigError, match="needs a target"):
        compare(one, one, TOP1, [None])
    with pytest.raises(ConfigError, match=r"target of shape \[3\]"):
        compare(one, one, TOP1, [torch.tensor([0, 0, 0])])


def test_flat_outputs() -> None:
    a, b = torch.ones(1), torch.zeros(1)
    assert flat_outputs({"x": a, "y": [b]}) == (a, b)
    for bad in (None, [a, 3], "text"):
        with pytest.raises(CompressError, match="other than tensors"):
            flat_outputs(bad)


def test_failing_inference_names_the_sample() -> None:
    table = torch.nn.Embedding(3, 2)
    samples = [Sample((torch.tensor([0]),)), Sample((torch.tensor([7]),))]
    with pytest.raises(CompressError, match="evaluation sample 1: IndexError"):
        run_all(lambda inputs: (table(*inputs),), samples)
