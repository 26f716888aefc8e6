"""A ``GraphProto`` with its edges indexed, kept true while nodes are rewired and removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


def runs(node: Any | None, *op_types: str) -> bool:
    """Whether there is a node and it runs one of these operators of the ONNX standard."""
    return node is not None and node.op_type in op_types and node.domain in ("", "ai.onnx")


def attribute(node: Any, name: str, absent: Any) -> Any:
    """The value of one of the node's attributes."""
    found = [onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else absent


class Graph:
    """The main graph of a model.

    ``pinned`` values have readers that are not nodes of this graph: outputs of the model, and what
    bodies of control flow read. No rule may change or remove such a value.
    """

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self.nodes: list[Any] = list(proto.node)
        self._removed: set[int] = set()
        self._stale: set[str] = set()
        self._initializers = {tensor.name: tensor for tensor in proto.initializer}
        # An initializer that is also an input is a default that a caller may override.
        self._variable = {value.name for value in proto.input}
        self._producers = {name: node for node in self.nodes for name in node.output if name}
        self._readers: dict[str, list[Any]] = {}
        self.pinned = {value.name for value in proto.output}
        for node in self.nodes:
            for name in set(node.input) - {""}:
                self._readers.setdefault(name, []).append(node)
            self.pinned |= set(_read_by_bodies(node))
        self._names = {*self._initializers, *self._producers, *self._variable, *self.pinned}

    def of_type(self, *op_types: str) -> list[Any]:
        """The nodes, in order, that run one of these standard operators."""
        return [n for n in self.nodes if runs(n, *op_types) and id(n) not in self._removed]

    def producer(self, name: str) -> Any | None:
        """The node that computes the value; None for inputs and initializers."""
        return self._producers.get(name)

    def readers(self, name: str) -> list[Any]:
        """The nodes that read the value, each once."""
        return list(self._readers.get(name, ()))

    def is_constant(self, name: str) -> bool:
        """Whether the value is an initializer that nobody can override."""
        return name in self._initializers and name not in self._variable

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer that nobody can override, else None."""
        if not self.is_constant(name):
            return None
        array: NDArray[Any] = onnx.numpy_helper.to_array(self._initializers[name])
        return array

    def rank(self, name: str) -> int | None:
        """Number of axes of a constant, also behind a DequantizeLinear; None for other values."""
        producer = self.producer(name)
        if producer is not None and runs(producer, "DequantizeLinear"):
            name = producer.input[0]
        return len(self._initializers[name].dims) if self.is_constant(name) else None

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer under ``name``, or a free name near it; the name that it got."""
        unique, number = name, 0
        while unique in self._names:
            number += 1
            unique = f"{name}.{number}"
        tensor = self.proto.initializer.add()
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(value), unique))
        if value.ndim == 0:
            del tensor.dims[:]  # ascontiguousarray makes a vector of a scalar
        self._initializers[unique] = tensor
        self._names.add(unique)
        return unique

    def set_input(self, node: Any, position: int, name: str) -> None:
        """Let the node read another value at one position."""
        old = node.input[position]
        node.input[position] = name
        if old not in node.input:
            self._readers[old] = [other for other in self._readers[old] if other is not node]
        if not any(other is node for other in self._readers.setdefault(name, [])):
            self._readers[name].append(node)

    def replace(self, old: str, new: str) -> None:
        """Let every node that reads ``old`` read ``new``; ``old`` must not be pinned."""
        if old in self.pinned:
            raise ValueError(f"{old} is read outside the graph's nodes")
        for node in self.readers(old):
            for position, name in enumerate(node.input):
                if name == old:
                    self.set_input(node, position, new)

    def remove_unread(self, node: Any) -> None:
        """Remove the node if nobody reads it, and then in turn what was computed for it alone."""
        if any(self._readers.get(name) or name in self.pinned for name in node.output):
            return
        self._removed.add(id(node))
        for name in set(node.input) - {""}:
            self._readers[name] = [other for other in self._readers[name] if other is not node]
            if (producer := self.producer(name)) is not None:
                self.remove_unread(producer)
        for name in node.output:
            self._producers.pop(name, None)

    def forget_type(self, name: str) -> None:
        """The value's recorded type or shape is no longer true; runtimes infer it anew."""
        self._stale.add(name)

    def write_back(self) -> None:
        """Write nodes, initializers and recorded types to the proto; drop what nobody reads."""
        kept = onnx.GraphProto()
        kept.node.extend(node for node in self.nodes if id(node) not in self._removed)
        read = {name for node in kept.node for name in node.input} | self.pinned | self._variable
        produced = {name for node in kept.node for name in node.output}
        kept.initializer.extend(t for t in self.proto.initializer if t.name in read)
        kept.value_info.extend(
            value
            for value in self.proto.value_info
            if value.name in produced and value.name not in self._stale
        )
        for field in ("node", "initializer", "value_info"):
            self.proto.ClearField(field)
            getattr(self.proto, field).extend(getattr(kept, field))


def _read_by_bodies(node: Any) -> Iterator[str]:
    """Names that the bodies inside a control flow operator read or give, inner names included."""
    for attribute in node.attribute:
        for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from inner.input
                yield from _read_by_bodies(inner)
