"""Fold a Pad with zeros into the quantized convolutions behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.export.onnx_rewrite.graph import Graph, attribute, runs
from deploy.export.onnx_rewrite.qparams import qparams


def fold_pads(graph: Graph) -> int:
    """``Pad -> [Quantize -> Dequantize ->] Conv`` becomes ``[Quantize -> Dequantize ->] Conv``.

    ONNX's Conv pads each side by its own amount with 0.0, which is what a Pad of spatial axes with
    the constant 0.0 does. Between the two a quantization may stand: it works on each element alone,
    and 0.0 becomes the zero point and that 0.0 again, so it makes no difference whether the zeros
    come before or after it. (The quantized tensor then lacks its border.)

    A Pad of a float convolution is left as it is: only convolutions behind a DequantizeLinear gain,
    because ONNX Runtime gives them an integer kernel. So is a Pad that anything else reads, on any
    of the ways; one that crops, or pads batch or channels, or with another value, or by an amount
    that is not constant; and one before a Conv with automatic padding.
    """
    folded = 0
    for pad in graph.of_type("Pad"):
        behind = _quantizers_and_convolutions(graph, pad)
        if behind is None:
            continue
        quantizers, convolutions = behind
        amounts = [_amounts(graph, pad, convolution) for convolution in convolutions]
        if any(amount is None for amount in amounts):
            continue
        for convolution, amount in zip(convolutions, amounts, strict=True):
            assert amount is not None
            _add_padding(convolution, amount)
        for node in quantizers:
            graph.forget_type(node.output[0])
        graph.replace(pad.output[0], pad.input[0])
        graph.remove_unread(pad)
        folded += 1
    return folded


def _quantizers_and_convolutions(graph: Graph, pad: Any) -> tuple[list[Any], list[Any]] | None:
    """All nodes between the Pad and the convolutions, and these; None if other nodes read any."""
    source = graph.producer(pad.input[0])
    padded = pad.output[0]
    readers = _plain_readers(graph, padded)
    if not readers:
        return None
    if runs(source, "DequantizeLinear") and _all_convolve(readers):
        return [], readers
    between, convolutions = [], []
    for quantizer in readers:
        before = qparams(graph, quantizer) if runs(quantizer, "QuantizeLinear") else None
        dequantizers = _plain_readers(graph, quantizer.output[0])
        if before is None or not before.per_tensor or not dequantizers:
            return None
        between.append(quantizer)
        for dequantizer in dequantizers:
            after = qparams(graph, dequantizer) if runs(dequantizer, "DequantizeLinear") else None
            if after is None or not after.per_tensor or after.zero_point != before.zero_point:
                return None
            last = _plain_readers(graph, dequantizer.output[0])
            if not last or not _all_convolve(last):
                return None
            between.append(dequantizer)
            convolutions += last
    return between, convolutions


def _plain_readers(graph: Graph, name: str) -> list[Any] | None:
    """The nodes that read the value as their first input; None if it is read in any other way."""
    readers = graph.readers(name)
    if name in graph.pinned or any(list(node.input).count(name) > 1 for node in readers):
        return None
    return readers if all(node.input[0] == name for node in readers) else None


def _all_convolve(nodes: list[Any]) -> bool:
    return all(
        runs(node, "Conv") and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID", b"")
        for node in nodes
    )


def _amounts(graph: Graph, pad: Any, convolution: Any) -> NDArray[np.int64] | None:
    """[2, spatial axes]: elements to add before and behind; None if the Pad does anything else."""
    if attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) < 2:
        return None
    inputs = [*pad.input, "", ""]
    value = graph.constant(inputs[2]) if inputs[2] else np.zeros(1)
    amounts = graph.constant(inputs[1])
    rank = graph.rank(convolution.input[1])
    if value is None or value.size != 1 or value.any() or amounts is None or rank is None:
        return None
    axes = graph.constant(inputs[3]) if inputs[3] else np.arange(rank)
    if axes is None or amounts.size != 2 * axes.size or (amounts < 0).any():
        return None
    every = np.zeros((2, rank), dtype=np.int64)
    every[:, axes] = amounts.reshape(2, -1)
    return None if every[:, :2].any() else every[:, 2:]


def _add_padding(convolution: Any, amounts: NDArray[np.int64]) -> None:
    own = np.array(attribute(convolution, "pads", [0] * amounts.size), dtype=np.int64)
    if attribute(convolution, "auto_pad", b"NOTSET") == b"VALID":
        own[:] = 0
    for old in [a for a in convolution.attribute if a.name in ("auto_pad", "pads")]:
        convolution.attribute.remove(old)
    total = (own + amounts.reshape(-1)).tolist()
    convolution.attribute.append(onnx.helper.make_attribute("pads", total))
