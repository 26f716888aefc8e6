"""How many components of a matrix are worth keeping: by energy, and by variational Bayes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def by_energy(values: Tensor, share: float) -> int:
    """Fewest leading singular values whose squares have ``share`` of the sum of all; at least 1."""
    energy = values.double().square()
    total = float(energy.sum())
    if total == 0.0:
        return 1
    # A rounding error must not demand the last, empty direction.
    enough = energy.cumsum(0) >= share * total * (1 - 1e-12)
    return int(enough.to(torch.int64).argmax()) + 1


def by_vbmf(values: Tensor, shape: tuple[int, int]) -> int:
    """Components of a noisy matrix that are signal, at least 1; the noise level is estimated.

    Args:
        values: all singular values of the matrix, falling.
        shape: its rows and columns.

    The global analytic solution of empirical variational Bayesian matrix factorization, Nakajima,
    Sugiyama, Babacan and Tomioka, "Global Analytic Solution of Fully-Observed Variational Bayesian
    Matrix Factorization" (JMLR 14, 2013), which Kim et al. (arXiv 1511.06530) choose ranks with.
    """
    rows, columns = min(shape), max(shape)
    squares = [float(v) ** 2 for v in values.double()]
    total = sum(squares)
    if total == 0.0 or rows == 1:
        return 1
    # The scale cancels out; without it the logarithms below meet very small numbers.
    squares = [s * rows * columns / total for s in squares]
    ratio = rows / columns
    # 2.5129 sqrt(ratio) approximates the root that eq. (24) defines, see the paper.
    tau = 2.5129 * math.sqrt(ratio)
    threshold = (1 + tau) * (1 + ratio / tau)
    most = min(math.ceil(rows / (1 + ratio)) - 1, rows - 1)
    tail = squares[most:]
    upper = sum(squares) / (rows * columns)
    lower = max(squares[most] / (columns * threshold), sum(tail) / len(tail) / columns)
    # Weights are float32: what lies below its rounding error is no component.
    rounding = 1e-12 * squares[0]
    lower = max(lower, rounding / columns)
    noise = _least(lambda level: _free_energy(squares, level, columns, ratio), lower, upper)
    return max(1, sum(s > max(columns * noise * threshold, rounding) for s in squares))


def _free_energy(squares: Sequence[float], noise: float, columns: int, ratio: float) -> float:
    """The variational free energy as a function of the noise variance, up to constants."""
    tau = 2.5129 * math.sqrt(ratio)
    threshold = (1 + tau) * (1 + ratio / tau)
    energy = 0.0
    for square in squares:
        x = max(square / (columns * noise), 1e-300)
        energy += x - math.log(x)
        if x > threshold:
            centre = x - (1 + ratio)
            root = 0.5 * (centre + math.sqrt(max(centre * centre - 4 * ratio, 0.0)))
            energy += math.log(root + 1) + ratio * math.log(root / ratio + 1) - root
    return energy


def _least(function: Callable[[float], float], lower: float, upper: float) -> float:
    """Where a function that may have several minima is least: a coarse search, then Brent's."""
    from scipy.optimize import minimize_scalar

    if upper <= lower:
        return lower
    grid = [lower * (upper / lower) ** (step / 64) for step in range(65)]
    best = min(range(65), key=lambda i: function(grid[i]))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, 64)]
    found = minimize_scalar(function, bounds=(left, right), method="bounded")
    return float(found.x) if function(float(found.x)) < function(grid[best]) else grid[best]


def rounded(rank: int, multiple: int, full: int) -> int:
    """The next multiple that is not smaller, but not above the full rank."""
    return min(-(-rank // multiple) * multiple, full)
