"""A budget is one share of one figure, and the figures are counted right."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compress import constraints
from compress.errors import CompressError
from compress.ledger import Cost
from compress.pruning.budget import Budget, count_macs, count_parameters, measure_of
from compress.recipe import State
from tests.compress.networks import task_of
from tests.compress.structures import SHAPE, made

EXAMPLE = (torch.zeros(SHAPE),)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"macs": 0.5, "parameters": 0.5},
        {"macs": 0.0},
        {"macs": 1.0},
        {"parameters": -0.5},
        {"cost": 50},
        {"macs": float("nan")},
        {"flops": 0.5},
    ],
)
def test_refused(keys: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Budget(**keys)


def test_kind_and_share() -> None:
    assert (Budget(macs=0.5).kind, Budget(macs=0.5).share) == ("macs", 0.5)
    assert (Budget(cost=0.3).kind, Budget(parameters=0.2).kind) == ("cost", "parameters")


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv2d(3, 5, 3), (2, 3, 8, 8), 2 * 5 * 36 * 27),
        (nn.Conv2d(4, 4, 3, groups=4, padding=1), (1, 4, 8, 8), 4 * 64 * 9),
        (nn.Conv2d(4, 6, 1, groups=2), (1, 4, 8, 8), 6 * 64 * 2),
        (nn.ConvTranspose2d(4, 6, 2, 2), (1, 4, 8, 8), 64 * 4 * 6 * 4),
        (nn.Linear(7, 3), (5, 7), 5 * 7 * 3),
        # Projections in and out, scores, and their product with the values.
        (
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            (1, 5, 8),
            5 * 8 * 8 * 4 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16,
        ),
    ],
)
def test_macs(layer: nn.Module, shape: tuple[int, ...], macs: int) -> None:
    assert count_macs(layer.eval(), (torch.zeros(shape),)) == macs


def test_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert count_parameters(model) == 16 + 8
    constraints.apply_mask(model[0], "bias", torch.tensor([True, False, True, True]))
    assert count_parameters(model) == 16 + 8


def test_cost_is_asked_of_the_device() -> None:
    model = made(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    constraints.apply_mask(model[1], "bias", torch.tensor([True, False, True, True]))
    seen = []

    def measure(program: torch.export.ExportedProgram) -> Cost:
        seen.append([n.target for n in program.graph.nodes if n.op == "call_function"])
        value = 7.5 if len(seen) == 1 else None
        return Cost(device="d", format="f", metric="m", tier="host", value=value, reason="gone")

    state = State(task_of(model, SHAPE), model, None, measure=measure)
    figure = measure_of(state, "cost")
    assert figure(model) == 7.5
    # What is measured is the plain program, without the mask's operators.
    assert torch.ops.aten.where.ScalarOther not in seen[0]
    assert len(seen[0]) == 2
    assert constraints.masks(model)
    with pytest.raises(CompressError, match="the cost could not be measured on d: gone"):
        figure(model)


def test_cost_without_a_device() -> None:
    model = made(lambda: nn.Linear(4, 4))
    with pytest.raises(CompressError, match=r"budget\.cost: .* needs a device to measure on"):
        measure_of(State(task_of(model, (1, 4)), model, None), "cost")
