"""Rounding of what stays float: biases, norms and weights, to few bits of mantissa.

Where weights are pruned and share values, the biases are a large part of a packed file: 32 bits
each for numbers that need eight. Bits that rounding sets to zero cost nothing there
(:mod:`compress.entropy`). The idea is that of bfloat16, with the number of bits to choose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.constraints import constraints_of
from compress.errors import CompressError
from compress.layers import select
from compress.recipe import State, StepConfig, handles


class RoundFloats(StepConfig):
    """Round float32 parameters to ``mantissa_bits`` (the leading one not counted; bfloat16 has 7).

    ``what``: ``biases`` are all parameters of one axis or none (biases, scales and shifts of
    norms), ``all`` also weights. Parameters that a constraint holds (masks, shared values) are left
    as they are. A training after this step undoes it.
    """

    kind: Literal["round_floats"] = "round_floats"
    mantissa_bits: int = Field(default=7, ge=1, le=22)
    what: Literal["biases", "all"] = "biases"
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@handles(RoundFloats)
def round_floats(state: State, config: RoundFloats) -> State:
    """Round the selected layers' parameters in place, to the nearest, ties to even."""
    model = state.float_model()
    owners = tuple(
        {
            type(module)
            for name, module in model.named_modules()
            # What constraints train stands for other values than it is.
            if "parametrizations" not in name.split(".") and list(module.parameters(False))
        }
    )
    chosen = select(model, config.layers, config.exclude, owners)
    seen: set[int] = set()
    rounded, worst = 0, 0.0
    for layer in chosen.values():
        for parameter in _plain(layer, config):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            near = nearest(parameter.detach(), config.mantissa_bits)
            worst = max(worst, _distance(near, parameter))
            rounded += parameter.numel()
            with torch.no_grad():
                parameter.copy_(near)
    if not rounded:
        raise CompressError(
            "there is nothing to round",
            where="layers",
            hint="Parameters that a mask or a codebook holds are left as they are.",
        )
    note = f"{rounded} numbers rounded to {config.mantissa_bits} bits of mantissa, by {worst:.2g} "
    return replace(state, notes=(f"{note}at most",))


def nearest(values: Tensor, mantissa_bits: int) -> Tensor:
    """float32 of any shape -> the nearest numbers with so many explicit bits of mantissa.

    Ties go to the even mantissa, as in IEEE 754. Zeros keep their sign, infinities and NaN stay;
    a number that would be rounded to infinity becomes the largest one of that precision.
    """
    drop = 23 - mantissa_bits
    bits = values.contiguous().view(torch.int32)
    # Adding just under half of the last kept place, one more where that place is odd.
    odd = (bits >> drop) & 1
    mask = -1 << drop
    near = ((bits + (1 << (drop - 1)) - 1 + odd) & mask).view(torch.float32)
    near = torch.where(torch.isfinite(near), near, (bits & mask).view(torch.float32))
    return torch.where(torch.isfinite(values), near, values)


def _distance(near: Tensor, parameter: Tensor) -> float:
    return float((near - parameter.detach()).abs().max()) if near.numel() else 0.0


def _plain(layer: nn.Module, config: RoundFloats) -> list[nn.Parameter]:
    found = []
    for name, parameter in layer.named_parameters(recurse=False):
        if parameter.dtype != torch.float32 or constraints_of(layer, name):
            continue
        if config.what == "all" or parameter.ndim <= 1:
            found.append(parameter)
    return found
