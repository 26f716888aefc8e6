"""The ADB protocol by hand: what no real client would send can be sent with this."""

from __future__ import annotations

import base64
import itertools
import socket
import struct
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA1

VERSION_WITH_CHECKSUMS = 0x01000000
VERSION = 0x01000001
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN, WINDOW_SIZE = range(6)


class Closed(Exception):
    """The daemon closed the connection."""


def packet(
    name: bytes, arg0: int, arg1: int, payload: bytes = b"", *, checksum: int | None = None
) -> bytes:
    """One packet; ``checksum`` None: the right one."""
    command = int.from_bytes(name, "little")
    total = sum(payload) & 0xFFFFFFFF if checksum is None else checksum
    return (
        struct.pack("<6I", command, arg0, arg1, len(payload), total, command ^ 0xFFFFFFFF) + payload
    )


def frame(kind: int, content: bytes = b"") -> bytes:
    """One frame of the shell protocol, version 2."""
    return struct.pack("<BI", kind, len(content)) + content


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames in ``data``."""
    while data:
        kind, length = struct.unpack_from("<BI", data)
        yield kind, data[5 : 5 + length]
        data = data[5 + length :]


def output(data: bytes, kind: int) -> bytes:
    """All that ``data`` holds of one kind of frame."""
    return b"".join(content for k, content in frames(data) if k == kind)


def request(name: bytes, content: bytes | str) -> bytes:
    """One request or data record of the sync service."""
    content = content.encode() if isinstance(content, str) else content
    return name + struct.pack("<I", len(content)) + content


def android_public_key(key: rsa.RSAPublicKey) -> str:
    """``key`` as a line of adbkey.pub."""
    numbers = key.public_numbers()
    fields = struct.pack("<2I", 64, -pow(numbers.n, -1, 2**32) % 2**32)
    fields += numbers.n.to_bytes(256, "little") + pow(2, 4096, numbers.n).to_bytes(256, "little")
    return base64.b64encode(fields + struct.pack("<I", numbers.e)).decode() + " test@wire"


def sign(key: rsa.RSAPrivateKey, token: bytes) -> bytes:
    """What adb answers to ``token``."""
    return key.sign(token, padding.PKCS1v15(), Prehashed(SHA1()))


class Wire:
    """A client that speaks as it is told. ``max_payload`` is what it announces."""

    def __init__(
        self,
        port: int,
        key: rsa.RSAPrivateKey | None = None,
        *,
        version: int = VERSION,
        max_payload: int = 1 << 20,
        handshake: bool = True,
    ):
        self.version = version
        self._ids = itertools.count(1)
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.banner = b""
        if not handshake:
            return
        self.send(b"CNXN", version, max_payload, b"host::features=shell_v2")
        name, arg0, arg1, payload = self.receive()
        if key is not None:
            assert (name, arg0, len(payload)) == (b"AUTH", TOKEN, 20)
            self.send(b"AUTH", SIGNATURE, 0, sign(key, payload))
            name, arg0, arg1, payload = self.receive()
        assert name == b"CNXN"
        assert arg0 == VERSION
        self.max_payload = arg1
        self.banner = payload

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, name: bytes, arg0: int, arg1: int, payload: bytes = b"") -> None:
        self.socket.sendall(packet(name, arg0, arg1, payload))

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            try:
                part = self.socket.recv(count - len(data))
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            data += part
        return bytes(data)

    def receive(self) -> tuple[bytes, int, int, bytes]:
        """The next packet: name, arg0, arg1, payload; checks its frame."""
        command, arg0, arg1, length, checksum, magic = struct.unpack("<6I", self._exactly(24))
        assert magic == command ^ 0xFFFFFFFF
        payload = self._exactly(length)
        name = command.to_bytes(4, "little")
        if self.version < VERSION or name in (b"CNXN", b"AUTH"):
            assert checksum == sum(payload) & 0xFFFFFFFF
        return name, arg0, arg1, payload

    def is_closed(self) -> bool:
        """Wait until the daemon closes; False where it says anything instead."""
        try:
            self.receive()
        except Closed:
            return True
        return False

    def open(self, service: str | bytes) -> Stream | None:
        """A stream, or None where the daemon refuses the service."""
        local = next(self._ids)
        service = service.encode() if isinstance(service, str) else service
        self.send(b"OPEN", local, 0, service + b"\0")
        name, remote, mine, _ = self.receive()
        assert mine == local
        return Stream(self, local, remote) if name == b"OKAY" else None

    def stream(self, service: str) -> Stream:
        """A stream that must open."""
        stream = self.open(service)
        assert stream is not None, f"{service} was refused"
        return stream

    def run(self, command: str, stdin: bytes = b"") -> tuple[bytes, bytes, int]:
        """stdout, stderr and exit code of a command (shell, version 2)."""
        shell = self.stream(f"shell,v2,raw:{command}")
        shell.write((frame(STDIN, stdin) if stdin else b"") + frame(CLOSE_STDIN))
        data = shell.read_to_end()
        return output(data, STDOUT), output(data, STDERR), output(data, EXIT)[0]


class Stream:
    """One stream; a test uses one at a time on a connection unless it reads packets itself."""

    def __init__(self, wire: Wire, local: int, remote: int):
        self.wire = wire
        self.local = local
        self.remote = remote
        self.received = bytearray()
        self.closed = False

    def send(self, payload: bytes) -> None:
        """A WRTE, without waiting for its OKAY."""
        self.wire.send(b"WRTE", self.local, self.remote, payload)

    def write(self, payload: bytes) -> None:
        """A WRTE and its OKAY; what comes in between is kept for reading."""
        self.send(payload)
        while not self.closed and not self._step():
            pass

    def _step(self) -> bool:
        """Handle one packet; True for an OKAY."""
        name, remote, local, payload = self.wire.receive()
        assert (remote, local) == (self.remote, self.local)
        if name == b"WRTE":
            self.received += payload
            self.wire.send(b"OKAY", self.local, self.remote)
        elif name == b"CLSE":
            self.closed = True
            self.wire.send(b"CLSE", self.local, self.remote)
        return name == b"OKAY"

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        while len(self.received) < count:
            if self.closed:
                raise Closed
            self._step()
        data = bytes(self.received[:count])
        del self.received[:count]
        return data

    def read_to_end(self) -> bytes:
        """Everything until the daemon closes the stream."""
        while not self.closed:
            self._step()
        data = bytes(self.received)
        self.received.clear()
        return data

    def close(self) -> None:
        """Close from this end; the daemon must answer."""
        self.wire.send(b"CLSE", self.local, self.remote)
        while not self.closed:
            name, remote, _, _ = self.wire.receive()
            self.closed = name == b"CLSE" and remote == self.remote

    def answer(self) -> tuple[bytes, bytes]:
        """OKAY or FAIL of the sync service, with the text of a FAIL."""
        name, length = struct.unpack("<4sI", self.read(8))
        return name, self.read(length)
