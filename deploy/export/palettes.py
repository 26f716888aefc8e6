"""Look-up tables for Core ML from weights that have few values.

Nothing is clustered here: a weight is palettized where its values, as Core ML stores them, are few
enough that indices and tables are smaller than they. It then decodes to exactly these values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BITS = (1, 2, 3, 4, 6, 8)
"""Widths of indices that Core ML has; 3 bits since iOS 18."""

_SMALLEST = 64
_TRANSPOSED = "conv_transpose"


@dataclass(frozen=True)
class Palette:
    """How to store one weight: ``group_size`` channels along ``axis`` share a table; 0: all do."""

    bits: int
    axis: int
    group_size: int
    saved_bytes: float


def palettize(model: Any, *, grouped: bool) -> tuple[Any, dict[str, Palette]]:
    """The Core ML model with palettes for its weights that have few values, and what was done.

    ``grouped``: allow a table for each group of channels, and widths of 3 bits (iOS 18).
    """
    import coremltools.optimize.coreml as cto

    chosen: dict[str, Palette] = {}
    for name, weight in cto.get_weights_metadata(model, weight_threshold=_SMALLEST).items():
        readers = [child.op_type for child in weight.child_ops]
        if any(kind.startswith("constexpr") for kind in readers):
            continue  # It is compressed already.
        axis = 1 if _TRANSPOSED in readers else 0
        palette = choose(np.asarray(weight.val), axis=axis, grouped=grouped)
        if palette is not None:
            chosen[name] = palette
    if not chosen:
        return model, {}
    configs = {}
    for name, palette in chosen.items():
        groups: dict[str, Any] = {}
        if palette.group_size:
            groups = {"granularity": "per_grouped_channel", "group_size": palette.group_size}
            groups["channel_axis"] = palette.axis
        configs[name] = cto.OpPalettizerConfig(mode="unique", weight_threshold=_SMALLEST, **groups)
    config = cto.OptimizationConfig(op_name_configs=configs)
    return cto.palettize_weights(model, config), chosen


def choose(weight: NDArray[Any], *, axis: int = 0, grouped: bool = True) -> Palette | None:
    """The palette with the fewest bytes; None where plain values are smaller.

    Args:
        weight: float16 or float32, any shape.
        axis: the axis of output channels, which groups are slices of.
    """
    if weight.ndim < 2 or weight.dtype.kind != "f" or not np.isfinite(weight).all():
        return None
    channels = weight.shape[axis]
    # Codes are quick to count in, and -0.0 and 0.0 are one value.
    distinct, codes = np.unique(weight, return_inverse=True)
    rows = np.moveaxis(codes.reshape(weight.shape), axis, 0).reshape(channels, -1)
    best: Palette | None = None
    sizes = [n for n in range(1, channels) if channels % n == 0] if grouped else []
    for size in (0, *sizes):
        count = _most_distinct(rows, size, len(distinct))
        bits = next((b for b in BITS if count <= 1 << b and (grouped or b != 3)), None)
        if bits is None:
            continue
        tables = channels // size if size else 1
        saved = weight.nbytes - weight.size * bits / 8 - tables * (1 << bits) * weight.itemsize
        if saved > (best.saved_bytes if best else 0):
            best = Palette(bits, axis, size, saved)
    return best


def _most_distinct(rows: NDArray[Any], size: int, all_distinct: int) -> int:
    """Most distinct codes in any group of ``size`` rows (0: all); stops counting beyond 256."""
    if size == 0:
        return all_distinct
    most = 0
    for group in rows.reshape(len(rows) // size, -1):
        most = max(most, len(np.unique(group)))
        if most > 1 << BITS[-1]:
            break
    return most
