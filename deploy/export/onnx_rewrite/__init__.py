"""Exact rewrites of a quantized ONNX model into the shapes that ONNX Runtime's fusions look for.

A PT2E program's ``.onnx`` says what its program says: quantize and dequantize around each operator,
with clamps and pads as nodes of their own. ONNX Runtime turns only ``DequantizeLinear``, operator,
``QuantizeLinear`` of matching types into an integer kernel (its ``QDQSelectorActionTransformer``).
The rules here move aside what stands between. Each gives, in real arithmetic, the same integers at
every quantized tensor that is left (unsigned: plus 128; unpadded: the padded one's inside); its
module says why. A rule that cannot prove that from constants in the graph leaves the place alone.
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
    """Rewrite the ``ModelProto`` in place; how often each rule fired.

    A model that quantizes no activation in its main graph is left as it is, byte for byte. Bodies
    of control flow and model-local functions are not rewritten; what they read keeps its meaning.
    """
    fired: Counter[str] = Counter()
    if all(node.op_type != "QuantizeLinear" for node in model.graph.node):
        return fired
    graph = Graph(model.graph)
    while counts := +Counter({name: rule(graph) for name, rule in RULES.items()}):
        fired += counts
    fired += Counter(unsigned_activations=make_activations_unsigned(graph))
    if fired:
        graph.write_back()
    return fired
