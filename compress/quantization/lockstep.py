"""A float and a quantized network, run side by side, one operator at a time over all samples.

This is what looks into a quantized network: how far each layer is off by itself and with all that
comes before it, and what each layer's weights have to make up for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from compress.quantization.grid import fake_quantize
from compress.task import Inputs

_ATEN = torch.ops.aten
CONVOLUTIONS = frozenset({_ATEN.conv1d.default, _ATEN.conv2d.default})
LINEAR = _ATEN.linear.default
TRANSPOSED = frozenset({_ATEN.conv_transpose1d.default, _ATEN.conv_transpose2d.input})
WEIGHTED = CONVOLUTIONS | TRANSPOSED | {LINEAR}
# What a backend computes together with the layer in front of it.
FUSED = frozenset(
    {
        _ATEN.relu.default,
        _ATEN.relu_.default,
        _ATEN.relu6.default,
        _ATEN.relu6_.default,
        _ATEN.hardtanh.default,
        _ATEN.hardtanh_.default,
    }
)


@dataclass
class Layer:
    """A weighted layer that is quantized, when the walk gets to it.

    ``exact`` and ``quantized``: the layer's input in each network, a tensor a sample; of the
    quantized network after its quantization. ``weight`` and ``bias`` are names of the prepared
    module's parameters (``bias`` None without one); ``observer`` is the weight's.
    """

    name: str
    node: Node
    weight: str
    bias: str | None
    observer: Any
    exact: list[Tensor]
    quantized: list[Tensor]


@dataclass
class Noise:
    """Energies at the place where a layer's output is quantized.

    ``alone``: noise when this layer only is quantized; ``accumulated``: with all before it.
    """

    name: str
    signal: float = 0.0
    alone: float = 0.0
    accumulated: float = 0.0


@dataclass
class Walk:
    """Outputs of both networks, a flat tuple a sample, and the noise of each layer in order."""

    exact: list[Any] = field(default_factory=list)
    quantized: list[Any] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)


def layer_name(node: Node) -> str:
    """The dotted name of the module that a layer's node comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if stack and stack[-1][0]:
        return str(stack[-1][0])
    weight = weight_of(node)
    return weight.rpartition(".")[0] or node.name if weight else node.name


def weight_of(node: Node) -> str | None:
    """The name of a layer's weight, looked for behind its observer; None where it is computed."""
    source = node.args[1]
    if isinstance(source, Node) and source.op == "call_module":
        source = source.args[0]
    return str(source.target) if isinstance(source, Node) and source.op == "get_attr" else None


def layers_of(graph: GraphModule) -> dict[str, Node]:
    """Weighted layers by a name of their own, in order; a second use of a module gets ``#2``."""
    found: dict[str, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in WEIGHTED and weight_of(node):
            name, number = layer_name(node), 2
            unique = name
            while unique in found:
                unique, number = f"{name}#{number}", number + 1
            found[unique] = node
    return found


def walk(
    prepared: GraphModule,
    samples: Sequence[Inputs],
    at_layer: Callable[[Layer], None] = lambda _: None,
    *,
    measure: bool = True,
) -> Walk:
    """Run the calibrated module on all samples in both ways.

    ``at_layer`` sees each quantized layer before it is run and may change the layer's weight, bias
    and observer: what comes after sees the change in the quantized network only (the exact one
    computes with the values from before). Without ``measure`` no noise is computed.
    """
    with torch.no_grad():
        return _Walker(prepared, samples, at_layer, measure).run()


class _Same(list[Any]):
    """The same value for each sample."""

    def __init__(self, value: Any) -> None:
        super().__init__([value])

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(0)


@dataclass
class _Values:
    """What a node gave, a value a sample; ``alone`` where only ``layer`` was quantized."""

    exact: list[Any]
    quantized: list[Any]
    alone: list[Tensor] | None = None
    layer: str = ""


class _Walker:
    def __init__(
        self,
        graph: GraphModule,
        samples: Sequence[Inputs],
        at_layer: Callable[[Layer], None],
        measure: bool,
    ) -> None:
        self.graph, self.samples, self.at_layer = graph, samples, at_layer
        self.count = range(len(samples))
        self.names = {node: name for name, node in layers_of(graph).items() if _quantized(node)}
        self.measured_at = {_end_of(node) for node in self.names} if measure else set()
        self.values: dict[Node, _Values] = {}
        self.noise: list[Noise] = []
        named = (*graph.named_parameters(), *graph.named_buffers())
        self.originals = {name: value.detach().clone() for name, value in named}
        self.inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]

    def run(self) -> Walk:
        last_use = _last_uses(self.graph)
        for position, node in enumerate(self.graph.graph.nodes):
            if node.op == "output":
                exact = [self._look(node.args[0], "exact", i) for i in self.count]
                quantized = [self._look(node.args[0], "quantized", i) for i in self.count]
                return Walk(exact, quantized, self.noise)
            made = self.values[node] = self._run(node)
            if node in self.measured_at and made.alone is not None:
                self.noise.append(_noise(made))
                made.alone = None
            for dead in last_use.get(position, ()):
                self.values.pop(dead, None)
        raise AssertionError("a graph without an output")

    def _look(self, arguments: Any, way: str, index: int) -> Any:
        return torch.fx.map_arg(arguments, lambda node: getattr(self.values[node], way)[index])

    def _run(self, node: Node) -> _Values:
        if node.op == "placeholder":
            given = [sample[self.inputs.index(node)] for sample in self.samples]
            return _Values(given, given)
        if node.op == "get_attr":
            now = _attribute(self.graph, str(node.target))
            return _Values(_Same(self.originals.get(str(node.target), now)), _Same(now))
        if node.op == "call_module":
            return self._observe(node)
        if node in self.names:
            return self._layer(node)
        made = _Values(self._call(node, "exact"), self._call(node, "quantized"))
        source = self.values.get(node.args[0]) if node.args else None  # type: ignore[arg-type]
        if node.target in FUSED and source is not None and source.alone is not None:
            made.layer = source.layer
            target: Any = node.target
            made.alone = [target(v.clone(), *node.args[1:], **node.kwargs) for v in source.alone]
        return made

    def _call(self, node: Node, way: str) -> list[Any]:
        target: Any = node.target
        results = []
        for index in self.count:
            args = self._look(node.args, way, index)
            if target._schema.is_mutable if hasattr(target, "_schema") else False:
                # What works in place must not change what others still read.
                args = torch.utils._pytree.tree_map_only(Tensor, torch.clone, args)
            results.append(target(*args, **self._look(node.kwargs, way, index)))
        return results

    def _observe(self, node: Node) -> _Values:
        """An observer: the exact network passes its input on, the other one quantizes it."""
        source = self.values[node.args[0]]  # type: ignore[index]
        observer = self.graph.get_submodule(str(node.target))
        if isinstance(source.quantized, _Same):
            return _Values(source.exact, _Same(fake_quantize(source.quantized[0], observer)))
        made = _Values(source.exact, [fake_quantize(v, observer) for v in source.quantized])
        if source.alone is not None:
            made.alone = [fake_quantize(value, observer) for value in source.alone]
            made.layer = source.layer
        return made

    def _layer(self, node: Node) -> _Values:
        """Show a layer, then compute its quantized output with what it has become."""
        exact = self._call(node, "exact")
        source, weight = node.args[0], node.args[1]
        assert isinstance(source, Node)
        assert isinstance(weight, Node)
        observer = self.graph.get_submodule(str(weight.target))
        bias = node.args[2] if len(node.args) > 2 else None
        held = str(weight.args[0].target)  # type: ignore[union-attr]
        given = self.values[source]
        name = self.names[node]
        shift = str(bias.target) if isinstance(bias, Node) and bias.op == "get_attr" else None
        self.at_layer(Layer(name, node, held, shift, observer, given.exact, given.quantized))
        now = fake_quantize(_attribute(self.graph, held), observer)
        self.values[weight].quantized = _Same(now)
        if shift is not None:
            self.values[bias].quantized = _Same(_attribute(self.graph, shift))  # type: ignore[index]
        made = _Values(exact, self._call(node, "quantized"), layer=name)
        if self.measured_at:
            own = given.exact
            if source.op == "call_module":
                quantizer = self.graph.get_submodule(str(source.target))
                own = [fake_quantize(own[index], quantizer) for index in self.count]
            target: Any = node.target
            rest = [self._look(node.args[1:], "quantized", index) for index in self.count]
            made.alone = [target(own[i], *rest[i], **node.kwargs) for i in self.count]
        return made


def _last_uses(graph: GraphModule) -> dict[int, list[Node]]:
    last: dict[Node, int] = {}
    for position, node in enumerate(graph.graph.nodes):
        for source in node.all_input_nodes:
            last[source] = position
    uses: dict[int, list[Node]] = {}
    for node, position in last.items():
        uses.setdefault(position, []).append(node)
    return uses


def _quantized(layer: Node) -> bool:
    weight = layer.args[1]
    return isinstance(weight, Node) and weight.op == "call_module"


def _end_of(layer: Node) -> Node:
    """Where the layer's output is quantized; the layer itself if it is not."""
    node = layer
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "call_module":
            return node
        if node.target not in FUSED:
            break
    return layer


def _attribute(graph: GraphModule, name: str) -> Any:
    value: Any = graph
    for part in name.split("."):
        value = getattr(value, part)
    return value.detach() if isinstance(value, Tensor) else value


def _noise(made: _Values) -> Noise:
    assert made.alone is not None
    row = Noise(made.layer)
    for exact, alone, both in zip(made.exact, made.alone, made.quantized, strict=True):
        row.signal += float(exact.double().square().sum())
        row.alone += float((exact - alone).double().square().sum())
        row.accumulated += float((exact - both).double().square().sum())
    return row
