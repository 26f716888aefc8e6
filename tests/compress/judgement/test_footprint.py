"""Bytes, non-zeros and live activations against sums by hand."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers quantized_decomposed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.capture import capture, weights
from compress.judgement import footprint as subject
from compress.judgement.activations import peak_activation_bytes
from compress.judgement.footprint import count_nonzeros, footprint
from tests.compress.judgement.test_macs import Call
from tests.compress.networks import Small, made_of, seeded


def peak(model: nn.Module, *shapes: tuple[int, ...]) -> int | None:
    return peak_activation_bytes(capture(model.eval(), tuple(map(torch.randn, shapes))))


def perceptron(widths: list[int]) -> nn.Module:
    layers: list[nn.Module] = []
    for here, there in itertools.pairwise(widths):
        layers += [nn.Linear(here, there), nn.ReLU()]
    return nn.Sequential(*layers)


@settings(max_examples=20, deadline=None)
@given(widths=st.lists(st.integers(1, 40), min_size=2, max_size=6))
def test_a_perceptron_by_hand(widths: list[int]) -> None:
    model = perceptron(widths).eval()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.fill_(index % 2)  # All biases 1, all weights 0.
    size = footprint(capture(model, (torch.randn(1, widths[0]),)))
    pairs = list(itertools.pairwise(widths))
    assert size.parameters == sum(a * b + b for a, b in pairs)
    assert size.nonzeros == sum(widths[1:])
    assert size.macs == sum(a * b for a, b in pairs)
    assert size.disk_bytes == 4 * size.parameters
    # A layer's input and output are alive together; ReLU works in place.
    assert size.ram_bytes == size.disk_bytes + 4 * max(a + b for a, b in pairs)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # x lives until the end of the addition, beside both of its operands.
        (lambda x: torch.exp(x) + x, 3 * 32),
        # sin is read by its successor only, so that at most two are alive.
        (lambda x: torch.exp(torch.cos(torch.sin(x))), 2 * 32),
        # Views are no copies, and keep what they look at alive.
        (lambda x: torch.exp(x.view(2, 4).transpose(0, 1)[1:]), 32 + 24),
        (lambda x: torch.sin(x).split(4, dim=1)[0] + 1, 2 * 32),
        # Both outputs are alive at the end, the input is not.
        (lambda x: (torch.cat([x, x, x], 1), torch.sin(x)), 32 + 96 + 32),
        # In place behind its own producer, never on the caller's input.
        (lambda x: torch.sin(x).relu().clamp(0, 1), 2 * 32),
        (lambda x: x.relu(), 2 * 32),
        # Another dtype is a copy, the same one is none.
        (lambda x: x.to(torch.float64) + 1, 64 + 64),
        (lambda x: x.to(torch.float32) + 1, 32 + 32),
    ],
)
def test_liveness(function: Callable[[Tensor], Tensor], expected: int) -> None:
    assert peak(Call(function), (1, 8)) == expected


def test_a_value_with_two_readers_is_not_changed_in_place() -> None:
    def two(x: Tensor) -> Tensor:
        y = torch.sin(x)
        return y.relu() + y

    # sin, relu and their sum; x is dead by then.
    assert peak(Call(two), (1, 8)) == 3 * 32


def test_what_depends_on_weights_alone_is_no_activation() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(100, 8))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight.exp())

    assert peak(Scaled(), (1, 8)) == 4 * (8 + 100)


def test_a_quantized_program_keeps_its_activations_in_int8() -> None:
    made = made_of(Small)
    before, after = footprint(made.baseline), footprint(made.program)
    assert before.ram_bytes is not None
    assert after.ram_bytes is not None
    # The residual branch: three tensors of 8 x 12 x 12 at the addition.
    assert before.ram_bytes - before.disk_bytes == 3 * 4 * 8 * 144
    # The same in int8; at the first convolution the input is alive as int8 only.
    assert after.ram_bytes - after.disk_bytes == 3 * 8 * 144
    assert after.disk_bytes < before.disk_bytes / 2
    assert after.parameters == made.ledger[-1].parameters


def test_deflated_is_one_zlib_stream() -> None:
    program = capture(seeded(Small), (torch.randn(1, 3, 12, 12),))
    content = b"".join(w.tensor.detach().numpy().tobytes() for w in weights(program))
    assert footprint(program).deflated_bytes == len(zlib.compress(content, 6))


def test_packed_bytes_come_from_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    class Container:
        @staticmethod
        def packed_size(tensors: dict[str, Tensor]) -> int:
            return 7 + sum(tensor.numel() for tensor in tensors.values())

    monkeypatch.setattr(subject.importlib, "import_module", lambda name: Container)
    program = capture(nn.Linear(3, 2).eval(), (torch.randn(1, 3),))
    assert (footprint(program).packed_bytes, footprint(program).packed_reason) == (7 + 8, "")


class Dequantized(nn.Module):
    def __init__(self, weight: Tensor, zero: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scale", torch.full(zero.shape, 0.5))
        self.register_buffer("zero", zero)

    def forward(self, x: Tensor) -> Tensor:
        operator = torch.ops.quantized_decomposed.dequantize_per_channel.default
        weight = operator(self.weight, self.scale, self.zero, 0, -128, 127, self.weight.dtype)
        return nn.functional.linear(x, weight)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_nonzeros_are_real_values(data: st.DataObject) -> None:
    numbers = st.integers(-3, 3)
    weight = torch.tensor(
        data.draw(st.lists(st.lists(numbers, min_size=5, max_size=5), min_size=2, max_size=4)),
        dtype=torch.int8,
    )
    zero = torch.tensor(data.draw(st.lists(numbers, min_size=len(weight), max_size=len(weight))))
    program = capture(Dequantized(weight, zero).eval(), (torch.randn(1, 5),))
    (found,) = [w for w in weights(program) if w.name == "weight"]
    real = (weight.long() - zero[:, None]) * 0.5
    assert count_nonzeros(found, program) == int((real != 0).sum())


def test_blocks_with_zero_points() -> None:
    zero = torch.tensor([[1, 0], [0, 2]])
    assert subject._spread(zero, [1, 2], torch.Size([2, 4])).tolist() == [
        [1, 1, 0, 0],
        [0, 0, 2, 2],
    ]
    assert subject._spread(zero, [1, 3], torch.Size([2, 9])) is None
