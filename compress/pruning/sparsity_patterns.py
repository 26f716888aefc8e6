"""Which weights stay: pure functions from scores to masks, and the schedule of gradual pruning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def largest(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Masks, shaped as ``scores``, that are True for the ``count`` highest of all of them.

    Of equal scores those that come first stay, so that the count is exact and the choice repeats.
    """
    flat = torch.cat([score.reshape(-1) for score in scores])
    order = torch.sort(flat, descending=True, stable=True).indices
    mask = torch.zeros(flat.shape, dtype=torch.bool)
    mask[order[:count]] = True
    parts = torch.split(mask, [score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]


def n_of_m(scores: Tensor, n: int, m: int, axis: int) -> Tensor:
    """A mask with at most ``n`` True in each run of ``m`` neighbours along ``axis``: the highest.

    A last run that is shorter than ``m`` keeps ``n`` of what it has, as if zeros followed it. Of
    equal scores those that come first stay.
    """
    moved = scores.movedim(axis, -1)
    length = moved.shape[-1]
    padded = torch.nn.functional.pad(moved, (0, -length % m), value=-1.0)
    runs = padded.reshape(*moved.shape[:-1], -1, m)
    order = torch.sort(runs, dim=-1, descending=True, stable=True).indices
    mask = torch.zeros(runs.shape, dtype=torch.bool).scatter_(-1, order[..., :n], True)
    return mask.reshape(padded.shape)[..., :length].movedim(-1, axis)


def cubic_sparsity(step: float, start: float, end: float, initial: float, final: float) -> float:
    """Sparsity at ``step`` of a ramp from ``start`` to ``end``: fast at first, then ever slower.

    final + (initial - final) * (1 - (step - start) / (end - start))^3, and the ends outside of it
    (Zhu & Gupta, *To Prune, or Not to Prune*, arXiv 1710.01878).
    """
    if step >= end:
        return final
    left = 1.0 - max(step - start, 0.0) / (end - start)
    return final + (initial - final) * left**3
