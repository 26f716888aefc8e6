"""Rounding by what a layer computes: against brute force, and never off the grid or off zero."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.capture import capture
from compress.quantization.lockstep import WEIGHTED
from compress.quantization.rounding import Columns, gptq, regressed


def _error(weight: Tensor, other: Tensor, covariance: Tensor) -> float:
    off = (weight - other).double()
    return float((off @ covariance.double() @ off.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum())


def _case(seed: int, rows: int, columns: int, groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    weight = torch.randn(groups, rows, columns)
    inputs = torch.randn(groups, columns, columns) @ torch.randn(groups, columns, 64)
    return weight, inputs @ inputs.transpose(1, 2) / 64, weight.abs().amax(2, keepdim=True) / 7


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 3), columns=st.integers(1, 70))
def test_on_the_grid_zeros_kept_and_no_worse_than_nearest_on_average(
    seed: int, groups: int, columns: int
) -> None:
    weight, covariance, scale = _case(seed, 6, columns, groups)
    weight[torch.rand(weight.shape) < 0.3] = 0
    scale = weight.abs().amax(2, keepdim=True).clamp(min=1e-3) / 7
    made = gptq(weight, covariance, scale, 7)
    steps = made / scale
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert float(steps.abs().max()) <= 7.001
    assert bool((made[weight == 0] == 0).all())


def test_less_error_than_nearest_and_as_little_as_the_best_there_is() -> None:
    made = nearest = best = 0.0
    for seed in range(60):
        weight, covariance, scale = _case(seed, 1, 5)
        made += _error(weight, gptq(weight, covariance, scale, 7, damping=1e-6), covariance)
        nearest += _error(weight, (weight / scale).round() * scale, covariance)
        floor = (weight / scale).floor()
        best += min(
            _error(weight, (floor + torch.tensor(up)).clamp(-7, 7) * scale, covariance)
            for up in itertools.product((0.0, 1.0), repeat=5)
        )
    assert made < 0.75 * nearest
    assert made < 1.15 * best


def test_without_correlation_it_is_rounding_to_nearest() -> None:
    weight, _, scale = _case(3, 8, 130)
    made = gptq(weight, torch.eye(130)[None], scale, 7)
    assert torch.equal(made, (weight / scale).round().clamp(-7, 7) * scale)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, covariance, scale = _case(4, 5, 100, 2)
    made = gptq(weight, covariance, scale, 7)
    monkeypatch.setattr("compress.quantization.rounding._BLOCK", 1000)
    whole = gptq(weight, covariance, scale, 7)
    # Another order of sums may tip a weight that lies between two steps.
    assert float((made != whole).double().mean()) < 0.02


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv2d(4, 6, 3, padding=1, bias=False), (2, 4, 7, 5)),
    (nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0), groups=2, bias=False), (1, 4, 9, 5)),
    (nn.Conv2d(4, 8, 3, dilation=2, groups=4, bias=False), (1, 4, 9, 9)),
    (nn.Conv2d(4, 6, 1, bias=False), (2, 4, 3, 3)),
    (nn.Conv2d(4, 6, 1, stride=2, bias=False), (2, 4, 5, 5)),
    (nn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2, bias=False), (2, 4, 9)),
    (nn.Conv1d(4, 6, 1, bias=False), (2, 4, 9)),
    (nn.Linear(4, 6, bias=False), (2, 5, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=str)
def test_columns_times_rows_is_the_layer(layer: Any, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    program = capture(layer.eval(), (x,))
    node = next(n for n in program.graph.nodes if n.target in WEIGHTED)
    columns = Columns(node, layer.weight.shape)
    rows = layer.weight.detach().reshape(columns.groups, -1, columns(x).shape[1])
    made = (rows @ columns(x)).flatten(0, 1)
    axis = 2 if isinstance(layer, nn.Linear) else 1
    expected = layer(x).detach().movedim(axis, 0).flatten(1)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


def test_regression_makes_up_for_noisy_inputs_and_a_strong_pull_changes_nothing() -> None:
    torch.manual_seed(0)
    exact = torch.randn(2, 6, 4000)
    noisy = exact.clamp(-1, 1) + torch.randn(2, 6, 4000) * 0.1
    weight = torch.randn(2, 3, 6)
    weight[:, :, 0] = 0
    own, cross = noisy @ noisy.transpose(1, 2) / 4000, exact @ noisy.transpose(1, 2) / 4000

    def lost(made: Tensor) -> float:
        return float((weight @ exact - made @ noisy).square().mean())

    free = regressed(weight, own, cross, 0.0)
    assert lost(free) < 0.8 * lost(weight)
    # Nothing else on those inputs is better.
    for _ in range(20):
        other = free + torch.randn(2, 3, 6) * 0.05 * (weight != 0)
        assert lost(other) > lost(free) - 1e-3
    assert bool((free[weight == 0] == 0).all())
    torch.testing.assert_close(regressed(weight, own, cross, 1e9), weight)
    assert regressed(weight, own, cross, float("inf")) is weight
    assert lost(free) < lost(regressed(weight, own, cross, 1.0)) < lost(weight)
