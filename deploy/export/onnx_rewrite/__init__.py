"""Exact rewrites of a quantized ONNX model into the shapes that ONNX Runtime's fusions look for.

A PT2E program's ``.onnx`` says what its program says: quantize and dequantize around each operator,
with clamps and pads as nodes of their own. ONNX Runtime turns only ``DequantizeLinear``, operator,
``QuantizeLinear`` of matching types into an integer kernel (its ``QDQSelectorActionTransformer``).
The rules here move aside what stands between. Each gives, in real arithmetic, the same integers at
every quantized tensor that is left (unsigned: plus 128; unpadded: the padded one's inside); its
module says why. A rule that cannot prove that from constants in the graph leaves the place alone.

Bodies of control flow and model-local functions are not rewritten; what they read does not change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from deploy.export.onnx_rewrite.clamps import drop_implied_clamps
from deploy.export.onnx_rewrite.graph import Graph
from deploy.export.onnx_rewrite.pads import fold_pads
from deploy.export.onnx_rewrite.requantize import drop_requantization
from deploy.export.onnx_rewrite.unsigned import make_activations_unsigned

RULES: dict[str, Callable[[Graph], int]] = {
    "folded_pads": fold_pads,
    "dropped_requantizations": drop_requantization,
    "dropped_clamps": drop_implied_clamps,
}
"""Applied over and over until none finds a place: each can clear the way for another."""


def rewrite(model: Any) -> Counter[str]:
    """Clear the way to ONNX Runtime's fusions, in place: the times that each rule fired.

    A ``ModelProto`` in which none finds a place, as one that is not quantized, stays as it was.
    """
    fired: Counter[str] = Counter()
    graph = Graph(model.graph)
    while counts := +Counter({name: rule(graph) for name, rule in RULES.items()}):
        fired += counts
    if fired:
        graph.write_back()
    return fired


def make_unsigned(model: Any) -> int:
    """int8 activations of a ``ModelProto`` become uint8, all or none, in place: how many did.

    For x86, where ONNX Runtime has fused kernels for unsigned activations only.
    """
    graph = Graph(model.graph)
    if shifted := make_activations_unsigned(graph):
        graph.write_back()
    return shifted
