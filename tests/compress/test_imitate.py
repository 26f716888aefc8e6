"""A student without labels comes nearer to its teacher, on inputs that it did not learn from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.cluster import Cluster
from compress.errors import CompressError
from compress.imitate import Imitate, taught
from compress.recipe import apply
from compress.task import Sample, Task
from tests.compress.networks import NO_TARGET, classes_task


def unlabelled() -> Task:
    task = classes_task()
    inputs = [(x[None],) for x in task.train.inputs[0][:100]]
    return replace(task, calibration=inputs, train=(), validation=())


def test_it_comes_nearer_and_keeps_the_codebook() -> None:
    config = Imitate(epochs=8, batch_size=16, learning_rate=0.003)
    made = apply(unlabelled(), [Cluster(bits=2), config])
    before, after = (row.quality.sqnr_db for row in made.ledger[1:])
    assert after > before + 1
    weights = [p for name, p in made.program.named_parameters() if "weight" in name]
    assert all(len(weight.unique()) <= 4 for weight in weights)
    assert made.ledger[2].notes[0].startswith("80 calibration inputs to learn from, 20 to judge")


def test_targets_are_the_answers_of_the_teacher() -> None:
    task = unlabelled()
    given = taught(task, 0.25)
    assert (len(given.train), len(given.validation)) == (75, 25)
    with torch.no_grad():
        for sample in (*given.train[:3], *given.validation[:3]):
            assert torch.equal(sample.target, task.model(*sample.inputs))
    answers = [torch.randn(1, 4) for _ in given.validation]
    targets = [sample.target for sample in given.validation]
    p = torch.cat(targets).softmax(1)
    q = torch.cat(answers).softmax(1)
    expected = float((p * (p / q).log()).sum(1).mean())
    assert given.metric.compute(answers, targets) == pytest.approx(expected, rel=1e-4)
    assert given.metric.compute(targets, targets) == pytest.approx(0, abs=1e-6)
    assert given.metric.gain(0.1, 0.2) > 0


def test_a_regression_is_imitated_by_squares() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    inputs = [(torch.randn(1, 3),) for _ in range(4)]
    task = Task(
        model, inputs[0], inputs, [Sample(inputs[0])], NO_TARGET, loss=nn.functional.l1_loss
    )
    given = taught(task, 0.5)
    assert given.loss is nn.functional.mse_loss
    assert taught(unlabelled(), 0.5, "squares").loss is nn.functional.mse_loss
    assert taught(task, 0.5, "divergence").loss is taught(unlabelled(), 0.5).loss


def test_too_few_inputs() -> None:
    with pytest.raises(CompressError, match=r"at least two calibration inputs"):
        taught(replace(unlabelled(), calibration=[(torch.zeros(1, 1, 10),)]), 0.2)
