"""The grid of integers that a value is rounded to: scales of weights, and fake quantization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Smaller than torchao's 2**-12, below which a weight of at most 0.03 loses steps; still so large
# that a bias fits into the int32 of steps (input scale * weight scale) that XNNPACK stores.
SMALLEST_WEIGHT_SCALE = 2.0**-20


def weight_scale(
    weight: Tensor, qmax: int, *, smallest_share: float = 1.0, axis: int | None = 0
) -> Tensor:
    """Symmetric scales, [channels of ``axis``] or [1] where that is None.

    Of the shares between ``smallest_share`` and 1 of the largest value, the one whose rounding
    error is the least in the sum of squares becomes the last step.
    """
    rows = weight.detach().reshape(1, -1)
    if axis is not None:
        rows = weight.detach().movedim(axis, 0).reshape(weight.shape[axis], -1)
    largest = rows.abs().amax(1) / qmax
    chosen = largest.clamp(min=SMALLEST_WEIGHT_SCALE)
    if smallest_share == 1.0:
        return chosen
    best = torch.full_like(largest, torch.inf)
    for share in torch.linspace(1.0, smallest_share, 60).tolist():
        scale = (largest * share).clamp(min=SMALLEST_WEIGHT_SCALE)
        error = (rounded(rows, scale[:, None], qmax) - rows).square().sum(1)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, scale, chosen)
    return chosen


def rounded(weight: Tensor, scale: Tensor, qmax: int) -> Tensor:
    """The weight on the grid of a symmetric scale that broadcasts against it."""
    return (weight / scale).round().clamp(-qmax, qmax) * scale


def fake_quantize(value: Tensor, observer: Any) -> Tensor:
    """The value as quantize and dequantize of the converted program pass it on."""
    scale, zero = observer.calculate_qparams()
    if scale.numel() > 1 and scale.ndim < 2:
        shape = [1] * value.ndim
        shape[observer.ch_axis] = -1
        scale, zero = scale.view(shape), zero.view(shape)
    # As torch's operator does it: multiply by the inverse, then round half to even.
    steps = (value * (1.0 / scale)).round() + zero
    passed: Tensor = (steps.clamp(observer.quant_min, observer.quant_max) - zero) * scale
    return passed
