"""Weights of 8 and 4 bits: what the program holds, against a computation without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compress.errors import CompressError
from compress.quantize import Quantize
from compress.recipe import apply
from tests.compress.networks import seeded, task_of


def _network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(64, 6, (3, 2)), nn.ReLU(), nn.Flatten(1), nn.Linear(6, 4))


def _program(**keys: Any) -> Any:
    task = task_of(seeded(_network), (1, 64, 3, 2))
    return apply(task, [Quantize(mode="weight_only", **keys)]).program


def _held(program: Any, name: str) -> Tensor:
    value: Tensor = program.state_dict[name]
    return value


def test_each_block_has_the_scale_of_its_largest_weight() -> None:
    program = _program(bits=4, group_size=32)
    weight = seeded(_network).get_parameter("0.weight").detach()
    steps, scales = (_held(program, f"_weight_0_int4{end}") for end in ("", "_scale"))
    assert scales.shape == (6, 2, 3, 2)
    assert int(steps.min()) >= -7
    assert int(steps.max()) <= 7
    for block in range(2):
        part = weight[:, 32 * block : 32 * block + 32]
        scale = scales[:, block : block + 1]
        # Stored with the eight bits of bfloat16, which XNNPACK keeps of them.
        assert torch.equal(scale, scale.bfloat16().float())
        assert torch.allclose(scale, part.abs().amax(1, keepdim=True) / 7, rtol=1 / 256)
        off = (steps[:, 32 * block : 32 * block + 32] * scale - part).abs()
        assert bool((off <= 0.53 * scale).all())


def test_channels_that_do_not_divide_into_groups_have_one_scale() -> None:
    scale = _held(_program(bits=4, group_size=32), "_weight_1_int4_scale")
    weight = seeded(_network).get_parameter("3.weight").detach()
    assert torch.allclose(scale, weight.abs().amax(1) / 7)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"mode": "static", "bits": 4}, "'bits' has no meaning in mode 'static'"),
        ({"mode": "weight_only", "group_size": 48}, "32, 64, 128 or 256"),
        ({"mode": "weight_only", "group_size": 32, "per_channel": False}, "needs per_channel"),
        ({"mode": "dynamic", "group_size": 32}, "needs bits: 4"),
    ],
)
def test_keys_that_do_not_fit(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Quantize(**keys)


def test_dynamic_layers_are_chosen_by_name() -> None:
    task = task_of(seeded(_network), (1, 64, 3, 2))
    with pytest.raises(CompressError):
        apply(task, [Quantize(mode="dynamic", layers=("0",))])
    made = apply(task, [Quantize(mode="dynamic", exclude=("3",))])
    assert not any("quantized" in str(node.target) for node in made.program.graph.nodes)
