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
from compress.errors import CompressError, ConfigError
from compress.journal import Run
from compress.judgement import worth
from compress.judgement.judging import Judge, Measure
from compress.judgement.worth import KeepIf
from compress.ledger import LedgerRow
from compress.task import Task


class StepConfig(BaseModel):
    """Base of every step's configuration; ``kind`` (a Literal) tells the steps apart in YAML.

    ``keep_if``: what the step must reach, else it is dropped. Handlers never see it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    keep_if: KeepIf | None = None


@dataclass(frozen=True)
class State:
    """What a step gets and returns.

    ``model`` holds float weights that can still be changed; it is None after a step that leaves
    only a program (quantization). It is the step's own copy, in evaluation mode: a step may change
    it in place. Weights may carry constraints (:mod:`compress.constraints`). ``notes`` of the step
    that just ran end in its ledger row. ``measure`` runs a program on the device that the user
    named; None where none is named. A ``program`` is shared with earlier states: never change it in
    place.
    """

    task: Task
    model: nn.Module | None
    program: ExportedProgram | None
    notes: tuple[str, ...] = ()
    run: Run = field(default_factory=Run)
    measure: Measure | None = None

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
    measure: Measure | None = None,
) -> Compressed:
    """Run the steps in order and judge the model after each one.

    Everything random comes from ``seed``: the same task, steps and seed give the same program,
    unless a measured time decides (``keep_if.min_cost_gain``). A step that misses its ``keep_if``
    is undone; its row stays, with ``kept`` False.

    Args:
        journal: a folder that keeps finished trainings, so that the same call after a crash goes on
            where that one stood.
        measure: runs a program on a device, for the ledger's ``cost`` and for steps that ask.

    Raises ``ConfigError`` before anything runs where a ``keep_if`` asks what cannot be known, and
    ``CompressError`` that names the step.
    """
    _refuse_unknowable(task, steps, has_cost=measure is not None)
    run = Run(seed, progress, journal)
    torch.manual_seed(seed)
    started = time.monotonic()
    if isinstance(task.model, ExportedProgram):
        state = State(task, None, task.model, run=run, measure=measure)
        baseline, module = task.model, None
    else:
        module = copy.deepcopy(task.model).eval()
        state = State(task, module, None, run=run, measure=measure)
        baseline = capture.capture(module, task.example_inputs)
    seconds = time.monotonic() - started
    progress(f"judging the uncompressed model on {len(task.evaluation)} samples")
    judge = Judge(task, baseline, run, measure)
    kept = judge.uncompressed(baseline, module, seconds)
    ledger, kept_at = [kept.row], 0
    for number, step in enumerate(steps, start=1):
        where = f"recipe step {number} ({step.kind})"
        progress(f"{where}: running")
        try:
            started = time.monotonic()
            after = _run_step(step, replace(state, run=replace(run, place=where)))
            program, module = _plain(after)
            seconds = time.monotonic() - started
            progress(f"{where}: judging")
            judged = judge.step(step.kind, program, module, seconds)
            row, before = judged.row, kept.row
            dropped = worth.refusal(step.keep_if or KeepIf(), row, before, task.metric.gain)
        except CompressError as error:
            place = f"{where}: {error.where}" if error.where else where
            raise CompressError(error.what, where=place, hint=error.hint) from error
        # Of a step that is undone only the reason matters.
        said = (dropped,) if dropped else worth.warnings(row, before, task.metric.gain)
        row = row.model_copy(
            update={
                "detail": step.model_dump(mode="json", exclude=_hidden(step)),
                "chosen": step.model_dump(mode="json", exclude={"kind"}, exclude_defaults=True),
                "notes": after.notes,
                "kept": not dropped,
                "warnings": said,
            }
        )
        for words in row.warnings:
            progress(f"{where}: {words}")
        if not dropped:
            state, kept, kept_at = after, replace(judged, row=row), len(ledger)
        ledger.append(row)
    kept = judge.exactly(kept)
    ledger[kept_at] = kept.row
    return Compressed(baseline, judge.reference, kept.program, kept.outputs, tuple(ledger))


def _refuse_unknowable(task: Task, steps: Sequence[StepConfig], *, has_cost: bool) -> None:
    for number, step in enumerate(steps, start=1):
        if step.keep_if is None:
            continue
        missing = step.keep_if.unknowable(has_validation=bool(task.validation), has_cost=has_cost)
        if missing:
            raise ConfigError(missing, where=f"recipe step {number} ({step.kind}): keep_if")


def _run_step(step: StepConfig, state: State) -> State:
    handler = _HANDLERS.get(type(step))
    if handler is None:
        known = ", ".join(sorted(str(c.model_fields["kind"].default) for c in _HANDLERS))
        raise CompressError(f"no such step; there is: {known or 'none'}")
    # A step starts from the seed and its place alone, whatever was resumed before it.
    torch.manual_seed(state.run.derived_seed())
    # Without keep_if, so that an edited one repeats no training: checkpoints know the whole step.
    bare = step.model_copy(update={"keep_if": None})
    return handler(replace(state, model=copy.deepcopy(state.model), notes=()), bare)


def _plain(state: State) -> tuple[ExportedProgram, nn.Module | None]:
    """The state's program and, where it still has float weights, a module that computes it."""
    if state.model is None:
        assert state.program is not None
        return state.program, None
    module = constraints.materialize(copy.deepcopy(state.model)).eval()
    return state.program or capture.capture(module, state.task.example_inputs), module


def _hidden(step: StepConfig) -> set[str]:
    """Keys that a row's detail leaves out."""
    return {"kind"} if step.keep_if is not None else {"kind", "keep_if"}
