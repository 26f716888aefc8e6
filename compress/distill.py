"""Knowledge distillation: a student is fitted to a teacher's answers besides the true ones."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from compress.journal import key_of
from compress.quality import flat_outputs
from compress.samples import Sample
from compress.task import Task
from compress.training import Objective


class Distillation(BaseModel):
    """Soft labels (Hinton et al., arXiv 1503.02531), mixed with the hard loss.

    loss = (1 - soft_weight) * task loss
         + soft_weight * temperature^2 * KL(teacher / temperature || student / temperature)
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["soft"] = "soft"
    temperature: float = Field(default=4.0, gt=0)
    soft_weight: float = Field(default=0.7, ge=0, le=1)


class Distilled:
    """The objective of a distillation, and what its optimizer fits besides the student."""

    def __init__(self, config: Distillation, student: nn.Module, teacher: nn.Module, task: Task):
        self.config, self.task = config, task
        # A copy: evaluation mode must not reach the user's module.
        self.teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self.trained = student

    def signature(self) -> list[object]:
        """What a checkpoint of such a training depends on."""
        return ["distill", self.config.model_dump(), key_of(self.teacher)]

    def objective(self) -> Objective:
        """The loss of a batch."""

        def loss(model: nn.Module, sample: Sample) -> Tensor:
            config = self.config
            assert sample.target is not None
            answer = flat_outputs(model(*sample.inputs))[0]
            hard = self.task.loss(answer, sample.target)
            with torch.no_grad():
                taught = flat_outputs(self.teacher(*sample.inputs))[0]
            soft = functional.kl_div(
                functional.log_softmax(answer / config.temperature, dim=-1),
                functional.log_softmax(taught / config.temperature, dim=-1),
                reduction="batchmean",
                log_target=True,
            )
            weight = config.soft_weight
            return (1 - weight) * hard + weight * config.temperature**2 * soft

        return loss
