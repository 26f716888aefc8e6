"""Each criterion against a computation that knows nothing of groups."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compress.errors import CompressError
from compress.journal import Run
from compress.pruning.channel_groups import ChannelGroup, find_groups
from compress.pruning.channel_scores import importance, normalized
from compress.task import Task
from compress.training import batches
from tests.compress.structures import (
    SHAPE,
    Grouped,
    ResNet,
    Slim,
    image_task,
    made,
    probe,
)

EXAMPLE = (torch.zeros(SHAPE),)


def groups_of(model: nn.Module) -> dict[str, ChannelGroup]:
    return {group.name: group for group in find_groups(model, EXAMPLE, probe())[0]}


def score(model: nn.Module, task: Task, group: ChannelGroup, criterion: str) -> Tensor | None:
    return importance(model, task, [group], criterion, Run(4), batch_size=32, count=3)[0]


def test_norms_sum_over_coupled_filters() -> None:
    model = made(ResNet)
    group = groups_of(model)["stem"]
    task = image_task(model)
    filters = [model.stem, model.layer1[0].conv2, model.layer1[1].conv2]
    flat = torch.cat([layer.weight.detach().double().flatten(1) for layer in filters], 1)
    assert torch.allclose(score(model, task, group, "l1"), flat.abs().sum(1))
    assert torch.allclose(score(model, task, group, "l2"), flat.norm(dim=1))
    scales = model.layer1[0].bn2.weight.abs() + model.layer1[1].bn2.weight.abs()
    assert torch.allclose(score(model, task, group, "batch_norm"), scales.double())


def test_units_of_grouped_convolutions_sum_their_channels() -> None:
    model = made(Grouped)
    group = groups_of(model)["grouped"]
    norms = model.grouped.weight.detach().double().abs().flatten(1).sum(1)
    got = score(model, image_task(model), group, "l1")
    assert torch.allclose(got, norms[:4] + norms[4:])


def test_no_batch_norm_no_score() -> None:
    model = made(Slim)
    assert score(model, image_task(model), groups_of(model)["fc1"], "batch_norm") is None


class Gated(nn.Module):
    """Slim with a factor of one on what leaves each layer; its gradient is that of a removal."""

    def __init__(self, inner: Slim) -> None:
        super().__init__()
        self.inner = inner
        self.gates = nn.ParameterList([torch.ones(1, 8, 1, 1), torch.ones(1, 16, 1, 1)])

    def forward(self, x: Tensor) -> Tensor:
        net = self.inner
        x = net.bn1(net.conv1(x)).relu() * self.gates[0]
        x = net.bn2(net.conv2(x)).relu() * self.gates[1]
        return net.fc2(net.fc1(x.flatten(1)).relu())


def test_taylor_is_the_squared_gradient_of_a_gate() -> None:
    model = made(Slim)
    task = image_task(model)
    groups = groups_of(model)
    gated = Gated(copy.deepcopy(model))
    sums = [torch.zeros(8), torch.zeros(16)]
    for number, sample in enumerate(batches(task, 32, Run(4).generator("importance"))):
        if number == 3:
            break
        gated.zero_grad()
        nn.functional.cross_entropy(gated(*sample.inputs), sample.target).backward()
        for index, gate in enumerate(gated.gates):
            sums[index] += gate.grad.flatten().square() / 3
    for name, total in zip(("conv1", "conv2"), sums, strict=True):
        got = score(model, task, groups[name], "taylor")
        assert torch.allclose(got.float(), total, rtol=1e-3, atol=1e-12)


def test_gradient_is_the_norm_over_coupled_filters() -> None:
    model = made(ResNet)
    task = image_task(model)
    group = groups_of(model)["stem"]
    copied = copy.deepcopy(model)
    total = torch.zeros(8)
    for number, sample in enumerate(batches(task, 32, Run(4).generator("importance"))):
        if number == 3:
            break
        copied.zero_grad()
        nn.functional.cross_entropy(copied(*sample.inputs), sample.target).backward()
        for layer in (copied.stem, copied.layer1[0].conv2, copied.layer1[1].conv2):
            total += layer.weight.grad.flatten(1).square().sum(1) / 3
    assert torch.allclose(score(model, task, group, "gradient").float(), total.sqrt(), rtol=1e-3)


@pytest.mark.parametrize("criterion", ["taylor", "gradient"])
def test_gradients_leave_nothing_behind(criterion: str) -> None:
    model = made(Slim)
    model.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    group = groups_of(model)["conv1"]
    got = score(model, image_task(model), group, criterion)
    # A frozen layer is judged all the same.
    assert bool((got > 0).all())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_no_training_data() -> None:
    model = made(Slim)
    task = Task(model, EXAMPLE)
    with pytest.raises(CompressError, match=r"'taylor' needs gradients on task\.train"):
        score(model, task, groups_of(model)["conv1"], "taylor")


def test_random_comes_from_the_seed() -> None:
    model = made(Slim)
    groups = list(groups_of(model).values())

    def drawn(seed: int) -> list[Tensor]:
        task = image_task(model)
        return importance(model, task, groups, "random", Run(seed), batch_size=1, count=1)

    assert all(torch.equal(a, b) for a, b in zip(drawn(1), drawn(1), strict=True))
    assert not torch.equal(drawn(1)[0], drawn(2)[0])


def test_normalized() -> None:
    values = torch.tensor([1.0, 3.0, 2.0])
    assert torch.equal(normalized(values, "mean", "l1"), values / 2)
    assert torch.equal(normalized(values, "max", "l1"), values / 3)
    assert torch.equal(normalized(values, "none", "l1"), values)
    assert torch.equal(normalized(values, "auto", "l1"), values / 2)
    assert torch.equal(normalized(values, "auto", "taylor"), values)
    assert torch.equal(normalized(values * 0, "mean", "l1"), values * 0)
