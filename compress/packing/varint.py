"""LEB128: whole numbers in as few bytes as they need, seven digits a byte, the lowest first."""

from __future__ import annotations

from compress.errors import CompressError

_LONGEST = 9


def write(value: int) -> bytes:
    """The bytes of a number >= 0 of at most 62 binary digits."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def read(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at byte ``at``, and where it ends; ``CompressError`` if it is cut."""
    value = 0
    for place, byte in enumerate(data[at : at + _LONGEST]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise CompressError("is cut off, or holds a number that is too long")
