"""The training loop learns, keeps the best epoch, and goes on after a crash to the same weights."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from compress import constraints
from compress.errors import CompressError
from compress.journal import Run
from compress.samples import Sample
from compress.training import Training, evaluate, fit
from tests.compress.networks import classes_task


class Killed(BaseException):
    pass


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in model.state_dict().values()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_learns(precision: str) -> None:
    task = classes_task()
    model = copy.deepcopy(task.model)
    before = evaluate(model, task, task.evaluation)
    history = fit(
        model,
        task,
        Training(epochs=6, batch_size=16, learning_rate=0.01, precision=precision),
        Run(),
        purpose="t",
    )
    assert evaluate(model, task, task.evaluation) > max(before, 0.8)
    assert history.best.validation == max(epoch.validation for epoch in history.epochs)
    assert evaluate(model, task, task.validation) == history.best.validation
    assert not model.training


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    task = classes_task()
    config = Training(epochs=5, optimizer="sgd", learning_rate=0.05, warmup_epochs=0.5)
    whole = copy.deepcopy(task.model)
    fit(whole, task, config, Run(seed=3), purpose="t")

    def killer(line: str) -> None:
        if "epoch 3/5" in line:
            raise Killed

    with pytest.raises(Killed):
        fit(copy.deepcopy(task.model), task, config, Run(3, killer, tmp_path), purpose="t")
    resumed = copy.deepcopy(task.model)
    history = fit(resumed, task, config, Run(3, folder=tmp_path), purpose="t")
    assert history.resumed_from == 3
    assert same(weights(whole), weights(resumed))
    # And once more: everything comes from the journal.
    again = copy.deepcopy(task.model)
    assert fit(again, task, config, Run(3, folder=tmp_path), purpose="t").resumed_from == 5
    assert same(weights(whole), weights(again))
    # Another seed, another learning rate or other weights are another training.
    other = Run(4, folder=tmp_path)
    assert fit(copy.deepcopy(task.model), task, config, other, purpose="t").resumed_from == 0


def test_masks_hold_and_frozen_parameters_stay() -> None:
    task = classes_task()
    model = copy.deepcopy(task.model)
    first = model[1]
    assert isinstance(first, nn.Linear)
    frozen = model[3].bias.requires_grad_(False).clone()
    mask = torch.rand(first.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.4
    constraints.apply_mask(first, "weight", mask)
    fit(model, task, Training(epochs=2), Run(), purpose="t")
    constraints.materialize(model)
    assert torch.equal(model[1].weight != 0, mask)
    assert torch.equal(model[3].bias, frozen)


def test_nan_names_the_place_and_keeps_the_best_epoch() -> None:
    task = classes_task()
    model = copy.deepcopy(task.model)
    seen: list[int] = []

    def objective(net: nn.Module, sample: Sample) -> torch.Tensor:
        seen.append(1)
        loss = nn.functional.cross_entropy(net(*sample.inputs), sample.target)
        return loss * float("nan") if len(seen) == 7 else loss

    best: list[list[torch.Tensor]] = []
    run = Run(progress=lambda _: best.append(weights(model)))
    with pytest.raises(CompressError, match=r"t, epoch 2, batch 3: the loss is nan"):
        config = Training(epochs=3, batch_size=64)
        fit(model, task, config, run, purpose="t", objective=objective)
    assert same(best[0], weights(model))


def test_early_stop() -> None:
    task = classes_task()
    config = Training(epochs=50, patience=2, learning_rate=1e-9, schedule="constant")
    history = fit(copy.deepcopy(task.model), task, config, Run(), purpose="t")
    assert (len(history.epochs), history.best.number) == (3, 1)
