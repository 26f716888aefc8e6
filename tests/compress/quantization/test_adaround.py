"""AdaRound: next to the weight, on the grid, nearly the best rounding, the same each time."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.errors import CompressError
from compress.quality import compare
from compress.quantization.adaround import adaround
from compress.quantize import Quantize
from compress.recipe import Compressed, apply
from compress.task import Sample, Task
from tests.compress.networks import NO_TARGET, seeded

Case = tuple[Tensor, Tensor, Tensor, Tensor]


def _case(seed: int, rows: int, columns: int, groups: int = 1) -> Case:
    """A weight, covariances of noisy inputs and with exact ones, and scales of 4 bits."""
    torch.manual_seed(seed)
    weight = torch.randn(groups, rows, columns)
    exact = torch.randn(groups, columns, columns) @ torch.randn(groups, columns, 256)
    noisy = exact + 0.05 * exact.std() * torch.randn_like(exact)
    covariance, cross = (left @ noisy.transpose(1, 2) / 256 for left in (noisy, exact))
    return weight, covariance, cross, weight.abs().amax(2, keepdim=True) / 7


def _error(weight: Tensor, made: Tensor, covariance: Tensor, cross: Tensor) -> float:
    """Of ``W x - V q``, but for a constant."""
    weight, made, covariance, cross = (v.double() for v in (weight, made, covariance, cross))
    return float(((made @ covariance - 2 * weight @ cross) * made).sum())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(1, 3), columns=st.integers(1, 12))
def test_each_weight_goes_to_a_step_next_to_it(seed: int, groups: int, columns: int) -> None:
    weight, covariance, cross, scale = _case(seed, 4, columns, groups)
    weight[torch.rand(weight.shape) < 0.3] = 0
    scale = weight.abs().amax(2, keepdim=True).clamp(min=1e-3) / 7
    made = adaround(weight, covariance, cross, scale, 7, iterations=60)
    steps = made / scale
    assert torch.allclose(steps, steps.round(), atol=1e-4)
    assert float(steps.abs().max()) < 7.001
    assert float(((made - weight) / scale).abs().max()) < 1.001
    assert bool((made[weight == 0] == 0).all())


def test_nearly_the_best_of_all_roundings() -> None:
    made = nearest = 0.0
    for seed in range(6):
        weight, covariance, cross, scale = _case(seed, 4, 6)
        own = adaround(weight, covariance, cross, scale, 7, damping=1e-6, iterations=200)
        floor = (weight / scale).floor()
        for row in range(4):
            part = (weight[:, [row]], covariance, cross)

            def error(value: Tensor, part: tuple[Tensor, ...] = part) -> float:
                return _error(part[0], value, part[1], part[2])

            near = (weight / scale).round()[:, [row]] * scale[:, [row]]
            roundings = [
                error((floor[:, [row]] + torch.tensor(up)).clamp(-7, 7) * scale[:, [row]])
                for up in itertools.product((0.0, 1.0), repeat=6)
            ]
            least = min(roundings)
            assert error(own[:, [row]]) <= error(near) + 1e-6
            made, nearest = made + error(own[:, [row]]) - least, nearest + error(near) - least
    assert made < 0.35 * nearest


def test_twice_the_same() -> None:
    case = _case(1, 5, 20)
    first, again = (adaround(*case, 7, iterations=50) for _ in range(2))
    assert torch.equal(first, again)


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2),
        nn.ReLU6(),
        nn.Conv2d(12, 12, 3, groups=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(108, 6),
    )


def _task() -> Task:
    """Smooth inputs, as photographs are: neighbours are alike."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(72, 3, 11, 11, generator=generator).cumsum(2).cumsum(3) / 10
    return Task(
        model=seeded(_network),
        example_inputs=(pictures[:1],),
        calibration=[(one[None],) for one in pictures[:40]],
        evaluation=[Sample((one[None],)) for one in pictures[40:]],
        metric=NO_TARGET,
    )


def _db(made: Compressed) -> float:
    targets: list[Tensor | None] = [None] * len(made.program_outputs)
    found = compare(made.baseline_outputs, made.program_outputs, NO_TARGET, targets).sqnr_db
    assert found is not None
    return found


@pytest.mark.parametrize("correct", [False, True])
def test_less_noise_than_rounding_to_nearest_on_other_inputs(correct: bool) -> None:
    task, keys = _task(), {"mode": "weight_only", "bits": 4}
    nearest, made = (
        apply(task, [Quantize(**keys, rounding=how, bias_correction=correct)])  # type: ignore[arg-type]
        for how in ("nearest", "adaround")
    )
    assert _db(made) > _db(nearest) + 3
    assert "3 layers rounded by what they compute on 40 samples" in made.ledger[-1].notes


def test_weight_only_rounding_needs_calibration_data() -> None:
    with pytest.raises(CompressError, match="rounding by what layers compute needs calibration"):
        apply(replace(_task(), calibration=[]), [Quantize(mode="weight_only", rounding="adaround")])
