"""Where the 255 steps of a quantizer are spent: ranges of activations, scales of weights.

Observers for PT2E. An activation's values are collected in a histogram (torchao's), a weight is
seen once. Neither changes the values that flow through it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torchao.quantization.pt2e import HistogramObserver
from torchao.quantization.pt2e.observer import UniformQuantizationObserverBase
from torchao.quantization.pt2e.quantizer import QuantizationConfig, QuantizationSpec

from compress.quantization.grid import weight_scale

ActivationRange = Literal["histogram", "min_max", "percentile", "mse"]
WeightScale = Literal["max", "mse"]
Through = Callable[[Tensor], Tensor]


class ActivationObserver(HistogramObserver):  # type: ignore[misc]
    """Chooses an activation's range from its histogram.

    Args:
        method: ``histogram`` is torchao's own narrowing from both ends while the squared error
            falls; ``min_max`` all that was seen; ``percentile`` leaves ``(100 - percentile) / 2``
            per cent of the values out at each end; ``mse`` the range with the least squared error
            of a grid over both ends.
        through: the function that reads these values and nothing else does, such as hard-swish.
            ``mse`` then weighs the error behind it: below -3 hard-swish is 0, whatever comes in.
    """

    def __init__(
        self,
        *args: Any,
        method: ActivationRange = "histogram",
        percentile: float = 99.99,
        through: Through | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.method, self.percentile, self.through = method, percentile, through
        self.found: tuple[Tensor, Tensor] | None = None

    def forward(self, x_orig: Tensor) -> Tensor:
        """Count the values; the range is searched for again when it is asked for."""
        self.found = None
        seen: Tensor = super().forward(x_orig)
        return seen

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """``(scale, zero point)``, each [1]; kept, for the search takes long."""
        if self.found is None:
            self.found = super().calculate_qparams()
        return self.found

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        if self.through is not None or self.method == "mse":
            return self._least_error()
        if self.method == "min_max":
            return self.min_val, self.max_val
        if self.method == "percentile":
            share = (1 - self.percentile / 100) / 2
            total = self.histogram.cumsum(0)
            width = (self.max_val - self.min_val) / self.bins
            low = torch.searchsorted(total, share * total[-1])
            high = torch.searchsorted(total, (1 - share) * total[-1])
            return self.min_val + low * width, self.min_val + (high + 1) * width
        found: tuple[Tensor, Tensor] = super()._non_linear_param_search()
        return found

    def _least_error(self, steps: int = 40) -> tuple[Tensor, Tensor]:
        """Grid search over both ends, then a finer one around the best pair."""
        width = (self.max_val - self.min_val) / self.bins
        centres = self.min_val + (torch.arange(self.bins) + 0.5) * width
        used = self.histogram > 0
        values, weight = centres[used], self.histogram[used]
        lowest = self.min_val.clamp(max=0.0).reshape(())
        highest = self.max_val.clamp(min=0.0).reshape(())
        if bool(highest - lowest == 0):
            return self.min_val, self.max_val
        lows = torch.linspace(1.0, 0.0, steps) * lowest if lowest < 0 else lowest[None]
        highs = torch.linspace(1.0, 0.0, steps) * highest if highest > 0 else highest[None]
        low, high = lowest, highest
        for _ in range(2):
            low, high = self._best_pair(lows, highs, values, weight)
            lows = (low + torch.linspace(-1, 1, 9) * (lowest.abs() / steps)).clamp(lowest, 0.0)
            highs = (high + torch.linspace(-1, 1, 9) * (highest / steps)).clamp(0.0, highest)
        return low, high

    def _best_pair(
        self, lows: Tensor, highs: Tensor, values: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        pairs = torch.cartesian_prod(lows, highs)
        pairs = pairs[(pairs[:, 1] - pairs[:, 0]) > 0]
        after = self.through or (lambda x: x)
        wanted = after(values)
        best, chosen = torch.inf, pairs[0]
        for part in torch.split(pairs, 64):
            scale, zero = self._calculate_qparams_of(part)
            steps = (values / scale).round().add(zero).clamp(self.quant_min, self.quant_max)
            error = (after((steps - zero) * scale) - wanted).square().mul(weight).sum(1)
            if float(error.min()) < best:
                best, chosen = float(error.min()), part[error.argmin()]
        return chosen[0], chosen[1]

    def _calculate_qparams_of(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        steps = self.quant_max - self.quant_min
        scale = ((pairs[:, 1] - pairs[:, 0]) / steps).clamp(min=float(self.eps))[:, None]
        zero = self.quant_min - (pairs[:, :1] / scale).round()
        return scale, zero.clamp(self.quant_min, self.quant_max)


class WeightObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """Symmetric scales of a weight, one a channel of ``ch_axis`` or one for all.

    Args:
        scale_by: ``max`` takes the largest value to the last step; ``mse`` clips it where that
            lessens the squared rounding error.

    ``fixed`` overrides: rounding that looks at more than one weight at a time sets it.
    """

    def __init__(
        self, *args: Any, scale_by: WeightScale = "max", ch_axis: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.scale_by, self.ch_axis = scale_by, ch_axis
        self.fixed: Tensor | None = None
        self.scale: Tensor | None = None

    @property
    def axis(self) -> int | None:
        """The axis of channels; None for one scale."""
        return self.ch_axis if self.qscheme == torch.per_channel_symmetric else None

    def forward(self, x_orig: Tensor) -> Tensor:
        """Choose the scales."""
        most = 1.0 if self.scale_by == "max" else 0.5
        self.scale = weight_scale(x_orig, self.quant_max, smallest_share=most, axis=self.axis)
        return x_orig

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """``(scale, zero point)``, each [channels] or [1]."""
        scale = self.scale if self.fixed is None else self.fixed
        if scale is None:
            raise RuntimeError("a weight was never observed: the model did not run")
        return scale, torch.zeros_like(scale, dtype=torch.int64)


class PerChannelWeightObserver(WeightObserver):
    """PT2E hands ``ch_axis`` to a class only that has ``PerChannel`` in its name."""


def int8_config(
    per_channel: bool, activation: ActivationRange, percentile: float, weight: WeightScale
) -> Any:
    """Affine int8 activations and symmetric int8 weights, as ``XNNPACKQuantizer`` takes them."""
    activations = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=ActivationObserver.with_args(
            method=activation, percentile=percentile, eps=2**-12
        ),
    )
    observer = PerChannelWeightObserver if per_channel else WeightObserver
    weights = QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=observer.with_args(scale_by=weight),
    )
    return QuantizationConfig(activations, activations, weights, None)
