"""Writes perfetto traces with power rails; apart from the reader, so that it can judge it."""

from __future__ import annotations


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def rail_packet(
    descriptors: dict[int, tuple[str, str]], readings: list[tuple[int, int, int]]
) -> bytes:
    """One Trace.packet with a clock, a sequence flag, and PowerRails with a session id (5)."""
    rails = b"".join(
        message(1, number(1, i) + message(2, n.encode()) + message(3, s.encode()) + number(4, 1023))
        for i, (n, s) in descriptors.items()
    )
    rails += b"".join(
        message(2, number(1, i) + number(2, ms) + number(3, uj)) for i, ms, uj in readings
    )
    packet = number(8, 123456789) + number(13, 2) + message(40, rails + number(3, 77))
    return message(1, packet)
