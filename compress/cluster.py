"""Weight sharing: the weights of a layer, or of a group of its channels, have a few values.

Sources: Han, Mao & Dally, *Deep Compression* (arXiv 1510.00149) for shared weights and the training
of centroids by their summed gradients; Choi et al., *Towards the Limit of Network Quantization*
(arXiv 1612.01543) for k-means weighted by the diagonal of the Hessian.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from compress import constraints
from compress.constraints import SharedValues
from compress.errors import CompressError
from compress.fine_tune import FineTuning, fine_tune
from compress.fold import foldable
from compress.pruning import importance
from compress.pruning.weights import Weight, overridden, weights_of
from compress.recipe import State, StepConfig, handles
from compress.sharing import kmeans
from compress.sharing.compensate import assign, input_moments
from compress.sharing.mean_shift import correct_biases
from compress.sharing.plan import Plan
from compress.sharing.widths import allocate_widths, noise_alone
from compress.task import Inputs, Task

_EVENNESS = 0.2
"""Share of a layer's mean importance that is added to each weight's: the estimate is a noisy one,
and what no calibration input needs (a class that none of them shows) may be needed later."""
# A layer's noise is one number over many outputs, so that few inputs do.
_MEASURED = 8
_CORRECTED = 32


class Table(BaseModel):
    """The size of a layer's tables; ``bits`` or ``clusters`` is given, or ``mean_bits`` decides.

    ``clusters``: non-zero values. ``bits``: width of an index; a zero takes one of the 2^bits
    places where the layer has zeros. ``group_size``: output channels that share a table; the
    nearest number that divides the channels is taken.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: int | None = Field(default=None, ge=1, le=8)
    clusters: int | None = Field(default=None, ge=1, le=4096)
    group_size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _one_size(self) -> Table:
        self._check()
        return self

    def _check(self) -> None:
        given = (self.bits is not None) + (self.clusters is not None)
        if given > 1 or (given == 0 and self.group_size is None):
            raise ValueError("exactly one of bits and clusters must be given")

    @property
    def sized(self) -> bool:
        """Whether it says how many values there are."""
        return self.bits is not None or self.clusters is not None


class Cluster(Table, StepConfig):
    """Replace the weights that are not zero by the nearest of a few values; zeros stay zero.

    ``compensate`` lets each assignment make up for the errors of those before it; ``damping`` says
    how little it trusts the calibration inputs in that. ``bias_correction`` lets biases take up the
    shift of each layer's mean output. ``mean_bits`` instead of ``bits`` gives each layer a width of
    its own such that indices and tables take so many bits a weight on average, by ``importance``.
    """

    kind: Literal["cluster"] = "cluster"
    mean_bits: float | None = Field(default=None, gt=0, le=8)
    init: kmeans.Init = "exact"
    importance: Literal["none", "fisher", "outputs"] = "none"
    importance_samples: int = Field(default=64, ge=1)
    compensate: bool = False
    damping: float = Field(default=0.01, gt=0)
    bias_correction: bool = False
    float16_values: bool = True
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    overrides: dict[str, Table] = Field(default_factory=dict)
    fine_tune: FineTuning | None = None

    @model_validator(mode="after")
    def _sound(self) -> Cluster:
        if self.mean_bits is not None and self.importance == "none":
            raise ValueError(
                "mean_bits weighs layers against each other by importance: outputs or fisher"
            )
        if self.mean_bits is None and self.importance == "outputs":
            raise ValueError("importance: outputs tells layers apart only, which mean_bits asks")
        if not self.compensate and self.damping != type(self).model_fields["damping"].default:
            raise ValueError("'damping' has no meaning without compensate")
        if self.mean_bits is None and not all(table.sized for table in self.overrides.values()):
            raise ValueError("exactly one of bits and clusters must be given in each override")
        return self

    def _check(self) -> None:
        sizes = (self.bits, self.clusters, self.mean_bits)
        if sum(size is not None for size in sizes) != 1:
            raise ValueError("exactly one of bits, clusters and mean_bits must be given")


@handles(Cluster)
def cluster(state: State, config: Cluster) -> State:
    """Put a codebook on each selected weight, train the centroids where asked."""
    model = state.float_model()
    weights = weights_of(model, config.layers, config.exclude)
    if not weights:
        raise CompressError("no layer is left to cluster", where="exclude")
    own = overridden(model, weights, config.overrides)
    notes = _norms_behind(state, weights)
    scores: importance.Scores = {}
    if config.importance == "fisher":
        scores = importance.fisher(
            model, state.task, weights, state.run, count=config.importance_samples
        )
        scores = {name: value + _EVENNESS * value.mean() for name, value in scores.items()}
    plans = [_plan(weight, own, config, scores) for weight in weights]
    if config.mean_bits is not None:
        free = [p for p in plans if not own.get(p.weight.full_name, config).sized]
        noise = None
        if config.importance == "outputs":
            state.run.say(f"measuring the noise of {len(free)} layers, one at a time")
            noise = noise_alone(model, free, _inputs(state.task, config, "importance", _MEASURED))
        notes.append(allocate_widths(free, config.mean_bits, config.float16_values, noise))
    moments: dict[str, Tensor] = {}
    if config.compensate:
        inputs = _inputs(state.task, config, "compensate")
        moments = input_moments(model, weights, inputs)
    before = copy.deepcopy(model) if config.bias_correction else model
    rows = []
    for number, plan in enumerate(plans):
        state.run.say(f"clustering {plan.weight.full_name} ({number + 1} of {len(plans)})")
        seed = state.run.derived_seed("cluster", plan.weight.full_name) & 0xFFFFFFFF
        rows.append(_share(plan, config, seed, moments.get(plan.weight.full_name)))
    notes = [*_summary(rows), *notes]
    if config.bias_correction:
        inputs = _inputs(state.task, config, "bias_correction", _CORRECTED)
        notes.append(f"{correct_biases(model, before, inputs)} biases corrected")
    if config.fine_tune is not None:
        notes.append(fine_tune(model, state.task, config.fine_tune, state.run).words())
    return replace(state, notes=tuple(notes))


def _plan(
    weight: Weight, own: Mapping[str, Table], config: Cluster, scores: importance.Scores
) -> Plan:
    table = own.get(weight.full_name, config)
    plan = Plan.of(weight, table.group_size, scores.get(weight.full_name))
    # Where mean_bits is asked for, the allocation says later how many.
    plan.values = table.clusters or plan.values_of(table.bits or 1)
    return plan


def _inputs(task: Task, config: Cluster, purpose: str, most: int | None = None) -> list[Inputs]:
    """Calibration inputs, evenly spread over those that ``importance_samples`` leaves."""
    inputs = importance.inputs_of(task, purpose)[: config.importance_samples]
    count = min(len(inputs), most or len(inputs))
    return [inputs[index * len(inputs) // count] for index in range(count)]


def _norms_behind(state: State, weights: Sequence[Weight]) -> list[str]:
    model = state.float_model()
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        return []
    pairs = foldable(model, state.task.example_inputs)
    torn = {pair.full_name for pair, _ in pairs} & {weight.full_name for weight in weights}
    if not torn:
        return []
    return [
        f"{len(torn)} of these layers have a batch norm behind them; exporters scale each channel "
        "by it, after which no few values are left: put fold_batch_norm before cluster"
    ]


@dataclass(frozen=True)
class _Row:
    """What one weight became: sizes in bits, sums over its elements."""

    name: str
    values: int
    groups: int
    index_bits: int
    table_bits: int
    elements: int
    signal: float
    noise: float
    half: bool


def _share(plan: Plan, config: Cluster, seed: int, moments: Tensor | None) -> _Row:
    weight = plan.weight
    before = weight.value.clone()
    tables = [
        np.zeros(0) if points is None else kmeans.kmeans(points, plan.values, config.init, seed)
        for points in plan.points()
    ]
    half = config.float16_values and _fit_half(tables, before)
    if half:
        with np.errstate(over="ignore"):
            tables = [np.unique(t.astype(np.float16).astype(np.float64)) for t in tables]
    codebook = torch.zeros(plan.groups, plan.values)
    indices = np.zeros((plan.groups, before.numel() // plan.groups), dtype=np.int32)
    for group, (row, table) in enumerate(zip(plan.split(before), tables, strict=True)):
        codebook[group, : len(table)] = torch.from_numpy(table).float()
        alive = row != 0
        if len(table):
            indices[group, alive] = kmeans.nearest(row[alive].astype(np.float64), table) + 1
    if moments is not None:
        indices = _compensated(plan, before, moments, tables, config.damping)
    constraints.release(weight.holders)
    shared = SharedValues(
        plan.join(indices), plan.values, groups=plan.groups, axis=weight.out_axis, half=half
    )
    constraints.constrain(weight.holders, shared)
    with torch.no_grad():
        weight.original.copy_(codebook)
    places = plan.values + plan.has_zeros
    return _Row(
        weight.full_name,
        plan.values,
        plan.groups,
        before.numel() * max(math.ceil(math.log2(places)), 1),
        plan.groups * plan.values * (16 if half else 32),
        before.numel(),
        float(before.double().square().sum()),
        float((before - weight.value).double().square().sum()),
        half,
    )


def _compensated(
    plan: Plan,
    weight: Tensor,
    moments: Tensor,
    tables: Sequence[NDArray[Any]],
    damping: float,
) -> NDArray[np.int32]:
    """Indices, as ``_share`` has them, that leave a small error of the layer's output."""
    # What a short table does not fill is infinitely far from any weight.
    values = torch.full((plan.groups, plan.values), torch.inf)
    for group, table in enumerate(tables):
        values[group, : len(table)] = torch.from_numpy(table)
    channels = len(weight)
    of_row = values.repeat_interleave(channels // plan.groups, dim=0)
    blocks = weight.reshape(len(moments), -1, moments.shape[-1])
    alive = blocks != 0
    found = assign(blocks, moments, of_row.view(*blocks.shape[:2], -1), alive, damping)
    return torch.where(alive, found + 1, 0).int().reshape(plan.groups, -1).numpy()


def _fit_half(tables: Sequence[NDArray[Any]], weight: Tensor) -> bool:
    """Whether float16 holds these values to its own precision, or 2^-10 of the layer's RMS."""
    values = np.concatenate(tables)
    if not len(values):
        return True
    limit = 2**-10 * float(weight[weight != 0].double().square().mean().sqrt())
    limits = np.maximum(limit, 2**-11 * np.abs(values))
    with np.errstate(over="ignore"):
        away = np.abs(values.astype(np.float16).astype(np.float64) - values)
    return bool((away <= limits).all())


def _summary(rows: Sequence[_Row]) -> list[str]:
    elements = sum(row.elements for row in rows)
    bits = sum(row.index_bits + row.table_bits for row in rows)
    worst = max(rows, key=lambda row: row.noise / max(row.signal, 1e-30))
    shown = list(rows) if len(rows) <= 8 else [worst]
    layers = ", ".join(
        f"{r.name} {r.values} values x {r.groups} tables ({_decibels(r)})" for r in shown
    )
    notes = [
        f"{len(rows)} layers share values, {bits / elements:.2f} bits a weight with tables "
        f"({bits / 8:.0f} bytes, float32 {4 * elements}); "
        + (layers if len(shown) == len(rows) else f"worst: {layers}"),
    ]
    if wide := [row.name for row in rows if not row.half]:
        notes.append(f"float32 values in {', '.join(wide[:5])}{' ...' if len(wide) > 5 else ''}")
    return notes


def _decibels(row: _Row) -> str:
    if row.noise == 0:
        return "exact"
    return f"{10 * math.log10(row.signal / row.noise):.1f} dB"
