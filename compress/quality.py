"""How near one model's outputs are to another's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compress.errors import CompressError, ConfigError, PocketshipError, first_line
from compress.ledger import Quality
from compress.task import Inputs, Sample, Task, TaskMetric

Outputs = tuple[Tensor, ...]
Forward = Callable[[Inputs], Outputs]


def flat_outputs(value: object) -> Outputs:
    """All tensors of a model's return value, in order; raises ``CompressError`` for others."""
    leaves = torch.utils._pytree.tree_leaves(value)
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        raise CompressError("the model returns something other than tensors", where="model")
    return tuple(leaves)


def run_example(model: Callable[..., object], inputs: Inputs) -> object:
    """What the model returns for its example inputs; ``CompressError`` where it fails on them."""
    try:
        with torch.no_grad():
            return model(*inputs)
    except Exception as error:
        raise CompressError(
            f"inference on the example inputs fails: {type(error).__name__}: {first_line(error)}"
        ) from error


def run_all(forward: Forward, samples: Sequence[Sample]) -> list[Outputs]:
    """Outputs of every sample, on the CPU, detached."""
    outputs = []
    with torch.no_grad():
        for index, sample in enumerate(samples):
            try:
                outputs.append(tuple(t.detach() for t in forward(sample.inputs)))
            except PocketshipError:
                raise
            except Exception as error:
                raise CompressError(
                    f"inference fails on evaluation sample {index}: "
                    f"{type(error).__name__}: {first_line(error)}"
                ) from error
    return outputs


def compare(
    reference: Sequence[Outputs],
    outputs: Sequence[Outputs],
    metric: TaskMetric,
    targets: Sequence[Tensor | None],
) -> Quality:
    """Difference of two runs over the same samples; see :class:`Quality` for the definitions.

    Raises ``CompressError`` where the shapes differ, an output holds NaN or infinity, the reference
    is zero everywhere, or the metric gives no finite number.
    """
    if len(reference) != len(outputs):
        raise CompressError(f"{len(outputs)} outputs, but the reference has {len(reference)}")
    signal = noise = worst = 0.0
    agree = ranked = 0
    for expected, got in zip(reference, outputs, strict=True):
        if [t.shape for t in expected] != [t.shape for t in got]:
            shapes = [list(t.shape) for t in expected], [list(t.shape) for t in got]
            raise CompressError(f"outputs have shapes {shapes[1]}, expected {shapes[0]}")
        for left, right in zip(expected, got, strict=True):
            a, b = left.double(), right.double()
            if not bool(torch.isfinite(a).all()):
                raise CompressError("a reference output holds NaN or infinity")
            if not bool(torch.isfinite(b).all()):
                raise CompressError("an output holds NaN or infinity")
            signal += float(a.square().sum())
            noise += float((a - b).square().sum())
            worst = max(worst, float((a - b).abs().max()) if a.numel() else 0.0)
        if expected[0].ndim >= 2 and expected[0].shape[-1] > 1:
            same = expected[0].argmax(dim=-1) == got[0].argmax(dim=-1)
            agree += int(same.sum())
            ranked += same.numel()
    return Quality(
        samples=len(outputs),
        max_abs_diff=worst,
        sqnr_db=sqnr_db(signal, noise),
        top1_agreement=agree / ranked if ranked else None,
        metric=metric.name,
        metric_value=figure(metric, [sample[0] for sample in outputs], targets),
        metric_reference=figure(metric, [sample[0] for sample in reference], targets),
    )


def figure(
    metric: TaskMetric, outputs: Sequence[Tensor], targets: Sequence[Tensor | None]
) -> float:
    """The metric of each sample's first output.

    Raises ``ConfigError`` where the user's code fails or gives no finite number.
    """
    where = f"task.metric '{metric.name}'"
    try:
        value = float(metric.compute(outputs, targets))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"failed: {type(error).__name__}: {first_line(error)}",
            where=where,
            hint="It gets one output tensor and one target a sample and returns a number.",
        ) from error
    if not math.isfinite(value):
        raise ConfigError(f"gave {value}, which is not a finite number", where=where)
    return value


def sqnr_db(signal: float, noise: float) -> float | None:
    """10·log10(signal / noise) of two energies; None where there is no noise.

    Raises ``CompressError`` for noise over a reference of zeros: no ratio says how much that is.
    """
    if noise == 0.0:
        return None
    if signal == 0.0:
        raise CompressError(
            "the reference outputs are all zero, so no SQNR can be computed",
            hint="Give evaluation samples on which the model answers something.",
        )
    # Apart, because the quotient of a large and a tiny energy overflows.
    return 10.0 * (math.log10(signal) - math.log10(noise))


def targets_of(task: Task) -> list[Tensor | None]:
    """The targets of the task's evaluation samples, in order."""
    return [sample.target for sample in task.evaluation]
