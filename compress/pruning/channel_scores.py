"""How much a channel matters: criteria of the pruning literature, summed over coupled layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from compress.errors import CompressError, PocketshipError, first_line
from compress.journal import Run
from compress.passes import batches
from compress.pruning.channel_groups import ChannelGroup, Slice, columns, rows
from compress.task import Task
from compress.training import task_objective

Criterion = Literal["taylor", "gradient", "l1", "l2", "batch_norm", "random"]
Normalize = Literal["auto", "none", "mean", "max"]
FROM_DATA = ("taylor", "gradient")


def importance(
    model: nn.Module,
    task: Task,
    groups: Sequence[ChannelGroup],
    criterion: Criterion,
    run: Run,
    *,
    batch_size: int,
    count: int,
) -> list[Tensor | None]:
    """One score a unit of each group, float64 [units]; None where the criterion has nothing to say.

    The higher, the more the model needs the unit. ``count`` batches of ``task.train`` are used by
    the criteria that need gradients, with the model in evaluation mode, which is left unchanged.

    * ``taylor``: mean over batches of (sum of gradient times weight)^2 over all weights that read
      the channel. To zero those weights is to remove the channel, so this is the squared
      first-order change of the loss by its removal, the gate of Molchanov et al., "Importance
      Estimation for Neural Network Pruning" (arXiv 1906.10771), placed where the channel is read.
    * ``gradient``: L2 norm of the gradient of the filters, root mean square over batches.
    * ``l1``, ``l2``: norm of the filters (Li et al., arXiv 1608.08710).
    * ``batch_norm``: sum of the absolute scales (Network Slimming, Liu et al., arXiv 1708.06519).
    * ``random``: drawn from the run's seed; what the others have to beat.
    """
    if criterion in FROM_DATA:
        return list(
            _from_data(model, task, groups, criterion, run, batch_size=batch_size, count=count)
        )
    scores: list[Tensor | None] = []
    for group in groups:
        if criterion == "random":
            generator = run.generator("random importance", group.name, group.units)
            scores.append(torch.rand(group.units, generator=generator, dtype=torch.float64))
        elif criterion == "batch_norm":
            scores.append(_scales(model, group))
        else:
            squared = criterion == "l2"
            total = _over_filters(model, group, _square if squared else _absolute)
            scores.append(total.sqrt() if squared else total)
    return scores


def normalized(score: Tensor, how: Normalize, criterion: Criterion) -> Tensor:
    """The score on a scale that can be compared between groups.

    ``auto`` leaves ``taylor`` as it is (an estimate of the loss, whatever the layer) and divides
    every other criterion by the group's mean: layers differ in the size of their weights.
    """
    if how == "auto":
        how = "none" if criterion == "taylor" else "mean"
    if how == "none":
        return score
    scale = score.mean() if how == "mean" else score.max()
    return score / scale if float(scale) > 0 else score


def _absolute(tensor: Tensor) -> Tensor:
    return tensor.double().abs()


def _square(tensor: Tensor) -> Tensor:
    return tensor.double().square()


def _over_filters(
    model: nn.Module, group: ChannelGroup, of: Callable[[Tensor], Tensor], *, gradient: bool = False
) -> Tensor:
    """Sum of ``of(weight)`` over the filters of every coupled layer, float64 [units]."""
    total = torch.zeros(group.units, dtype=torch.float64)
    for part in group.slices:
        module = None if part.axis is not None else model.get_submodule(part.layer)
        if part.side == "in" or not isinstance(module, nn.Linear | nn.Embedding | _ConvNd):
            continue
        weight: Tensor | None = module.weight.grad if gradient else module.weight.detach()
        if weight is not None:
            _add(total, of(rows(module, weight)).sum(1), part, group)
    return total


def _scales(model: nn.Module, group: ChannelGroup) -> Tensor | None:
    total, found = torch.zeros(group.units, dtype=torch.float64), False
    for part in group.slices:
        module = None if part.axis is not None else model.get_submodule(part.layer)
        if isinstance(module, _BatchNorm) and module.affine:
            _add(total, module.weight.detach().double().abs(), part, group)
            found = True
    return total if found else None


def _add(total: Tensor, values: Tensor, part: Slice, group: ChannelGroup) -> None:
    channels = torch.tensor(part.channels)
    units = torch.tensor([group.unit[root] for root in part.roots])
    total.index_add_(0, units, values[channels].to(total.dtype))


def _from_data(
    model: nn.Module,
    task: Task,
    groups: Sequence[ChannelGroup],
    criterion: Criterion,
    run: Run,
    *,
    batch_size: int,
    count: int,
) -> list[Tensor]:
    if not task.train:
        raise CompressError(
            f"the criterion '{criterion}' needs gradients on task.train, which is empty",
            where="criterion",
            hint="Give Task(train=[...]), or choose l1, l2 or batch_norm.",
        )
    loss_of = task_objective(task)
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    totals = [torch.zeros(group.units, dtype=torch.float64) for group in groups]
    done = 0
    try:
        for parameter in model.parameters():
            # A frozen layer can be narrowed too.
            parameter.requires_grad_(parameter.is_floating_point())
        for sample in batches(task, batch_size, run.generator("importance")):
            if done == count:
                break
            model.zero_grad(set_to_none=True)
            try:
                loss = loss_of(model, sample)
                loss.backward()  # type: ignore[no-untyped-call]
            except PocketshipError:
                raise
            except Exception as error:
                raise CompressError(
                    f"the loss of batch {done + 1} fails: {type(error).__name__}: "
                    f"{first_line(error)}",
                    where="criterion",
                ) from error
            for index, group in enumerate(groups):
                if criterion == "taylor":
                    totals[index] += _joint(model, group).square()
                else:
                    totals[index] += _over_filters(model, group, _square, gradient=True)
            done += 1
    finally:
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])
    means = [total / done for total in totals]
    if not all(bool(torch.isfinite(mean).all()) for mean in means):
        raise CompressError("a gradient is NaN or infinite", where="criterion")
    return means if criterion == "taylor" else [mean.sqrt() for mean in means]


def _joint(model: nn.Module, group: ChannelGroup) -> Tensor:
    """Sum of gradient times weight over all weights that read each unit, float64 [units]."""
    total = torch.zeros(group.units, dtype=torch.float64)
    for part in group.slices:
        if part.side != "in":
            continue
        module = model.get_submodule(part.layer)
        weight = module.weight
        assert isinstance(weight, Tensor)
        if weight.grad is not None:
            product = weight.detach().double() * weight.grad.double()
            _add(total, columns(module, product).sum(1), part, group)
    return total
