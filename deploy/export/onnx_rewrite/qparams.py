"""Scale and zero point of a QuantizeLinear or DequantizeLinear, and what they do to numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.export.onnx_rewrite.graph import Graph, attribute

_INTEGERS = (np.int8, np.uint8, np.int16, np.uint16)


@dataclass(frozen=True)
class QParams:
    """``q = saturate(round(x / scale) + zero_point)``, rounding half to even.

    ``scale`` is float32, finite and positive; ``zero_point`` has its shape and the integers' type:
    a scalar, or a vector along ``axis``.
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int

    @property
    def per_tensor(self) -> bool:
        """One scale and zero point for all elements."""
        return self.scale.size == 1

    @property
    def low(self) -> int:
        """The smallest integer."""
        return int(np.iinfo(self.zero_point.dtype).min)

    @property
    def high(self) -> int:
        """The largest integer."""
        return int(np.iinfo(self.zero_point.dtype).max)

    def quantize(self, x: float) -> NDArray[np.int64]:
        """The integers that the number becomes, in the shape of ``scale``."""
        with np.errstate(over="ignore"):
            steps = np.rint(np.float32(x) / self.scale).astype(np.float64)
        integers: NDArray[np.int64] = np.clip(steps + self.zero_point, self.low, self.high).astype(
            np.int64
        )
        return integers

    def same_as(self, other: QParams) -> bool:
        """The same mapping of the same tensor."""
        return (
            self.zero_point.dtype == other.zero_point.dtype
            and np.array_equal(self.scale.ravel(), other.scale.ravel())
            and np.array_equal(self.zero_point.ravel(), other.zero_point.ravel())
            and (self.per_tensor or self.axis == other.axis)
        )

    def survives_round_trip(self) -> bool:
        """Whether quantizing what was dequantized gives every integer back: all are tried."""
        integers = np.arange(self.low, self.high + 1, dtype=np.int64)[:, None]
        scale, zero = self.scale.reshape(1, -1), self.zero_point.reshape(1, -1).astype(np.int64)
        with np.errstate(over="ignore"):
            real = (integers - zero).astype(np.float32) * scale
            steps = np.rint(real / scale).astype(np.float64)
        return bool(np.array_equal(np.clip(steps + zero, self.low, self.high), integers + 0 * zero))


def qparams(graph: Graph, node: Any) -> QParams | None:
    """The constants of a QuantizeLinear or DequantizeLinear; None where they are not understood.

    That is: computed while the model runs, no zero point, blocks, other types than float32 and
    integers of 8 or 16 bits, a scale that is not a positive number.
    """
    if len(node.input) < 3:
        return None
    scale, zero_point = (graph.constant(name) for name in node.input[1:3])
    if (
        scale is None
        or zero_point is None
        or scale.dtype != np.float32
        or zero_point.dtype not in _INTEGERS
        or scale.shape != zero_point.shape
        or scale.ndim > 1
        or attribute(node, "block_size", 0)
        or attribute(node, "precision", 0) not in (0, onnx.TensorProto.FLOAT)
        or not (np.isfinite(scale) & (scale > 0)).all()
    ):
        return None
    return QParams(scale, zero_point, int(attribute(node, "axis", 1)))
