"""How one weight is going to be shared: its groups, and the numbers that each group clusters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.pruning.weights import Weight
from compress.sharing import kmeans


@dataclass
class Plan:
    """One weight: which of its elements share a table, and how many values that may have."""

    weight: Weight
    groups: int
    values: int
    scores: Tensor | None
    has_zeros: bool

    @classmethod
    def of(cls, weight: Weight, group_size: int | None, scores: Tensor | None) -> Plan:
        """One value for the present; ``group_size`` None: one table for the whole weight."""
        value = weight.value
        channels = value.shape[weight.out_axis]
        groups = 1 if group_size is None else group_count(channels, group_size)
        return cls(weight, groups, 1, scores, bool((value == 0).any()))

    def values_of(self, bits: int) -> int:
        """Non-zero values that indices of so many bits leave room for."""
        return max((1 << bits) - self.has_zeros, 1)

    def split(self, tensor: Tensor) -> NDArray[Any]:
        """[groups, elements] of a tensor of the weight's shape."""
        moved = tensor.detach().movedim(self.weight.out_axis, 0)
        return moved.reshape(self.groups, -1).float().numpy()

    def join(self, indices: NDArray[Any]) -> Tensor:
        """The other way round."""
        shape = self.weight.value.movedim(self.weight.out_axis, 0).shape
        return torch.from_numpy(indices).view(shape).movedim(0, self.weight.out_axis)

    def points(self) -> list[kmeans.Points | None]:
        """What is to be clustered in each group; None where all of it is zero."""
        values = self.split(self.weight.value)
        scores = [None] * self.groups if self.scores is None else self.split(self.scores)
        found: list[kmeans.Points | None] = []
        for row, score in zip(values, scores, strict=True):
            alive = row != 0
            some = None if score is None else score[alive]
            found.append(kmeans.Points.of(row[alive], some) if alive.any() else None)
        return found

    def mean_scores(self) -> list[float]:
        """Mean importance of what is not zero in each group; 0 where all is."""
        assert self.scores is not None
        values, scores = self.split(self.weight.value), self.split(self.scores)
        pairs = zip(values, scores, strict=True)
        return [
            float(s[v != 0].mean(dtype=np.float64)) if (v != 0).any() else 0.0 for v, s in pairs
        ]


def group_count(channels: int, size: int) -> int:
    """Number of equal groups whose size is nearest to ``size``, as a ratio; the larger of two."""
    sizes = [n for n in range(1, channels + 1) if channels % n == 0]
    best = min(sizes, key=lambda n: (abs(math.log(n / size)), -n))
    return channels // best
