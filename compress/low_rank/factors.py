"""Layers made of factors: which modules stand for a linear layer or convolution, and their cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress.low_rank import decompose

Method = Literal["svd", "tucker", "cp"]
Ranks = tuple[int, ...]
"""(rank,) of ``svd`` and ``cp``; (output channels, input channels) of the core of ``tucker``."""
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Layer = nn.Linear | Convolution


def full_ranks(layer: Layer, method: Method) -> Ranks:
    """Ranks with which the factors can give the layer exactly (``cp``: an upper bound)."""
    out, into, *kernel = layer.weight.shape
    window = math.prod(kernel)
    if method == "svd":
        return (min(out, into * window),)
    if method == "tucker":
        return min(out, into * window), min(into, out * window)
    axes = [out, into, *kernel]
    return (math.prod(axes) // max(axes),)


def shell(layer: Layer, method: Method, ranks: Ranks) -> nn.Sequential:
    """The modules for a layer's factors, without weights (on the meta device).

    Stride, padding and dilation lie on the factor with the kernel, the bias on the last. ``svd`` of
    a k x k convolution is one of k x k to fewer channels and a 1x1 back (Zhang et al., arXiv
    1505.06798); ``cp`` has one depthwise convolution for each axis of the kernel. A Tucker factor
    whose rank is the number of channels is left out: the core can hold that change of basis.
    """
    biased = layer.bias is not None
    with torch.device("meta"):
        if isinstance(layer, nn.Linear):
            first = nn.Linear(layer.in_features, ranks[0], bias=False)
            return nn.Sequential(first, nn.Linear(ranks[0], layer.out_features, bias=biased))
        kind: Any = parametrize.type_before_parametrizations(layer)
        out, into = layer.out_channels, layer.in_channels
        whole = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
        mode = {"padding_mode": layer.padding_mode}
        if method == "svd":
            first = kind(into, ranks[0], layer.kernel_size, bias=False, **whole, **mode)
            return nn.Sequential(first, kind(ranks[0], out, 1, bias=biased))
        parts = []
        if method == "tucker":
            wide, narrow = ranks
            if narrow < into:
                parts.append(kind(into, narrow, 1, bias=False))
            last = wide == out
            core = kind(narrow, wide, layer.kernel_size, bias=biased and last, **whole, **mode)
            parts.append(core)
            if not last:
                parts.append(kind(wide, out, 1, bias=biased))
            return nn.Sequential(*parts)
        (rank,) = ranks
        parts.append(kind(into, rank, 1, bias=False))
        for axis in range(len(layer.kernel_size)):
            geometry = {
                name: value if isinstance(value, str) else _only(value, axis, neutral)
                for (name, value), neutral in zip(whole.items(), (1, 0, 1), strict=True)
            }
            kernel = _only(layer.kernel_size, axis, 1)
            parts.append(kind(rank, rank, kernel, groups=rank, bias=False, **geometry, **mode))
        parts.append(kind(rank, out, 1, bias=biased))
        return nn.Sequential(*parts)


def tensors(weight: Tensor, method: Method, ranks: Ranks, *, seed: int = 0) -> list[Tensor]:
    """The factors' weights [out, in, k...] (linear: [out, in]), one for each module of a shell."""
    out, into, *kernel = weight.shape
    ones = [1] * len(kernel)
    if method == "svd":
        left, right = decompose.svd(decompose.unfold(weight, 0), ranks[0])
        return as_kernels(left, right, weight.shape)
    if method == "tucker":
        found = decompose.tucker2(weight, (ranks[0], ranks[1]))
        core, parts = found.core, []
        if ranks[1] < into:
            parts.append(found.into.T.reshape(-1, into, *ones))
        else:
            core = torch.einsum("ab...,ib->ai...", core, found.into)
        if ranks[0] < out:
            return [*parts, core, found.out.reshape(out, -1, *ones)]
        return [*parts, torch.einsum("ab...,oa->ob...", core, found.out)]
    factors = decompose.cp(weight, ranks[0], seed)
    parts = [factors[1].T.reshape(-1, into, *ones)]
    for axis, factor in enumerate(factors[2:]):
        shape = [1] * len(kernel)
        shape[axis] = kernel[axis]
        parts.append(factor.T.reshape(-1, 1, *shape))
    return [*parts, factors[0].reshape(out, -1, *ones)]


def as_kernels(left: Tensor, right: Tensor, shape: Sequence[int]) -> list[Tensor]:
    """Matrices [out, rank], [rank, in * k...] as the weights of the two modules of ``svd``."""
    out, into, *kernel = shape
    return [right.reshape(-1, into, *kernel), left.reshape(out, -1, *[1] * len(kernel))]


def product(weights: Sequence[Tensor], method: Method) -> Tensor:
    """The weight [out, in, k...] that the modules of a shell compute together."""
    if method == "cp":
        first, *middle, last = (weight.flatten(1) for weight in weights)
        return decompose.cp_weight([last, first.T, *(factor.T for factor in middle)])
    whole = weights[0]
    for weight in weights[1:]:
        # One of two neighbours has a kernel of 1.
        if math.prod(whole.shape[2:]) == 1:
            whole = torch.einsum("ar...,ri->ai...", weight, whole.flatten(1))
        else:
            whole = torch.einsum("or,ri...->oi...", weight.flatten(1), whole)
    return whole


def fill(
    modules: nn.Sequential, weights: Sequence[Tensor], layer: Layer, bias: Tensor | None
) -> None:
    """Give a shell its weights in the layer's dtype; frozen where the layer's are frozen."""
    learns = any(p.requires_grad for p in layer.parameters())
    for module, weight in zip(modules, weights, strict=True):
        value = weight.to(layer.weight.dtype).contiguous()
        module.weight = nn.Parameter(value, requires_grad=learns)
    if bias is not None:
        modules[-1].bias = nn.Parameter(bias.detach().to(layer.weight.dtype).clone(), learns)
    modules.train(layer.training)


def macs(module: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-accumulates of a linear layer, a convolution or a chain of them.

    ``shape`` is the input's; convolutions without a batch axis are not known.
    """
    total = 0
    for layer in module if isinstance(module, nn.Sequential) else [module]:
        if isinstance(layer, nn.Linear):
            total += math.prod(shape) * layer.out_features
            shape = (*shape[:-1], layer.out_features)
            continue
        assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        sizes = _output_sizes(layer, shape[2:])
        shape = (shape[0], layer.out_channels, *sizes)
        total += math.prod(shape) * layer.in_channels // layer.groups * math.prod(layer.kernel_size)
    return total


def _output_sizes(layer: Convolution, sizes: Sequence[int]) -> list[int]:
    if layer.padding == "same":
        return list(sizes)
    padding = (0,) * len(sizes) if isinstance(layer.padding, str) else layer.padding
    return [
        (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for size, pad, dilation, kernel, stride in zip(
            sizes, padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
        )
    ]


def _only(values: Sequence[int], axis: int, neutral: int) -> tuple[int, ...]:
    return tuple(value if place == axis else neutral for place, value in enumerate(values))
