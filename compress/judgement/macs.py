"""Multiply-accumulates of one inference, counted on an exported graph without running it.

Counted are contractions (convolutions, matrix products, attention), with the usual convention of
papers and of ``torch.utils.flop_counter`` (2 FLOPs a MAC): products with the zeros of a padding
count, element-wise work, pooling and normalisation do not. Quantized programs count like float
ones: their operators stand between dequantize and quantize nodes with the same shapes.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Macs:
    """``total`` is None where ``unknown`` names an operator that nobody knows how to count."""

    total: int | None
    unknown: tuple[str, ...] = ()


def count_macs(program: ExportedProgram) -> Macs:
    """MACs of the program at the shapes that it was exported with."""
    counter = _Counter()
    counter.graph(program.graph_module)
    unknown = tuple(sorted(counter.unknown))
    return Macs(None if unknown else counter.total, unknown)


def _numel(value: Any) -> int:
    return math.prod(int(size) for size in value.shape)


def _convolution(args: Sequence[Any], out: Any) -> int:
    # A kernel of a regular convolution has [out, in / groups, ...]: each output sums over the rest.
    return _numel(out) * _numel(args[1]) // int(args[1].shape[0])


def _transposed(args: Sequence[Any], out: Any) -> int:
    # [in, out / groups, ...]: each input element is spread over the rest.
    return _numel(args[0]) * _numel(args[1]) // int(args[1].shape[0])


def _either_convolution(args: Sequence[Any], out: Any) -> int:
    return (_transposed if args[6] else _convolution)(args, out)


def _product(args: Sequence[Any], out: Any) -> int:
    """``[..., n, k] @ [..., k, m]``, broadcast, of vectors too: each output sums over k."""
    return _numel(out) * int(args[0].shape[-1])


def _added_product(args: Sequence[Any], out: Any) -> int:
    return _product(args[1:], out)


def _summed_products(args: Sequence[Any], out: Any) -> int:
    # addbmm sums the products of a batch, so the output alone does not tell.
    return _numel(args[1]) * int(args[2].shape[-1])


def _linear(args: Sequence[Any], out: Any) -> int:
    return _product(args, out)


def _attention(args: Sequence[Any], out: Any) -> int:
    # softmax(q k^T) v with q [..., l, e], k [..., s, e], v [..., s, w]; masks save nothing here.
    query, key, value = args[:3]
    return (
        _numel(query)
        // int(query.shape[-1])
        * int(key.shape[-2])
        * (int(query.shape[-1]) + int(value.shape[-1]))
    )


_COUNTED: Mapping[str, Callable[[Sequence[Any], Any], int]] = {
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed for n in (1, 2, 3)},
    "convolution": _either_convolution,
    "_convolution": _either_convolution,
    **dict.fromkeys(("mm", "bmm", "matmul", "mv", "dot", "vdot"), _product),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _added_product),
    "addbmm": _summed_products,
    "linear": _linear,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
}

_CONTRACTS = re.compile(
    r"(^|_)(conv(\d|olution|_|$)|\w*mm(_|$)|mv(_|$)|matmul|\w*dot(_|$)|linear(_|$)|attention|rnn|lstm|gru"
    r"|einsum|bilinear(_|$)|trilinear|cdist|pdist|fft|linalg|tensordot|chain_matmul)"
)
"""Names of operators that sum products: where none of the above counts it, it is unknown."""
_FREE_ELSEWHERE = re.compile(r"quantize|choose_qparams|fake_quant|embedding|convert_element_type")
_WRAPPERS = re.compile(r"^wrap_with_(set_grad_enabled|autocast)$")


class _Counter:
    def __init__(self) -> None:
        self.total = 0
        self.unknown: set[str] = set()

    def graph(self, module: fx.GraphModule) -> None:
        for node in module.graph.nodes:
            if node.op == "call_function":
                self._node(node, module)

    def _node(self, node: fx.Node, module: fx.GraphModule) -> None:
        target = node.target
        if isinstance(target, torch._ops.HigherOrderOperator):
            inner = [a for a in node.args if isinstance(a, fx.Node) and a.op == "get_attr"]
            called = str(target)
            if not _WRAPPERS.match(called) or not inner:
                self.unknown.add(called)
                return
            for part in inner:
                body = getattr(module, str(part.target))
                if isinstance(body, fx.GraphModule):
                    self.graph(body)
            return
        if not isinstance(target, torch._ops.OpOverload):
            return  # getitem, or arithmetic on sizes.
        args = fx.map_arg(node.args, _value)
        kwargs = fx.map_arg(node.kwargs, _value)
        try:
            if not self.operator(target, args, kwargs, node.meta.get("val")):
                self._look_inside(target, args, kwargs)
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
            # Shapes that are not fixed, or arguments in a form that no exporter writes.
            self.unknown.add(str(target))

    def operator(
        self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
    ) -> bool:
        """Count one operator; False where it is made of others, which are to be counted instead."""
        namespace, _, base = target._schema.name.partition("::")
        if namespace != "aten":
            if namespace != "prim" and not _FREE_ELSEWHERE.search(base):
                self.unknown.add(str(target))
            return True
        if base in _COUNTED:
            self.total += _COUNTED[base](_positional(target, args, kwargs), out)
            return True
        if _is_composite(target):
            return False
        if _CONTRACTS.search(base):
            self.unknown.add(str(target))
        return True

    def _look_inside(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        # The graph's values are fake tensors: operators run on shapes alone.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            # oneDNN has one opaque operator for a whole recurrent layer.
            with torch.backends.mkldnn.flags(enabled=False), _Inside(self):
                target(*args, **kwargs)


class _Inside(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, counter: _Counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._counter = counter

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self._counter.operator(func, args, kwargs or {}, out)
        return out


def _value(node: fx.Node) -> Any:
    return node.meta.get("val", node)


def _is_composite(target: Any) -> bool:
    key = "CompositeImplicitAutograd"
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(target.name(), key))


def _positional(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """All arguments in the order of the operator's schema, whichever way they were given."""
    named = [argument.name for argument in target._schema.arguments[len(args) :]]
    return [*args, *(kwargs.get(name) for name in named)]


def is_fixed(value: object) -> bool:
    """Whether a node's value is a tensor whose sizes are plain numbers."""
    return isinstance(value, Tensor) and all(isinstance(size, int) for size in value.shape)
