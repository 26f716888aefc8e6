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


class DistillStep(FineTuning, StepConfig):
    """:class:`FineTuneStep` that learns from a teacher unless told how otherwise."""

    kind: Literal["distill"] = "distill"
    distill: Distillation = Distillation()


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
    """:func:`compress.training.fit` with the objective that ``config`` asks for.

    A student that is a captured graph (quantization-aware training) has no layers by name: it can
    learn soft labels, ``hidden`` and ``attention`` are refused. Projections are gone afterwards.
    """
    if config.distill is None:
        return fit(
            model, task, config, run, purpose=purpose, signature=signature,
            set_mode=set_mode, before_batch=before_batch, after_batch=after_batch,
        )  # fmt: skip
    if not task.train:
        raise CompressError(
            "distillation needs task.train, which is empty",
            where=purpose,
            hint="Give Task(train=[...], validation=[...]), or leave the fine-tuning out.",
        )
    seed = run.derived_seed(purpose, "projections")
    distilled = Distilled(config.distill, model, teacher_of(task), task, seed)
    return fit(
        model, task, config, run, purpose=purpose, objective=distilled.objective(),
        signature=[signature, distilled.signature()], trained=distilled.trained,
        set_mode=set_mode, before_batch=before_batch, after_batch=after_batch,
    )  # fmt: skip


def teacher_of(task: Task) -> nn.Module:
    """The task's teacher, or its uncompressed model; ``CompressError`` where that is a program."""
    teacher = task.model if task.teacher is None else task.teacher
    if not isinstance(teacher, nn.Module):
        raise CompressError(
            "an exported program cannot teach", hint="Give Task(teacher=...) an nn.Module."
        )
    return teacher


@handles(FineTuneStep)
def fine_tune_step(state: State, config: FineTuneStep) -> State:
    """Train the float model."""
    return _trained(state, config)


@handles(DistillStep)
def distill_step(state: State, config: DistillStep) -> State:
    """Train the float model by its teacher."""
    return _trained(state, config)


def _trained(state: State, config: FineTuning) -> State:
    model = state.float_model()
    history = fine_tune(model, state.task, config, state.run)
    return replace(state, notes=(history.words(),))
