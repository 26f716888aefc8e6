"""The task: what the user brings. A model, data to calibrate and to judge it, and a metric."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import ConfigError, first_line

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Sample:
    """One thing to judge: the model's inputs (with the batch axis) and what is right for it."""

    inputs: Inputs
    target: Tensor | None = None


@dataclass(frozen=True)
class TaskMetric:
    """A figure of merit over the first output of every evaluation sample.

    ``compute(outputs, targets)`` gets one tensor a sample (batch axis kept) and returns a float.
    """

    name: str
    compute: Callable[[Sequence[Tensor], Sequence[Tensor | None]], float]
    higher_is_better: bool = True


def _top1(outputs: Sequence[Tensor], targets: Sequence[Tensor | None]) -> float:
    hits = total = 0
    for output, target in zip(outputs, targets, strict=True):
        if target is None:
            raise ConfigError(
                "top1 needs a target for every evaluation sample",
                where="task",
                hint="Give Sample(inputs, target) with class indices of shape [batch].",
            )
        predicted = output.argmax(dim=-1)
        if predicted.numel() != target.numel():
            raise ConfigError(
                f"top1 got a target of shape {list(target.shape)} for classes of shape "
                f"{list(predicted.shape)}",
                where="task",
                hint="Give one class index for each row of the first output.",
            )
        hits += int((predicted.reshape(-1) == target.reshape(-1)).sum())
        total += target.numel()
    return hits / total


TOP1 = TaskMetric("top1", _top1)
"""Share of samples whose highest class (last axis of the first output) is the target's."""


@dataclass(frozen=True)
class Task:
    """A model and its data.

    Args:
        model: an ``nn.Module`` in eval mode, or an already exported program.
        example_inputs: one tensor an input, with the batch size that the phone will see.
        calibration: inputs (shaped like ``example_inputs``) that quantization may look at.
        evaluation: samples that judge; none of them may be in ``calibration``.
        metric: the task's figure of merit; :data:`TOP1` unless said otherwise.
    """

    model: nn.Module | torch.export.ExportedProgram
    example_inputs: Inputs
    calibration: Sequence[Inputs] = field(default_factory=tuple)
    evaluation: Sequence[Sample] = field(default_factory=tuple)
    metric: TaskMetric = TOP1


def load_task(target: str, arguments: Mapping[str, Any], search: Sequence[Path] = ()) -> Task:
    """Call ``module:function`` with ``arguments`` and check what it returns.

    ``search`` are folders that are looked in first for the module: the pipeline file's folder and
    the working directory. Raises :class:`ConfigError` for anything that the user can mend.
    """
    module_name, _, function_name = target.partition(":")
    if not module_name or not function_name:
        raise ConfigError(f"'{target}' is not of the form module:function", where="task.callable")
    for folder in reversed(search):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    # SystemExit: code that ends the program on import or call must not end ours without a word.
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"cannot import '{module_name}': {type(error).__name__}: {first_line(error)}",
            where="task.callable",
            hint="Run from the folder that holds the module, or install what it imports.",
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(
            f"'{module_name}' has no function '{function_name}'", where="task.callable"
        )
    try:
        task = function(**arguments)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"'{target}' failed: {type(error).__name__}: {first_line(error)}",
            where="task",
            hint="Call it alone in Python to see more; check task.arguments.",
        ) from error
    if not isinstance(task, Task):
        raise ConfigError(
            f"'{target}' returned {type(task).__name__}, not a compress.task.Task", where="task"
        )
    check(task)
    return task


def check(task: Task) -> None:
    """Raise :class:`ConfigError` where the task's data do not fit the model's example inputs."""
    if not isinstance(task.model, nn.Module | torch.export.ExportedProgram):
        raise ConfigError(
            f"model is {type(task.model).__name__}, not an nn.Module or ExportedProgram",
            where="task.model",
        )
    if not task.example_inputs:
        raise ConfigError("is empty", where="task.example_inputs", hint="Give one tensor an input.")
    _check_inputs(task.example_inputs, task.example_inputs, "task.example_inputs")
    if not isinstance(task.metric, TaskMetric):
        raise ConfigError(f"is {type(task.metric).__name__}, not a TaskMetric", where="task.metric")
    for name, data in (("calibration", task.calibration), ("evaluation", task.evaluation)):
        # They are walked through more than once: a generator would be empty the second time.
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise ConfigError(
                f"is {type(data).__name__}, not a list or another sequence", where=f"task.{name}"
            )
    if not task.evaluation:
        raise ConfigError(
            "is empty", where="task.evaluation", hint="Nothing can be judged without samples."
        )
    for index, inputs in enumerate(task.calibration):
        _check_inputs(inputs, task.example_inputs, f"task.calibration[{index}]")
    for index, sample in enumerate(task.evaluation):
        if not isinstance(sample, Sample):
            raise ConfigError(
                f"is {type(sample).__name__}, not a Sample", where=f"task.evaluation[{index}]"
            )
        _check_inputs(sample.inputs, task.example_inputs, f"task.evaluation[{index}]")
        if not isinstance(sample.target, Tensor | None):
            raise ConfigError(
                f"has a target of {type(sample.target).__name__}, not a tensor or None",
                where=f"task.evaluation[{index}]",
            )


def _check_inputs(inputs: Inputs, like: Inputs, where: str) -> None:
    if not isinstance(inputs, tuple) or not all(isinstance(t, Tensor) for t in inputs):
        raise ConfigError("is not a tuple of tensors", where=where)
    if len(inputs) != len(like):
        raise ConfigError(f"has {len(inputs)} tensors, the model takes {len(like)}", where=where)
    for position, (tensor, example) in enumerate(zip(inputs, like, strict=True)):
        if tensor.shape != example.shape or tensor.dtype != example.dtype:
            raise ConfigError(
                f"tensor {position} is {list(tensor.shape)} {tensor.dtype}, "
                f"the example input is {list(example.shape)} {example.dtype}",
                where=where,
            )
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"tensor {position} holds NaN or infinity", where=where)
