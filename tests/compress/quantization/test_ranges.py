"""Ranges and scales: against exhaustive search and torch's own quantiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress.quantization.grid import fake_quantize, rounded, weight_scale
from compress.quantization.ranges import ActivationObserver


def observer(**options: Any) -> ActivationObserver:
    return ActivationObserver(
        dtype=torch.int8, qscheme=torch.per_tensor_affine, quant_min=-128, quant_max=127, **options
    )


def seen(values: Tensor, **options: Any) -> ActivationObserver:
    made = observer(**options)
    for part in values.chunk(3):
        made(part)
    return made


def error(values: Tensor, made: ActivationObserver) -> float:
    return float((fake_quantize(values, made) - values).square().mean())


def outliers() -> Tensor:
    torch.manual_seed(0)
    values = torch.randn(30_000)
    values[:3] = torch.tensor([90.0, -40.0, 60.0])
    return values[torch.randperm(len(values))]


def test_mse_is_no_worse_than_any_other_and_than_a_fine_search() -> None:
    values = outliers()
    best = error(values, seen(values, method="mse"))
    for method in ("histogram", "min_max", "percentile"):
        assert best <= error(values, seen(values, method=method)) * 1.001
    for low in torch.linspace(-40, -1, 40).tolist():
        for high in torch.linspace(1, 90, 40).tolist():
            scale = (high - low) / 255
            zero = round(-128 - low / scale)
            steps = ((values / scale).round() + zero).clamp(-128, 127)
            assert best <= float(((steps - zero) * scale - values).square().mean()) * 1.02


def test_percentile_is_the_quantile() -> None:
    torch.manual_seed(0)
    values = torch.rand(100_000) * 10 - 2
    scale, zero = seen(values, method="percentile", percentile=90.0).calculate_qparams()
    low = float((-128 - zero) * scale)
    high = float((127 - zero) * scale)
    assert low == pytest.approx(float(values.quantile(0.05)), abs=0.06)
    assert high == pytest.approx(float(values.quantile(0.95)), abs=0.06)


@pytest.mark.parametrize("curve", [F.hardswish, F.hardsigmoid, F.silu])
def test_no_steps_for_what_a_curve_cuts_off(curve: Any) -> None:
    torch.manual_seed(0)
    values = torch.cat([torch.randn(20_000) * 2, torch.linspace(-60, -20, 2_000)])

    def behind(made: ActivationObserver) -> float:
        return float((curve(fake_quantize(values, made)) - curve(values)).square().mean())

    through = seen(values, method="mse", through=curve)
    scale, zero = through.calculate_qparams()
    assert float((-128 - zero) * scale) > -15
    assert behind(through) < 0.2 * behind(seen(values, method="min_max"))


@pytest.mark.parametrize("values", [torch.zeros(10), torch.full((10,), 3.0), -torch.rand(10)])
@pytest.mark.parametrize("method", ["mse", "percentile", "min_max", "histogram"])
def test_degenerate_values(values: Tensor, method: str) -> None:
    made = observer(method=method)
    made(values)
    scale, zero = made.calculate_qparams()
    assert bool(torch.isfinite(scale).all())
    assert -128 <= int(zero) <= 127
    # Zero, which padding writes, is exact.
    assert float(fake_quantize(torch.zeros(1), made)) == 0.0
    assert float((fake_quantize(values, made) - values).abs().max()) < 0.05


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), axis=st.sampled_from([None, 0, 1]))
def test_weight_scales(seed: int, axis: int | None) -> None:
    torch.manual_seed(seed)
    weight = torch.randn(3, 4, 5) ** 3
    shape = [-1 if place == axis else 1 for place in range(3)]

    def left(scale: Tensor) -> Tensor:
        return (rounded(weight, scale.view(shape), 127) - weight).square().sum()

    largest, best = (
        weight_scale(weight, 127, axis=axis),
        weight_scale(weight, 127, smallest_share=0.5, axis=axis),
    )
    assert largest.shape == best.shape == ((1,) if axis is None else (weight.shape[axis],))
    assert float((weight / largest.view(shape)).abs().max()) == pytest.approx(127, rel=1e-4)
    assert float(left(best)) <= float(left(largest))


def test_a_small_weight_keeps_its_steps() -> None:
    """The stock configuration's smallest scale, 2**-12, would leave a weight of 0.003 12 steps."""
    weight = torch.linspace(-0.003, 0.003, 200)[None]
    steps = (weight / weight_scale(weight, 127)[:, None]).round().unique()
    assert len(steps) > 190
