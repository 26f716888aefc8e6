"""Energy counters of power rails (ODPM), from a perfetto trace, without perfetto's own libraries.

A trace is protocol buffers: ``Trace.packet = 1``, ``TracePacket.power_rails = 40``, and in
``PowerRails`` the descriptors (1) and the energy data (2); field numbers from perfetto's public
``power_rails.proto`` and ``trace_packet.proto``. Exactly these fields are read and all others are
skipped, so an unknown packet costs nothing and cannot disturb. Compressed packets (50, 133) are not
read: perfetto only writes them where the configuration asks for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.android_text.printing import printable
from deploy.protobuf import Damaged, fields

MAX_TRACE_BYTES = 32 << 20
MAX_RAILS = 256
MAX_READINGS = 2_000_000
MAX_RAIL_NAME = 80
_PACKET, _POWER_RAILS, _COMPRESSED = 1, 40, (50, 133)
_DESCRIPTOR, _ENERGY_DATA = 1, 2


@dataclass(frozen=True)
class Rail:
    """One measured rail: ``readings`` are (ms since boot, µJ since boot), times rising."""

    name: str
    subsystem: str
    readings: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RailTrace:
    """What a trace holds of power rails; ``problem`` says what could not be read, if anything."""

    rails: tuple[Rail, ...] = ()
    problem: str = ""


@dataclass
class _Found:
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    readings: dict[int, dict[int, int]] = field(default_factory=dict)
    count: int = 0
    compressed: bool = False


def parse_power_rails(trace: bytes) -> RailTrace:
    """Rails with their counters. Damaged or truncated traces give what stands before the damage.

    A rail without a descriptor or without readings is left out. Where one rail has two readings of
    the same millisecond, the first counts.
    """
    if len(trace) > MAX_TRACE_BYTES:
        return RailTrace(problem=f"the trace has {len(trace)} bytes, more than {MAX_TRACE_BYTES}")
    found = _Found()
    problem = ""
    try:
        for number, packet in fields(memoryview(trace)):
            if number == _PACKET and isinstance(packet, memoryview):
                _read_packet(packet, found)
    except Damaged as error:
        problem = f"the trace is damaged: {error}"
    if found.compressed:
        problem = problem or "the trace has compressed packets, which are not read"
    rails = tuple(
        Rail(*found.names[index], tuple(sorted(readings.items())))
        for index, readings in sorted(found.readings.items())
        if index in found.names
    )
    return RailTrace(rails, problem)


def _read_packet(packet: memoryview, found: _Found) -> None:
    for number, value in fields(packet):
        if number in _COMPRESSED:
            found.compressed = True
        if number != _POWER_RAILS or not isinstance(value, memoryview):
            continue
        for kind, message in fields(value):
            if kind == _DESCRIPTOR and isinstance(message, memoryview):
                _read_descriptor(message, found)
            elif kind == _ENERGY_DATA and isinstance(message, memoryview):
                _read_energy(message, found)


def _read_descriptor(message: memoryview, found: _Found) -> None:
    index: int | None = None
    words = {2: "", 3: ""}
    for number, value in fields(message):
        if number == 1 and isinstance(value, int):
            index = value
        elif number in words and isinstance(value, memoryview):
            words[number] = printable(
                bytes(value[:256]).decode("utf-8", errors="replace"), MAX_RAIL_NAME
            )
    if index is not None and words[2] and len(found.names) < MAX_RAILS:
        found.names.setdefault(index, (words[2], words[3]))


def _read_energy(message: memoryview, found: _Found) -> None:
    numbers = {n: value for n, value in fields(message) if isinstance(value, int)}
    if not {1, 2, 3} <= numbers.keys() or found.count >= MAX_READINGS:
        return
    if numbers[1] not in found.readings and len(found.readings) >= MAX_RAILS:
        return
    found.count += 1
    found.readings.setdefault(numbers[1], {}).setdefault(numbers[2], numbers[3])
