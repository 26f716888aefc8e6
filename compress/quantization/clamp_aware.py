"""The quantizer that knows what stands behind a convolution: a clamp, or a curve that saturates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import propagate_annotation
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from compress.quantization.ranges import ActivationObserver

_ATEN = torch.ops.aten
_CLAMPS = frozenset(
    {
        _ATEN.hardtanh.default,
        _ATEN.hardtanh_.default,
        _ATEN.relu6.default,
        _ATEN.relu6_.default,
    }
)
_TWO_SIDED = frozenset({_ATEN.clamp.default, _ATEN.clamp_.default})
_PRODUCERS = frozenset(
    {
        _ATEN.conv1d.default,
        _ATEN.conv2d.default,
        _ATEN.convolution.default,
        _ATEN.linear.default,
        _ATEN.add.Tensor,
        _ATEN.mul.Tensor,
    }
)
# Below or above some value their result hardly changes, so that steps spent there are lost.
_SATURATING: dict[Any, Callable[[torch.Tensor], torch.Tensor]] = {
    _ATEN.hardswish.default: torch.nn.functional.hardswish,
    _ATEN.hardswish_.default: torch.nn.functional.hardswish,
    _ATEN.hardsigmoid.default: torch.nn.functional.hardsigmoid,
    _ATEN.hardsigmoid_.default: torch.nn.functional.hardsigmoid,
    _ATEN.silu.default: torch.nn.functional.silu,
    _ATEN.silu_.default: torch.nn.functional.silu,
    _ATEN.sigmoid.default: torch.sigmoid,
}


class ClampAwareQuantizer(XNNPACKQuantizer):  # type: ignore[misc]
    """XNNPACKQuantizer that treats conv/linear/add followed by a clamp as one operator.

    ExecuTorch's XNNPACK backend fuses such a clamp into the kernel's output range; the stock
    quantizer knows that of ``relu`` only and puts a quantization step between the two. The backend
    in turn knows ``hardtanh`` but not ``clamp`` (its lowering of a convolution that is quantized
    behind a ``clamp`` fails), so that a clamp with two bounds becomes the equal ``hardtanh`` first.

    Hard-swish, hard-sigmoid, SiLU and sigmoid are no clamps of a kernel: what they read is
    quantized. Its range is then the one with the least error *behind* them
    (:class:`compress.quantization.ranges.ActivationObserver`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.fused = self.looked_through = 0

    def transform_for_annotation(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Write ``clamp(x, low, high)`` behind a producer as ``hardtanh(x, low, high)``."""
        model = super().transform_for_annotation(model)
        for node in model.graph.nodes:
            bounds = (*node.args[1:], *node.kwargs.values())
            numbers = [bound for bound in bounds if isinstance(bound, int | float)]
            if node.target not in _TWO_SIDED or len(numbers) != 2 or numbers[0] > numbers[1]:
                continue
            if getattr(node.args[0], "target", None) in _PRODUCERS:
                node.target = _ATEN.hardtanh.default
                node.args, node.kwargs = (node.args[0], *map(float, numbers)), {}
        model.recompile()
        return model

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Annotate as the stock quantizer does, then move output ranges behind the clamps."""
        model = self._annotate_for_quantization_config(model)
        for node in model.graph.nodes:
            if node.target in _CLAMPS and self._take_over(node):
                self.fused += 1
            if node.target in _SATURATING and self._look_through(node):
                self.looked_through += 1
        propagate_annotation(model)
        return model

    @staticmethod
    def _take_over(clamp: Any) -> bool:
        producer = clamp.args[0]
        if getattr(producer, "target", None) not in _PRODUCERS or len(producer.users) != 1:
            return False
        annotation = producer.meta.get(Q_ANNOTATION_KEY)
        if annotation is None or annotation.output_qspec is None:
            return False
        clamp.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
            output_qspec=annotation.output_qspec, _annotated=True
        )
        annotation.output_qspec = None
        return True

    @staticmethod
    def _look_through(curve: Any) -> bool:
        producer = curve.args[0]
        if getattr(producer, "target", None) not in _PRODUCERS or len(producer.users) != 1:
            return False
        annotation = producer.meta.get(Q_ANNOTATION_KEY)
        spec: Any = None if annotation is None else annotation.output_qspec
        maker = getattr(getattr(spec, "observer_or_fake_quant_ctr", None), "p", None)
        if maker is None or maker.func is not ActivationObserver:
            return False
        # Not maker.with_args: PT2E reads the name of the class from the first wrapper.
        through = ActivationObserver.with_args(
            **{**maker.keywords, "through": _SATURATING[curve.target]}
        )
        producer.meta[Q_ANNOTATION_KEY].output_qspec = replace(
            spec, observer_or_fake_quant_ctr=through
        )
        return True
