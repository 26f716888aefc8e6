"""Which channels of which layers have to go together, and how they go.

The dependency graph is torch-pruning's (Fang et al., "DepGraph: Towards Any Structural Pruning",
arXiv 2301.12900). It is traced from autograd and guesses where a network reshapes, splits or mixes
channels, so nothing is taken on trust: a group is offered only if removing channels of it gives the
same outputs as zeroing the weights that read them.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from compress.errors import CompressError, first_line
from compress.layers import shared_parameters
from compress.quality import flat_outputs
from compress.task import Inputs

Side = Literal["out", "in", "both"]

# Statistics over all channels, or heads: the rest would compute something else without a channel.
_WHOLE: dict[type[nn.Module], str] = {
    nn.LayerNorm: "a layer norm takes its statistics over all channels",
    nn.GroupNorm: "a group norm takes its statistics over several channels",
    nn.MultiheadAttention: "attention heads stay whole",
    nn.LSTM: "recurrent layers stay whole",
}
_OUTPUT = "the model's output"
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}


@dataclass(frozen=True)
class Slice:
    """The part of one layer that belongs to a group.

    ``channels[i]`` of the layer goes with channel ``roots[i]`` of the group. ``side``: ``out`` for
    filters that make channels, ``in`` for columns that read them, ``both`` for what maps each
    channel to itself (batch norm, depthwise convolution).
    """

    layer: str
    side: Side
    channels: tuple[int, ...]
    roots: tuple[int, ...]
    prune: Callable[[Any, list[int]], Any]
    axis: int | None = None


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of coupled layers.

    ``unit[i]`` is the unit of channel i of the first layer met. A *unit* is what can be removed
    alone: a channel, or with grouped convolutions one channel at the same place in each of their
    groups, or with gates (a split whose halves are multiplied) one channel of each half.
    """

    name: str
    unit: tuple[int, ...]
    slices: tuple[Slice, ...]

    @property
    def size(self) -> int:
        """Channels in all."""
        return len(self.unit)

    @property
    def units(self) -> int:
        """How many units there are."""
        return max(self.unit) + 1

    @property
    def step(self) -> int:
        """Channels of one unit."""
        return self.size // self.units

    def filters(self) -> list[str]:
        """The layers that make these channels."""
        return [part.layer for part in self.slices if part.side == "out"]

    def mapped(self) -> list[str]:
        """The layers and bare parameters that have an entry for each of these channels."""
        return [part.layer for part in self.slices if part.side == "both"]


Chosen = Sequence[tuple[ChannelGroup, Collection[int]]]
"""Groups, each with the units of it that go."""


def find_groups(
    model: nn.Module, inputs: Inputs, probe: Inputs
) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups of a model that can be pruned, and the others: first layer -> why not.

    ``model``: plain weights, evaluation mode; it is left as it is. ``probe``: inputs on which the
    groups are tried. Groups that end in the model's output are in neither.

    Raises ``CompressError`` where the model cannot be traced.
    """
    with torch.no_grad():
        try:
            flat_outputs(model(*inputs))
        except Exception as error:
            raise CompressError(
                f"inference on the example inputs fails: {type(error).__name__}: "
                f"{first_line(error)}"
            ) from error
    groups: list[ChannelGroup] = []
    left: dict[str, str] = {}
    shared = {name.rpartition(".")[0] for tie in shared_parameters(model).values() for name in tie}
    # torch-pruning hooks modules, and leaves the hooks there if the forward pass fails.
    for group, reason in _traced(copy.deepcopy(model), inputs):
        tied = next((part.layer for part in group.slices if part.layer in shared), None)
        if reason == _OUTPUT:
            continue
        if reason:
            left[group.name] = reason
        elif tied:
            left[group.name] = f"'{tied}' shares a weight with another layer"
        elif group.units < 2 or group.size % group.units:
            left[group.name] = "too few channels"
        else:
            groups.append(group)
    trial = Trial(model, probe)
    if trial.holds(groups):
        return groups, left
    sound: list[ChannelGroup] = []
    for group in groups:
        if trial.holds([*sound, group]):
            sound.append(group)
        else:
            left[group.name] = "its channels are reshaped, split or mixed"
    return sound, left


def remove(model: nn.Module, chosen: Chosen) -> None:
    """Cut the chosen units out of ``model``, in place. Frozen parameters stay frozen."""
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    cuts: dict[tuple[str, Side], tuple[Slice, set[int]]] = {}
    # Groups can meet in one layer (behind a concatenation): all its channels must go at once,
    # because the first cut would shift the numbers of the second.
    for group, units in chosen:
        for part, channels in _channels(group, units):
            cuts.setdefault((part.layer, part.side), (part, set()))[1].update(channels)
    with torch.no_grad():
        for part, gone in cuts.values():
            if gone:
                _cut(model, part, sorted(gone))
    for name, value in model.named_parameters():
        value.requires_grad_(name not in frozen and value.requires_grad)


def silence(model: nn.Module, chosen: Chosen) -> None:
    """Zero the weights that read the chosen units, in place: what :func:`remove` must equal."""
    with torch.no_grad():
        for group, units in chosen:
            for part, channels in _channels(group, units):
                if part.side == "in" and channels:
                    module = model.get_submodule(part.layer)
                    weight = module.weight
                    assert isinstance(weight, Tensor)
                    grouped = columns(module, weight).clone()
                    grouped[channels] = 0
                    weight.copy_(_from_columns(module, grouped, weight.shape))


def columns(module: nn.Module, tensor: Tensor) -> Tensor:
    """A weight (or its gradient) as [input channels, what reads them]."""
    if not isinstance(module, _ConvNd):
        return tensor.t()
    if isinstance(module, _ConvTransposeNd):
        return tensor.flatten(1)
    groups = module.groups
    out = tensor.shape[0] // groups
    split = tensor.reshape(groups, out, tensor.shape[1], -1)
    return split.transpose(1, 2).reshape(groups * tensor.shape[1], -1)


def rows(module: nn.Module, tensor: Tensor) -> Tensor:
    """A weight (or its gradient) as [output channels, the filter of each]."""
    if isinstance(module, nn.Embedding):
        return tensor.t()
    if not isinstance(module, _ConvTransposeNd):
        return tensor.flatten(1)
    groups = module.groups
    split = tensor.reshape(groups, tensor.shape[0] // groups, tensor.shape[1], -1)
    return split.transpose(1, 2).reshape(groups * tensor.shape[1], -1)


def _from_columns(module: nn.Module, grouped: Tensor, shape: torch.Size) -> Tensor:
    if not isinstance(module, _ConvNd):
        return grouped.t()
    if isinstance(module, _ConvTransposeNd):
        return grouped.reshape(shape)
    split = grouped.reshape(module.groups, shape[1], shape[0] // module.groups, -1)
    return split.transpose(1, 2).reshape(shape)


def _channels(group: ChannelGroup, units: Collection[int]) -> list[tuple[Slice, list[int]]]:
    gone = set(units)
    return [
        (
            part,
            [c for c, root in zip(part.channels, part.roots, strict=True)
             if group.unit[root] in gone],
        )
        for part in group.slices
    ]  # fmt: skip


def _cut(model: nn.Module, part: Slice, channels: list[int]) -> None:
    if part.axis is None:
        part.prune(model.get_submodule(part.layer), channels)
        return
    owner, _, name = part.layer.rpartition(".")
    module = model.get_submodule(owner)
    value = getattr(module, name)
    keep = [i for i in range(value.shape[part.axis]) if i not in set(channels)]
    kept = value.index_select(part.axis, torch.tensor(keep))
    setattr(module, name, nn.Parameter(kept, requires_grad=value.requires_grad))


class Trial:
    """Tries on a probe whether removing channels equals zeroing the weights that read them."""

    def __init__(self, model: nn.Module, probe: Inputs) -> None:
        self.probe, self.model = probe, model
        # In double precision a wrong index stands out from rounding however small its effect is.
        double = copy.deepcopy(model).double()
        inputs = tuple(t.double() if t.is_floating_point() else t for t in probe)
        try:
            self._run(double, inputs)
        except Exception:
            # Some models hold float32 constants of their own; single precision then judges.
            self.dtype = torch.float32
        else:
            self.dtype = torch.float64
            self.probe, self.model = inputs, double

    def holds(self, groups: Sequence[ChannelGroup]) -> bool:
        """Whether it holds for two lopsided choices of units from all the groups at once."""
        generator = torch.Generator().manual_seed(len(groups))
        for attempt in range(2):
            chosen = []
            for group in groups:
                # Unequal halves: an even choice would hide that a split needs equal parts.
                chance = torch.full((group.units,), 0.2 if attempt else 0.5)
                chance[: math.ceil(group.units / 3)] = 0.7 if attempt else 0.1
                gone = torch.rand(group.units, generator=generator) < chance
                gone[-1 if attempt else 0] = False
                gone[0 if attempt else -1] = True
                chosen.append((group, gone.nonzero().flatten().tolist()))
            if not self.equal(chosen):
                return False
        return True

    def equal(self, chosen: Chosen) -> bool:
        """Whether the outputs are equal but for rounding; False where the pruned model fails."""
        pruned, reference = copy.deepcopy(self.model), copy.deepcopy(self.model)
        try:
            silence(reference, chosen)
            wanted = self._run(reference, self.probe)
            remove(pruned, chosen)
            got = self._run(pruned, self.probe)
        except Exception:
            # Whatever a model raises for these channels is the answer: they must stay.
            return False
        for left, right in zip(wanted, got, strict=True):
            if left.shape != right.shape or left.dtype != right.dtype:
                return False
            a, b = left.double(), right.double()
            scale = max(float(a.abs().max()), 1e-30) if a.numel() else 1.0
            # NaN must not pass for equal.
            if not bool(((a - b).abs() <= TOLERANCE[self.dtype] * scale).all()):
                return False
        return True

    def _run(self, model: nn.Module, inputs: Inputs) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return flat_outputs(model(*inputs))


def _traced(model: nn.Module, inputs: Inputs) -> list[tuple[ChannelGroup, str]]:
    """All groups of torch-pruning's graph, each with the reason why it must stay ('' if none)."""
    import torch_pruning as tp

    def outputs(value: object) -> list[Tensor]:
        traced = [t for t in flat_outputs(value) if t.grad_fn is not None]
        if not traced:
            raise CompressError("no output depends on a parameter through autograd")
        # An operator of its own marks an output: a layer whose result is one must be known by it.
        return [t * 1 for t in traced]

    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph = tp.DependencyGraph().build_dependency(
                model,
                inputs,
                forward_fn=lambda network, args: network(*args),
                output_transform=outputs,
                verbose=False,
            )
            found = [_plain(graph, group) for group in graph.get_all_groups()]
    except CompressError:
        raise
    except Exception as error:
        raise CompressError(
            f"the model's channel dependencies cannot be traced: {type(error).__name__}: "
            f"{first_line(error)}",
            hint="Channel pruning needs a model that autograd can follow from input to output.",
        ) from error
    return found


def _plain(graph: Any, group: Any) -> tuple[ChannelGroup, str]:
    slices: list[Slice] = []
    reason, step = "", 1
    for index in range(len(group)):
        dep, channels = group[index]
        target, roots = dep.target.module, group[index].root_idxs
        reason = reason or _reason(target)
        name = graph._param_to_name.get(target) if isinstance(target, nn.Parameter) else None
        name = name or graph._module2name.get(target)
        if name is None:  # an operator without weights
            continue
        if any(root is None for root in roots):
            reason = reason or "its channels are repeated"
            continue
        side, axis = _side(dep.handler), None
        if isinstance(target, nn.Parameter):
            axis = dep.target.pruning_dim
        elif isinstance(target, _ConvNd) and side != "both":
            step = math.lcm(step, target.groups)
        slices.append(Slice(name, side, tuple(channels), tuple(roots), dep.handler, axis))
    unit = _units(graph, group, step)
    # The first filters in the model's order name the group, wherever the graph was entered.
    places = {name: place for place, name in enumerate(graph._module2name.values())}
    slices.sort(key=lambda part: (part.side != "out", places.get(part.layer, len(places))))
    return ChannelGroup(slices[0].layer, unit, tuple(slices)), reason


def _units(graph: Any, group: Any, step: int) -> tuple[int, ...]:
    """The unit of each channel of the layer at which torch-pruning entered the group."""
    import torch_pruning as tp

    entry = group[0].dep
    size = len(group[0].idxs)
    if size % step:
        return (0,) * size
    first = [channel % (size // step) for channel in range(size)]
    splits = (tp.ops._SplitOp, tp.ops._SliceOp, tp.ops._UnbindOp)
    if any(isinstance(dep.target.module, splits) for dep, _ in group):
        for channel in range(size):
            alone = graph.get_pruning_group(entry.target.module, entry.handler, [channel])
            for dep, channels in alone:
                if dep.target is entry.target and dep.handler == entry.handler:
                    joined = {first[other] for other in channels}
                    first = [min(joined) if f in joined else f for f in first]
    numbers = {value: number for number, value in enumerate(sorted(set(first)))}
    unit = tuple(numbers[value] for value in first)
    even = len({unit.count(value) for value in set(unit)}) == 1
    return unit if even else (0,) * size


def _reason(target: object) -> str:
    import torch_pruning as tp

    if isinstance(target, tp.ops._OutputOp):
        return _OUTPUT
    return next((why for kind, why in _WHOLE.items() if isinstance(target, kind)), "")


def _side(handler: Any) -> Side:
    kind = type(handler.__self__)
    if kind.prune_in_channels is kind.prune_out_channels:
        return "both"
    return "out" if handler.__func__ is kind.prune_out_channels else "in"
