"""Fitting without labels: the model learns the uncompressed model's answers on calibration inputs.

It is distillation (Hinton et al., arXiv 1503.02531) with soft labels alone, at temperature 1, for
tasks that bring calibration inputs and no training data.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from compress.errors import CompressError
from compress.fine_tune import teacher_of
from compress.quality import flat_outputs, run_all
from compress.recipe import State, StepConfig, handles
from compress.task import Inputs, Sample, Task, TaskMetric
from compress.training import Training, fit

Loss = Literal["auto", "divergence", "squares"]


class Imitate(Training, StepConfig):
    """Train the model as it is now to answer calibration inputs as the teacher does.

    The last ``held_out`` share of ``Task.calibration`` decides which epoch is best. Constraints of
    earlier steps hold; statistics of batch norms stay and dropout is off. ``loss``: divergence of
    the distributions over classes, or mean squared difference of the first output; ``auto`` takes
    the former where the task's own loss is cross-entropy.
    """

    kind: Literal["imitate"] = "imitate"
    held_out: float = Field(default=0.2, gt=0, lt=1)
    loss: Loss = "auto"


@handles(Imitate)
def imitate(state: State, config: Imitate) -> State:
    """Fit the float model to the teacher."""
    model = state.float_model()
    task = taught(state.task, config.held_out, config.loss)
    training = Training(**config.model_dump(include=set(Training.model_fields)))
    history = fit(
        model, task, training, state.run, purpose="imitation", set_mode=lambda net, _: net.eval()
    )
    first = (
        f"{len(task.train)} calibration inputs to learn from, {len(task.validation)} to judge by"
    )
    return replace(state, notes=(first, history.words()))


def taught(task: Task, held_out: float, kind: Loss = "auto") -> Task:
    """A task whose targets are the teacher's answers; ``CompressError`` where data are too few.

    The divergence is that of Kullback and Leibler, axis 1 holding the classes. The metric is the
    loss; lower is better.
    """
    held = max(round(held_out * len(task.calibration)), 1)
    if len(task.calibration) - held < 1:
        raise CompressError(
            f"needs at least two calibration inputs, task.calibration has {len(task.calibration)}",
            hint="Give Task(calibration=[...]) inputs that are not in the evaluation data.",
        )
    teacher = copy.deepcopy(teacher_of(task)).eval()
    inputs: Sequence[Inputs] = list(task.calibration)
    outputs = run_all(lambda one: flat_outputs(teacher(*one)), [Sample(one) for one in inputs])
    samples = [Sample(one, answer[0]) for one, answer in zip(inputs, outputs, strict=True)]
    if kind == "auto":
        classes = task.loss is nn.functional.cross_entropy
        kind = "divergence" if classes else "squares"
    loss = _divergence if kind == "divergence" else nn.functional.mse_loss

    def compute(answers: Sequence[Tensor], targets: Sequence[Tensor | None]) -> float:
        wanted = torch.cat([target for target in targets if target is not None])
        return float(loss(torch.cat(list(answers)), wanted))

    return replace(
        task,
        train=samples[:-held],
        validation=samples[-held:],
        loss=loss,
        metric=TaskMetric(kind, compute, higher_is_better=False),
        augment=None,
    )


def _divergence(answers: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || answers) of logits, mean over all places but the class axis, 1."""
    return nn.functional.kl_div(
        answers.log_softmax(1), wanted.log_softmax(1), reduction="none", log_target=True
    ).sum(1).mean()  # fmt: skip
