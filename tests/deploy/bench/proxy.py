"""A bad link: a TCP proxy on 127.0.0.1 that cuts, flips a byte, slows down or holds still."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]
"""``up``: towards the device."""
Kind = Literal["cut", "flip", "hold"]


@dataclass
class Damage:
    """What happens once ``after`` bytes went in one direction; each happens once."""

    direction: Direction
    after: int
    what: Kind
    done: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """Forwards 127.0.0.1:``port`` here to 127.0.0.1:``target``; bytes count over all connections.

    ``bytes_s`` limits both directions together; ``open`` False refuses what comes.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.damages: list[Damage] = []
        self.bytes_s: float | None = None
        self.open = True
        self._passed = {"up": 0, "down": 0}
        self._lock = threading.Lock()
        self._links: list[socket.socket] = []
        self._release = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def plan(self, direction: Direction, after: int, what: Kind) -> Damage:
        """Damage that comes ``after`` bytes from now."""
        with self._lock:
            damage = Damage(direction, self._passed[direction] + after, what)
            self.damages.append(damage)
        return damage

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def close(self) -> None:
        self._release.set()
        self._listener.close()
        self.cut()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self.open:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._links += [near, far]
            for ends in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096 if self.bytes_s else 65536):
                data = self._damaged(bytearray(data), direction)
                if self.bytes_s:
                    self._release.wait(len(data) / self.bytes_s)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _damaged(self, data: bytearray, direction: Direction) -> bytearray:
        with self._lock:
            before = self._passed[direction]
            self._passed[direction] = after = before + len(data)
            due = [
                d
                for d in self.damages
                if d.direction == direction and d.after < after and not d.done.is_set()
            ]
            for damage in due:
                damage.done.set()
        for damage in due:
            if damage.what == "flip":
                data[max(0, damage.after - before)] ^= 0x10
            elif damage.what == "hold":
                self._release.wait()
            else:
                raise ConnectionResetError
        return data


@contextlib.contextmanager
def between(target: int) -> Iterator[Proxy]:
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
