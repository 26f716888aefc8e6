"""Fine-tuning: what other steps do after they changed weights, and a step of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import nn

from compress.distill import Distillation, Distilled
from compress.errors import CompressError
from compress.journal import Run
from compress.recipe import State, StepConfig, handles
from compress.task import Task
from compress.training import History, SetMode, Training, fit, set_module_mode


class FineTuning(Training):
    """A :class:`Training`, by the true targets or also by a teacher's answers."""

    distill: Distillation | None = None


class FineTuneStep(FineTuning, StepConfig):
    """Train the model as it is now; constraints of earlier steps (masks, codebooks) hold."""

    kind: Literal["fine_tune"] = "fine_tune"


def fine_tune(
    model: nn.Module,
    task: Task,
    config: FineTuning,
    run: Run,
    *,
    purpose: str = "fine-tuning",
    signature: object = None,
    set_mode: SetMode = set_module_mode,
    before_batch: Callable[[int, int], None] | None = None,
    after_batch: Callable[[], None] | None = None,
) -> History:
    """:func:`compress.training.fit` with the objective that ``config`` asks for."""
    if config.distill is None:
        return fit(
            model, task, config, run, purpose=purpose, signature=signature,
            set_mode=set_mode, before_batch=before_batch, after_batch=after_batch,
        )  # fmt: skip
    distilled = Distilled(config.distill, model, teacher_of(task), task)
    return fit(
        model, task, config, run, purpose=purpose, objective=distilled.objective(),
        signature=[signature, distilled.signature()], trained=distilled.trained,
        set_mode=set_mode, before_batch=before_batch, after_batch=after_batch,
    )  # fmt: skip


def teacher_of(task: Task) -> nn.Module:
    """The task's teacher, or its uncompressed model; ``CompressError`` where that is a program."""
    teacher = task.teacher or task.model
    if not isinstance(teacher, nn.Module):
        raise CompressError(
            "an exported program cannot teach", hint="Give Task(teacher=...) an nn.Module."
        )
    return teacher


@handles(FineTuneStep)
def fine_tune_step(state: State, config: FineTuneStep) -> State:
    """Train the float model."""
    model = state.float_model()
    history = fine_tune(model, state.task, config, state.run)
    return replace(state, notes=(history.words(),))
