"""A device behind an ADB server that runs already, which is what owns USB devices.

adbutils speaks the server's own requests; shells and files go over the socket that it opens, here,
because they need a deadline, a limit of bytes, and packets larger than adbutils sends. A server is
never started and never stopped by us, and nothing is connected or disconnected in it.

Protocols: SYNC.TXT, SERVICES.TXT and shell_protocol.h of Android's adb (platform/packages/modules).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from adbutils import AdbClient, AdbConnection
from adbutils.errors import AdbError, AdbTimeout

from deploy.android_text import printable
from deploy.devices.adb_link import (
    Allowance,
    Answer,
    NotReady,
    Refused,
    TooMuchData,
    marked,
    unmarked,
)
from deploy.devices.adb_presence import address
from deploy.devices.adb_usb import PERMISSIONS_HINT
from deploy.errors import DeviceError

SERVER_TIMEOUT_S = 5.0
"""For the server's own answers; it runs on this machine."""

_SYNC_DATA = 1 << 16
_PACKETS_AT_ONCE = 16
_READ_AHEAD = 1 << 20
_SHELL_STDOUT, _SHELL_STDERR, _SHELL_EXIT = 1, 2, 3
_MAX_MESSAGE = 1 << 12
_MAX_PATH = 1024

_STATES = {
    "unauthorized": (
        "unauthorised",
        "the device did not accept this computer's ADB key",
        "Accept the key on the phone's screen; where it does not ask: adb kill-server, plug again.",
    ),
    "offline": (
        "offline",
        "the ADB server has lost the device",
        "Plug it in again, or: adb reconnect offline.",
    ),
    "no permissions": (
        "no permissions",
        "this user may not open the USB device",
        f"{PERMISSIONS_HINT} Then: adb kill-server.",
    ),
    "authorizing": ("offline", "the device is being authorised", "Try again in a moment."),
    "connecting": ("offline", "the device is connecting", "Try again in a moment."),
}


class _Connection(AdbConnection):  # type: ignore[misc]
    """adbutils starts a server where none answers. A look at phones must not do that."""

    def _safe_connect(self) -> socket.socket:
        connection: socket.socket = self._create_socket()
        return connection


class _Client(AdbClient):  # type: ignore[misc]
    def make_connection(self, timeout: float | None = None) -> AdbConnection:
        connection = _Connection(self.host, self.port)
        connection.conn.settimeout(timeout or SERVER_TIMEOUT_S)
        connection.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def listed() -> dict[str, str] | None:
    """Serial to state, in adb's words, of all devices of the server; None where none runs.

    Raises ``DeviceError`` where what listens there is no ADB server.
    """
    host, port = address()
    try:
        with _request("host:devices") as connection:
            text = str(connection.read_string_block())
    except ConnectionRefusedError:
        return None
    except (OSError, ValueError, AdbError) as error:
        raise DeviceError(
            f"no ADB server answers: {printable(str(error), 100)}",
            where=f"{host}:{port}",
            hint="adb kill-server; adb start-server.",
        ) from error
    rows = (line.split("\t", 1) for line in text.splitlines()[:1024] if "\t" in line)
    return {printable(serial, 128): printable(state, 200) for serial, state in rows}


def not_ready(serial: str, state: str) -> NotReady:
    """Why a device that the server lists in ``state`` (adb's word) cannot be used, and the way out.

    Newer servers add a sentence and a link to ``no permissions``.
    """
    for word, (ours, what, hint) in _STATES.items():
        if state.startswith(word):
            return NotReady(what, state=ours, where=serial, hint=hint)
    return NotReady(
        f"the device is in the state {state!r}",
        state="offline",
        where=serial,
        hint="Start it normally: adb reboot.",
    )


@contextlib.contextmanager
def _request(words: str) -> Iterator[AdbConnection]:
    host, port = address()
    try:
        connection = _Client(host, port).make_connection()
    except AdbError as error:
        # adbutils words every failure alike; whether one listens is asked once more, plainly.
        with socket.create_connection((host, port), timeout=SERVER_TIMEOUT_S):
            raise ConnectionError(str(error)) from error
    try:
        connection.send_command(words)
        connection.check_okay()
        yield connection
    finally:
        # Not connection.close(): it waits for 10 ms.
        connection.conn.close()


class ServerLink:
    """A :class:`deploy.devices.adb_link.Link` through the ADB server."""

    kind = "adb-server"

    def __init__(self, serial: str) -> None:
        self._serial = serial
        self._features: frozenset[str] | None = None
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Ask the server once whether the device is ready; each call opens its own connection."""
        if self._features is not None:
            return
        devices = listed()
        if devices is None:
            raise NotReady(
                "no ADB server runs on this machine",
                state="offline",
                where=self._serial,
                hint="adb start-server; or choose another transport.",
            )
        state = devices.get(self._serial)
        if state is None:
            known = ", ".join(devices) or "none"
            raise NotReady(
                f"the ADB server knows no such device; it has: {known}",
                state="offline",
                where=self._serial,
                hint="Plug it in, or: adb connect HOST:PORT.",
            )
        if state != "device":
            raise not_ready(self._serial, state)
        try:
            with _request(f"host-serial:{self._serial}:features") as connection:
                self._features = frozenset(str(connection.read_string_block()).split(","))
        except (OSError, ValueError, AdbError) as error:
            raise NotReady(
                f"the ADB server does not reach the device: {printable(str(error), 100)}",
                state="offline",
                where=self._serial,
                hint="Plug it in again, or: adb reconnect.",
            ) from error

    def shell(self, command: str, allowance: Allowance) -> Answer:
        """Run one command line; exit code and stderr come apart where the device has shell_v2."""
        if "shell_v2" in (self._features or ()):
            with self._service(f"shell,v2,raw:( {command}\n) </dev/null", allowance) as stream:
                return _shell_v2(stream)
        line, token = marked(command)
        with self._service(f"shell:{line}", allowance) as stream:
            return unmarked(b"".join(stream.until_end()), token)

    def push(self, local: Path, remote: str, mode: int, allowance: Allowance) -> None:
        """Copy a file to the device."""
        path = _sync_path(f"{remote},{stat.S_IFREG | mode}")
        with local.open("rb", buffering=0) as source, self._service("sync:", allowance) as stream:
            stream.send(_head(b"SEND", len(path)) + path)
            packets = _DataPackets()
            try:
                while packed := packets.fill(source.fileno()):
                    stream.send(packed)
                    if stream.has_data():
                        break  # Nothing but a refusal comes before the end.
                else:
                    stream.send(_head(b"DONE", int(time.time())))
            except (BrokenPipeError, ConnectionResetError):
                # A device that refuses may close at once; its words are still to be read.
                if not stream.has_data():
                    raise
            word, length = stream.head()
            if word != b"OKAY":
                raise _refusal(word, length, stream)

    def pull(self, remote: str, into: IO[bytes], max_bytes: int, allowance: Allowance) -> None:
        """Copy a file's content from the device."""
        path = _sync_path(remote)
        with self._service("sync:", allowance) as stream:
            stream.send(_head(b"RECV", len(path)) + path)
            total = 0
            while True:
                word, length = stream.head()
                if word == b"DONE":
                    return
                if word != b"DATA":
                    raise _refusal(word, length, stream)
                total += length
                if total > max_bytes:
                    raise TooMuchData
                stream.copy(length, into)

    def interrupt(self) -> None:
        """From another thread: end the call that is under way as if the server had closed it."""
        if (connection := self._socket) is not None:
            # Not closed: its number could go to another connection.
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Ask anew next time; nothing is held open between calls."""
        self._features = None

    @contextlib.contextmanager
    def _service(self, service: str, allowance: Allowance) -> Iterator[_Stream]:
        words = service.encode()
        if len(words) > 0xFFFF:
            raise Refused(f"a command of {len(words)} bytes: the ADB server takes 65535")
        try:
            with _request(f"host:transport:{self._serial}") as connection:
                connection.send_command(service)
                connection.check_okay()
                self._socket = connection.conn
                yield _Stream(connection.conn, allowance)
        except AdbTimeout as error:
            raise TimeoutError(str(error)) from error
        except AdbError as error:
            # The server's FAIL: the device has gone, or does not offer the service.
            raise ConnectionResetError(f"the ADB server says: {error}") from error
        finally:
            self._socket = None


class _Stream:
    """The socket of one service, held to an allowance."""

    def __init__(self, connection: socket.socket, allowance: Allowance) -> None:
        self._socket = connection
        self._allowance = allowance
        self._buffer = memoryview(bytearray(_READ_AHEAD))
        self._ready = self._buffer[:0]

    def send(self, data: bytes | memoryview) -> None:
        self._socket.settimeout(self._allowance.left())
        self._socket.sendall(data)

    def has_data(self) -> bool:
        return bool(self._ready) or bool(select.select([self._socket], [], [], 0)[0])

    def until_end(self) -> Iterator[bytes]:
        while data := self._some(_READ_AHEAD):
            yield bytes(data)

    def exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            parts += self._some_of(count - len(parts))
        return bytes(parts)

    def copy(self, count: int, into: IO[bytes]) -> None:
        while count:
            data = self._some_of(count)
            into.write(data)
            count -= len(data)

    def _some_of(self, most: int) -> memoryview:
        data = self._some(most)
        if not data:
            raise ConnectionResetError("the ADB server closed the connection")
        return data

    def _some(self, most: int) -> memoryview:
        """What is there next, empty at the end of the stream; valid until the next call.

        A pull's packets have 64 KiB each: many are read in one call.
        """
        if not self._ready:
            self._socket.settimeout(self._allowance.left())
            count = self._socket.recv_into(self._buffer)
            self._allowance.take(count)
            self._ready = self._buffer[:count]
        data, self._ready = self._ready[:most], self._ready[most:]
        return data

    def head(self) -> tuple[bytes, int]:
        word, length = struct.unpack("<4sI", self.exactly(8))
        return word, length


class _DataPackets:
    """A megabyte of a file as ``DATA`` packets, read in one call and sent in one call."""

    def __init__(self) -> None:
        self._step = 8 + _SYNC_DATA
        self._whole = memoryview(bytearray(_PACKETS_AT_ONCE * self._step))
        starts = range(0, len(self._whole), self._step)
        self._bodies = [self._whole[start + 8 : start + self._step] for start in starts]

    def fill(self, descriptor: int) -> memoryview:
        """The packets of what is read next, empty at the end of the file; valid until called again.

        The protocol allows 64 KiB a packet.
        """
        full, rest = divmod(os.readv(descriptor, self._bodies), _SYNC_DATA)
        for number in range(full):
            self._put_head(number, _SYNC_DATA)
        if rest:
            self._put_head(full, rest)
        return self._whole[: full * self._step + (8 + rest if rest else 0)]

    def _put_head(self, number: int, length: int) -> None:
        self._whole[number * self._step : number * self._step + 8] = _head(b"DATA", length)


def _head(word: bytes, number: int) -> bytes:
    return struct.pack("<4sI", word, number & 0xFFFFFFFF)


def _sync_path(text: str) -> bytes:
    path = text.encode()
    if len(path) > _MAX_PATH:
        raise Refused(f"a path of {len(path)} bytes: ADB takes {_MAX_PATH}")
    return path


def _refusal(word: bytes, length: int, stream: _Stream) -> Exception:
    if word != b"FAIL":
        return ValueError(f"sync answered {word!r}")
    return Refused(stream.exactly(min(length, _MAX_MESSAGE)).decode("utf-8", "replace"))


def _shell_v2(stream: _Stream) -> Answer:
    parts: dict[int, list[bytes]] = {_SHELL_STDOUT: [], _SHELL_STDERR: []}
    while True:
        head: Any = stream.exactly(5)
        kind, length = struct.unpack("<BI", head)
        if kind == _SHELL_EXIT and length == 1:
            code = stream.exactly(1)[0]
            return Answer(code, b"".join(parts[_SHELL_STDOUT]), b"".join(parts[_SHELL_STDERR]))
        if kind not in parts:
            raise ValueError(f"shell_v2 packet {kind} of {length} bytes")
        parts[kind].append(stream.exactly(length))
