"""Cross-layer equalization: the same float function in weights that quantize better.

Between layers joined by nothing but positively homogeneous functions and sums (residual blocks), a
channel may be multiplied in all that write it and divided in all that read it. Source of
``weights`` and of the bias absorption: Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction" (arXiv 1906.04721); of ``activations``: Xiao et al., "SmoothQuant"
(arXiv 2211.10438), moved here from transformers to convolutions and their residual sums.

ReLU6 is homogeneous below 6 only. A channel in front of it is scaled only where interval arithmetic
proves that no input whatever takes it above 6, before and after: behind another clamp the input is
bounded, and with it what the layer can give. (Trusting calibration data instead was tried on
EfficientNet-Lite0: on other photographs channels were cut off, 11.7 dB instead of 21.5.) A bias is
absorbed where the same arithmetic proves that the channel is never below 0. So the function stays
the same for every input, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from compress.quantization.lockstep import CONVOLUTIONS, LINEAR, layer_name
from compress.task import Inputs

Equalization = Literal["weights", "activations"]
# A channel that is nearly dead would otherwise be multiplied without end.
MOST_GAIN = 64.0
_INF = float("inf")
_ATEN = torch.ops.aten
_SUM = frozenset({_ATEN.add.Tensor, _ATEN.add_.Tensor})
_RELU = frozenset({_ATEN.relu.default, _ATEN.relu_.default})
_RELU6 = frozenset({_ATEN.relu6.default, _ATEN.relu6_.default})
_HARDTANH = frozenset({_ATEN.hardtanh.default, _ATEN.hardtanh_.default})
_CLAMP = frozenset({_ATEN.clamp.default, _ATEN.clamp_.default})
_PAD = frozenset({_ATEN.pad.default, _ATEN.constant_pad_nd.default})
_IDENTITY = frozenset({_ATEN.dropout.default, _ATEN.dropout_.default})


@dataclass(frozen=True)
class Group:
    """Tensors that must be scaled together: what writes them, what reads them.

    ``clamped`` has each first layer whose output is clamped with the clamp's upper bound.
    ``tensors`` are all of the group's. ``floor`` says that a bias may be absorbed: one layer, a
    ReLU or clamp at 0, one reader that pads no zeros.
    """

    firsts: tuple[Node, ...]
    seconds: tuple[Node, ...]
    tensors: tuple[Node, ...]
    clamped: tuple[tuple[Node, float], ...]
    floor: bool

    @property
    def name(self) -> str:
        """For notes."""
        names = [
            " + ".join(layer_name(node) for node in side) for side in (self.firsts, self.seconds)
        ]
        return " - ".join(names)


class _Sets:
    """Union-find over nodes, with what is known of each set."""

    def __init__(self) -> None:
        self.parent: dict[Node, Node] = {}
        self.blocked: set[Node] = set()

    def root(self, node: Node) -> Node:
        while self.parent.setdefault(node, node) is not node:
            node = self.parent[node]
        return node

    def join(self, node: Node, other: Node) -> None:
        self.parent[self.root(node)] = self.root(other)

    def block(self, nodes: Iterable[Node]) -> None:
        self.blocked |= set(nodes)


def groups_of(graph: GraphModule) -> list[Group]:
    """All groups of a captured module whose batch norms are folded.

    Within a group there are ReLU, clamps at 0, zero padding, dropout and additions of equal shapes.
    A set that anything else reads or writes cannot be scaled.
    """
    usable, sets = _usable(graph), _Sets()
    layers = [node for node in graph.graph.nodes if node in usable]
    for node in graph.graph.nodes:
        if node in usable:
            sets.root(node)
        elif _cut(node) is not None or _zero_pad(node) or node.target in _IDENTITY:
            sets.join(node, node.args[0])
        elif _is_sum(node):
            sets.join(node, node.args[0])
            sets.join(node, node.args[1])
        elif node.op != "get_attr":
            sets.block([node, *node.all_input_nodes])
    blocked = {sets.root(node) for node in sets.blocked}
    found = []
    for root in dict.fromkeys(sets.root(node) for node in layers):
        tensors = tuple(node for node in graph.graph.nodes if _in(sets, node, root))
        firsts = tuple(node for node in tensors if node in usable)
        seconds = tuple(node for node in layers if sets.root(node.args[0]) is root)
        kinds = {node.target is LINEAR for node in (*firsts, *seconds)}
        clamped = [_clamp_of(node, usable) for node in tensors if _cut(node) not in (None, _INF)]
        if root in blocked or not seconds or len(kinds) > 1 or None in clamped:
            continue
        cuts = any(_cut(node) is not None for node in tensors)
        padded = any(_zero_pad(node) for node in tensors) or any(_pads(node) for node in seconds)
        floor = len(firsts) == len(seconds) == 1 and cuts and not padded
        sums = any(_is_sum(node) for node in tensors)
        known = tuple(pair for pair in clamped if pair is not None)
        found.append(Group(firsts, seconds, tensors, known, floor and not sums))
    return found


def _in(sets: _Sets, node: Node, root: Node) -> bool:
    return node in sets.parent and sets.root(node) is root


def _usable(graph: GraphModule) -> set[Node]:
    """Layers whose weight and bias are parameters that nothing else reads."""
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    uses: dict[int, int] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr" and node.target in parameters:
            held = id(parameters[node.target])
            uses[held] = uses.get(held, 0) + len(node.users)

    def own(node: Any) -> bool:
        known = isinstance(node, Node) and node.op == "get_attr" and node.target in parameters
        return known and uses[id(parameters[node.target])] == 1

    found = set()
    for node in graph.graph.nodes:
        if node.target in CONVOLUTIONS | {LINEAR} and not node.kwargs:
            bias = node.args[2] if len(node.args) > 2 else None
            if own(node.args[1]) and (bias is None or own(bias)):
                found.add(node)
    return found


def _is_sum(node: Node) -> bool:
    if node.target not in _SUM or node.kwargs or len(node.args) != 2:
        return False
    shapes = {
        tuple(argument.meta["val"].shape) if isinstance(argument, Node) else ()
        for argument in node.args
    }
    return len(shapes) == 1 and () not in shapes


def _clamp_of(clamp: Node, usable: set[Node]) -> tuple[Node, float] | None:
    """The layer that a clamp follows and the clamp's upper bound; None behind anything else."""
    source: Any = clamp.args[0]
    while _zero_pad(source) or source.target in _IDENTITY or _cut(source) is not None:
        source = source.args[0]
    limit = _cut(clamp)
    return (source, limit) if source in usable and limit is not None else None


def _cut(node: Node) -> float | None:
    """Above what a ReLU-like function cuts off (ReLU: infinite); None for any other function."""
    if node.target in _RELU:
        return _INF
    if node.target in _RELU6:
        return 6.0
    if node.target in _HARDTANH | _CLAMP:
        low, high = _bounds(node)
        return high if low == 0 else None
    return None


def _bounds(node: Node) -> tuple[float | None, float | None]:
    default = (-1.0, 1.0) if node.target in _HARDTANH else (None, None)
    low = node.args[1] if len(node.args) > 1 else node.kwargs.get("min_val", default[0])
    high = node.args[2] if len(node.args) > 2 else node.kwargs.get("max_val", default[1])
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        return None, None
    return float(low), float(high)


def _pads(node: Node) -> bool:
    if node.target is LINEAR or len(node.args) <= 4:
        return False
    padding: Any = node.args[4]
    return any(padding)


def equalize(
    graph: GraphModule, samples: Sequence[Inputs], by: Equalization, *, rounds: int = 20
) -> list[str]:
    """Scale channels and absorb biases, in place; returns what was done, for notes.

    ``weights`` makes the ranges of the two layers' weights equal a channel, which is for one scale
    a tensor. ``activations`` brings each channel's values to the range of the widest one, which is
    what is left to gain where weights have a scale a channel.
    """
    groups = groups_of(graph)
    if not groups:
        return ["nothing to equalize: no layers are joined by ReLU, ReLU6, sums or directly"]
    reach = _channel_reach(graph, groups, samples)
    changed: set[Group] = set()
    for _ in range(rounds if by == "weights" else 1):
        largest = 1.0
        for group in groups:
            gain = _weight_gain(graph, group) if by == "weights" else _gain(graph, group, reach)
            for first, limit in group.clamped:
                gain = _below_clamp(gain, limit, proven_bounds(graph, first)[1])
            _scale(graph, group, gain)
            if bool((gain != 1).any()):
                changed.add(group)
            largest = max(largest, float(gain.max()), float(1 / gain.min()))
        if largest < 1.01:
            break
    absorbed = sum(_absorb(graph, group) for group in groups if group.floor)
    notes = [f"{len(changed)} of {len(groups)} groups of layers equalized by their {by}"]
    if absorbed:
        notes.append(f"biases of {absorbed} channels absorbed by the layer behind")
    return notes


def _channel_reach(
    graph: GraphModule, groups: Sequence[Group], samples: Sequence[Inputs]
) -> dict[Node, Tensor]:
    """The largest absolute value of each channel of the groups' tensors on the samples."""
    wanted = {node: group for group in groups for node in group.tensors}
    found: dict[Node, Tensor] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                first = wanted[n].firsts[0]
                axis = value.ndim - 1 - (0 if first.target is LINEAR else _spatial(first))
                high = value.detach().movedim(axis, 0).flatten(1).abs().amax(1)
                found[n] = torch.maximum(high, found.get(n, high))
            return value

    with torch.no_grad():
        for inputs in samples:
            Watch(graph).run(*inputs)
    return found


def _spatial(node: Node) -> int:
    return 2 if node.target is _ATEN.conv2d.default else 1


def _weights(graph: GraphModule, node: Node) -> tuple[Tensor, Tensor | None]:
    bias = node.args[2] if len(node.args) > 2 else None
    held = graph.get_parameter(str(node.args[1].target))  # type: ignore[union-attr]
    shift = graph.get_parameter(str(bias.target)) if isinstance(bias, Node) else None
    return held.data, None if shift is None else shift.data


def _inputs_view(graph: GraphModule, node: Node) -> Tensor:
    """The weight as [groups, outputs of a group, inputs of a group, positions], a view."""
    weight, _ = _weights(graph, node)
    groups = int(node.args[6]) if node.target is not LINEAR and len(node.args) > 6 else 1  # type: ignore[arg-type]
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _weight_gain(graph: GraphModule, group: Group) -> Tensor:
    """What to multiply each channel of the first layers by; 1 for a channel without weights."""
    rows = [_weights(graph, node)[0].flatten(1).abs().amax(1) for node in group.firsts]
    columns = [_inputs_view(graph, n).abs().amax((1, 3)).flatten() for n in group.seconds]
    first, second = torch.stack(rows).amax(0), torch.stack(columns).amax(0)
    gain = (second / first.clamp(min=1e-30)).sqrt().clamp(1 / MOST_GAIN, MOST_GAIN)
    return torch.where((first > 0) & (second > 0), gain, torch.ones(()))


def _gain(graph: GraphModule, group: Group, reach: dict[Node, Tensor]) -> Tensor:
    """Up to the range of the widest channel, in the tensor where it is nearest to it."""
    shares = [
        reach[node] / reach[node].max().clamp(min=1e-12)
        for node in group.tensors
        if not _fused_away(node)
    ]
    share = torch.stack(shares).amax(0)
    gain = 1 / share.clamp(min=1e-6)
    # Behind a depthwise layer a column is a row of its own and has its own scale: free of cost.
    free = all(_inputs_view(graph, node).shape[2] == 1 for node in group.seconds)
    gain = gain if free else gain.sqrt()
    return torch.where(share > 1e-6, gain.clamp(max=MOST_GAIN), torch.ones(()))


def _fused_away(node: Node) -> bool:
    """Whether nothing but a ReLU or clamp reads it: the kernel never stores such a value."""
    return len(node.users) == 1 and _cut(next(iter(node.users))) is not None


def _below_clamp(gain: Tensor, limit: float, bound: Tensor) -> Tensor:
    high = bound.clamp(min=0)
    allowed = (limit / high.clamp(min=1e-12)).clamp(max=MOST_GAIN)
    return torch.where(high >= limit, torch.ones(()), torch.minimum(gain, allowed))


def proven_bounds(graph: GraphModule, node: Node) -> tuple[Tensor, Tensor]:
    """Lowest and highest value that each output channel of a layer can take, [channels] each.

    Infinite where the layer's input is not bounded by a clamp at 0 and above.
    """
    weight, bias = _weights(graph, node)
    shift = torch.zeros(len(weight)) if bias is None else bias
    limit = _input_limit(node)
    if limit == float("inf"):
        return torch.full_like(shift, -torch.inf), torch.full_like(shift, torch.inf)
    rows = weight.flatten(1)
    low = shift + limit * rows.clamp(max=0).sum(1)
    return low, shift + limit * rows.clamp(min=0).sum(1)


def _input_limit(node: Node) -> float:
    source: Any = node.args[0]
    while isinstance(source, Node):
        if source.target in _RELU6:
            return 6.0
        if source.target in _HARDTANH | _CLAMP:
            low, high = _bounds(source)
            return high if low is not None and low >= 0 and high is not None else float("inf")
        if source.target not in _IDENTITY and not (_zero_pad(source)):
            break
        source = source.args[0]
    return float("inf")


def _zero_pad(node: Node) -> bool:
    if node.target not in _PAD or node.kwargs:
        return False
    if any(isinstance(argument, str) and argument != "constant" for argument in node.args):
        return False
    return not any(isinstance(a, int | float) and a != 0 for a in node.args[2:])


def _scale(graph: GraphModule, group: Group, gain: Tensor) -> None:
    for first in group.firsts:
        weight, bias = _weights(graph, first)
        weight.mul_(gain.view(-1, *[1] * (weight.ndim - 1)))
        if bias is not None:
            bias.mul_(gain)
    for second in group.seconds:
        view = _inputs_view(graph, second)
        scaled = view / gain.view(view.shape[0], 1, view.shape[2], 1)
        target, _ = _weights(graph, second)
        target.copy_(scaled.reshape(target.shape))


def _absorb(graph: GraphModule, group: Group) -> int:
    """Move what a channel never falls below into the next bias; returns how many channels."""
    low, high = proven_bounds(graph, group.firsts[0])
    first, second = _weights(graph, group.firsts[0])[1], _weights(graph, group.seconds[0])[1]
    if first is None or second is None:
        return 0
    limit = min((limit for _, limit in group.clamped), default=_INF)
    shift = torch.where(high <= limit, low.clamp(min=0), torch.zeros(()))
    if not bool((shift > 0).any()):
        return 0
    view = _inputs_view(graph, group.seconds[0])
    groups, _, inputs, _ = view.shape
    moved = (view.sum(3) * shift.view(groups, 1, inputs)).sum(2).flatten()
    first.sub_(shift)
    second.add_(moved)
    return int((shift > 0).sum())
