"""Which width each weight's indices get, when all weights share one budget (``mean_bits``)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from compress import constraints
from compress.quality import flat_outputs
from compress.sharing import kmeans
from compress.sharing.bit_allocation import Choice, allocate
from compress.sharing.plan import Plan
from compress.task import Inputs

WIDTHS = (1, 2, 3, 4, 6, 8)
"""Bits among which ``mean_bits`` chooses: those that Core ML has palettes for."""
_TRIED = 16
"""Values of the rough table that a weight's noise is measured with."""


def allocate_widths(
    plans: Sequence[Plan],
    mean_bits: float,
    half: bool,
    noise: Sequence[float] | None = None,
) -> str:
    """Set the number of values of each plan; the line for the notes says how often which width.

    Without ``noise`` a weight's error is the squared error of its elements, each times its score
    (Choi et al., arXiv 1612.01543); with it, the measured :func:`noise_alone` for each square of
    error.
    """
    choices = []
    for index, plan in enumerate(plans):
        counts = [plan.values_of(bits) for bits in WIDTHS]
        errors = _errors(plan, counts, 1.0 if noise is None else noise[index])
        layer: list[Choice] = []
        for bits, count in zip(WIDTHS, counts, strict=True):
            size = plan.weight.value.numel() * bits + plan.groups * count * (16 if half else 32)
            layer.append((float(size), errors[count]))
        choices.append(layer)
    budget = mean_bits * sum(plan.weight.value.numel() for plan in plans)
    chosen = [WIDTHS[index] for index in allocate(choices, budget)]
    for plan, bits in zip(plans, chosen, strict=True):
        plan.values = plan.values_of(bits)
    often = ", ".join(f"{chosen.count(b)} of {b} bits" for b in WIDTHS if b in chosen)
    return f"widths for {mean_bits:g} bits a weight: {often}"


def _errors(plan: Plan, counts: Sequence[int], rate: float) -> dict[int, float]:
    errors = dict.fromkeys(counts, 0.0)
    means = [1.0] * plan.groups if plan.scores is None else plan.mean_scores()
    for points, mean in zip(plan.points(), means, strict=True):
        if points is None:
            continue
        found = _quick(points, counts)
        for count in counts:
            # Points carry weights relative to their group's mean; layers compete in absolute.
            errors[count] += rate * mean * kmeans.distortion(points, found[count])
    return errors


def _quick(points: kmeans.Points, counts: Sequence[int]) -> dict[int, kmeans.Floats]:
    """Centroids that are good enough to compare widths by."""
    few = [count for count in counts if count < 32]
    found = kmeans.optima(points, few, limit=512)
    for count in counts:
        if count not in found:
            found[count] = kmeans.kmeans(points, count, "density")
    return found


def noise_alone(model: nn.Module, plans: Sequence[Plan], inputs: Sequence[Inputs]) -> list[float]:
    """What a unit of squared error in each weight does to the outputs of ``model``.

    One weight at a time is replaced by a table of 16 values for each group. Its figure is the
    energy of the outputs' difference, as a share of the outputs' own, divided by the squared error
    of its elements: as long as errors are small, the outputs' noise at another width follows. (As
    the measured sensitivities of mixed precision; layers are taken for independent.) 0 for a weight
    that 16 values hold exactly.
    """
    plain = constraints.materialize(copy.deepcopy(model)).eval().requires_grad_(False)
    with torch.no_grad():
        exact = [_flat(plain, one) for one in inputs]
        signal = sum(float(value.square().sum()) for value in exact)
        found = []
        for plan in plans:
            parameter = plain.get_parameter(plan.weight.full_name)
            before = parameter.detach().clone()
            parameter.copy_(_rough(plan))
            error = float((parameter - before).double().square().sum())
            noise = 0.0
            if error > 0:
                pairs = zip(inputs, exact, strict=True)
                noise = sum(float((_flat(plain, x) - wanted).square().sum()) for x, wanted in pairs)
            parameter.copy_(before)
            found.append(noise / error / max(signal, 1e-30) if error > 0 else 0.0)
    return found


def _rough(plan: Plan) -> Tensor:
    """The weight with at most 16 values in each group, zeros kept."""
    rows = plan.split(plan.weight.value).copy()
    for row, points in zip(rows, plan.points(), strict=True):
        if points is not None:
            table = kmeans.kmeans(points, _TRIED, "density")
            alive = row != 0
            row[alive] = table[kmeans.nearest(row[alive].astype(float), table)]
    return plan.join(rows)


def _flat(model: nn.Module, inputs: Inputs) -> Tensor:
    outputs = flat_outputs(model(*inputs))
    return torch.cat([value.double().reshape(-1) for value in outputs])
