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
from compress.samples import Inputs as Inputs
from compress.samples import Sample as Sample
from compress.samples import TensorSamples

Loss = Callable[[Tensor, Tensor], Tensor]
"""``(first output [batch, ...], targets [batch, ...]) -> scalar``."""


@dataclass(frozen=True)
class TaskMetric:
    """A figure of merit over the first output of every evaluation sample.

    ``compute(outputs, targets)`` gets one tensor a sample (batch axis kept) and returns a float.
    ``scores``, where the figure is a mean over samples, gives its terms (one float a sample); the
    ledger's interval then comes from them.
    """

    name: str
    compute: Callable[[Sequence[Tensor], Sequence[Tensor | None]], float]
    higher_is_better: bool = True
    scores: Callable[[Sequence[Tensor], Sequence[Tensor | None]], Sequence[float]] | None = None

    def gain(self, new: float, old: float) -> float:
        """How much better ``new`` is than ``old``, in the metric's unit; negative where worse."""
        return new - old if self.higher_is_better else old - new


def _hits(outputs: Sequence[Tensor], targets: Sequence[Tensor | None]) -> list[float]:
    """1.0 for each row (one a sample for shape [1, classes]) with the right class, else 0.0."""
    hits: list[float] = []
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
        hits += (predicted.reshape(-1) == target.reshape(-1)).double().tolist()
    return hits


def _top1(outputs: Sequence[Tensor], targets: Sequence[Tensor | None]) -> float:
    hits = _hits(outputs, targets)
    return sum(hits) / len(hits)


TOP1 = TaskMetric("top1", _top1, scores=_hits)
"""Share of samples whose highest class (last axis of the first output) is the target's."""


@dataclass(frozen=True)
class Task:
    """A model and its data.

    Args:
        model: an ``nn.Module`` in eval mode, or an already exported program.
        example_inputs: one tensor an input, with the batch size that the phone will see.
        calibration: inputs (shaped like ``example_inputs``) that quantization may look at.
        evaluation: test samples. They only report; none of them may be in any other set.
        metric: the task's figure of merit; :data:`TOP1` unless said otherwise.
        train: samples that weights are fitted to, each with a target; axis 0 of every input, output
            and target must be the batch axis, for they are joined along it.
        validation: samples that decide (best epoch, early stop, rank, ``keep_if``). Training needs
            them; none may be in ``train``.
        loss: what training minimises; cross-entropy of the first output unless said otherwise.
        augment: changes a training batch's inputs; draws only from the generator that it gets, so
            that a seed repeats the run. ``(inputs, generator) -> inputs`` of the same shapes.
        teacher: the model that distillation learns from; the uncompressed one if None.
    """

    model: nn.Module | torch.export.ExportedProgram
    example_inputs: Inputs
    calibration: Sequence[Inputs] = field(default_factory=tuple)
    evaluation: Sequence[Sample] = field(default_factory=tuple)
    metric: TaskMetric = TOP1
    train: Sequence[Sample] = field(default_factory=tuple)
    validation: Sequence[Sample] = field(default_factory=tuple)
    loss: Loss = nn.functional.cross_entropy
    augment: Callable[[Inputs, torch.Generator], Inputs] | None = None
    teacher: nn.Module | None = None


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
    if not isinstance(task.teacher, nn.Module | None):
        raise ConfigError(f"is {type(task.teacher).__name__}, not a module", where="task.teacher")
    data: Sequence[Any]
    for name in ("calibration", "evaluation", "train", "validation"):
        data = getattr(task, name)
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
    if task.train and not task.validation:
        raise ConfigError(
            "is empty",
            where="task.validation",
            hint="Training needs samples that decide which epoch is best; hold some back.",
        )
    # The exported program has the example's batch size; a training set need not have it.
    _check_samples(task.evaluation, task.example_inputs, "task.evaluation")
    row = tuple(example[:1] for example in task.example_inputs)
    for name, data in (("train", task.train), ("validation", task.validation)):
        _check_samples(data, row, f"task.{name}")
        whole = isinstance(data, TensorSamples)
        if any(s.target is None for s in (data[:1] if whole else data)):
            raise ConfigError("has a sample without a target", where=f"task.{name}")


def _check_samples(samples: Sequence[Sample], like: Inputs, where: str) -> None:
    if isinstance(samples, TensorSamples):
        if len(samples):
            _check_inputs(samples[0].inputs, like, f"{where}[0]")
            for position, tensor in enumerate(samples.inputs):
                _check_finite(tensor, where, f"input {position} ")
        return
    for index, sample in enumerate(samples):
        if not isinstance(sample, Sample):
            raise ConfigError(
                f"is {type(sample).__name__}, not a Sample", where=f"{where}[{index}]"
            )
        _check_inputs(sample.inputs, like, f"{where}[{index}]")
        if not isinstance(sample.target, Tensor | None):
            raise ConfigError(
                f"has a target of {type(sample.target).__name__}, not a tensor or None",
                where=f"{where}[{index}]",
            )


def _check_finite(tensor: Tensor, where: str, what: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ConfigError(f"{what}holds NaN or infinity", where=where)


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
        _check_finite(tensor, where, f"tensor {position} ")
