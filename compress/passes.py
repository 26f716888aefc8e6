"""One pass over a task's data: training batches, and the metric of a module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from compress.errors import CompressError, ConfigError, PocketshipError, first_line
from compress.quality import figure, flat_outputs
from compress.samples import Inputs, Sample, batch
from compress.task import Task


def evaluate(
    model: nn.Module, task: Task, samples: Sequence[Sample], batch_size: int = 512
) -> float:
    """The task's metric of a module (in evaluation mode) on samples, computed in batches."""
    outputs: list[Tensor] = []
    targets: list[Tensor | None] = []
    with torch.no_grad():
        for indices in torch.arange(len(samples)).tensor_split(_cuts(len(samples), batch_size)):
            joined = batch(samples, indices)
            try:
                answers = flat_outputs(model(*joined.inputs))[0].float()
            except PocketshipError:
                raise
            except Exception as error:
                raise CompressError(
                    f"inference fails on a validation batch of {len(indices)}: "
                    f"{type(error).__name__}: {first_line(error)}",
                    hint="Axis 0 of every input and output must be the batch axis.",
                ) from error
            if answers.ndim == 0 or len(answers) != len(indices):
                raise CompressError(
                    f"{len(indices)} samples gave an output of shape {list(answers.shape)}",
                    hint="Axis 0 of every input and output must be the batch axis.",
                )
            outputs += torch.split(answers, 1)
            wanted = joined.target
            targets += [None] * len(answers) if wanted is None else torch.split(wanted, 1)
    return figure(task.metric, outputs, targets)


def _cuts(count: int, size: int) -> list[int]:
    return list(range(size, count, size))


def batch_count(count: int, batch_size: int) -> int:
    """Batches of one pass over ``count`` samples, see :func:`batches`."""
    left_out = count % batch_size == 1 and 1 < batch_size < count
    return -(-count // batch_size) - left_out


def batches(
    task: Task, batch_size: int, generator: torch.Generator, *, shuffle: bool = True
) -> Iterator[Sample]:
    """Training batches of one pass, augmented.

    A last batch of one sample among larger ones is left out: batch normalisation cannot train on
    it. Raises ``ConfigError`` where ``task.augment`` fails or changes what it must not.
    """
    count = len(task.train)
    order = torch.randperm(count, generator=generator) if shuffle else torch.arange(count)
    cuts = order.tensor_split(_cuts(count, batch_size))
    for indices in cuts[: batch_count(count, batch_size)]:
        joined = batch(task.train, indices)
        if task.augment is not None:
            joined = Sample(_augmented(task, joined.inputs, generator), joined.target)
        yield joined


def _augmented(task: Task, inputs: Inputs, generator: torch.Generator) -> Inputs:
    assert task.augment is not None
    try:
        changed = tuple(task.augment(inputs, generator))
    except Exception as error:
        raise ConfigError(
            f"failed: {type(error).__name__}: {first_line(error)}", where="task.augment"
        ) from error
    before, after = ([(list(t.shape), t.dtype) for t in part] for part in (inputs, changed))
    if before != after:
        raise ConfigError(f"made {after} of {before}", where="task.augment")
    return changed
