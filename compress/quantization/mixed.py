"""Mixed precision: which layers stay float for a budget of bytes or multiply-accumulates.

Each layer's weights are quantized alone and the noise at the network's output is measured, on
calibration data. Noises of different layers are nearly uncorrelated, so they add, and what a float
layer wins is its own noise. The set with the most won noise that the budget pays for is a 0/1
knapsack; it is filled greedily by noise a unit of cost, and compared with the best single layer
(which makes it at least half as good as the best set: Dantzig 1957).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.fx import GraphModule, Node

from compress.errors import CompressError
from compress.journal import Run, key_of
from compress.quality import flat_outputs
from compress.quantization.grid import rounded, weight_scale
from compress.quantization.lockstep import CONVOLUTIONS, LINEAR, layers_of, weight_of
from compress.samples import Sample, fingerprint
from compress.task import Inputs


class MixedPrecision(BaseModel):
    """A budget for layers that stay float: exactly one of the two.

    ``max_extra_bytes``: bytes that float weights may take beyond int8 ones. ``max_float_macs``:
    share (0 to 1) of all multiply-accumulates that may be computed in float. ``samples``: how many
    calibration samples the sensitivity is measured on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_extra_bytes: int | None = Field(default=None, ge=0)
    max_float_macs: float | None = Field(default=None, ge=0, le=1)
    samples: int = Field(default=4, ge=1)


def choose(
    graph: GraphModule,
    samples: Sequence[Inputs],
    config: MixedPrecision,
    run: Run,
    *,
    per_channel: bool,
    excluded: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Names of the layers that stay float, and notes."""
    if (config.max_extra_bytes is None) == (config.max_float_macs is None):
        raise CompressError(
            "mixed precision needs exactly one budget",
            where="mixed",
            hint="Give max_extra_bytes or max_float_macs.",
        )
    used = samples[: config.samples]
    key = "sensitivity-" + key_of(
        [torch.__version__, per_channel, fingerprint([Sample(inputs) for inputs in used])],
        str(graph.graph),
        graph,
    )
    noise: dict[str, float] = run.remember(key, lambda: sensitivity(graph, used, per_channel, run))
    macs, extra = costs(graph)
    if config.max_extra_bytes is not None:
        cost, budget = {name: float(v) for name, v in extra.items()}, float(config.max_extra_bytes)
    else:
        assert config.max_float_macs is not None
        total = max(sum(macs.values()), 1)
        cost, budget = {name: v / total for name, v in macs.items()}, config.max_float_macs
    for name in excluded:
        noise.pop(name, None)
        budget -= cost.get(name, 0.0)
    kept = knapsack(noise, cost, budget)
    whole = sum(noise.values())
    won = sum(noise[name] for name in kept) / whole if whole else 0.0
    ranking = sorted(noise, key=lambda name: -noise[name])[:3]
    shares = ", ".join(f"{n} {100 * noise[n] / whole:.0f} %" for n in ranking) if whole else "none"
    return kept, [
        f"{len(kept)} of {len(noise)} layers stay float ({', '.join(kept) or 'none fits'}), which "
        f"takes {100 * won:.0f} % of the weights' noise away; most of it: {shares}"
    ]


def sensitivity(
    graph: GraphModule, samples: Sequence[Inputs], per_channel: bool, run: Run
) -> dict[str, float]:
    """Noise energy at the outputs, over all samples, when one layer's weights alone are int8."""
    found = {}
    layers = layers_of(graph)
    with torch.no_grad():
        exact = [flat_outputs(graph(*inputs)) for inputs in samples]
        for number, (name, node) in enumerate(layers.items(), start=1):
            if number % 10 == 0:
                run.say(f"sensitivity of layer {number} of {len(layers)}")
            held: Any = _held(graph, node)
            before = held.data
            axis = (1 if "transpose" in str(node.target) else 0) if per_channel else None
            held.data = int8_weight(before, axis)
            try:
                found[name] = sum(
                    float((left.double() - right.double()).square().sum())
                    for inputs, wanted in zip(samples, exact, strict=True)
                    for left, right in zip(wanted, flat_outputs(graph(*inputs)), strict=True)
                )
            finally:
                held.data = before
            if not math.isfinite(found[name]):
                raise CompressError("gives NaN or infinity when its weights are int8", where=name)
    return found


def int8_weight(weight: Tensor, axis: int | None) -> Tensor:
    """The weight rounded to symmetric int8, one scale a channel of ``axis`` or one for all."""
    scale = weight_scale(weight, 127, axis=axis)
    if axis is not None:
        scale = scale.view([-1 if place == axis else 1 for place in range(weight.ndim)])
    return rounded(weight, scale, 127)


def costs(graph: GraphModule) -> tuple[dict[str, int], dict[str, int]]:
    """Multiply-accumulates and extra bytes of each layer if it stays float."""
    macs, extra = {}, {}
    for name, node in layers_of(graph).items():
        weight = _held(graph, node)
        extra[name] = 3 * weight.numel()
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            raise CompressError("has no known output shape", where=name)
        shape = list(value.shape)
        if node.target in CONVOLUTIONS:
            macs[name] = weight.numel() * math.prod(shape[2:]) * shape[0]
        elif node.target is LINEAR:
            macs[name] = weight.numel() * math.prod(shape[:-1])
        else:
            source: Any = node.args[0]
            shape = list(source.meta["val"].shape)
            macs[name] = weight.numel() * math.prod(shape[2:]) * shape[0]
    return macs, extra


def knapsack(value: dict[str, float], cost: dict[str, float], budget: float) -> list[str]:
    """Names with a large sum of values whose costs are within the budget, in the given order."""
    fitting = [name for name in value if cost[name] <= budget and value[name] > 0]
    order = sorted(fitting, key=lambda n: -value[n] / cost[n] if cost[n] else -math.inf)
    taken: set[str] = set()
    left = budget
    for name in order:
        if cost[name] <= left:
            taken.add(name)
            left -= cost[name]
    best = max(fitting, key=lambda name: value[name], default=None)
    if best is not None and value[best] > sum(value[name] for name in taken):
        taken = {best}
    return [name for name in value if name in taken]


def _held(graph: GraphModule, node: Node) -> Tensor:
    name = weight_of(node)
    assert name is not None
    owner, _, attribute = name.rpartition(".")
    held: Tensor = getattr(graph.get_submodule(owner), attribute)
    return held
