"""Weights as products of smaller ones: pure functions on tensors, computed in double precision.

A convolution's weight is [out, in, k...], a linear layer's [out, in].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tucker:
    """weight[o, i, k...] = sum over a, b of out[o, a] * core[a, b, k...] * into[i, b]."""

    out: Tensor
    core: Tensor
    into: Tensor

    def weight(self) -> Tensor:
        """The weight that the factors stand for."""
        return torch.einsum("oa,ab...,ib->oi...", self.out, self.core, self.into)


def unfold(weight: Tensor, mode: int) -> Tensor:
    """The matrix whose rows are the slices along axis ``mode``."""
    return weight.movedim(mode, 0).reshape(weight.shape[mode], -1)


def singular_values(matrix: Tensor) -> Tensor:
    """In falling order, float64."""
    values: Tensor = torch.linalg.svdvals(matrix.double())
    return values


def svd(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``(left [out, rank], right [rank, in])`` whose product is nearest to a matrix [out, in].

    By Eckart and Young no other pair of that rank is nearer; the squared error is the sum of the
    squared singular values left out. Both factors get the square root of the singular values, so
    that neither has a range that quantization would suffer from.
    """
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def output_svd(weight: Tensor, second_moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """:func:`svd` that minimises the error of the *outputs* instead of that of the weight.

    Args:
        weight: [out, in].
        second_moment: mean of y yᵀ over outputs y (without the bias) on calibration data,
            [out, out]; centred where the last factor's bias takes up the mean.

    The best subspace for the outputs is spanned by their principal components (Zhang et al.,
    "Accelerating Very Deep Convolutional Networks", arXiv 1505.06798, the linear case). A
    thousandth of the weight's own energy is mixed in for directions that the data do not show.
    """
    double = weight.double()
    own = double @ double.T
    mixed = second_moment.double() + 1e-3 * own * (
        second_moment.double().trace() / own.trace().clamp_min(1e-30)
    )
    basis = torch.linalg.eigh(mixed).eigenvectors.flip(1)[:, :rank]
    right = basis.T @ double
    # Columns of the basis have length 1: give both factors the same length.
    scale = torch.linalg.vector_norm(right, dim=1).clamp_min(1e-30).sqrt()
    return basis * scale, right / scale[:, None]


def tucker2(weight: Tensor, ranks: tuple[int, int], iterations: int = 30) -> Tucker:
    """Tucker decomposition along the output and input channels of [out, in, k...].

    Kim et al., "Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
    Applications" (arXiv 1511.06530): started by the higher-order SVD, improved by alternating
    (HOOI, De Lathauwer et al. 2000) until the explained energy grows by less than 1e-9 of it.
    """
    double = weight.double()
    out = _leading(unfold(double, 0), ranks[0])
    into = _leading(unfold(double, 1), ranks[1])
    explained = -1.0
    for _ in range(iterations):
        out = _leading(unfold(torch.einsum("oi...,ib->ob...", double, into), 0), ranks[0])
        into = _leading(unfold(torch.einsum("oi...,oa->ai...", double, out), 1), ranks[1])
        core = torch.einsum("oi...,oa,ib->ab...", double, out, into)
        before, explained = explained, float(core.square().sum())
        if explained - before <= 1e-9 * explained:
            break
    return Tucker(out, core, into)


def cp(weight: Tensor, rank: int, seed: int, iterations: int = 200) -> list[Tensor]:
    """Canonical polyadic decomposition: one factor [axis, rank] for each axis of the weight.

    weight[o, i, k...] ~ sum over r of factors[0][o, r] * factors[1][i, r] * ... (Lebedev et al.,
    "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition", arXiv
    1412.6553), by alternating least squares (Carroll and Chang 1970) with a weak L2 penalty
    against the diverging components that this decomposition is known for. Starts from the singular
    vectors of each unfolding, and from ``seed`` where there are more components than those. All
    factors get equal norms, component by component.
    """
    scale = float(torch.linalg.vector_norm(weight.double()))
    tensor = weight.double() / (scale or 1.0)
    generator = torch.Generator().manual_seed(seed)
    found = []
    for axis, size in enumerate(tensor.shape):
        start = torch.randn(size, rank, generator=generator, dtype=torch.float64) / size**0.5
        leading = _leading(unfold(tensor, axis), rank)
        start[:, : leading.shape[1]] = leading
        found.append(start)
    ones = torch.ones(rank, rank, dtype=torch.float64)
    explained = 0.0
    for _ in range(iterations):
        for axis in range(tensor.ndim):
            gram = ones
            for other in found[:axis] + found[axis + 1 :]:
                gram = gram * (other.T @ other)
            damped = gram.clone()
            damped.diagonal().add_(1e-7 * gram.diagonal().mean() + 1e-30)
            contracted = _contracted(tensor, found, axis)
            found[axis] = torch.linalg.solve(damped, contracted.T).T
        # ‖T‖² - ‖T - T'‖² from what the last axis needed anyway.
        last = found[-1]
        before = explained
        explained = float(2 * (last * contracted).sum() - (gram * (last.T @ last)).sum())
        found = _balanced(found)
        if abs(explained - before) <= 1e-6:
            break
    found[0] = found[0] * scale
    return _balanced(found)


def _contracted(tensor: Tensor, found: list[Tensor], axis: int) -> Tensor:
    """The tensor times all factors but that of ``axis``, component by component, [axis, rank]."""
    letters = "abcde"[: tensor.ndim]
    others = [place for place in range(tensor.ndim) if place != axis]
    terms = ",".join(f"{letters[place]}r" for place in others)
    factors = [found[place] for place in others]
    return torch.einsum(f"{letters},{terms}->{letters[axis]}r", tensor, *factors)


def _balanced(found: list[Tensor]) -> list[Tensor]:
    norms = torch.stack([torch.linalg.vector_norm(f, dim=0) for f in found]).clamp_min(1e-30)
    even = norms.log().mean(dim=0).exp()
    return [factor * (even / norm) for factor, norm in zip(found, norms, strict=True)]


def cp_weight(factors: list[Tensor]) -> Tensor:
    """The weight that CP factors stand for."""
    letters = "abcde"[: len(factors)]
    terms = ",".join(f"{letter}r" for letter in letters)
    return torch.einsum(f"{terms}->{letters}", *factors)


def relative_error(weight: Tensor, approximation: Tensor) -> float:
    """‖weight - approximation‖ / ‖weight‖; 0 for a weight of zeros that is met exactly."""
    exact = weight.detach().double()
    noise = float(torch.linalg.vector_norm(exact - approximation.detach().double()))
    signal = float(torch.linalg.vector_norm(exact))
    if signal == 0.0:
        return 0.0 if noise == 0.0 else math.inf
    return noise / signal


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The first left singular vectors, [rows, rank]."""
    # Through the Gram matrix: an unfolded kernel is much wider than high.
    vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T).eigenvectors
    return vectors.flip(1)[:, :rank]
