"""The step meets its budget, touches what it may, and the narrower model still works."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress import constraints
from compress.blocks import PruneBlocks, Skip, prune_blocks
from compress.capture import capture, forward_of
from compress.channels import PruneChannels, Slimming, prune_channels
from compress.errors import CompressError
from compress.fine_tune import FineTuning
from compress.journal import Run
from compress.ledger import Cost
from compress.recipe import State, apply
from compress.task import Task
from compress.training import Training, evaluate, fit
from tests.compress.networks import seeded
from tests.compress.structures import (
    SHAPE,
    MobileNet,
    ResNet,
    Slim,
    Transformer,
    image_task,
    made,
    probe,
)

EXAMPLE = (torch.zeros(SHAPE),)


def step(model: nn.Module, *, seed: int = 0, task: Task | None = None, **keys: Any) -> State:
    config = PruneChannels.model_validate({"criterion": "l1", "round_to": 1} | keys)
    state = State(task or image_task(model), copy.deepcopy(model), None, run=Run(seed))
    return prune_channels(state, config)


def macs(model: nn.Module) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*EXAMPLE)
    return counter.get_total_flops() // 2


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def same(left: nn.Module, right: nn.Module) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("make", "criterion"),
    [
        *((Slim, one) for one in ("taylor", "gradient", "l1", "l2", "batch_norm", "random")),
        (ResNet, "taylor"),
        (MobileNet, "l2"),
    ],
)
def test_budget_of_macs(make: type[nn.Module], criterion: str) -> None:
    model = made(make)
    state = step(model, criterion=criterion, budget={"macs": 0.6}, batches=2)
    reached = macs(state.model) / macs(model)
    # One unit more would have been too much, and no unit is a tenth of these networks.
    assert 0.5 < reached <= 0.6
    assert state.notes[0].startswith(f"{reached:.1%} of the MACs remain")
    assert state.model(*probe()).shape == (2, 4)
    assert not state.model.training


@pytest.mark.parametrize("scope", ["global", "local"])
def test_budget_of_parameters(scope: str) -> None:
    model = made(ResNet)
    state = step(model, scope=scope, budget={"parameters": 0.3})
    assert 0.25 < size(state.model) / size(model) <= 0.3


def test_local_takes_the_same_share_of_each_layer() -> None:
    model = made(ResNet)
    state = step(model, scope="local", budget={"parameters": 0.4})
    shares = [
        layer.out_channels / model.get_submodule(name).out_channels
        for name, layer in state.model.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    # Widths of 8 and 16 cannot have exactly the same share.
    assert max(shares) - min(shares) <= 1 / 8


def test_global_removes_the_least_important_channels() -> None:
    model = made(Slim)
    with torch.no_grad():
        for index in (1, 5, 6):
            model.conv1.weight[index] *= 1e-3
        for index in (0, 7):
            model.conv2.weight[index] *= 1e-3
    state = step(model, budget={"macs": 0.7}, exclude=["fc*"], normalize="none", per_gain=False)
    pruned = state.model
    kept = [i for i in range(8) if i not in (1, 5, 6)]
    assert torch.equal(pruned.conv1.weight[: len(kept)], model.conv1.weight[kept])
    assert pruned.conv1.out_channels == 5
    assert {pruned.fc1.out_features, pruned.fc2.out_features} == {16, 4}


def test_per_gain_prefers_what_saves_more() -> None:
    """With equal scores the layer whose channels cost more MACs is narrowed first."""
    model = made(Slim)
    with torch.no_grad():
        for name in ("conv1", "conv2"):
            model.get_submodule(name).weight.fill_(0.1)
    keys = {"budget": {"macs": 0.8}, "exclude": ["fc*"], "normalize": "mean"}
    state = step(model, per_gain=True, **keys)
    # A channel of conv1 costs (3 + 16 / 4) * 64 * 9 MACs, one of conv2 8 * 16 * 9 + 16 * 16.
    assert state.model.conv2.out_channels == 16
    assert state.model.conv1.out_channels < 8
    without = step(model, per_gain=False, **keys).model
    assert without.conv1.out_channels > state.model.conv1.out_channels


@pytest.mark.parametrize("multiple", [4, 8])
def test_round_to(multiple: int) -> None:
    model = made(lambda: Slim(24))
    state = step(model, round_to=multiple, budget={"macs": 0.5})
    widths = [state.model.conv1.out_channels, state.model.conv2.out_channels]
    widths.append(state.model.fc1.out_features)
    assert [width % multiple for width in widths] == [0, 0, 0]
    assert macs(state.model) <= 0.5 * macs(model)
    # What remains is told, so that a step of the rounding cannot go unseen.
    assert f"{macs(state.model) / macs(model):.1%} of the MACs remain" in state.notes[0]


def test_widths_that_are_no_multiple_are_left_or_rounded() -> None:
    model = made(lambda: Slim(10))  # 10, 20 and 16 channels
    pruned = step(model, round_to=8, budget={"macs": 0.75}).model
    assert pruned.conv1.out_channels in (8, 10)
    assert pruned.conv2.out_channels in (8, 16, 20)


def test_least_widths() -> None:
    model = made(Slim)
    with torch.no_grad():
        model.conv1.weight[1:] *= 1e-6
    loose = step(model, budget={"macs": 0.2}, min_share=0.0, normalize="none").model
    assert loose.conv1.out_channels == 1
    assert step(model, budget={"macs": 0.7}, min_share=0.5).model.conv1.out_channels >= 4
    assert step(model, budget={"macs": 0.7}, min_channels=6).model.conv1.out_channels >= 6


def test_protected_layers_keep_their_channels() -> None:
    model = made(ResNet)
    state = step(model, budget={"macs": 0.7}, exclude=["layer1.*.conv1", "layer2.1.conv2"])
    pruned = state.model
    assert [block.conv1.out_channels for block in pruned.layer1] == [8, 8]
    # Coupled with a protected one by the addition.
    assert pruned.layer2[0].conv2.out_channels == pruned.layer2[0].down.out_channels == 16
    only = step(model, budget={"macs": 0.95}, layers=["layer2.0.conv1"]).model
    assert only.layer2[0].conv1.out_channels < 16
    assert {only.stem.out_channels, only.layer1[0].conv1.out_channels} == {8}


def test_a_protected_depthwise_convolution() -> None:
    model = made(MobileNet)
    depthwise = "blocks.0.conv.1.0"
    keys = {"budget": {"macs": 0.8}, "scope": "local"}
    pruned = step(model, exclude=[depthwise], **keys).model
    assert pruned.get_submodule(depthwise).out_channels == 16
    assert pruned.blocks[0].conv[0][0].out_channels == 16
    assert step(model, **keys).model.get_submodule(depthwise).out_channels < 16


def test_channels_of_what_blocks_leave() -> None:
    model = made(MobileNet)
    state = prune_blocks(State(image_task(model, 32), model, None), PruneBlocks(blocks=1))
    narrow = step(state.model, budget={"macs": 0.6}).model
    assert macs(narrow) <= 0.6 * macs(state.model)
    assert any(isinstance(module, Skip) for module in narrow.modules())


def test_residual_layers_stay_equally_wide() -> None:
    pruned = step(made(ResNet), budget={"macs": 0.4}).model
    ends = {pruned.stem.out_channels, *(block.conv2.out_channels for block in pruned.layer1)}
    assert len(ends) == 1
    assert pruned.head.in_features == pruned.layer2[1].conv2.out_channels


def test_iterations_take_equal_shares_and_train_between() -> None:
    model = made(Slim)
    said: list[str] = []
    config = PruneChannels(
        criterion="l2", round_to=1, iterations=3, budget={"macs": 0.4}, fine_tune=FineTuning()
    )
    task = image_task(model)
    state = State(task, copy.deepcopy(model), None, run=Run(0, said.append))
    pruned = prune_channels(state, config).model
    assert 0.3 < macs(pruned) / macs(model) <= 0.4
    assert [line.split(":")[0] for line in said] == [
        words.format(number)
        for number in (1, 2, 3)
        for words in ("round {} of 3", "fine-tuning after round {} of 3")
    ]
    # The cube root of 0.4, twice and three times.
    assert [share in said[2 * n] for n, share in enumerate(("73.7%", "54.3%", "40.0%"))] == [
        True
    ] * 3


def test_seed() -> None:
    model = made(Slim)
    keys = {"budget": {"macs": 0.5}, "criterion": "taylor", "batches": 2, "batch_size": 8}
    keys["fine_tune"] = FineTuning(epochs=1)
    first, again = step(model, **keys).model, step(model, **keys).model
    assert same(first, again)
    keys["criterion"] = "random"
    assert same(step(model, seed=1, **keys).model, step(model, seed=1, **keys).model)
    assert not same(step(model, seed=1, **keys).model, step(model, seed=2, **keys).model)


def test_a_killed_step_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def killer(line: str) -> None:
        if "after round 2 of 2: epoch 1/2" in line:
            raise Killed

    model = made(Slim)
    task = image_task(model)
    config = PruneChannels(
        round_to=1, iterations=2, budget={"macs": 0.5}, batches=2, fine_tune=FineTuning(epochs=2)
    )

    def pruned(run: Run) -> State:
        return prune_channels(State(task, copy.deepcopy(model), None, run=run), config)

    with pytest.raises(Killed):
        pruned(Run(1, killer, tmp_path))
    resumed = pruned(Run(1, folder=tmp_path))
    assert "2 of them from a checkpoint" in resumed.notes[2]
    assert "1 of them from a checkpoint" in resumed.notes[3]
    assert same(resumed.model, pruned(Run(1)).model)


def test_masks_of_earlier_steps_hold() -> None:
    model = made(Slim)
    generator = torch.Generator().manual_seed(0)
    for name in ("conv2", "fc1"):
        layer = model.get_submodule(name)
        constraints.apply_mask(
            layer, "weight", torch.rand(layer.weight.shape, generator=generator) < 0.3
        )
    keys: dict[str, Any] = {"budget": {"macs": 0.5}, "iterations": 2}
    trained = step(model, fine_tune=FineTuning(epochs=1, learning_rate=0.01), **keys).model
    assert set(constraints.masks(trained)) == {"conv2.weight", "fc1.weight"}
    plain = constraints.materialize(copy.deepcopy(trained))
    for name in ("conv2", "fc1"):
        weight = plain.get_submodule(name).weight
        assert 0.15 < float((weight != 0).float().mean()) < 0.5
    # And in what is trained later.
    fit(trained, image_task(model), Training(epochs=1), Run(), purpose="later")
    constraints.materialize(trained)
    zeros = [(plain.get_submodule(n).weight == 0) for n in ("conv2", "fc1")]
    assert all(
        bool((trained.get_submodule(n).weight[zero] == 0).all())
        for n, zero in zip(("conv2", "fc1"), zeros, strict=True)
    )


def test_slimming_pulls_scales_to_zero() -> None:
    model = seeded(Slim)
    task = image_task(model)
    keys = {"criterion": "batch_norm", "budget": {"macs": 0.6}, "round_to": 1}

    def scales(strength: float) -> float:
        slimming = Slimming(epochs=2, batch_size=16, learning_rate=0.01, scale_l1=strength)
        config = PruneChannels(slimming=slimming, **keys)
        state = prune_channels(State(task, copy.deepcopy(model), None), config)
        assert any(note.startswith("slimming: trained 2 epochs") for note in state.notes)
        return sum(
            float(bn.weight.detach().abs().mean()) for bn in (state.model.bn1, state.model.bn2)
        )

    assert scales(0.05) < 0.9 * scales(1e-9)


def test_cost_is_measured_on_the_pruned_program() -> None:
    model = made(Slim)
    asked = []

    def measure(program: torch.export.ExportedProgram) -> Cost:
        asked.append(sum(value.numel() for value in program.state_dict.values()))
        return Cost(device="d", format="f", metric="m", tier="host", value=float(asked[-1]))

    config = PruneChannels(criterion="l1", round_to=8, budget={"cost": 0.6})
    state = State(image_task(model), copy.deepcopy(model), None, measure=measure)
    pruned = prune_channels(state, config).model
    held = sum(value.numel() for name, value in pruned.state_dict().items() if "num_" not in name)
    assert held <= 0.6 * asked[0]
    assert len(asked) <= 10


def test_the_whole_step_exports() -> None:
    model = made(MobileNet)
    config = PruneChannels(criterion="taylor", round_to=4, budget={"macs": 0.6}, batches=2)
    compressed = apply(image_task(model, 16), [config])
    row = compressed.ledger[-1]
    assert row.step == "prune_channels"
    assert row.detail["budget"] == {"macs": 0.6, "parameters": None, "cost": None}
    assert row.parameters < compressed.ledger[0].parameters
    assert row.notes[1].startswith("channels: ")
    assert compressed.program_outputs[0][0].shape == (1, 4)
    assert size(model) == size(made(MobileNet))


def test_the_pruned_model_exports_to_the_same_outputs() -> None:
    pruned = step(made(ResNet), budget={"macs": 0.5}).model
    inputs = (torch.randn(SHAPE),)
    assert torch.allclose(
        forward_of(capture(pruned, EXAMPLE))(inputs)[0], pruned(*inputs), atol=1e-6
    )


def test_what_is_left_alone_is_noted() -> None:
    state = step(made(Transformer), budget={"macs": 0.9})
    note = next(note for note in state.notes if note.startswith("left as they are"))
    assert "qkv (its channels are reshaped, split or mixed)" in note


def test_taylor_beats_random() -> None:
    """Before any fine-tuning, on held-out data, averaged over seeds."""
    task = image_task(seeded(Slim), 256)
    model = copy.deepcopy(task.model)
    fit(model, task, Training(epochs=4, batch_size=32, learning_rate=0.01), Run(), purpose="base")
    keys = {"budget": {"macs": 0.2}, "task": task, "batches": 8}
    taylor = evaluate(step(model, criterion="taylor", **keys).model, task, task.evaluation)
    chance = [
        evaluate(step(model, criterion="random", seed=seed, **keys).model, task, task.evaluation)
        for seed in range(3)
    ]
    assert taylor > sum(chance) / len(chance) + 0.2


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"budget": {"macs": 1.5}},
        {"budget": {"macs": 0.5}, "criterion": "magic"},
        {"budget": {"macs": 0.5}, "round_to": 0},
        {"budget": {"macs": 0.5}, "iterations": 0},
        {"budget": {"macs": 0.5}, "min_share": 1.0},
        {"budget": {"macs": 0.5}, "slimming": {}},
        {"budget": {"macs": 0.5}, "ratio": 0.5},
    ],
)
def test_wrong_settings(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneChannels.model_validate(keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"exclude": ["conv9"]}, r"exclude: no layer's name matches 'conv9'\. There are conv"),
        ({"layers": ["head"]}, "layers: no layer's name matches 'head'"),
        ({"exclude": ["*"]}, "there is no channel that may be removed"),
        ({"min_channels": 100}, "no channel that may be removed: .*conv1: 8 channels are too few"),
        ({"budget": {"macs": 0.001}}, r"MACs cannot fall to 0\.1%: \d+\.\d% is the least"),
        ({"budget": {"cost": 0.5}}, r"budget\.cost: .* needs a device"),
    ],
)
def test_impossible(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressError, match=message):
        step(made(Slim), **({"budget": {"macs": 0.5}} | keys))


def test_no_training_data() -> None:
    model = made(Slim)
    task = replace(image_task(model), train=(), validation=())
    with pytest.raises(
        CompressError, match=r"criterion: .*'taylor' needs gradients on task\.train"
    ):
        step(model, task=task, criterion="taylor", budget={"macs": 0.5})


def test_after_quantization() -> None:
    model = made(Slim)
    state = State(image_task(model), None, capture(model, EXAMPLE))
    with pytest.raises(CompressError, match="needs float weights"):
        prune_channels(state, PruneChannels(budget={"macs": 0.5}))


def test_nothing_prunable() -> None:
    model = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(CompressError, match="there is no channel that may be removed"):
        step(model, budget={"macs": 0.5})
