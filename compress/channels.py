"""Structured pruning: whole channels and filters are removed, so that every runtime is faster."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from compress import constraints
from compress.errors import CompressError
from compress.fine_tune import FineTuning, fine_tune
from compress.layers import select
from compress.pruning.budget import WORDS, Budget, Measure, count_macs, count_parameters, measure_of
from compress.pruning.channel_groups import ChannelGroup, Trial, find_groups, remove
from compress.pruning.channel_scores import (
    FROM_DATA,
    Criterion,
    Normalize,
    importance,
    normalized,
)
from compress.pruning.channel_search import Ranked, Widths, widths_within
from compress.recipe import State, StepConfig, handles
from compress.task import Inputs, Task


class Slimming(FineTuning):
    """Training before the pruning that pulls batch-norm scales towards zero.

    ``scale_l1`` times the sum of all absolute scales is added to the loss (Network Slimming, Liu et
    al., arXiv 1708.06519).
    """

    scale_l1: float = Field(default=1e-4, gt=0)


class PruneChannels(StepConfig):
    """Remove the least important channels until the budget is met.

    ``budget`` is a share of the model as it enters the step. ``scope``: ``local`` takes the same
    share of every group of coupled layers, ``global`` ranks all channels together. ``per_gain``
    divides the importance of a channel by what its removal wins of the budget's figure (of MACs
    where the figure is a measured cost), so that few valuable channels go and not many cheap ones;
    None does so for ``taylor`` only, whose scores are losses and can be weighed against gains.
    """

    kind: Literal["prune_channels"] = "prune_channels"
    budget: Budget
    criterion: Criterion = "taylor"
    scope: Literal["global", "local"] = "global"
    normalize: Normalize = "auto"
    per_gain: bool | None = None
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    round_to: int = Field(default=8, ge=1)
    min_channels: int = Field(default=1, ge=1)
    min_share: float = Field(default=0.1, ge=0, lt=1)
    iterations: int = Field(default=1, ge=1, le=100)
    batches: int = Field(default=16, ge=1)
    batch_size: int = Field(default=32, ge=1)
    slimming: Slimming | None = None
    fine_tune: FineTuning | None = None

    @model_validator(mode="after")
    def _slimming_fits(self) -> PruneChannels:
        if self.slimming is not None and self.criterion != "batch_norm":
            raise ValueError("slimming is for criterion: batch_norm")
        return self


@dataclass(frozen=True)
class _Candidate:
    """A group with its units, the least important first."""

    group: ChannelGroup
    order: list[int]
    ranked: Ranked


@handles(PruneChannels)
def prune_channels(state: State, config: PruneChannels) -> State:
    """Rank, remove, measure; again for each iteration, with fine-tuning after each."""
    model, task = state.float_model(), state.task
    if config.criterion in FROM_DATA and not task.train:
        raise CompressError(
            f"the criterion '{config.criterion}' needs gradients on task.train, which is empty",
            where="criterion",
            hint="Give Task(train=[...]), or choose l1, l2 or batch_norm.",
        )
    measure = measure_of(state, config.budget.kind)
    notes: list[str] = []
    masked = list(constraints.masks(model))
    if _constrained(model):
        notes.append("values that weights shared are plain weights from here on: prune before that")
    if config.slimming is not None:
        notes.append(_slim(model, task, config.slimming, state))
    constraints.materialize(model)
    whole, parameters = measure(model), count_parameters(model)
    if whole <= 0:
        raise CompressError(f"the model has no {WORDS[config.budget.kind]}", where="budget")
    pruner = _Pruner(state, config, measure, whole)
    left: dict[str, str] = {}
    for number in range(1, config.iterations + 1):
        # Every round takes the same share of what the round before left.
        share = config.budget.share ** (number / config.iterations)
        left = pruner.round(model, share, number)
        if config.fine_tune is not None:
            constraints.mask_zeros(model, masked)
            purpose = f"fine-tuning after round {number} of {config.iterations}"
            history = fine_tune(model, task, config.fine_tune, state.run, purpose=purpose)
            notes.append(history.words())
            constraints.materialize(model)
    reached = measure(model)
    kind, now = WORDS[config.budget.kind], count_parameters(model)
    notes[:0] = [
        f"{reached / whole:.1%} of the {kind} remain ({_number(reached)} of {_number(whole)}), "
        f"{config.budget.share:.1%} were allowed; {now:,} of {parameters:,} parameters",
        pruner.widths(model),
    ]
    if left:
        named = [f"{name} ({why})" for name, why in left.items()]
        more = f" and {len(named) - 5} others" if len(named) > 5 else ""
        notes.append(f"left as they are: {'; '.join(named[:5])}{more}")
    # What was zero stays zero: masks of earlier steps hold in the narrower layers.
    constraints.mask_zeros(model, masked)
    return replace(state, model=model, notes=tuple(notes))


class _Pruner:
    """One step's rounds: knows how wide the layers were and what the figure of the budget was."""

    def __init__(self, state: State, config: PruneChannels, measure: Measure, whole: float) -> None:
        self.state, self.config, self.measure, self.whole = state, config, measure, whole
        self.first: dict[str, int] = {}

    def round(self, model: nn.Module, share: float, number: int) -> dict[str, str]:
        """Narrow ``model`` in place until at most ``share`` remains; returns what cannot be pruned.

        Raises ``CompressError`` where nothing can be pruned, or not enough.
        """
        task, config = self.state.task, self.config
        probe = probe_of(task)
        groups, left = find_groups(model, task.example_inputs, probe)
        groups = self._chosen(model, groups)
        self.first = {group.name: group.size for group in groups} | self.first
        here = replace(self.state.run, place=f"{self.state.run.place} round {number}")
        scores = importance(
            model, task, groups, config.criterion, here,
            batch_size=config.batch_size, count=config.batches,
        )  # fmt: skip
        candidates = self._rank(model, groups, scores, left)
        if not candidates:
            raise CompressError(
                "there is no channel that may be removed" + _reasons(left),
                hint="Channels of the model's input and output always stay.",
            )
        chosen = self._search(model, candidates, share)
        if not Trial(model, probe).equal(chosen):
            raise CompressError(
                "the pruned model does not compute what the model without those channels does",
                hint="Name the layers that mix channels under exclude.",
            )
        remove(model, chosen)
        rounds, kind = self.config.iterations, WORDS[self.config.budget.kind]
        self.state.run.say(
            f"round {number} of {rounds}: at most {share:.1%} of the {kind} remain, "
            f"{count_parameters(model):,} parameters"
        )
        return left

    def widths(self, model: nn.Module) -> str:
        """For the ledger: how wide the pruned groups were and are."""
        now = {}
        for name in self.first:
            module = model.get_submodule(name)
            now[name] = getattr(module, "out_channels", getattr(module, "out_features", 0))
        changed = [f"{name} {self.first[name]} -> {now[name]}" for name in self.first
                   if now[name] != self.first[name]]  # fmt: skip
        more = f" and {len(changed) - 12} others" if len(changed) > 12 else ""
        return f"channels: {', '.join(changed[:12]) or 'as before'}{more}"

    def _chosen(self, model: nn.Module, groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """The groups of which the user's patterns allow every layer to be narrowed."""
        kinds = (nn.Linear, nn.Embedding, _ConvNd)
        named = select(model, self.config.layers, self.config.exclude, kinds)
        kept = set(select(model, types=kinds)) - set(
            select(model, ("*",), self.config.exclude, kinds)
        )
        return [
            group
            for group in groups
            if all(name in named for name in group.filters()) and not kept & set(group.mapped())
        ]

    def _rank(
        self,
        model: nn.Module,
        groups: list[ChannelGroup],
        scores: list[Tensor | None],
        left: dict[str, str],
    ) -> list[_Candidate]:
        config = self.config
        weighed = config.criterion == "taylor" if config.per_gain is None else config.per_gain
        gains = self._gains(model, groups) if weighed else [1.0] * len(groups)
        candidates = []
        for group, score, gain in zip(groups, scores, gains, strict=True):
            if score is None:
                left[group.name] = "no batch norm with scales"
                continue
            values = normalized(score, config.normalize, config.criterion) / gain
            order = torch.argsort(values, stable=True).tolist()
            rank = [float(values[unit]) for unit in order]
            if config.scope == "local":
                # Ordered by the share of its group that goes with it, all groups shrink alike.
                rank = [(place + 1) / group.units for place in range(group.units)]
            least = max(config.min_channels, math.ceil(config.min_share * self.first[group.name]))
            multiple = math.lcm(config.round_to, group.step) // group.step
            ranked = Ranked(group.units, tuple(rank), -(-least // group.step), multiple)
            if ranked.narrowest < group.units:
                candidates.append(_Candidate(group, order, ranked))
            else:
                left[group.name] = f"{group.size} channels are too few for these settings"
        return candidates

    def _gains(self, model: nn.Module, groups: list[ChannelGroup]) -> list[float]:
        """What the removal of one unit of each group wins, as a share of the whole."""
        measure: Measure = count_parameters
        if self.config.budget.kind != "parameters":
            inputs = self.state.task.example_inputs
            measure = functools.partial(count_macs, inputs=inputs)
        whole, gains = measure(model), []
        for group in groups:
            shorter = copy.deepcopy(model)
            remove(shorter, [(group, [0])])
            gains.append(max(whole - measure(shorter), 1.0) / max(whole, 1.0))
        return gains

    def _search(
        self, model: nn.Module, candidates: list[_Candidate], share: float
    ) -> list[tuple[ChannelGroup, Collection[int]]]:
        """The units whose removal meets the share; ``CompressError`` where none does."""

        def chosen(widths: Widths) -> list[tuple[ChannelGroup, Collection[int]]]:
            return [
                (one.group, one.order[: one.ranked.units - width])
                for one, width in zip(candidates, widths, strict=True)
            ]

        @functools.cache
        def figure(widths: Widths) -> float:
            trial = copy.deepcopy(model)
            remove(trial, chosen(widths))
            return self.measure(trial)

        config, allowed = self.config, share * self.whole
        # A local scope wants equal shares, and each measurement on a device takes its time.
        refill = config.scope == "global" and config.budget.kind != "cost"
        widths = widths_within([one.ranked for one in candidates], allowed, figure, refill=refill)
        if figure(widths) > allowed:
            least = figure(widths) / self.whole
            raise CompressError(
                f"{WORDS[config.budget.kind]} cannot fall to {share:.1%}: {least:.1%} is the least "
                "that these settings allow",
                where="budget",
                hint="Allow more, or lower round_to, min_share or min_channels, or exclude less.",
            )
        return chosen(widths)


def probe_of(task: Task) -> Inputs:
    """Inputs of one sample that is not judged where there is one: an example may be all zeros."""
    if task.calibration:
        return task.calibration[0]
    return task.train[0].inputs if task.train else task.evaluation[0].inputs


def _slim(model: nn.Module, task: Task, config: Slimming, state: State) -> str:
    scales = [
        module.weight
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.affine
    ]
    if not scales:
        raise CompressError("the model has no batch norm with scales", where="slimming")
    loss: Callable[[Tensor, Tensor], Tensor] = task.loss

    def slimmed(output: Tensor, target: Tensor) -> Tensor:
        size = torch.stack([scale.abs().sum() for scale in scales]).sum()
        return loss(output, target) + config.scale_l1 * size

    history = fine_tune(
        model, replace(task, loss=slimmed), config, state.run,
        purpose="slimming", signature=["scale_l1", config.scale_l1],
    )  # fmt: skip
    return f"slimming: {history.words()}"


def _constrained(model: nn.Module) -> bool:
    """Whether weights carry another constraint than a mask: it ends with a change of shape."""
    return any(
        not isinstance(constraint, constraints.Masked)
        for module in model.modules()
        if isinstance(lists := getattr(module, "parametrizations", None), nn.ModuleDict)
        for each in lists.values()
        for constraint in each.children()
    )


def _reasons(left: dict[str, str]) -> str:
    if not left:
        return ""
    return ": " + "; ".join(f"{name}: {why}" for name, why in list(left.items())[:3])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or float(value).is_integer() else f"{value:.4g}"
