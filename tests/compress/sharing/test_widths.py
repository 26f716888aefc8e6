"""Layers compete for bits by what their error does to the outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.cluster import Cluster, cluster
from compress.pruning.weights import Weight, weights_of
from compress.recipe import State
from compress.sharing import widths
from compress.sharing.plan import Plan
from compress.task import Sample, Task
from tests.compress.networks import NO_TARGET

GENERATOR = torch.Generator().manual_seed(3)
INPUTS = [(torch.randn(1, 24, generator=GENERATOR),) for _ in range(6)]


class Two(nn.Module):
    """Two linear layers side by side; the second counts ten times as much."""

    def __init__(self) -> None:
        super().__init__()
        self.quiet = nn.Linear(24, 16)
        self.loud = nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.quiet(x), 10 * self.loud(x)


def two() -> tuple[Two, list[Weight]]:
    torch.manual_seed(0)
    model = Two().eval()
    return model, weights_of(model)


def test_noise_is_what_the_outputs_differ_by() -> None:
    """Computed again by hand: energy of (W - V) x over that of the outputs and of W - V."""
    model, weights = two()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    plans = [Plan.of(weight, 4, None) for weight in weights]
    found = widths.noise_alone(model, plans, INPUTS)
    x = torch.cat([one for (one,) in INPUTS]).double()
    signal = sum(float(v.detach().double().square().sum()) for v in model(x.float()))
    for plan, factor, got in zip(plans, (1.0, 100.0), found, strict=True):
        exact, rough = plan.weight.value.double(), widths._rough(plan).double()
        assert all(len(group.unique()) <= 16 for group in rough.view(4, -1))
        away = exact - rough
        expected = factor * float((x @ away.T).square().sum()) / signal / float(away.square().sum())
        assert got == pytest.approx(expected, rel=1e-3)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_a_weight_that_few_values_hold_makes_no_noise() -> None:
    model, weights = two()
    with torch.no_grad():
        model.quiet.weight.copy_(model.quiet.weight.sign())
        model.loud.weight[:8] = 0
    quiet, loud = widths.noise_alone(model, [Plan.of(w, None, None) for w in weights], INPUTS)
    assert quiet == 0
    assert loud > 0


def test_the_loud_layer_gets_more_bits() -> None:
    model, _ = two()
    task = Task(model, INPUTS[0], INPUTS, [Sample(INPUTS[0])], NO_TARGET)
    state = cluster(State(task, model, None), Cluster(mean_bits=6.2, importance="outputs"))
    count = {w.layer: len(w.value.unique()) for w in weights_of(state.float_model())}
    assert count["loud"] >= 4 * count["quiet"]
    assert any(note.startswith("widths for 6.2 bits a weight") for note in state.notes)
