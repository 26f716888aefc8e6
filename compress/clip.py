"""Clipping of weights: the few that lie far out no longer stretch a scale or a codebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from compress.constraints import Masked
from compress.errors import CompressError
from compress.pruning.weights import Weight, weights_of
from compress.recipe import State, StepConfig, handles

_CANDIDATES = 200


class ClipWeights(StepConfig):
    """Move weights beyond a limit to the limit; zeros stay zero.

    ``percentile``: of |weight|. ``std``: so many standard deviations. ``mse``: the limit at which
    a symmetric uniform quantizer of ``bits`` has the least squared error. All are taken over the
    weights that are not zero, of the layer or of each output channel.
    """

    kind: Literal["clip_weights"] = "clip_weights"
    method: Literal["percentile", "std", "mse"] = "percentile"
    percentile: float = Field(default=99.9, gt=0, le=100)
    deviations: float = Field(default=4.0, gt=0)
    bits: int = Field(default=8, ge=2, le=16)
    per_channel: bool = False
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@handles(ClipWeights)
def clip_weights(state: State, config: ClipWeights) -> State:
    """Clip the selected weights in place; pruning masks hold, shared values are refused."""
    weights = weights_of(state.float_model(), config.layers, config.exclude)
    if not weights:
        raise CompressError("no layer is left to clip", where="exclude")
    clipped = sum(_clip(weight, config) for weight in weights)
    total = sum(weight.value.numel() for weight in weights)
    return replace(state, notes=(f"{clipped} of {total} weights in {len(weights)} layers clipped",))


def limit_of(values: Tensor, config: ClipWeights) -> float:
    """The largest magnitude that stays, for weights (any shape) that are not zero."""
    magnitudes = values[values != 0].double().abs()
    if not len(magnitudes):
        return 0.0
    if config.method == "percentile":
        return float(_percentile(magnitudes, config.percentile))
    if config.method == "std":
        return config.deviations * float(values[values != 0].double().std(unbiased=False))
    return _least_error(magnitudes, config.bits)


def _percentile(magnitudes: Tensor, percentile: float) -> Tensor:
    # torch.quantile refuses more than 16 million elements.
    ranked = magnitudes.sort().values
    place = percentile / 100 * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (place - low)


def _least_error(magnitudes: Tensor, bits: int) -> float:
    """The best of evenly spaced limits; signs do not matter to a symmetric quantizer."""
    steps = 2 ** (bits - 1) - 1
    most = float(magnitudes.max())
    best, least = most, float("inf")
    for number in range(_CANDIDATES, 0, -1):
        limit = most * number / _CANDIDATES
        scale = limit / steps
        rounded = (magnitudes / scale).round().clamp(max=steps) * scale
        error = float((magnitudes - rounded).square().sum())
        if error < least:
            best, least = limit, error
    return best


def _clip(weight: Weight, config: ClipWeights) -> int:
    """Clip one weight; returns how many elements changed."""
    if any(not isinstance(constraint, Masked) for constraint in weight.constrained_by):
        raise CompressError(
            "its weights share values or are binary by now",
            where=weight.full_name,
            hint="Put clip_weights before that step.",
        )
    value = weight.value.clone()
    channels: Sequence[Tensor] = [value]
    if config.per_channel:
        channels = value.unbind(weight.out_axis)
    limits = torch.tensor([limit_of(channel, config) for channel in channels], dtype=value.dtype)
    shape = [1] * value.ndim
    shape[weight.out_axis] = -1
    limits = limits.view(shape if config.per_channel else [1] * value.ndim)
    with torch.no_grad():
        # What a mask hides is not seen by anyone, and the mask is behind it.
        original = weight.original
        original.copy_(torch.minimum(torch.maximum(original, -limits), limits))
    return int((weight.value != value).sum())
