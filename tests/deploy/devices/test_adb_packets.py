"""The packets that adb-shell's path sends and takes, against the protocol's own arithmetic."""

import struct
from collections import deque

import pytest
from adb_shell import constants, exceptions
from adb_shell.hidden_helpers import _AdbTransactionInfo, _FileSyncTransactionInfo
from adb_shell.transport.base_transport import BaseTransport
from hypothesis import given
from hypothesis import strategies as st

from deploy.devices.adb_packets import FastConnection, checksum


@given(st.binary(max_size=600), st.integers(1, 40))
def test_the_checksum_is_the_sum_of_the_bytes(data, times):
    assert checksum(data * times) == sum(data * times) % 2**32
    assert checksum(bytearray(data * times)) == sum(data * times) % 2**32


def test_the_checksum_wraps_at_32_bits():
    length = 2**32 // 255 + 1
    assert checksum(b"\xff" * length) == length * 255 - 2**32


class Wire(BaseTransport):
    """A transport whose other side is a list; writes are kept apart."""

    def __init__(self, received: bytes = b"") -> None:
        self.received = bytearray(received)
        self.written: list[bytes] = []

    def bulk_read(self, count, timeout):
        # Short reads, as sockets give them.
        data = bytes(self.received[: min(count, 700)])
        del self.received[: len(data)]
        if not data:
            raise ConnectionResetError
        return data

    def bulk_write(self, data, timeout):
        self.written.append(bytes(data))
        return len(data)

    def close(self) -> None: ...
    def connect(self, timeout) -> None: ...


def packet(name: bytes, arg0: int, arg1: int, data: bytes, wrong: int = 0) -> bytes:
    command = struct.unpack("<I", name)[0]
    total = sum(data) + wrong
    head = struct.pack("<6I", command, arg0, arg1, len(data), total, command ^ 0xFFFFFFFF)
    return head + data


INFO = _AdbTransactionInfo(7, 9, 1.0, 1.0, None)


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=6), st.data())
def test_a_pull_takes_packets_apart_at_any_place(packets, data):
    wire = Wire(b"".join(packet(b"WRTE", 9, 7, one) for one in packets))
    connection = FastConnection(wire, banner=b"test")
    whole = deque(b"".join(packets))
    pulled = _FileSyncTransactionInfo(constants.FILESYNC_PULL_FORMAT)
    while whole:
        wanted = data.draw(st.integers(1, len(whole)))
        taken = connection._filesync_read_buffered(wanted, INFO, pulled)
        assert taken == bytes(whole.popleft() for _ in range(wanted))
    assert wire.written == [packet(b"OKAY", 7, 9, b"")] * len(packets)


@pytest.mark.parametrize("body", [b"x", b"x" * 5000])
def test_a_packet_with_a_wrong_checksum_is_refused(body):
    connection = FastConnection(Wire(packet(b"WRTE", 9, 7, body, wrong=1)), banner=b"test")
    with pytest.raises(exceptions.InvalidChecksumError):
        connection._read_until([constants.WRTE], INFO)


def test_what_is_no_packet_is_refused():
    connection = FastConnection(Wire(b"HTTP/1.1 400 Bad Request\r\n"), banner=b"test")
    with pytest.raises(exceptions.InvalidCommandError, match="no ADB packet"):
        connection._read_until([constants.WRTE], INFO)


def test_header_and_payload_are_two_writes():
    """Two transfers on USB: a daemon there reads exactly a header first."""
    wire = Wire(packet(b"OKAY", 9, 1, b""))
    FastConnection(wire, banner=b"test")._open(b"sync:", 1.0, 1.0, None)
    assert wire.written == [packet(b"OPEN", 1, 0, b"sync:\0")[:24], b"sync:\0"]
