"""What of a model may remain: a share of its MACs, parameters or measured cost."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.attention
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress import capture, constraints
from compress.errors import CompressError
from compress.quality import run_example
from compress.recipe import State
from compress.task import Inputs

Kind = Literal["macs", "parameters", "cost"]
Measure = Callable[[nn.Module], float]
WORDS: dict[Kind, str] = {"macs": "MACs", "parameters": "parameters", "cost": "measured cost"}


class Budget(BaseModel):
    """Exactly one figure: the share of it (0 to 1, both excluded) that may remain after the step.

    ``macs``: multiply-accumulates of one inference. ``parameters``: elements of all parameters,
    shared ones once. ``cost``: measured on the device that the recipe names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    macs: float | None = Field(default=None, gt=0, lt=1)
    parameters: float | None = Field(default=None, gt=0, lt=1)
    cost: float | None = Field(default=None, gt=0, lt=1)

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if sum(share is not None for share in (self.macs, self.parameters, self.cost)) != 1:
            raise ValueError("give exactly one of macs, parameters and cost")
        return self

    @property
    def kind(self) -> Kind:
        """Which figure is limited."""
        if self.macs is not None:
            return "macs"
        return "parameters" if self.parameters is not None else "cost"

    @property
    def share(self) -> float:
        """The share that may remain."""
        share = getattr(self, self.kind)
        assert isinstance(share, float)
        return share


def measure_of(state: State, kind: Kind) -> Measure:
    """A function that gives the figure of a model (which it leaves as it is).

    Raises ``CompressError`` where the recipe names no device to measure cost on.
    """
    if kind == "macs":
        return lambda model: count_macs(model, state.task.example_inputs)
    if kind == "parameters":
        return count_parameters
    measure = state.measure
    if measure is None:
        raise CompressError(
            "a budget of cost needs a device to measure on, and the recipe names none",
            where="budget.cost",
            hint="Name one under recipe.cost, or give a budget of macs or parameters.",
        )

    def cost(model: nn.Module) -> float:
        plain = constraints.materialize(copy.deepcopy(model)).eval()
        answer = measure(capture.capture(plain, state.task.example_inputs))
        if answer.value is None:
            raise CompressError(
                f"the cost could not be measured on {answer.device}: {answer.reason}",
                where="budget.cost",
            )
        return answer.value

    return cost


def count_parameters(model: nn.Module) -> int:
    """Elements of all parameters; one that several layers share counts once."""
    # parameters() of a masked weight gives the tensor below the mask: the same number of elements.
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: nn.Module, inputs: Inputs) -> int:
    """Multiply-accumulates of one inference: convolutions, matrix products, attention.

    Counted by torch's flop counter (half of its operations) while the model runs, so that
    functional calls count too. Element-wise operators are left out, as is usual.
    """
    # Attention as the CPU fuses it is one operator that the counter does not know.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            run_example(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return int(counter.get_total_flops()) // 2
