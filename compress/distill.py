"""Knowledge distillation: a student is fitted to a teacher's answers besides the true ones."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from compress.errors import CompressError, PocketshipError, first_line
from compress.hints import AttentionPair, HiddenPair, Hints, Watched
from compress.journal import key_of
from compress.memory_layout import can_be_channels_last
from compress.quality import flat_outputs
from compress.samples import Sample, batch
from compress.task import Task
from compress.training import Objective


class Distillation(BaseModel):
    """Soft labels (Hinton et al., arXiv 1503.02531), mixed with the hard loss; more if asked for.

    loss = (1 - soft_weight) * task loss
         + soft_weight * temperature^2 * KL(teacher / temperature || student / temperature)
         + weight * mean squared difference             for each pair of ``hidden``
         + weight * squared difference of attention     for each pair of ``attention``

    The KL divergence is that of the softmax over ``class_axis`` of the first output, averaged over
    all other axes. ``method: mse`` takes the mean squared difference of the first outputs instead,
    without temperature: for outputs that are no class scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["soft", "mse"] = "soft"
    temperature: float = Field(default=4.0, gt=0)
    soft_weight: float = Field(default=0.7, ge=0, le=1)
    class_axis: int = -1
    hidden: tuple[HiddenPair, ...] = ()
    attention: tuple[AttentionPair, ...] = ()


class Distilled:
    """The objective of a distillation, and what its optimizer fits besides the student.

    Args:
        seed: the projections between layers of different width start from it.

    ``trained`` is the student, or a module that holds it and those projections. Raises
    ``CompressError`` where the teacher cannot take the student's inputs, and for pairs of layers
    that do not exist or cannot be compared.
    """

    def __init__(
        self, config: Distillation, student: nn.Module, teacher: nn.Module, task: Task,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.config, self.task = config, task
        # A copy: evaluation mode must not reach the user's module.
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.trained = student
        self.hints: Hints | None = None
        sample = batch(task.train, torch.arange(min(2, len(task.train))))
        pairs = (*config.hidden, *config.attention)
        with Watched(self.teacher, [pair.taught for pair in pairs], "the teacher") as seen:
            self._answer_of_teacher(sample)
        if can_be_channels_last(self.teacher, lambda trial: trial(*sample.inputs)):
            self.teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if pairs:
            self.hints = Hints(
                config.hidden, config.attention, student, taught=seen, sample=sample, seed=seed
            )
            if len(self.hints.projections):
                self.trained = nn.ModuleDict(
                    {"student": student, "projections": self.hints.projections}
                )

    def signature(self) -> list[object]:
        """What a checkpoint of such a training depends on."""
        return ["distill", self.config.model_dump(), key_of(self.teacher)]

    def objective(self) -> Objective:
        """The loss of a batch. Layers are watched during the forward passes only."""

        def loss(model: nn.Module, sample: Sample) -> Tensor:
            hints = self.hints
            if hints is None:
                answer = flat_outputs(model(*sample.inputs))[0]
                return self._answer_loss(answer, self._answer_of_teacher(sample), sample)
            with Watched(model, hints.student_layers, "the student") as learnt:
                answer = flat_outputs(model(*sample.inputs))[0]
            with Watched(self.teacher, hints.teacher_layers, "the teacher") as taught:
                wanted = self._answer_of_teacher(sample)
            return self._answer_loss(answer, wanted, sample) + hints.loss(learnt, taught)

        return loss

    def _answer_of_teacher(self, sample: Sample) -> Tensor:
        try:
            with torch.no_grad():
                return flat_outputs(self.teacher(*sample.inputs))[0]
        except PocketshipError:
            raise
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in sample.inputs)
            raise CompressError(
                f"the teacher cannot take the student's inputs {shapes}: {first_line(error)}",
                where="distill",
                hint="Give Task(teacher=...) a module for the same inputs.",
            ) from error

    def _answer_loss(self, answer: Tensor, wanted: Tensor, sample: Sample) -> Tensor:
        config = self.config
        if answer.shape != wanted.shape:
            raise CompressError(
                f"the student answers {list(answer.shape)}, the teacher {list(wanted.shape)}",
                where="distill",
                hint="Both need the same first output.",
            )
        total = answer.new_zeros(())
        if config.soft_weight < 1:
            assert sample.target is not None
            total = total + (1 - config.soft_weight) * self.task.loss(answer, sample.target)
        if config.soft_weight > 0:
            total = total + config.soft_weight * self._soft(answer, wanted)
        return total

    def _soft(self, answer: Tensor, wanted: Tensor) -> Tensor:
        config = self.config
        if config.method == "mse":
            return functional.mse_loss(answer.float(), wanted.float())
        if not -answer.ndim <= config.class_axis < answer.ndim or answer.ndim < 2:
            raise CompressError(
                f"class_axis {config.class_axis} is no class axis of {list(answer.shape)}",
                where="distill",
                hint="Use method: mse for outputs that are no class scores.",
            )
        if answer.shape[config.class_axis] == 1:
            raise CompressError(
                f"the class axis of {list(answer.shape)} has one class, whose softmax is always 1",
                where="distill",
                hint="Use method: mse, or name another class_axis.",
            )
        student, teacher = (
            _rows(t, config.class_axis) / config.temperature for t in (answer, wanted)
        )
        divergence = functional.kl_div(
            functional.log_softmax(student, dim=-1),
            functional.log_softmax(teacher, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        return config.temperature**2 * divergence


def _rows(scores: Tensor, class_axis: int) -> Tensor:
    """[..., classes, ...] -> [rows, classes]."""
    last = scores.float().movedim(class_axis, -1)
    return last.reshape(-1, last.shape[-1])
