"""Rounding of biases and weights to few bits of mantissa."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress import constraints
from compress.errors import CompressError
from compress.recipe import State
from compress.round_floats import RoundFloats, nearest, round_floats
from compress.samples import Sample
from compress.task import Task

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_seven_bits_are_bfloat16(numbers: list[float]) -> None:
    values = torch.tensor(numbers)
    expected = values.bfloat16().float()
    finite = torch.isfinite(expected)
    assert torch.equal(nearest(values, 7)[finite], expected[finite])


@given(FLOATS, st.integers(1, 22))
def test_no_number_of_that_precision_is_nearer(number: float, bits: int) -> None:
    value = torch.tensor(number).item()
    near = nearest(torch.tensor([value]), bits).item()
    assert math.copysign(1, near) == math.copysign(1, value)
    if value == 0:
        return
    # A mantissa is in [0.5, 1) here: one bit is implied.
    mantissa, _ = math.frexp(near)
    assert math.ldexp(mantissa, bits + 1).is_integer()
    step = math.ldexp(1, math.frexp(value)[1] - bits - 1)
    largest = math.ldexp(1 - math.ldexp(1, -bits - 1), 128)
    assert abs(near - value) <= step / 2 or abs(near) == largest


def test_what_is_not_a_number_stays() -> None:
    values = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 3.4e38])
    near = nearest(values, 3)
    assert near[:2].tolist() == [math.inf, -math.inf]
    assert near[2].isnan()
    assert torch.signbit(near[3:5]).tolist() == [False, True]
    assert math.isfinite(near[5].item())


def state(model: nn.Module) -> State:
    sample = Sample((torch.zeros(1, 4),), torch.zeros(1, dtype=torch.long))
    return State(Task(model, sample.inputs, evaluation=[sample]), model, None)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).eval()


def test_biases_and_norms_are_rounded_and_weights_are_not() -> None:
    model = network()
    nn.init.normal_(model[1].weight)
    before = {name: value.clone() for name, value in model.named_parameters()}
    after = round_floats(state(model), RoundFloats(mantissa_bits=3, exclude=("2",)))
    for name, value in model.named_parameters():
        changed = name in {"0.bias", "1.weight", "1.bias"}
        assert torch.equal(value, nearest(before[name], 3) if changed else before[name]), name
    assert not torch.equal(before["0.bias"], model[0].bias)
    assert after.notes[0].startswith("18 numbers rounded to 3 bits of mantissa")


def test_constrained_weights_are_left_alone() -> None:
    model = network()
    constraints.apply_mask(model[0], "weight", torch.rand(6, 4) > 0.5)
    before = model[0].weight.detach().clone()
    round_floats(state(model), RoundFloats(mantissa_bits=1, what="all"))
    assert torch.equal(model[0].weight, before)
    assert torch.equal(model[2].weight, nearest(model[2].weight.detach(), 1))


def test_nothing_to_round_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 6, bias=False))
    with pytest.raises(CompressError, match="nothing to round"):
        round_floats(state(model), RoundFloats())


def test_mistyped_layer_is_refused() -> None:
    with pytest.raises(CompressError, match="matches 'head'"):
        round_floats(state(network()), RoundFloats(layers=("head",)))
