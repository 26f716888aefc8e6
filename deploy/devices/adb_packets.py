"""adb-shell's connection with its two slow places replaced: checksums and the buffer of a pull.

adb-shell speaks the protocol's first version, in which every packet carries the sum of its bytes.
It adds them up one by one in Python, and it copies what is left of a packet once for every 64 KiB
that a pull takes from it. Both limit a transfer, not the device.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from adb_shell import constants, exceptions
from adb_shell.adb_device import AdbDevice, _AdbIOManager
from adb_shell.adb_message import AdbMessage, unpack

from deploy.devices.adb_transport import LimitedTransport

_WORTH_AN_ARRAY = 512


def checksum(data: bytes | bytearray) -> int:
    """The sum of the bytes, modulo 2**32, as ADB's first version has it in ``data_check``."""
    if len(data) < _WORTH_AN_ARRAY:
        return sum(data)
    # Wraps at 2**32 by itself.
    return int(np.frombuffer(data, np.uint8).sum(dtype=np.uint32))


class FastConnection(AdbDevice):  # type: ignore[misc]
    """adb-shell's ``AdbDevice`` over one of our transports."""

    def __init__(self, transport: LimitedTransport, banner: bytes) -> None:
        super().__init__(transport, banner=banner)
        self._io_manager = _Packets(transport)

    def _filesync_read_buffered(self, size: int, adb_info: Any, filesync_info: Any) -> bytearray:
        buffer = filesync_info.recv_buffer
        while len(buffer) < size:
            _, data = self._read_until([constants.WRTE], adb_info)
            buffer += data
        result: bytearray = buffer[:size]
        # A bytearray gives up its front without moving the rest.
        del buffer[:size]
        return result


class _Packets(_AdbIOManager):  # type: ignore[misc]
    def _read_packet_from_device(self, adb_info: Any) -> tuple[bytes, int, int, bytes]:
        header = self._read_bytes_from_device(constants.MESSAGE_SIZE, adb_info)
        number, arg0, arg1, length, expected = unpack(header)
        command = constants.WIRE_TO_ID.get(number)
        if command is None:
            raise exceptions.InvalidCommandError(f"no ADB packet: {header!r}")
        data = self._read_bytes_from_device(length, adb_info) if length else b""
        if length and checksum(data) != expected:
            raise exceptions.InvalidChecksumError(
                f"a packet's checksum is {checksum(data)}, not {expected}"
            )
        return command, arg0, arg1, data

    def _read_bytes_from_device(self, length: int, adb_info: Any) -> bytes:
        # Time is the transport's to limit: a read ends with a byte at least, or raises.
        parts = []
        while length:
            parts.append(self._transport.bulk_read(length, adb_info.transport_timeout_s))
            length -= len(parts[-1])
        return b"".join(parts)

    def _send(self, msg: AdbMessage, adb_info: Any) -> None:
        data = bytes(msg.data)
        words = (msg.command, msg.arg0, msg.arg1, len(data), checksum(data), msg.magic)
        # Two writes: on USB header and payload are transfers of their own.
        self._transport.bulk_write(
            struct.pack(constants.MESSAGE_FORMAT, *words), adb_info.transport_timeout_s
        )
        if data:
            self._transport.bulk_write(data, adb_info.transport_timeout_s)
