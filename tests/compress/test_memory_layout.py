"""Trainings use the layout that is fast; what a model computes, and where it cannot, stays."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress import constraints
from compress.fine_tune import FineTuning, fine_tune
from compress.journal import Run
from compress.memory_layout import can_be_channels_last, channels_last, pages_kept
from compress.samples import Sample
from compress.task import TOP1, Task
from compress.training import Training, fit


class Net(nn.Module):
    """Two convolutions; ``views`` needs the layout that rows of an ordinary tensor have."""

    def __init__(self, views: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.norm, self.head, self.views = nn.BatchNorm2d(6), nn.Linear(32, 3), views
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        self.seen.append(x.is_contiguous())
        x = self.second(x)
        return self.head(x.view(x.shape[0], -1) if self.views else x.flatten(1))


def task_for(model: nn.Module) -> Task:
    torch.manual_seed(1)
    samples = [Sample((torch.randn(1, 3, 6, 6),), torch.tensor([i % 3])) for i in range(24)]
    return Task(
        model=model,
        example_inputs=samples[0].inputs,
        calibration=[samples[0].inputs],
        evaluation=samples,
        metric=TOP1,
        train=samples,
        validation=samples[:8],
    )


def net(views: bool = False) -> Net:
    torch.manual_seed(0)
    return Net(views)


CONFIG = Training(epochs=2, batch_size=8, optimizer="sgd", learning_rate=0.1)


def trained(model: Net, **options: object) -> Net:
    fit(model, task_for(model), CONFIG, Run(**options), purpose="t")  # type: ignore[arg-type]
    return model


def test_training_is_the_same_up_to_rounding_and_leaves_the_models_own_layout() -> None:
    fast, slow = trained(net()), trained(net(views=True))
    assert not any(fast.seen)
    assert all(slow.seen)
    for name, value in fast.state_dict().items():
        assert value.is_contiguous()
        torch.testing.assert_close(value, slow.state_dict()[name], rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, net().state_dict()[name]) or not value.is_floating_point()


def test_an_owners_layout_stays() -> None:
    model = trained(net().to(memory_format=torch.channels_last))
    assert model.second.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.second.weight.is_contiguous()


def test_trying_a_layout_changes_nothing() -> None:
    model = net().train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    assert can_be_channels_last(model, lambda trial: trial(torch.randn(2, 3, 6, 6)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert model.second.weight.is_contiguous()
    assert not can_be_channels_last(nn.Linear(3, 3), lambda trial: trial(torch.randn(2, 3)))


def test_layout_comes_back_after_a_failure() -> None:
    model = net()
    with (
        pytest.raises(ZeroDivisionError),
        pages_kept(),
        channels_last(model, lambda trial: trial(torch.randn(2, 3, 6, 6))) as moved,
    ):
        assert moved
        assert not model.second.weight.is_contiguous()
        raise ZeroDivisionError
    assert model.second.weight.is_contiguous()


def test_a_checkpoint_with_masks_and_a_teacher_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(line: str) -> None:
        if "epoch 2/3" in line:
            raise Killed

    task = task_for(net())
    config = FineTuning(epochs=3, batch_size=8, distill={"soft_weight": 0.5})

    def masked() -> Net:
        model = net()
        keep = torch.rand(model.second.weight.shape, generator=torch.Generator().manual_seed(2))
        constraints.apply_mask(model.second, "weight", keep < 0.5)
        return model

    whole, resumed = masked(), masked()
    fine_tune(whole, task, config, Run(), purpose="t")
    with pytest.raises(Killed):
        fine_tune(masked(), task, config, Run(0, kill, tmp_path), purpose="t")
    history = fine_tune(resumed, task, config, Run(folder=tmp_path), purpose="t")
    assert history.resumed_from == 2
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert value.is_contiguous()
    assert task.model.second.weight.is_contiguous()
