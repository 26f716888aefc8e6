"""Binary weights have two values a channel, before and after training; ends are spared."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compress.binarize import Binarize, binarize
from compress.cluster import Cluster, cluster
from compress.errors import CompressError
from compress.fine_tune import FineTuning
from compress.pruning.weights import weights_of
from compress.recipe import State, apply
from compress.sparsify import Prune, prune
from compress.task import Task
from compress.training import evaluate
from tests.compress.networks import Small, classes_task, seeded, task_of


def values(model: nn.Module) -> dict[str, Tensor]:
    return {weight.full_name: weight.value for weight in weights_of(model)}


def made(config: Binarize, task: Task) -> State:
    return binarize(State(task, copy.deepcopy(task.model), None), config)


def test_each_channel_is_a_scale_times_signs() -> None:
    task = task_of(seeded(Small))
    task.model.up = nn.ConvTranspose2d(6, 8, 2)
    config = Binarize(first_and_last=True)
    after = values(made(config, task).float_model())
    for name, before in values(task.model).items():
        axis = 1 if name.startswith("up") else 0
        others = [a for a in range(before.ndim) if a != axis]
        expected = before.sign() * before.abs().mean(others, keepdim=True)
        torch.testing.assert_close(after[name], expected)


def test_first_and_last_by_the_order_in_which_they_run() -> None:
    task = task_of(seeded(Small))

    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 4)
            self.middle = nn.Linear(4, 4)
            self.first = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.middle(self.first(x)))

    state = made(Binarize(), task)
    assert "not binarized: stem.weight, head.weight" in state.notes
    task = Task(seeded(Reversed), (torch.zeros(1, 4),), evaluation=[])
    state = made(Binarize(), task)
    assert "not binarized: last.weight, first.weight" in state.notes
    assert len(values(state.float_model())["middle.weight"][0].unique()) == 2
    assert any("no mobile kernel" in note for note in state.notes)
    with pytest.raises(CompressError, match="no layer is left"):
        made(Binarize(layers=("first",)), task)


def test_training_recovers_and_keeps_two_values() -> None:
    task = classes_task()
    training = FineTuning(epochs=6, batch_size=16, learning_rate=0.01)
    before = binarize(
        State(task, copy.deepcopy(task.model), None), Binarize(first_and_last=True)
    ).float_model()
    result = apply(task, [Binarize(first_and_last=True, fine_tune=training)])
    module = result.program.module()
    assert evaluate(module_of(module), task, task.evaluation, 1) > 0.8
    assert evaluate(before, task, task.evaluation) < 0.6
    for name, value in result.program.named_parameters():
        if "weight" in name:
            for channel in value.detach():
                assert len(channel.abs().unique()) == 1
                assert float(channel.abs()[0]) > 0


def module_of(graph: nn.Module) -> nn.Module:
    """Exported graphs refuse train() and eval(); judging needs neither."""
    return graph


@pytest.mark.parametrize("clustered", [False, True])
def test_pruned_weights_stay_zero(clustered: bool) -> None:
    task = classes_task()
    state = prune(State(task, copy.deepcopy(task.model), None), Prune(keep=0.5))
    if clustered:
        state = cluster(state, Cluster(bits=3))
    zeros = {name: value == 0 for name, value in values(state.float_model()).items()}
    after = binarize(state, Binarize(first_and_last=True)).float_model()
    for name, value in values(after).items():
        assert torch.equal(value == 0, zeros[name])
        for channel in value:
            assert len(channel[channel != 0].abs().unique()) <= 1
