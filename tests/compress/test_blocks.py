"""Residual blocks are found, the least harmful goes first, and it ends where it should."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compress import constraints
from compress.blocks import PruneBlocks, Skip, find_blocks, prune_blocks
from compress.capture import capture, forward_of
from compress.errors import CompressError
from compress.fine_tune import FineTuning
from compress.journal import Run
from compress.pruning.budget import count_macs
from compress.recipe import State
from compress.task import Task, TaskMetric
from compress.training import evaluate
from tests.compress.structures import (
    SHAPE,
    Inverted,
    MobileNet,
    Residual,
    ResNet,
    Slim,
    image_task,
    made,
    probe,
)

EXAMPLE = (torch.zeros(SHAPE),)


def step(model: nn.Module, *, task: Task | None = None, **keys: Any) -> State:
    config = PruneBlocks.model_validate(keys)
    state = State(task or image_task(model, 64), copy.deepcopy(model), None, run=Run(0))
    return prune_blocks(state, config)


def skipped(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Skip)]


def quiet(block: Residual) -> None:
    """Let the block add nothing to its input."""
    nn.init.zeros_(block.bn2.weight)
    nn.init.zeros_(block.bn2.bias)


@pytest.mark.parametrize(
    ("make", "blocks"),
    [
        (ResNet, ["layer1.0", "layer1.1", "layer2.1"]),
        (MobileNet, ["blocks.0", "blocks.2"]),
        (lambda: Layers(norm_first=True), ["layers.0", "layers.1"]),
    ],
    ids=["resnet", "mobilenet", "transformer"],
)
def test_found(make: Any, blocks: list[str]) -> None:
    assert find_blocks(made(make), EXAMPLE) == blocks


class Layers(nn.Module):
    def __init__(self, norm_first: bool) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
            for _ in range(2)
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.flatten(1, 2))
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


def test_what_is_no_residual_block_is_not_found() -> None:
    class Odd(nn.Module):
        """Shape-preserving, and the input is used, but it does not pass to the output."""

        def __init__(self, kind: str) -> None:
            super().__init__()
            self.conv, self.kind = nn.Conv2d(3, 3, 3, padding=1), kind

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            odd = {"plain": y, "gate": x * y, "two": self.conv(y) + y, "nothing": x.relu()}
            return odd[self.kind]

    for kind in ("plain", "gate", "two", "nothing"):
        model = made(lambda kind=kind: nn.Sequential(Odd(kind), nn.Flatten(), nn.Linear(192, 4)))
        with pytest.raises(CompressError, match="no block that can be removed"):
            find_blocks(model, EXAMPLE)


def test_patterns() -> None:
    model = made(MobileNet)
    assert find_blocks(model, EXAMPLE, ["blocks.*"]) == ["blocks.0", "blocks.2"]
    assert find_blocks(model, EXAMPLE, exclude=["blocks.0"]) == ["blocks.2"]
    # A name goes beyond what is found: the user answers for it.
    assert find_blocks(model, EXAMPLE, ["blocks.0.conv"]) == ["blocks.0.conv"]
    with pytest.raises(CompressError, match=r"layers: no layer's name matches 'block\.7'"):
        find_blocks(model, EXAMPLE, ["block.7"])
    with pytest.raises(CompressError, match="no block that can be removed"):
        find_blocks(model, EXAMPLE, ["blocks.1"])


def test_a_block_that_is_called_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 8, 1), Inverted(8, 8)
            self.other, self.head = Inverted(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.other(self.block(self.block(self.stem(x)))).mean((2, 3)))

    assert find_blocks(made(Twice), EXAMPLE) == ["other"]


def test_a_block_that_adds_nothing_goes_first_and_changes_nothing() -> None:
    model = made(ResNet)
    quiet(model.layer1[1])
    state = step(model, blocks=1)
    assert skipped(state.model) == ["layer1.1"]
    assert torch.equal(state.model(*probe()), model(*probe()))
    assert state.notes[0] == "removed 1 blocks"
    assert state.notes[1] == "blocks found: layer1.0, layer1.1, layer2.1"
    assert isinstance(model.layer1[1], Residual)
    inputs = (torch.randn(SHAPE),)
    program = forward_of(capture(state.model, EXAMPLE))
    assert torch.allclose(program(inputs)[0], model(*inputs), atol=1e-6)


def test_each_removal_is_the_best_by_validation() -> None:
    model = made(ResNet)
    task = image_task(model, 64)
    state = step(model, task=task, blocks=2)
    left, chosen = ["layer1.0", "layer1.1", "layer2.1"], copy.deepcopy(model)
    gone = []
    for _ in range(2):
        tried = {}
        for name in left:
            shorter = copy.deepcopy(chosen)
            shorter.set_submodule(name, nn.Identity())
            answers = torch.cat([shorter(*s.inputs) for s in task.validation])
            targets = torch.cat([s.target for s in task.validation])
            loss = nn.functional.cross_entropy(answers, targets)
            tried[name] = (evaluate(shorter, task, task.validation), -float(loss.detach()))
        gone.append(max(tried, key=lambda name: tried[name]))
        chosen.set_submodule(gone[-1], nn.Identity())
        left.remove(gone[-1])
    assert sorted(gone) == skipped(state.model)
    removed = [note.split()[1].rstrip(":") for note in state.notes if note.startswith("removed l")]
    assert removed == gone


def test_lower_can_be_better() -> None:
    """An error rate with the same validation data leads to the same choice."""
    model = made(ResNet)
    task = image_task(model, 64)
    wrong = TaskMetric(
        "error", lambda outputs, targets: 1 - task.metric.compute(outputs, targets), False
    )
    turned = replace(task, metric=wrong)
    first, second = step(model, task=task, blocks=2), step(model, task=turned, blocks=2)
    assert skipped(first.model) == skipped(second.model)
    assert "error" in second.notes[2]
    assert "-0." not in second.notes[2]


def test_without_labels_by_nearness_to_the_uncompressed_model() -> None:
    model = made(ResNet)
    quiet(model.layer2[1])
    task = replace(image_task(model, 64), train=(), validation=())
    state = step(model, task=task, blocks=1)
    assert skipped(state.model) == ["layer2.1"]
    assert "dB to the uncompressed model" in state.notes[2]
    with pytest.raises(CompressError, match=r"task\.validation or task\.calibration"):
        step(model, task=replace(task, calibration=()), blocks=1)


def test_budget() -> None:
    model = made(ResNet)
    state = step(model, budget={"macs": 0.7})
    share = count_macs(state.model, EXAMPLE) / count_macs(model, EXAMPLE)
    assert share <= 0.7
    assert f"{share:.1%} of the MACs remain, 70.0% were allowed" in state.notes[0]
    back = copy.deepcopy(model)
    for name in skipped(state.model)[:-1]:
        back.set_submodule(name, nn.Identity())
    assert count_macs(back, EXAMPLE) / count_macs(model, EXAMPLE) > 0.7
    with pytest.raises(CompressError, match=r"budget: MACs cannot fall to 10\.0%: .* 3 blocks"):
        step(model, budget={"macs": 0.1})


def test_blocks_and_budget_end_at_the_first() -> None:
    state = step(made(ResNet), budget={"macs": 0.2}, blocks=1)
    assert len(skipped(state.model)) == 1
    assert "20.0% were allowed" in state.notes[0]


def test_largest_drop() -> None:
    model = made(ResNet)
    for block in (model.layer1[0], model.layer1[1]):
        quiet(block)
    # The task's labels are what the model answers, so that the third block cannot be spared.
    task = image_task(model, 64)
    answers = model(task.validation.inputs[0]).argmax(-1)
    task.validation.targets.copy_(answers)
    state = step(model, task=task, max_metric_drop=0.0)
    spoilt = copy.deepcopy(model)
    spoilt.layer2[1] = nn.Identity()
    assert evaluate(spoilt, task, task.validation) < 1.0
    assert skipped(state.model) == ["layer1.0", "layer1.1"]
    assert any(note.startswith("stopped before layer2.1: top1 1.0000 ->") for note in state.notes)
    assert len(skipped(step(model, task=task, max_metric_drop=1.0).model)) == 3
    with pytest.raises(CompressError, match=r"max_metric_drop: needs task\.validation"):
        step(model, task=replace(task, train=(), validation=()), max_metric_drop=0.1)


def test_fine_tuning_after_each_and_masks() -> None:
    model = made(ResNet)
    mask = torch.rand(model.stem.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    constraints.apply_mask(model.stem, "weight", mask)
    said: list[str] = []
    config = PruneBlocks(blocks=2, fine_tune=FineTuning(epochs=1, learning_rate=0.01))
    state = State(image_task(model, 64), copy.deepcopy(model), None, run=Run(0, said.append))
    pruned = prune_blocks(state, config).model
    trained = [line for line in said if line.startswith("fine-tuning without layer")]
    assert len(trained) == 2
    assert torch.equal(constraints.masks(pruned)["stem.weight"], mask)
    constraints.materialize(pruned)
    assert torch.equal(pruned.stem.weight != 0, mask)
    assert not torch.equal(pruned.stem.weight[mask], model.stem.weight[mask])


def test_a_block_that_is_read_otherwise_stays() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = ResNet()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * self.net.layer1[0].conv1.weight.mean()

    model = made(Reads)
    quiet(model.net.layer1[0])
    assert skipped(step(model, blocks=1).model) != ["net.layer1.0"]
    with pytest.raises(CompressError, match="blocks: only 2 of 3 blocks can be removed"):
        step(model, blocks=3)


def test_skip_returns_the_first_tensor() -> None:
    x = torch.ones(2)
    assert Skip()(x, torch.zeros(2), rate=0.5) is x
    assert Skip()(None, hidden=x) is x


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"blocks": 0},
        {"max_metric_drop": -0.1},
        {"budget": {"macs": 2.0}},
        {"blocks": 1, "n": 2},
    ],
)
def test_wrong_settings(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PruneBlocks.model_validate(keys)


def test_impossible() -> None:
    with pytest.raises(CompressError, match="blocks: 4 blocks are to be removed, but there are 3"):
        step(made(ResNet), blocks=4)
    with pytest.raises(CompressError, match="no block that can be removed"):
        step(made(Slim), blocks=1)
    with pytest.raises(CompressError, match=r"exclude: no layer's name matches 'layer9'"):
        step(made(ResNet), blocks=1, exclude=["layer9"])
    model = made(ResNet)
    with pytest.raises(CompressError, match="needs float weights"):
        prune_blocks(
            State(image_task(model, 8), None, capture(model, EXAMPLE)), PruneBlocks(blocks=1)
        )
