"""Steps run in order, are judged after each, and a failing one is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from compress import recipe
from compress.errors import CompressError
from compress.quantize import Quantize
from compress.recipe import State, StepConfig, apply, handles
from tests.compress.networks import Small, images, made_of, seeded, task_of


class Scale(StepConfig):
    kind: Literal["scale"] = "scale"
    by: float = 1.0


class Unregistered(StepConfig):
    kind: Literal["unregistered"] = "unregistered"


class Head(nn.Module):
    def __init__(self, inner: nn.Module, by: float) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * self.by


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recipe, "_HANDLERS", dict(recipe._HANDLERS))

    @handles(Scale)
    def scale(state: State, config: Scale) -> State:
        assert state.model is not None
        if config.by == 0:
            raise CompressError("cannot scale by 0", hint="Choose another factor.")
        return replace(state, model=Head(state.model, config.by), notes=(f"times {config.by}",))

    yield


def test_rows_and_order() -> None:
    task = task_of(seeded(Small))
    said: list[str] = []
    made = apply(task, [Scale(by=2.0), Scale(by=0.5), Scale(by=3.0)], progress=said.append)
    assert [row.step for row in made.ledger] == ["uncompressed", "scale", "scale", "scale"]
    assert [row.detail for row in made.ledger[1:]] == [{"by": 2.0}, {"by": 0.5}, {"by": 3.0}]
    assert made.ledger[2].notes == ("times 0.5",)
    # Each row compares with the uncompressed model, not with the row before.
    assert made.ledger[2].quality is not None
    assert made.ledger[2].quality.sqnr_db is None
    assert made.ledger[3].quality is not None
    assert made.ledger[3].quality.sqnr_db == pytest.approx(-6.02, abs=0.01)
    expected = made.baseline_outputs[0][0] * 3.0
    assert torch.allclose(made.program_outputs[0][0], expected)
    assert any("recipe step 3 (scale)" in line for line in said)


def test_no_steps_is_the_baseline() -> None:
    made = apply(task_of(seeded(Small)), [])
    assert made.program is made.baseline
    assert [row.step for row in made.ledger] == ["uncompressed"]


def test_same_seed_same_program() -> None:
    one, two = made_of(Small), apply(task_of(seeded(Small)), [Quantize()])
    assert str(one.program.graph) == str(two.program.graph)
    assert one.program.state_dict.keys() == two.program.state_dict.keys()
    for name, tensor in one.program.state_dict.items():
        assert torch.equal(tensor, two.program.state_dict[name])


def test_failing_step_is_named() -> None:
    with pytest.raises(CompressError) as caught:
        apply(task_of(seeded(Small)), [Scale(), Scale(by=0)])
    assert str(caught.value) == "recipe step 2 (scale): cannot scale by 0. Choose another factor."


def test_step_whose_result_overflows_is_named() -> None:
    with pytest.raises(CompressError, match=r"recipe step 1 \(scale\).*NaN or infinity"):
        apply(task_of(seeded(Small)), [Scale(by=1e39)])


def test_unknown_step() -> None:
    with pytest.raises(CompressError, match=r"step 1 \(unregistered\): no such step.*quantize"):
        apply(task_of(seeded(Small)), [Unregistered()])


@pytest.mark.slow
def test_exported_program_as_task() -> None:
    model = seeded(Small)
    program = torch.export.export(model, images(1, 1)[0])
    before = {name: tensor.clone() for name, tensor in program.state_dict.items()}
    made = apply(task_of(program), [Quantize()])
    direct = made_of(Small)
    assert torch.equal(made.program_outputs[0][0], direct.program_outputs[0][0])
    assert made.baseline is program
    assert all(torch.equal(program.state_dict[name], value) for name, value in before.items())
