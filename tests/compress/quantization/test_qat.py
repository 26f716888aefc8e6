"""Training with quantization in the loop: it helps, resumes exactly, keeps zeros, ends static."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compress import constraints
from compress.distill import Distillation
from compress.errors import CompressError
from compress.fine_tune import FineTuneStep, FineTuning
from compress.journal import Run
from compress.quantize import Quantize
from compress.recipe import Compressed, apply
from compress.task import Task
from compress.training import Training, fit
from tests.compress.networks import classes_task, seeded


class Network(nn.Module):
    """Convolution, batch norm, dropout and linear layers on ten numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8)
        self.drop, self.hidden = nn.Dropout(0.1), nn.Linear(64, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x))).flatten(1)
        return self.head(torch.nn.functional.relu6(self.hidden(self.drop(x))))


@functools.cache
def trained() -> Task:
    task = replace(classes_task(), model=seeded(Network))
    model = task.model
    assert isinstance(model, nn.Module)
    fit(model, task, Training(epochs=6, learning_rate=0.01, batch_size=32), Run(), purpose="make")
    with torch.no_grad():
        # One scale for a tensor with such a row is what training has to mend.
        model.hidden.weight[0] *= 100
        model.head.weight[:, 0] /= 100
    return task


SETTINGS = FineTuning(epochs=3, learning_rate=0.01, batch_size=32, distill=Distillation())


def quality(made: Compressed) -> float:
    row = made.ledger[-1].quality
    assert row is not None
    return row.metric_value


@pytest.mark.slow
def test_it_mends_what_static_int8_breaks_and_resumes_to_the_same(tmp_path: Path) -> None:
    task = trained()
    static = apply(task, [Quantize(per_channel=False, fuse_clamps=False)])
    step = Quantize(mode="qat", per_channel=False, fine_tune=SETTINGS)
    whole = apply(task, [step])
    assert quality(whole) > quality(static) + 0.01
    shapes = {
        str(node.meta["val"].shape)
        for node in whole.program.graph.nodes
        if node.op == "placeholder" and node.name == "x"
    }
    assert shapes == {"torch.Size([1, 1, 10])"}
    assert any(t.dtype == torch.int8 for t in whole.program.state_dict.values())

    class Stop(BaseException):  # as Ctrl-C is
        pass

    def interrupt(line: str) -> None:
        if "epoch 2/3" in line:
            raise Stop

    with pytest.raises(Stop):
        apply(task, [step], journal=tmp_path, progress=interrupt)
    resumed = apply(task, [step], journal=tmp_path)
    assert "2 of them from a checkpoint" in resumed.ledger[-1].notes[0]
    for left, right in zip(resumed.program_outputs, whole.program_outputs, strict=True):
        assert torch.equal(left[0], right[0])


def test_pruned_weights_stay_zero_and_frozen_ones_stay() -> None:
    task = trained()
    model = seeded(Network)
    model.load_state_dict(task.model.state_dict())  # type: ignore[union-attr]
    mask = torch.rand(12, 64, generator=torch.Generator().manual_seed(0)) < 0.4
    constraints.apply_mask(model.hidden, "weight", mask)
    model.head.weight.requires_grad_(False)
    made = apply(
        replace(task, model=model, teacher=task.model),
        [Quantize(mode="qat", fine_tune=SETTINGS.model_copy(update={"epochs": 1}))],
    )
    held = {tuple(t.shape): t for t in made.program.state_dict.values() if t.dtype == torch.int8}
    assert bool((held[12, 64][~mask] == 0).all())
    assert int((held[12, 64] != 0).sum()) > 0.8 * int(mask.sum())
    assert any(f"{int((~mask).sum())} pruned weights" in n for n in made.ledger[-1].notes)
    scale = model.head.weight.abs().amax(1, keepdim=True) / 127
    steps = (model.head.weight / scale).round()
    assert float((held[4, 12] - steps).abs().max()) <= 1


class Tied(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.sign()


def test_what_it_cannot_do_is_said() -> None:
    model = seeded(Network)
    parametrize.register_parametrization(model.hidden, "weight", Tied())
    step = Quantize(mode="qat", fine_tune=SETTINGS)
    with pytest.raises(CompressError, match=r"'hidden\.weight' is held to Tied values"):
        apply(replace(trained(), model=model), [step])
    with pytest.raises(CompressError, match=r"needs task\.train"):
        apply(replace(trained(), train=()), [step])
    with pytest.raises(CompressError, match="needs float weights"):
        apply(trained(), [Quantize(mode="weight_only"), FineTuneStep()])
