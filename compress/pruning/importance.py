"""How much each weight matters to the loss, from first derivatives on data."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compress import constraints
from compress.errors import CompressError
from compress.journal import Run
from compress.passes import batches
from compress.pruning.weights import Weight
from compress.quality import flat_outputs
from compress.task import Inputs, Task
from compress.training import task_objective

Scores = dict[str, Tensor]
"""Full name of a weight -> a number >= 0 for each of its elements."""


def magnitude(weights: Sequence[Weight]) -> Scores:
    """|weight| (Han et al., arXiv 1506.02626)."""
    return {weight.full_name: weight.value.abs() for weight in weights}


def taylor(
    model: nn.Module,
    task: Task,
    weights: Sequence[Weight],
    run: Run,
    *,
    count: int,
    batch_size: int,
    purpose: str = "taylor",
) -> Scores:
    """Mean over batches of |weight * gradient|: the loss that the weight's removal costs, to
    first order (Molchanov et al., arXiv 1611.06440, per weight as in arXiv 1906.10771).

    Batches come from ``task.train``. Without training data each calibration input is a batch, and
    its labels are drawn from the model's own answer, see :func:`fisher`.
    """
    plain = _plain(model)
    parameters = _parameters(plain, weights)
    generator = run.generator(purpose)
    if task.train:
        gradients = _labelled(plain, task, parameters, batch_size, generator)
    else:
        gradients = _drawn(plain, task, parameters, inputs_of(task, "taylor"), generator)
    scores = {name: torch.zeros_like(value) for name, value in parameters.items()}
    done = 0
    for gradient in itertools.islice(gradients, count):
        for name, value in gradient.items():
            scores[name] += (value * parameters[name].detach()).abs()
        done += 1
    if not done:
        raise CompressError(
            "no batch of training data has two samples", where="taylor", hint="Give more data."
        )
    return {name: value / done for name, value in scores.items()}


def fisher(
    model: nn.Module,
    task: Task,
    weights: Sequence[Weight],
    run: Run,
    *,
    count: int,
    purpose: str = "fisher",
) -> Scores:
    """Diagonal of the Fisher information: mean over inputs of the squared gradient.

    It stands for the diagonal of the Hessian (as in Choi et al., *Towards the Limit of Network
    Quantization*, arXiv 1612.01543) and needs no labels: they are drawn from the model's own
    answer, once an input. With a loss other than cross-entropy the answer is taken for the mean
    of a normal distribution of unit variance. Inputs: calibration, or else training data.
    """
    plain = _plain(model)
    parameters = _parameters(plain, weights)
    inputs = inputs_of(task, "importance")[:count]
    scores = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for gradient in _drawn(plain, task, parameters, inputs, run.generator(purpose)):
        for name, value in gradient.items():
            scores[name] += value.square()
    return {name: value / len(inputs) for name, value in scores.items()}


def _plain(model: nn.Module) -> nn.Module:
    """A copy without constraints, so that the derivatives are those by the weights themselves."""
    return constraints.materialize(copy.deepcopy(model)).eval().requires_grad_(False)


def _parameters(plain: nn.Module, weights: Sequence[Weight]) -> dict[str, nn.Parameter]:
    # Frozen weights are judged too: that they are not trained does not keep them from pruning.
    found = {weight.full_name: plain.get_parameter(weight.full_name) for weight in weights}
    for parameter in found.values():
        parameter.requires_grad_(True)
    return found


def inputs_of(task: Task, purpose: str) -> list[Inputs]:
    """Calibration inputs, or without them inputs of training samples (256 at most)."""
    if task.calibration:
        return list(task.calibration)
    if task.train:
        return [task.train[index].inputs for index in range(min(len(task.train), 256))]
    raise CompressError(
        "needs task.train or task.calibration, and both are empty",
        where=purpose,
        hint="Give the task data, or judge weights by their magnitude.",
    )


def _labelled(
    model: nn.Module,
    task: Task,
    parameters: dict[str, nn.Parameter],
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[Scores]:
    objective = task_objective(task)
    for sample in batches(task, batch_size, generator):
        yield _gradient(objective(model, sample), parameters)


def _drawn(
    model: nn.Module,
    task: Task,
    parameters: dict[str, nn.Parameter],
    inputs: Sequence[Inputs],
    generator: torch.Generator,
) -> Iterator[Scores]:
    for one in inputs:
        answer = flat_outputs(model(*one))[0]
        if task.loss is nn.functional.cross_entropy and answer.ndim >= 2:
            rows = answer.movedim(1, -1).reshape(-1, answer.shape[1])
            chances = rows.detach().softmax(-1)
            label = torch.multinomial(chances, 1, generator=generator)[:, 0]
            loss = nn.functional.cross_entropy(rows, label, reduction="sum")
        else:
            loss = (answer * torch.randn(answer.shape, generator=generator)).sum()
        yield _gradient(loss, parameters)


def _gradient(loss: Tensor, parameters: dict[str, nn.Parameter]) -> Scores:
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    scores = {}
    for (name, parameter), gradient in zip(parameters.items(), found, strict=True):
        scores[name] = torch.zeros_like(parameter) if gradient is None else gradient
        if not bool(torch.isfinite(scores[name]).all()):
            raise CompressError(f"the gradient of '{name}' holds NaN or infinity")
    return scores
