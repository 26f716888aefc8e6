"""A model without its batch norms computes the same; what must stay, stays."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from compress.cluster import Cluster, cluster
from compress.errors import CompressError
from compress.fold import FoldBatchNorm, fold_batch_norm, fold_batch_norm_step
from compress.pruning.weights import weights_of
from compress.recipe import State
from compress.sparsify import Prune, prune
from tests.compress.networks import images, task_of


class Norms(nn.Module):
    """Every kind of layer that takes up a norm, and norms that cannot go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.plain = nn.BatchNorm2d(8, affine=False)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2)
        self.up_norm = nn.BatchNorm2d(6)
        self.twice = nn.Conv2d(6, 6, 1)
        self.twice_norm = nn.BatchNorm2d(6)
        self.read_twice = nn.Conv2d(6, 6, 1)
        self.read_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        self.head_norm = nn.BatchNorm1d(5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.plain(self.depthwise(self.norm(self.stem(x)).relu()))
        x = self.up_norm(self.up(x))
        x = self.twice_norm(self.twice(self.twice_norm(self.twice(x))))
        y = self.read_twice(x)
        return self.head_norm(self.head((self.read_norm(y) + y).mean((2, 3))))


def norms() -> nn.Module:
    torch.manual_seed(0)
    model = Norms().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight, 1, 0.3)
                nn.init.normal_(module.bias)
    return model


@pytest.mark.parametrize("keep", [None, 0.5])
def test_the_function_is_the_same(keep: float | None) -> None:
    task = task_of(norms())
    state = State(task, norms(), None)
    if keep is not None:
        state = prune(state, Prune(keep=keep))
    before = copy.deepcopy(state.float_model())
    zeros = {w.full_name: w.value == 0 for w in weights_of(before)}
    state = fold_batch_norm_step(state, FoldBatchNorm())
    after = state.float_model()
    assert state.notes == ("4 batch normalisations folded, 2 left",)
    assert isinstance(after.norm, nn.Identity)
    assert isinstance(after.twice_norm, nn.BatchNorm2d)
    assert isinstance(after.read_norm, nn.BatchNorm2d)
    for (x,) in images(4, 9):
        torch.testing.assert_close(after(x), before(x), rtol=1e-4, atol=1e-5)
    for weight in weights_of(after):
        assert torch.equal(weight.value == 0, zeros[weight.full_name])
        assert len(weight.constrained_by) == (0 if keep is None else 1)


class Unbiased(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight)


def test_a_layer_that_ignores_its_bias_is_refused() -> None:
    model = nn.Sequential(Unbiased(3, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    with pytest.raises(CompressError, match=r"^0: the layer's own forward\(\) ignores a bias"):
        fold_batch_norm(model, images(1, 1)[0])


def test_shared_values_are_not_torn_apart() -> None:
    task = task_of(norms())
    state = cluster(State(task, norms(), None), Cluster(bits=2, layers=("stem",)))
    folded = fold_batch_norm(state.float_model(), task.example_inputs)
    assert folded == ["depthwise", "up", "head"]
    assert len(state.float_model().stem.weight.unique()) == 4
    assert state.notes[-1].startswith("1 of these layers have a batch norm behind them")
