"""The device's output tensors against reference outputs: parity where it counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.types import TensorSpec

_ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}

Arrays = Sequence[npt.NDArray[Any]]


def expected_bytes(specs: Sequence[TensorSpec]) -> int:
    """Size of the raw file that holds tensors of ``specs``; ``ValueError`` for an unknown dtype."""
    return sum(_bytes(spec) for spec in specs)


def arrays(raw: bytes, specs: Sequence[TensorSpec]) -> list[npt.NDArray[Any]]:
    """The tensors of a raw file in their own dtype and shape (bfloat16 as float32).

    ``ValueError`` where the size does not fit, or for an unknown dtype.
    """
    return _tensors(raw, specs, "the device wrote")


def max_abs_diff(
    raw: bytes, specs: Sequence[TensorSpec], reference: Path | bytes | Arrays
) -> float:
    """Largest absolute difference over all elements of all outputs.

    Args:
        raw: the device's outputs, little-endian, in order, without padding.
        specs: dtype and shape of each output.
        reference: the same outputs from this machine: a raw file, its content, or arrays.

    Elements that are not a number, or the same infinity, on both sides are equal. ``ValueError``
    says why there is no such number: sizes differ, or one side is not finite where the other is.
    """
    if isinstance(reference, Path):
        reference = reference.read_bytes()
    if isinstance(reference, bytes):
        expected = _split(reference, specs, "the reference outputs have")
    else:
        expected = [np.asarray(array).reshape(-1).astype(np.float64) for array in reference]
        if [a.size for a in expected] != [int(np.prod(s.shape)) for s in specs]:
            raise ValueError("the reference outputs do not have the shapes of the model's outputs")
    worst = 0.0
    for ours, theirs in zip(_split(raw, specs, "the device wrote"), expected, strict=True):
        same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
        differing = np.abs(ours[~same] - theirs[~same])
        if not np.isfinite(differing).all():
            count = int(np.count_nonzero(~np.isfinite(differing)))
            raise ValueError(f"{count} output values are not finite on one side only")
        if differing.size:
            worst = max(worst, float(differing.max()))
    return worst


def _split(raw: bytes, specs: Sequence[TensorSpec], who: str) -> list[npt.NDArray[np.float64]]:
    return [tensor.reshape(-1).astype(np.float64) for tensor in _tensors(raw, specs, who)]


def _tensors(raw: bytes, specs: Sequence[TensorSpec], who: str) -> list[npt.NDArray[Any]]:
    need = expected_bytes(specs)
    if len(raw) != need:
        raise ValueError(f"{who} {len(raw)} bytes of outputs, the model's outputs are {need}")
    tensors: list[npt.NDArray[Any]] = []
    at = 0
    for spec in specs:
        part = raw[at : at + _bytes(spec)]
        at += len(part)
        if spec.dtype == "bfloat16":
            # The upper half of a float32.
            widened = np.frombuffer(part, dtype="<u2").astype(np.uint32) << 16
            tensor: npt.NDArray[Any] = widened.view(np.float32)
        else:
            stored = np.frombuffer(part, dtype=np.dtype(spec.dtype).newbyteorder("<"))
            tensor = stored.astype(spec.dtype)
        tensors.append(tensor.reshape(spec.shape))
    return tensors


def _bytes(spec: TensorSpec) -> int:
    if spec.dtype not in _ITEM_BYTES:
        raise ValueError(f"outputs of dtype {spec.dtype!r} cannot be compared")
    return _ITEM_BYTES[spec.dtype] * int(np.prod(spec.shape, dtype=np.int64))
