"""int8: what the clamp repair buys, where the quantization steps stand, what is left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import CompressError
from compress.quantize import Quantize
from compress.recipe import Compressed, apply
from tests.compress.networks import Layer, Shared, Small, seeded, task_of, token_task


def made_by(after: Callable[[Tensor], Tensor], fuse: bool = True) -> Compressed:
    model = seeded(functools.partial(Layer, after))
    return apply(task_of(model), [Quantize(fuse_clamps=fuse)])


def sqnr(made: Compressed) -> float:
    quality = made.ledger[-1].quality
    assert quality is not None
    assert quality.sqnr_db is not None
    return quality.sqnr_db


def calls(made: Compressed) -> list[str]:
    """Operators on the way from input to output; weights' own dequantization left out."""
    names = [str(n.target) for n in made.program.graph.nodes if n.op == "call_function"]
    short = {"quantize_per_tensor": "q", "dequantize_per_tensor": "dq"}
    return [short.get(n.split(".")[1], n.split(".")[1]) for n in names if "per_channel" not in n]


def relu6_module(x: Tensor) -> Tensor:
    return nn.ReLU6()(x)


CLAMPS = {
    "ReLU6": relu6_module,
    "relu6": F.relu6,
    "relu6 in place": functools.partial(F.relu6, inplace=True),
    "hardtanh": F.hardtanh,
    "clamp": lambda x: torch.clamp(x, 0, 6),
    "clamp with keywords": lambda x: x.clamp(min=0.0, max=6.0),
    "clamp in place": lambda x: x.clamp_(0, 6),
}


@pytest.mark.parametrize("after", CLAMPS.values(), ids=CLAMPS.keys())
def test_repair_beats_stock(after: Callable[[Tensor], Tensor]) -> None:
    stock, repaired = made_by(after, fuse=False), made_by(after)
    assert sqnr(repaired) >= sqnr(stock) + 6
    path = calls(repaired)
    assert path[:2] == ["q", "dq"]
    assert path[2] == "conv2d"
    assert path[3] in {"hardtanh", "hardtanh_", "relu6", "relu6_"}
    assert path[4:] == ["q", "dq"]
    assert repaired.ledger[-1].notes[1].startswith("1 clamps")


def test_repair_in_a_small_network() -> None:
    task = task_of(seeded(Small))
    stock, repaired = (apply(task, [Quantize(fuse_clamps=fuse)]) for fuse in (False, True))
    assert sqnr(repaired) >= sqnr(stock) + 3
    assert "2 clamps" in repaired.ledger[-1].notes[1]


@pytest.mark.parametrize(
    "after",
    [F.relu, nn.Identity(), lambda x: F.relu6(x) + x, lambda x: torch.clamp(x, min=-1.0)],
    ids=["relu", "no activation", "two users", "one bound"],
)
def test_left_alone(after: Callable[[Tensor], Tensor]) -> None:
    stock, repaired = made_by(after, fuse=False), made_by(after)
    assert calls(stock) == calls(repaired)
    assert torch.equal(stock.program_outputs[0][0], repaired.program_outputs[0][0])
    assert len(repaired.ledger[-1].notes) == 1


class Producers(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.line, self.full = nn.Conv1d(12, 8, 3), nn.Linear(12, 8)
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter *= 20

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "conv1d":
            return F.relu6(self.line(x.flatten(1, 2)[:, :12]))
        if self.kind == "linear":
            return F.relu6(self.full(x))
        return F.relu6(self.a(x) + self.b(x))


@pytest.mark.parametrize("kind", ["conv1d", "linear", "add"])
def test_other_producers(kind: str) -> None:
    task = task_of(seeded(functools.partial(Producers, kind)))
    stock, repaired = (apply(task, [Quantize(fuse_clamps=fuse)]) for fuse in (False, True))
    assert sqnr(repaired) > sqnr(stock) + 3
    path = calls(repaired)
    at = next(index for index, name in enumerate(path) if name in {"hardtanh", "relu6"})
    assert path[at - 1] == kind.replace("add", "add")
    assert path[at + 1] == "q"


def test_weights_are_int8_and_per_channel_is_honoured() -> None:
    for per_channel in (True, False):
        made = apply(task_of(seeded(Small)), [Quantize(per_channel=per_channel)])
        names = [str(n.target) for n in made.program.graph.nodes]
        assert any("dequantize_per_channel" in name for name in names) == per_channel
        held = {**made.program.state_dict, **made.program.constants}.values()
        assert sorted(t.numel() for t in held if t.dtype == torch.int8) == [40, 64, 72, 216]


def test_no_calibration_data() -> None:
    with pytest.raises(CompressError, match=r"recipe step 1 \(quantize\): .*calibration data"):
        apply(replace(task_of(seeded(Small)), calibration=()), [Quantize()])


def test_calibration_samples_are_limited() -> None:
    task = task_of(seeded(Small))
    spoilt = [*task.calibration[:2], *((x * 1000,) for (x,) in task.calibration[2:])]
    few = apply(replace(task, calibration=spoilt), [Quantize(calibration_samples=2)])
    same = apply(replace(task, calibration=task.calibration[:2]), [Quantize()])
    assert few.ledger[-1].notes[0] == "calibrated on 2 samples"
    assert torch.equal(few.program_outputs[0][0], same.program_outputs[0][0])
    everything = apply(replace(task, calibration=spoilt), [Quantize()])
    assert sqnr(everything) < sqnr(few) - 20


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
    made = apply(task_of(seeded(Shared)), [Quantize()])
    convolutions = [n for n in made.program.graph.nodes if "conv2d" in str(n.target)]
    assert len(convolutions) == 3
    assert all("dequantize_per_channel" in str(n.args[1].target) for n in convolutions)
    # Besides the shared weight there is the factor 0.5 (a scalar) as an int8 constant.
    assert _int8(made) == 3 * 3 * 9
    assert sqnr(made) > 25


def test_integer_inputs_stay_integers() -> None:
    made = apply(token_task(), [Quantize()])
    assert sqnr(made) > 25
