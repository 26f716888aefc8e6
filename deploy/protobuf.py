"""Fields of a protocol buffer, one message deep, without a schema and without trust.

The wire format is that of https://protobuf.dev/programming-guides/encoding/. Whoever reads knows
the field numbers; all that is unknown is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Damaged(ValueError):
    """The bytes are no protocol buffer from here on."""


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) in their order: numbers as ``int``, everything else as its bytes.

    Raises :class:`Damaged` where the message ends being one; fields before that were given.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise Damaged(f"a field number 0 at byte {at}")
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in {_FIXED64, _FIXED32}:
            size = 8 if wire == _FIXED64 else 4
        else:
            raise Damaged(f"wire type {wire} at byte {at}")
        if size > len(message) - at:
            raise Damaged(f"a field of {size} bytes where {len(message) - at} are left")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise Damaged("it ends in the middle of a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise Damaged("a number of more than 10 bytes")
