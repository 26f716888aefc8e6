"""MACs against sums by hand, against torch's own counter, and through quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compress.capture import capture
from compress.judgement.macs import count_macs
from tests.compress.networks import Shared, Small, made_of, seeded


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def macs(model: nn.Module, *shapes: tuple[int, ...]) -> int | None:
    inputs = tuple(torch.randn(shape) for shape in shapes)
    return count_macs(capture(model.eval(), inputs)).total


def flops(model: nn.Module, *shapes: tuple[int, ...]) -> int:
    # Its counter does not know the fused attention of CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.eval()(*(torch.randn(shape) for shape in shapes))
    return counter.get_total_flops()


def test_by_hand() -> None:
    stem, depthwise, point, head = 8 * 144 * 27, 8 * 144 * 9, 8 * 144 * 8, 8 * 5
    assert macs(Small(), (1, 3, 12, 12)) == stem + depthwise + point + head
    # A shared layer works as often as it is used.
    assert macs(Shared(), (1, 3, 12, 12)) == 3 * (3 * 144 * 27)


@settings(max_examples=25, deadline=None)
@given(
    groups=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    batch=st.integers(1, 2),
    transposed=st.booleans(),
)
def test_convolutions_as_torch_counts_them(
    groups: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    dilation: int,
    padding: int,
    batch: int,
    transposed: bool,
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(
        groups * channels[0],
        groups * channels[1],
        kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
    )
    shape = (batch, groups * channels[0], 9, 8)
    if not transposed:
        assert 2 * (macs(layer, shape) or 0) == flops(layer, shape)
        return
    # Each input element meets (out / groups) * kernel weights.
    elements = batch * groups * channels[0] * 9 * 8
    assert macs(layer, shape) == elements * channels[1] * kernel[0] * kernel[1]


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (torch.matmul, [(3, 4), (4, 5)]),
        (torch.matmul, [(2, 1, 3, 4), (6, 4, 5)]),
        (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
        (torch.addmm, [(5,), (3, 4), (4, 5)]),
        (torch.baddbmm, [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
        (functional.linear, [(2, 7, 4), (5, 4), (5,)]),
        (functional.conv1d, [(1, 4, 9), (6, 2, 3), (6,), 2, 0, 1, 2]),
        (functional.conv3d, [(1, 2, 4, 4, 4), (3, 2, 2, 2, 2)]),
        (lambda a, b: torch.einsum("bte,fe->btf", a, b), [(2, 3, 4), (5, 4)]),
        (lambda a, b: torch.einsum("bhte,bhse->bhts", a, b), [(1, 2, 3, 4), (1, 2, 5, 4)]),
        (functional.scaled_dot_product_attention, [(1, 2, 5, 4), (1, 2, 7, 4), (1, 2, 7, 4)]),
        (lambda x: functional.max_pool2d(x.relu() + x * 2, 2, 2), [(1, 2, 4, 4)]),
    ],
)
def test_operators_as_torch_counts_them(function: Callable[..., Any], shapes: list[Any]) -> None:
    tensors = [shape for shape in shapes if isinstance(shape, tuple)]
    plain = [value for value in shapes if not isinstance(value, tuple)]
    model = Call(lambda *inputs: function(*inputs, *plain))
    assert 2 * (macs(model, *tensors) or 0) == flops(model, *tensors)


def test_products_with_vectors_and_sums_over_a_batch() -> None:
    assert macs(Call(torch.matmul), (2, 3, 4), (4,)) == 2 * 3 * 4
    assert macs(Call(torch.matmul), (4,), (4, 5)) == 4 * 5
    assert macs(Call(torch.matmul), (4,), (4,)) == 4
    assert macs(Call(torch.addbmm), (3, 5), (2, 3, 4), (2, 4, 5)) == 2 * 3 * 4 * 5
    values = [(1, 2, 5, 4), (1, 2, 7, 4), (1, 2, 7, 6)]
    assert macs(Call(functional.scaled_dot_product_attention), *values) == 2 * 5 * 7 * (4 + 6)


def test_recurrent_layers_and_attention_are_looked_into() -> None:
    steps, size, hidden = 7, 4, 5
    assert macs(nn.LSTM(size, hidden), (steps, 2, size)) == steps * 2 * 4 * hidden * (size + hidden)
    heads = nn.MultiheadAttention(6, 2, batch_first=True)
    attend = Call(lambda x: heads(x, x, x, need_weights=False)[0])
    projections, attention = 4 * 7 * 6 * 6, 2 * 7 * 7 * (3 + 3)
    assert macs(attend, (1, 7, 6)) == projections + attention


def test_what_nobody_can_count_is_named() -> None:
    program = capture(Call(torch.cdist).eval(), (torch.randn(3, 4), torch.randn(5, 4)))
    counted = count_macs(program)
    assert counted.total is None
    assert counted.unknown == ("aten._cdist_forward.default",)


def test_a_decomposed_program_counts_the_same() -> None:
    program = capture(seeded(Small), (torch.randn(1, 3, 12, 12),))
    assert count_macs(program.run_decompositions()) == count_macs(program)


def test_a_quantized_program_counts_like_the_float_one() -> None:
    made = made_of(Small)
    assert count_macs(made.program) == count_macs(made.baseline)
    assert count_macs(made.program).total
