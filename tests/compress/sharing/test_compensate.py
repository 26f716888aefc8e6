"""Compensated assignments leave less error at the output than nearest values do."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from compress.cluster import Cluster, cluster
from compress.pruning.weights import weights_of
from compress.recipe import State
from compress.sharing.compensate import assign, input_moments
from compress.sparsify import Prune, prune
from tests.compress.networks import Small, images, seeded, task_of


def test_moments_are_those_of_the_layer_s_product() -> None:
    """For each row w of the weight, w H w^T is the energy of that output channel."""
    model = seeded(Small)
    inputs = images(3, 1)
    moments = input_moments(model, weights_of(model), inputs)
    energy: dict[str, torch.Tensor] = {}
    for name in ("stem", "depthwise", "point", "head"):
        layer = model.get_submodule(name)

        def add(module: nn.Module, given: object, out: torch.Tensor, name: str = name) -> None:
            bias = 0 if module.bias is None else module.bias.view(-1, *[1] * (out.ndim - 2))
            square = (out - bias).square().transpose(0, 1).flatten(1).sum(1)
            energy[name] = energy.get(name, 0) + square

        layer.register_forward_hook(add)
    with torch.no_grad():
        for one in inputs:
            model(*one)
    for weight in weights_of(model):
        found = moments[weight.full_name]
        rows = weight.value.reshape(len(found), -1, found.shape[-1]).double()
        got = torch.einsum("grc,gcd,grd->gr", rows, found, rows).reshape(-1)
        torch.testing.assert_close(got.float(), energy[weight.layer], rtol=1e-3, atol=1e-4)


def test_assignment_against_all_of_them() -> None:
    """Two rows of four columns and three values: of 81 assignments it finds a very good one."""
    generator = torch.Generator().manual_seed(0)
    table = torch.tensor([-1.0, 0.1, 0.9])
    places, nearest_places = [], []
    for _ in range(40):
        inputs = torch.randn(4, 40, generator=generator) + torch.randn(1, 40, generator=generator)
        moments = (inputs @ inputs.T).double()[None]
        weight = torch.randn(1, 2, 4, generator=generator)
        found = assign(weight, moments, table.expand(1, 2, 3), torch.ones_like(weight).bool())
        every = torch.cartesian_prod(*[torch.arange(3)] * 4)
        for row in range(2):
            away = (weight[0, row] - table[every]).double()
            errors = torch.einsum("nc,cd,nd->n", away, moments[0], away)
            rank = errors.argsort().argsort()
            nearest = (weight[0, row][:, None] - table).abs().argmin(-1)
            places.append(int(rank[(every == found[0, row]).all(1)]))
            nearest_places.append(int(rank[(every == nearest).all(1)]))
    assert sum(places) < 0.6 * sum(nearest_places)
    assert sorted(places)[40] == 0  # the best of 81 in more than half of the cases


class Layers(nn.Module):
    """A linear layer and a strided convolution behind strongly correlated inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2)
        self.head = nn.Linear(8, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(x).relu().mean((2, 3)))


def correlated(count: int, seed: int) -> list[tuple[torch.Tensor, ...]]:
    pairs = zip(
        images(count, seed, (1, 8, 9, 9)), images(count, seed + 1, (1, 1, 1, 1)), strict=True
    )
    return [(0.3 * noise[0] + common[0],) for noise, common in pairs]


@pytest.mark.parametrize(("keep", "group_size"), [(None, None), (0.5, None), (0.5, 2)])
def test_outputs_are_nearer(keep: float | None, group_size: int | None) -> None:
    model = seeded(Layers)
    task = replace(task_of(model, (1, 8, 9, 9)), calibration=correlated(40, 5))
    state = State(task, copy.deepcopy(model), None)
    if keep is not None:
        state = prune(state, Prune(keep=keep))
    reference = copy.deepcopy(state.float_model())
    zeros = {w.full_name: w.value == 0 for w in weights_of(reference)}
    noise = []
    for compensate in (False, True):
        config = Cluster(bits=2, group_size=group_size, compensate=compensate)
        own = replace(state, model=copy.deepcopy(state.float_model()))
        after = cluster(own, config).float_model()
        with torch.no_grad():
            away = [(after(x) - reference(x)).square().sum() for (x,) in correlated(20, 70)]
        noise.append(float(sum(away)))
        for weight in weights_of(after):
            assert torch.equal(weight.value == 0, zeros[weight.full_name])
            for rows in weight.value.split(group_size or len(weight.value)):
                assert len(rows[rows != 0].unique()) <= 4
    assert noise[1] < 0.8 * noise[0]


def test_a_table_that_is_not_full_loses_no_weight() -> None:
    """With more places than distinct weights nothing changes, also not the largest weight."""
    model = seeded(Layers)
    task = replace(task_of(model, (1, 8, 9, 9)), calibration=correlated(10, 5))
    config = Cluster(bits=8, group_size=4, compensate=True, float16_values=False)
    after = cluster(State(task, copy.deepcopy(model), None), config).float_model()
    for before, weight in zip(weights_of(model), weights_of(after), strict=True):
        assert torch.equal(weight.value, before.value)
    # Rounded tables lie beside the weights, which may then be beyond the last value.
    config = config.model_copy(update={"float16_values": True})
    after = cluster(State(task, copy.deepcopy(model), None), config).float_model()
    for before, weight in zip(weights_of(model), weights_of(after), strict=True):
        torch.testing.assert_close(weight.value, before.value, rtol=0, atol=2e-3)


def test_much_damping_leaves_the_nearest_values() -> None:
    """Inputs of few photographs say little of others: damping takes their word for less."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(1, 3, 12, generator=generator)
    inputs = torch.randn(12, 6, generator=generator)
    table = torch.linspace(-2, 2, 8)
    tables = table.expand(1, 3, 8)
    alive = torch.ones_like(weight).bool()
    moments = (inputs @ inputs.T).double()[None]
    nearest = (weight[..., None] - table).abs().argmin(-1)
    assert torch.equal(assign(weight, moments, tables, alive, 1e9), nearest)
    assert not torch.equal(assign(weight, moments, tables, alive), nearest)
