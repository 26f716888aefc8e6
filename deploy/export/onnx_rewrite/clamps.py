"""Drop a Relu or Clip whose work the QuantizeLinear behind it does anyway."""

from __future__ import annotations

from typing import Any

import numpy as np

from deploy.export.onnx_rewrite.graph import Graph, runs
from deploy.export.onnx_rewrite.qparams import QParams, qparams


def drop_implied_clamps(graph: Graph) -> int:
    """``x -> Clip -> QuantizeLinear`` becomes ``x -> QuantizeLinear`` where that is the same.

    Quantization ``Q`` never decreases and saturates at the ends of its integers' range. If the
    lower bound ``a`` becomes the smallest integer, so does everything below ``a``, clamped or not;
    above ``a`` that bound changes nothing. The same holds for the upper bound. If ``Q(a)`` is
    larger than the smallest integer, very negative numbers tell the difference. So the condition,
    which is computed for each channel's scale and zero point, is exact in both directions (for
    numbers; what QuantizeLinear makes of NaN is not defined).

    The clamp stays where anything but such a QuantizeLinear reads it.
    """
    dropped = 0
    for clamp in graph.of_type("Relu", "Clip"):
        output, bounds = clamp.output[0], _bounds(graph, clamp)
        readers = graph.readers(output)
        if bounds is None or output in graph.pinned or not readers:
            continue
        if all(_implies(graph, reader, output, *bounds) for reader in readers):
            graph.replace(output, clamp.input[0])
            graph.remove_unread(clamp)
            dropped += 1
    return dropped


def _bounds(graph: Graph, clamp: Any) -> tuple[float, float] | None:
    """The clamp's constant bounds, the lower not above the upper; None where they are not known."""
    if clamp.op_type == "Relu":
        return 0.0, np.inf
    if any(attribute.name in ("min", "max") for attribute in clamp.attribute):
        return None  # Clip before opset 11
    found = []
    for position, absent in ((1, -np.inf), (2, np.inf)):
        name = clamp.input[position] if len(clamp.input) > position else ""
        value = graph.constant(name) if name else np.float32(absent)
        if value is None or value.dtype != np.float32 or value.size != 1:
            return None
        found.append(float(value.reshape(())))
    low, high = found
    return (low, high) if low <= high else None  # nor NaN


def _implies(graph: Graph, reader: Any, clamped: str, low: float, high: float) -> bool:
    if not runs(reader, "QuantizeLinear") or clamped in reader.input[1:]:
        return False
    params = qparams(graph, reader)
    return params is not None and _saturates(params, low, high)


def _saturates(params: QParams, low: float, high: float) -> bool:
    lowest, highest = params.quantize(low), params.quantize(high)
    return bool((lowest == params.low).all() and (highest == params.high).all())
