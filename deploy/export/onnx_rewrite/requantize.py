"""Drop a quantization that is applied a second time."""

from __future__ import annotations

from deploy.export.onnx_rewrite.graph import Graph, runs
from deploy.export.onnx_rewrite.qparams import qparams


def drop_requantization(graph: Graph) -> int:
    """``q -> Dequantize -> Quantize -> q2``: readers of ``q2`` read ``q`` where both are the same.

    Both nodes must have the same scale, zero point and type. That each integer comes back is not
    taken for granted (a scale near the smallest or largest float loses it): all are computed.
    The Dequantize stays for its other readers.
    """
    dropped = 0
    for quantizer in graph.of_type("QuantizeLinear"):
        dequantizer = graph.producer(quantizer.input[0])
        output = quantizer.output[0]
        if dequantizer is None or not runs(dequantizer, "DequantizeLinear"):
            continue
        before, after = qparams(graph, dequantizer), qparams(graph, quantizer)
        if before is None or after is None or output in graph.pinned or not graph.readers(output):
            continue
        if before.same_as(after) and after.survives_round_trip():
            graph.replace(output, dequantizer.input[0])
            graph.remove_unread(quantizer)
            dropped += 1
    return dropped
