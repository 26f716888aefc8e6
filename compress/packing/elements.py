"""Tensors as unsigned words, and the orders of words that coders like.

Everything works on the bits of elements, so NaN payloads and -0.0 come back as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compress.errors import CompressError

Words = npt.NDArray[Any]
"""Bits of elements: uint8, uint16, uint32 or uint64."""


@dataclass(frozen=True)
class Form:
    """What the bits of a dtype mean: ``words`` of ``size`` bytes an element."""

    dtype: torch.dtype
    kind: Literal["float", "signed", "unsigned"]
    size: int
    words: int = 1


# The place in this tuple is what a container stores: append only.
FORMS = (
    Form(torch.float32, "float", 4),
    Form(torch.float16, "float", 2),
    Form(torch.bfloat16, "float", 2),
    Form(torch.float64, "float", 8),
    Form(torch.int8, "signed", 1),
    Form(torch.uint8, "unsigned", 1),
    Form(torch.int16, "signed", 2),
    Form(torch.int32, "signed", 4),
    Form(torch.int64, "signed", 8),
    Form(torch.bool, "unsigned", 1),
    Form(torch.uint16, "unsigned", 2),
    Form(torch.uint32, "unsigned", 4),
    Form(torch.uint64, "unsigned", 8),
    Form(torch.complex64, "float", 4, 2),
    Form(torch.complex128, "float", 8, 2),
    Form(torch.float8_e4m3fn, "unsigned", 1),
    Form(torch.float8_e5m2, "unsigned", 1),
)
FORM_OF = {form.dtype: number for number, form in enumerate(FORMS)}

_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def words_of(tensor: Tensor, name: str) -> Words:
    """The tensor's elements in C order as little-endian words, flat."""
    plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.dtype not in FORM_OF or tensor.is_meta:
        raise CompressError(
            f"cannot pack a {type(tensor).__name__} of {tensor.dtype}, {tensor.layout}",
            where=name,
            hint="Plain dense tensors of a standard dtype can be packed.",
        )
    held = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    size = FORMS[FORM_OF[tensor.dtype]].size
    data: npt.NDArray[np.uint8] = held.view(torch.uint8).numpy()
    words: Words = data.view(np.dtype(_UNSIGNED[size]).newbyteorder("<")).astype(_UNSIGNED[size])
    return words


def tensor_of(words: Words, form: Form, shape: tuple[int, ...]) -> Tensor:
    """The opposite of :func:`words_of`; the words become the tensor's memory where they can."""
    if form.dtype is torch.bool and len(words) and int(words.max()) > 1:
        raise CompressError("holds a truth value that is neither 0 nor 1")
    data = words.astype(words.dtype.newbyteorder("<"), copy=not words.flags.writeable)
    data = data.view(np.uint8)
    return torch.from_numpy(data).view(form.dtype).reshape(shape)


def words_from(data: bytes, size: int) -> Words:
    """Words of ``size`` bytes each from their little-endian bytes."""
    stored: Words = np.frombuffer(data, dtype=np.dtype(_UNSIGNED[size]).newbyteorder("<"))
    return stored.astype(_UNSIGNED[size])


def bytes_from(words: Words) -> bytes:
    """Little-endian bytes of words."""
    return words.astype(words.dtype.newbyteorder("<")).tobytes()


def to_planes(words: Words, form: Form) -> npt.NDArray[np.uint8]:
    """Bytes [size, n], the most telling first.

    Before that a float's sign moves to the lowest place, so that the first byte is all exponent;
    whole numbers of several bytes are folded (0, -1, 1, -2 ...), so that small ones begin with
    zeros; int8 is shifted, so that neighbours in value are neighbours as symbols.
    """
    digits = 8 * form.size
    if form.kind == "float":
        words = words << 1 | words >> digits - 1
    elif form.kind == "signed" and form.size == 1:
        words = words ^ 128
    elif form.kind == "signed":
        words = words << 1 ^ _sign_mask(words >> digits - 1)
    little = np.frombuffer(bytes_from(words), dtype=np.uint8).reshape(-1, form.size)
    return np.ascontiguousarray(little.T[::-1])


def from_planes(planes: Sequence[npt.NDArray[np.uint8]], form: Form) -> Words:
    """The opposite of :func:`to_planes`, of ``size`` planes of equal length."""
    if form.size == 1:
        only: Words = planes[0] ^ np.uint8(128 if form.kind == "signed" else 0)
        return only
    little = np.empty((len(planes[0]), form.size), dtype=np.uint8)
    for place, plane in enumerate(reversed(planes)):
        little[:, place] = plane
    stored = little.reshape(-1).view(np.dtype(_UNSIGNED[form.size]).newbyteorder("<"))
    words: Words = stored.astype(_UNSIGNED[form.size], copy=False)
    if form.kind == "float":
        sign = words << 8 * form.size - 1
        words >>= 1
        words |= sign
    elif form.kind == "signed":
        mask = _sign_mask(words & 1)
        words >>= 1
        words ^= mask
    return words


def _sign_mask(ones: Words) -> Words:
    """All digits set where ``ones`` is 1."""
    masks: Words = np.zeros_like(ones) - ones
    return masks


def in_order(words: Words, form: Form) -> npt.NDArray[np.int64]:
    """Indices that sort words by the values that they mean (any order will do among NaNs)."""
    sign = words >> 8 * form.size - 1
    top = words.dtype.type(1 << 8 * form.size - 1)
    if form.kind == "float":
        words = np.where(sign == 1, ~words, words ^ top)
    elif form.kind == "signed":
        words = words ^ top
    return np.argsort(words, kind="stable")


def half_form(words: Words, form: Form) -> int:
    """How float32 words can be kept in two bytes bit for bit: 1 bfloat16, 2 float16, 0 not."""
    if form.kind != "float" or form.size != 4:
        return 0
    if not (words & 0xFFFF).any():
        return 1
    with np.errstate(over="ignore"):
        halves = words.view(np.float32).astype(np.float16)
    same = np.array_equal(halves.astype(np.float32).view(np.uint32), words)
    return 2 if same else 0


def to_half(words: Words, how: int) -> Words:
    """Two-byte words of float32 words, as :func:`half_form` found possible."""
    if how == 1:
        return (words >> 16).astype(np.uint16)
    return words.view(np.float32).astype(np.float16).view(np.uint16)


def from_half(halves: Words, how: int) -> Words:
    """The opposite of :func:`to_half`."""
    if how == 1:
        return halves.astype(np.uint32) << 16
    return halves.view(np.float16).astype(np.float32).view(np.uint32)


def elements_in(shape: tuple[int, ...]) -> int:
    """How many elements a shape has; 1 for a scalar."""
    return math.prod(shape)
