"""A recipe: ordered steps, each a configuration type with one registered handler.

The pattern (config dataclass -> handler, no class hierarchy) is that of torchao's
``transform_module``.
"""

from __future__ import annotations

import copy
import functools
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.export import ExportedProgram

from compress import capture, constraints, quality
from compress.errors import CompressError
from compress.journal import Run
from compress.ledger import Cost, LedgerRow
from compress.task import Task


class StepConfig(BaseModel):
    """Base of every step's configuration; ``kind`` (a Literal) tells the steps apart in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str


@dataclass(frozen=True)
class State:
    """What a step gets and returns.

    ``model`` holds float weights that can still be changed; it is None after a step that leaves
    only a program (quantization). It is the step's own copy, in evaluation mode: a step may change
    it in place. Weights may carry constraints (:mod:`compress.constraints`). ``notes`` of the step
    that just ran end in its ledger row. ``measure`` gives the cost of a program on the device that
    the user named; None where no device was named.
    """

    task: Task
    model: nn.Module | None
    program: ExportedProgram | None
    notes: tuple[str, ...] = ()
    run: Run = field(default_factory=Run)
    measure: Callable[[ExportedProgram], Cost] | None = None

    def float_model(self) -> nn.Module:
        """The model; ``CompressError`` where an earlier step left no float weights."""
        if self.model is None:
            raise CompressError(
                "needs float weights, but the model is an exported or quantized program by now",
                hint="Put this step before the quantization, and give the task an nn.Module.",
            )
        return self.model


@dataclass(frozen=True)
class Compressed:
    """The uncompressed and the compressed program with their outputs on the evaluation samples.

    The outputs are what every export of a program is held to. ``ledger``: what each step bought.
    """

    baseline: ExportedProgram
    baseline_outputs: list[quality.Outputs]
    program: ExportedProgram
    program_outputs: list[quality.Outputs]
    ledger: tuple[LedgerRow, ...]


Handler = Callable[[State, Any], State]
Config = TypeVar("Config", bound=StepConfig)

_HANDLERS: dict[type[StepConfig], Handler] = {}


def handles(
    config: type[Config],
) -> Callable[[Callable[[State, Config], State]], Callable[[State, Config], State]]:
    """Register the decorated function as the handler of a step's configuration type."""

    def register(handler: Callable[[State, Config], State]) -> Callable[[State, Config], State]:
        _HANDLERS[config] = handler
        return handler

    return register


def step_union() -> Any:
    """The type of one recipe step for pydantic: the union of all registered configurations."""
    types = sorted(_HANDLERS, key=lambda config: config.__name__)
    if len(types) == 1:
        return types[0]
    return Annotated[functools.reduce(operator.or_, types), Field(discriminator="kind")]


def apply(
    task: Task,
    steps: Sequence[StepConfig],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    journal: Path | None = None,
) -> Compressed:
    """Run the steps in order and judge the model after each one on the task's evaluation data.

    Everything random comes from ``seed``: the same task, steps and seed give the same program.
    ``journal`` is a folder that keeps finished trainings, so that the same call after a crash goes
    on where that one stood. Raises ``CompressError`` that names the step.
    """
    run = Run(seed, progress, journal)
    torch.manual_seed(seed)
    started = time.monotonic()
    if isinstance(task.model, ExportedProgram):
        state = State(task, None, task.model, run=run)
        baseline = task.model
    else:
        model = copy.deepcopy(task.model).eval()
        state = State(task, model, None, run=run)
        baseline = capture.capture(model, task.example_inputs)
    progress(f"judging the uncompressed model on {len(task.evaluation)} samples")
    reference = quality.run_all(capture.forward_of(baseline), task.evaluation)
    judge = functools.partial(_row, task=task, reference=reference)
    ledger = [judge("uncompressed", baseline, reference, seconds=time.monotonic() - started)]
    program, outputs = baseline, reference
    for number, step in enumerate(steps, start=1):
        where = f"recipe step {number} ({step.kind})"
        progress(f"{where}: running")
        started = time.monotonic()
        handler = _HANDLERS.get(type(step))
        if handler is None:
            known = ", ".join(sorted(str(c.model_fields["kind"].default) for c in _HANDLERS))
            raise CompressError(f"no such step; there is: {known or 'none'}", where=where)
        # A step starts from the seed and its place alone, whatever was resumed before it.
        here = replace(run, place=where)
        torch.manual_seed(here.derived_seed())
        try:
            own = copy.deepcopy(state.model)
            state = handler(replace(state, model=own, notes=(), run=here), step)
            program = state.program or _captured(state)
            outputs = quality.run_all(capture.forward_of(program), task.evaluation)
            row = judge(step.kind, program, outputs, seconds=time.monotonic() - started)
        except CompressError as error:
            place = f"{where}: {error.where}" if error.where else where
            raise CompressError(error.what, where=place, hint=error.hint) from error
        detail = step.model_dump(mode="json", exclude={"kind"})
        ledger.append(row.model_copy(update={"detail": detail, "notes": state.notes}))
    return Compressed(baseline, reference, program, outputs, tuple(ledger))


def _captured(state: State) -> ExportedProgram:
    assert state.model is not None
    plain = constraints.materialize(copy.deepcopy(state.model))
    return capture.capture(plain.eval(), state.task.example_inputs)


def _row(
    step: str,
    program: ExportedProgram,
    outputs: list[quality.Outputs],
    *,
    task: Task,
    reference: list[quality.Outputs],
    seconds: float,
) -> LedgerRow:
    return LedgerRow(
        step=step,
        parameters=capture.count_parameters(program),
        program_bytes=capture.weight_bytes(program),
        seconds=round(seconds, 3),
        quality=quality.compare(reference, outputs, task.metric, quality.targets_of(task)),
    )
