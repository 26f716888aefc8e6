"""Static int8 with its repairs, and the other modes: nothing bad passes unseen."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn

from compress.capture import forward_of
from compress.errors import CompressError
from compress.journal import Run
from compress.quantization.float_graph import float_graph
from compress.quantization.lockstep import layers_of, walk
from compress.quantization.mixed import MixedPrecision, choose, costs, knapsack
from compress.quantization.sqnr_gate import Gate, Measured, chosen
from compress.quantization.static_int8 import static_int8
from compress.quantize import Quantize
from compress.recipe import Compressed, State, apply
from compress.task import Task
from tests.compress.networks import Layer, Small, images, seeded, task_of


class Rough(nn.Module):
    """Pruned, grouped, depthwise and attention layers, branches, a frozen and a permuted weight.

    The second layer has a few weights far above all others: the one that int8 hurts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, bias=False)
        self.bad = nn.Conv2d(8, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.depth = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.bad.weight[:, 0] *= 300
            self.bad.weight[:, 0, 0, 0] += 20
            self.stem.weight *= torch.linspace(0.001, 1, 8).view(-1, 1, 1, 1)
            self.grouped.weight[torch.rand(self.grouped.weight.shape) < 0.6] = 0
            permuted = self.head.weight.detach().T.contiguous().T
        self.head.weight = nn.Parameter(permuted)
        self.depth.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bad(F.hardswish(self.stem(x))))
        x = self.grouped(x)
        x = torch.cat([x[:, :4], F.silu(self.depth(x))[:, 4:]], 1).flatten(2).transpose(1, 2)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x.mean(1))


def graph_of(task: Task) -> Any:
    return float_graph(State(task, seeded(Rough), None))


@functools.cache
def rough() -> Task:
    return task_of(seeded(Rough))


@functools.cache
def made(**keys: Any) -> Compressed:
    return apply(rough(), [Quantize(**keys)])


def db(result: Compressed) -> float:
    quality = result.ledger[-1].quality
    assert quality is not None
    assert quality.sqnr_db is not None
    return quality.sqnr_db


def test_the_walk_computes_what_the_program_computes() -> None:
    """Notes, gate and rounding all rest on the walk: hold it to PT2E's own conversion."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    task = rough()
    config = Quantize(rounding="gptq", bias_correction=True, activation_range="mse")
    prepared, _ = static_int8(graph_of(task), task.calibration, config, Run())
    done = walk(prepared, task.calibration)
    layers: dict[str, Any] = dict(layers_of(prepared))
    quantized = [name for name, node in layers.items() if node.args[1].op == "call_module"]
    converted = convert_pt2e(prepared)  # changes the module
    for inputs, simulated in zip(task.calibration, done.quantized, strict=True):
        (left,) = simulated if isinstance(simulated, tuple | list) else (simulated,)
        torch.testing.assert_close(left, torch.utils._pytree.tree_leaves(converted(*inputs))[0])
    for row in done.noise:
        assert row.signal > 0
    first = done.noise[0]
    assert first.alone == pytest.approx(first.accumulated)
    assert sorted(row.name for row in done.noise) == sorted(quantized)
    assert {"stem", "bad", "grouped", "depth", "head"} <= set(quantized)


def test_rounding_helps_and_zeros_stay() -> None:
    plain = made()
    rounded = made(rounding="gptq", bias_correction=True, activation_range="mse")
    assert db(rounded) > db(plain) + 1
    pruned = int((seeded(Rough).grouped.weight == 0).sum())
    for result in (plain, rounded):
        held = [t for t in result.program.state_dict.values() if t.dtype == torch.int8]
        held += [t for t in result.program.constants.values() if t.dtype == torch.int8]
        (weight,) = [t for t in held if list(t.shape) == [8, 4, 3, 3]]
        assert bool((weight[seeded(Rough).grouped.weight == 0] == 0).all())
        assert int((weight == 0).sum()) < pruned + 40


def test_weakest_layers_are_named() -> None:
    (note,) = [note for note in made().ledger[-1].notes if note.startswith("SQNR")]
    assert note.split("): ")[1].startswith("bad ")


def test_the_gate_refuses_and_names_layers_and_figures() -> None:
    with pytest.raises(CompressError) as caught:
        apply(rough(), [Quantize(gate=Gate(min_sqnr_db=90.0))])
    text = str(caught.value)
    assert text.startswith("recipe step 1 (quantize): the quantized network is too far")
    assert "dB SQNR of 90.0" in text
    assert "bad " in text
    assert "\n" not in text


@pytest.mark.slow
def test_the_gate_keeps_the_guilty_layer_in_float() -> None:
    gate = Gate(min_layer_sqnr_db=30.0, repair=("equalize", "keep_float"), max_float_layers=3)
    result = made(gate=gate)
    (note,) = [n for n in result.ledger[-1].notes if n.startswith("kept in float")]
    assert "bad" in note
    assert db(result) > db(made()) + 1
    weights = [t for t in result.program.state_dict.values() if list(t.shape) == [8, 8, 1, 1]]
    assert [w.dtype for w in weights] == [torch.float32]


@pytest.mark.parametrize(
    "keys",
    [
        {"mode": "fp16", "rounding": "gptq"},
        {"mode": "fp16", "per_channel": False},
        {"mode": "static", "compute": "fp32"},
        {"mode": "qat"},
        {"mode": "weight_only", "gate": {"min_sqnr_db": 3}},
        {"percentile": 99.0},
        {"gate": {"repair": ["retry"]}},
        {"mode": "int3"},
    ],
    ids=str,
)
def test_keys_without_meaning_in_a_mode_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Quantize.model_validate(keys)


def test_a_saved_configuration_is_read_again() -> None:
    for keys in ({}, {"mode": "fp16"}, {"mode": "qat", "fine_tune": {}}, {"rounding": "gptq"}):
        config = Quantize.model_validate(keys)
        assert Quantize.model_validate_json(config.model_dump_json()) == config


def test_names_of_nothing_and_nan() -> None:
    with pytest.raises(CompressError, match=r"exclude: no layer's name matches 'haed'.*head"):
        apply(rough(), [Quantize(exclude=("haed",))])
    model = seeded(Small)
    with torch.no_grad():
        model.point.weight[3, 1] = float("nan")
    with pytest.raises(CompressError, match=r"'point\.weight' holds NaN"):
        float_graph(State(task_of(model), model, None))  # every mode starts with it
    assert chosen(["a.x", "a.y", "b"], ["a.*"], ["*.y"]) == (["a.x"], ["a.y", "b"])


def test_a_step_behind_it_that_needs_weights_is_refused() -> None:
    with pytest.raises(CompressError, match=r"step 2 \(quantize\): .*quantized already"):
        apply(task_of(seeded(Small)), [Quantize(mode="weight_only"), Quantize()])


def test_calibration_of_another_shape_or_none() -> None:
    from compress.errors import ConfigError
    from compress.task import check

    task = task_of(seeded(Small))
    with pytest.raises(ConfigError, match=r"task\.calibration\[8\]: tensor 0 is \[1, 3, 13, 12\]"):
        check(replace(task, calibration=[*task.calibration, (torch.zeros(1, 3, 13, 12),)]))
    with pytest.raises(CompressError, match="needs calibration data"):
        apply(replace(task, calibration=()), [Quantize(rounding="gptq")])


def test_costs_by_hand_and_sensitivity_remembered(tmp_path: Path) -> None:
    task, said = rough(), []
    graph = graph_of(task)
    macs, extra = costs(graph)
    assert macs["stem"] == 8 * 3 * 9 * 10 * 10
    assert macs["grouped"] == 8 * 4 * 9 * 8 * 8
    assert macs["head"] == 8 * 5
    assert extra["bad"] == 3 * 64
    run = Run(folder=tmp_path, progress=said.append)
    config = MixedPrecision(max_extra_bytes=3 * 64)
    first, notes = choose(graph, task.calibration, config, run, per_channel=True)
    assert first == ["bad"]
    assert notes[0].startswith("1 of ")
    before = {name: value.clone() for name, value in graph.named_parameters()}
    (kept,) = tmp_path.glob("sensitivity-*.json")
    noise = run.remember(kept.stem, dict)
    kept.unlink()
    run.remember(kept.stem, lambda: {**noise, "bad": 0.0})
    other, _ = choose(graph, task.calibration, config, run, per_channel=True)
    assert other != first  # from the journal, not measured again
    assert all(torch.equal(before[name], value) for name, value in graph.named_parameters())
    with pytest.raises(CompressError, match="exactly one budget"):
        choose(graph, task.calibration, MixedPrecision(), run, per_channel=True)


def test_mixed_precision_in_a_recipe() -> None:
    result = made(mixed=MixedPrecision(max_float_macs=0.3))
    assert db(result) > db(made()) + 1
    assert any("stay float (bad" in note for note in result.ledger[-1].notes)


def test_knapsack_is_within_budget_and_at_least_half_as_good_as_the_best() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        value = {str(i): float(v) for i, v in enumerate(torch.rand(8, generator=generator))}
        cost = {str(i): float(v) for i, v in enumerate(torch.rand(8, generator=generator))}
        sets = [[str(i) for i in range(8) if mask >> i & 1] for mask in range(256)]
        fitting = [s for s in sets if sum(cost[n] for n in s) <= 1.0]
        best = max(sum(value[n] for n in s) for s in fitting)
        taken = knapsack(value, cost, 1.0)
        assert sum(cost[n] for n in taken) <= 1.0
        assert sum(value[n] for n in taken) >= best / 2
    assert knapsack({"a": 1.0}, {"a": 2.0}, 1.0) == []


class Curve(Layer):
    """A convolution whose output reaches far below where hard-swish is 0."""

    def __init__(self) -> None:
        super().__init__(F.hardswish)
        with torch.no_grad():
            self.conv.bias[:7] -= 4


def test_ranges_look_through_a_curve() -> None:
    task = task_of(seeded(Curve))
    aware, stock = (apply(task, [Quantize(fuse_clamps=fuse)]) for fuse in (True, False))
    assert db(aware) > db(stock) + 1
    assert "1 ranges chosen by the error behind a curve" in aware.ledger[-1].notes


def test_measured_of_equal_networks_is_infinite() -> None:
    task = rough()
    config = Quantize(exclude=("*",))
    prepared, notes = static_int8(graph_of(task), task.calibration, config, Run())
    assert "no layer was quantized" in notes
    assert Measured(walk(prepared, images(2, 3))).rows == []


def test_other_modes_are_near_and_small() -> None:
    task = task_of(seeded(Small))
    for keys, least, bytes_below in (
        ({"mode": "weight_only"}, 35, 0.5),
        ({"mode": "weight_only", "per_channel": False}, 30, 0.5),
        ({"mode": "dynamic"}, 35, 1.01),
        ({"mode": "fp16"}, 55, 0.55),
        ({"mode": "fp16", "compute": "fp32"}, 60, 0.55),
    ):
        result = apply(task, [Quantize.model_validate(keys)])
        assert db(result) > least, keys
        row, whole = result.ledger[-1], result.ledger[0]
        assert row.program_bytes < bytes_below * whole.program_bytes + 300, keys
        outputs = forward_of(result.program)(task.evaluation[0].inputs)
        assert outputs[0].dtype == torch.float32


def test_beyond_half_precision() -> None:
    model = seeded(Small)
    with torch.no_grad():
        model.head.weight[0, 0] = 1e5
    with pytest.raises(CompressError, match=r"'head.weight' reaches 1e\+05, beyond float16"):
        apply(task_of(model), [Quantize(mode="fp16")])
    with pytest.raises(CompressError, match="no linear layer"):
        apply(task_of(seeded(Curve)), [Quantize(mode="dynamic")])
