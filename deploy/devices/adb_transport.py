"""Bytes to and from a device for adb-shell, with limits in time and size.

adb-shell's own TCP transport writes to a non-blocking socket and ignores how much was taken, which
is how a large push can hang, and it spins on a connection that the other side has closed. This one
sends everything, ends at once at the end of the stream, and holds every call to a deadline and to a
number of bytes, because the lengths inside the packets come from the device.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

from adb_shell.transport.base_transport import BaseTransport

from deploy.devices.adb_link import Allowance
from deploy.devices.adb_link import TooMuchData as TooMuchData

RECEIVE_BYTES = 1 << 20


class LimitedTransport(Protocol):
    """What :class:`deploy.devices.adb_direct.DirectLink` needs beyond adb-shell's own calls."""

    def allow(self, allowance: Allowance) -> None:
        """Hold the calls that follow to ``allowance``."""

    def alive(self) -> bool:
        """False when the other side is known to have closed the connection."""

    def interrupt(self) -> None:
        """From another thread: end the call that is under way, where that is possible."""

    def close(self) -> None:
        """Close the connection; calling it twice is allowed."""


class TcpTransport(BaseTransport):  # type: ignore[misc]
    """A TCP connection to an ADB daemon; a :class:`LimitedTransport`."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None
        self._allowance: Allowance | None = None

    def allow(self, allowance: Allowance) -> None:
        """Hold the calls that follow to ``allowance``."""
        self._allowance = allowance

    def alive(self) -> bool:
        """False when there is no connection or the other side has closed it."""
        if self._socket is None:
            return False
        self._socket.setblocking(False)
        try:
            return self._socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def connect(self, transport_timeout_s: float | None) -> None:
        """Open the connection within the deadline."""
        self._socket = socket.create_connection(self._address, timeout=self._left())
        # A packet is a header and a body in two writes: Nagle would hold the body back.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the connection; calling it twice is allowed."""
        connection, self._socket = self._socket, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """From another thread: end the call that is under way as if the other side had closed.

        The socket stays open: closed, its number could go to another connection, whose bytes the
        waiting thread would then read.
        """
        if (connection := self._socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """At least one byte; ``ConnectionError`` at the end of the stream."""
        connection = self._connected()
        connection.settimeout(self._left())
        data = connection.recv(min(numbytes, RECEIVE_BYTES))
        if not data:
            raise ConnectionResetError("the device closed the connection")
        if self._allowance is not None:
            self._allowance.take(len(data))
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Send all of ``data``."""
        connection = self._connected()
        connection.settimeout(self._left())
        connection.sendall(data)
        return len(data)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError("there is no connection")
        return self._socket

    def _left(self) -> float | None:
        return None if self._allowance is None else self._allowance.left()
