"""int8: what the clamp repair buys, where the quantization steps stand, what is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import CompressError
from compress.quantize import Quantize
from compress.recipe import Compressed, apply
from tests.compress.networks import (
    Layer,
    Shared,
    Small,
    made_of,
    made_of_tokens,
    seeded,
    task_of,
)


def sqnr(made: Compressed) -> float:
    quality = made.ledger[-1].quality
    assert quality is not None
    assert quality.sqnr_db is not None
    return quality.sqnr_db


def name_of(node: Any) -> str:
    return str(node.target).split(".")[1].rstrip("_") if node.op == "call_function" else node.op


def around_clamps(made: Compressed) -> list[tuple[str, str, set[str]]]:
    """For each clamp: what stands before it, its own name, what stands behind it."""
    return [
        (name_of(node.args[0]), name_of(node), {name_of(user) for user in node.users})
        for node in made.program.graph.nodes
        if name_of(node) in {"hardtanh", "relu6", "clamp"}
    ]


class Relu6(Layer):
    def __init__(self) -> None:
        super().__init__(F.relu6)


def test_repair_beats_stock() -> None:
    stock, repaired = made_of(Relu6, fuse=False), made_of(Relu6)
    assert sqnr(repaired) >= sqnr(stock) + 6
    assert around_clamps(stock)[0][0] == "dequantize_per_tensor"
    assert around_clamps(repaired) == [("conv2d", "relu6", {"quantize_per_tensor"})]
    assert repaired.ledger[-1].notes[1].startswith("1 clamps")
    assert not any("clamps" in note for note in stock.ledger[-1].notes)


class Clamps(nn.Module):
    """Every way to write a clamp with two bounds, each behind a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(7))
        self.module = nn.ReLU6()

    def forward(self, x: Tensor) -> list[Tensor]:
        a, b, c, d, e, f, g = (layer(x) for layer in self.layers)
        return [
            self.module(a),
            F.relu6(b),
            F.relu6(c, inplace=True),
            F.hardtanh(d),
            torch.clamp(e, 0, 6),
            f.clamp(max=6.0, min=-0.5),
            g.clamp_(0, 6),
        ]


def test_every_way_to_write_a_clamp() -> None:
    made = made_of(Clamps)
    for before, name, behind in around_clamps(made):
        assert (before, behind) == ("conv2d", {"quantize_per_tensor"})
        assert name in {"hardtanh", "relu6"}  # XNNPACK's backend fuses no clamp
    assert len(around_clamps(made)) == 7
    bounds = [n.args[1:] for n in made.program.graph.nodes if name_of(n) == "hardtanh"]
    assert bounds.count((-0.5, 6.0)) == 1
    assert sqnr(made) > 30


class Others(nn.Module):
    """What must stay as the stock quantizer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(5))

    def forward(self, x: Tensor) -> list[Tensor]:
        a, b, c, d, e = (layer(x) for layer in self.layers)
        return [F.relu(a), b, F.relu6(c) + c, torch.clamp(d, min=-1.0), F.relu6(torch.sin(e))]


@pytest.mark.slow
def test_left_alone() -> None:
    stock, repaired = made_of(Others, fuse=False), made_of(Others)
    assert str(stock.program.graph) == str(repaired.program.graph)
    for left, right in zip(stock.program_outputs[0], repaired.program_outputs[0], strict=True):
        assert torch.equal(left, right)
    assert not any("clamps" in note for note in repaired.ledger[-1].notes)


class Producers(nn.Module):
    """A ReLU6 behind a conv1d, a linear layer and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.full = nn.Conv1d(3, 8, 3), nn.Linear(12, 8)
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        with torch.no_grad():
            for layer in (self.line, self.full, self.a):
                layer.weight[-1] *= 80

    def forward(self, x: Tensor) -> list[Tensor]:
        line = F.relu6(self.line(x.flatten(2)))
        return [line, F.relu6(self.full(x)), F.relu6(self.a(x) + self.b(x))]


@pytest.mark.slow
def test_other_producers() -> None:
    stock, repaired = made_of(Producers, fuse=False), made_of(Producers)
    before = [producer for producer, _, _ in around_clamps(repaired)]
    assert sorted(before) == ["add", "conv1d", "linear"]
    assert all(users == {"quantize_per_tensor"} for _, _, users in around_clamps(repaired))
    assert sqnr(repaired) > sqnr(stock) + 4


def test_weights_are_int8_and_per_channel_is_honoured() -> None:
    task = task_of(seeded(Small))
    for per_channel in (True, False):
        made = made_of(Small) if per_channel else apply(task, [Quantize(per_channel=False)])
        names = [str(n.target) for n in made.program.graph.nodes]
        assert any("dequantize_per_channel" in name for name in names) == per_channel
        held = {**made.program.state_dict, **made.program.constants}.values()
        assert sorted(t.numel() for t in held if t.dtype == torch.int8) == [40, 64, 72, 216]


def test_no_calibration_data() -> None:
    with pytest.raises(CompressError, match=r"recipe step 1 \(quantize\): .*calibration data"):
        apply(replace(task_of(seeded(Small)), calibration=()), [Quantize()])


@pytest.mark.slow
def test_calibration_samples_are_limited() -> None:
    task = task_of(seeded(Small))
    spoilt = [*task.calibration[:2], *((x * 1000,) for (x,) in task.calibration[2:])]
    few = apply(replace(task, calibration=spoilt), [Quantize(calibration_samples=2)])
    assert few.ledger[-1].notes[0] == "calibrated on 2 samples"
    # With the spoilt samples the input range would be a thousand times as wide, the output noise.
    assert sqnr(few) > 15


def test_the_users_module_is_untouched() -> None:
    model = seeded(Small)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = apply(task_of(model), [Quantize()])
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert torch.equal(model(*task_of(model).evaluation[0].inputs), made.baseline_outputs[0][0])


def _int8(made: Compressed) -> int:
    held: dict[int, Any] = {}
    for tensor in {**made.program.state_dict, **made.program.constants}.values():
        if tensor.dtype == torch.int8 and tensor.ndim == 4:
            held[tensor.data_ptr()] = tensor
    return sum(tensor.numel() for tensor in held.values())


def test_a_shared_weight_is_quantized_for_every_use_and_held_once() -> None:
    made = made_of(Shared)
    convolutions = [n for n in made.program.graph.nodes if "conv2d" in str(n.target)]
    assert len(convolutions) == 3
    assert all("dequantize_per_channel" in str(n.args[1].target) for n in convolutions)
    # Besides the shared weight there is the factor 0.5 (a scalar) as an int8 constant.
    assert _int8(made) == 3 * 3 * 9
    assert sqnr(made) > 25


def test_integer_inputs_stay_integers() -> None:
    made = made_of_tokens()
    assert sqnr(made) > 15
    placeholder = next(n for n in made.program.graph.nodes if n.name == "tokens")
    assert placeholder.meta["val"].dtype == torch.int64
    assert {name_of(user) for user in placeholder.users} == {"embedding"}
