"""Random and mangled packets on a daemon with the address and undefined-behaviour sanitizers."""

import random
import socket

import pytest

from tests.android_harness.adbd.daemon import Daemon, eventually
from tests.android_harness.adbd.wire import (
    CLOSE_STDIN,
    STDIN,
    VERSION,
    VERSION_WITH_CHECKSUMS,
    WINDOW_SIZE,
    Closed,
    Wire,
    frame,
    packet,
    request,
)

SERVICES = [
    b"shell:echo x\0",
    b"shell:\0",
    b"shell,v2,raw:cat\0",
    b"shell,v2,pty,TERM=x:cat\0",
    b"exec:cat\0",
    b"sync:\0",
    b"reboot:\0",
    b"shell,,,=:\0",
    b"",
    b"\0",
]


def random_packet(chance: random.Random, folder) -> bytes:
    """A packet that is right in most ways."""
    target = f"{folder}/{chance.choice('ab')}"
    contents = [
        b"",
        chance.randbytes(chance.randrange(100)),
        frame(chance.randrange(7), chance.randbytes(chance.randrange(50))),
        frame(STDIN, b"ls\n") + frame(WINDOW_SIZE, b"24x80,0x0") + frame(CLOSE_STDIN),
        frame(WINDOW_SIZE, b"99999999999x-1,x" * 9),
        request(b"SEND", f"{target},33188") + request(b"DATA", b"x" * 1000) + b"DONE" + bytes(4),
        request(b"SEND", f"{target},41471") + request(b"DATA", b"aim\0"),
        request(b"LIST", "/proc") + request(b"LIS2", "/dev") + request(b"RECV", "/proc/stat"),
        request(b"STAT", "/") + request(b"STA2", b"\0") + request(b"LST2", b"x" * 1024),
        chance.choice([b"SEND", b"DATA", b"RECV", b"QUIT"]) + chance.randbytes(4),
    ]
    name, payload = chance.choice(
        [(b"OPEN", chance.choice(SERVICES))] * 2
        + [(b"WRTE", chance.choice(contents))] * 5
        + [(b"OKAY", b"")] * 4
        + [(b"CLSE", b""), (b"AUTH", b"x" * 256), (b"SYNC", b"")]
    )
    data = packet(name, chance.randrange(6), chance.randrange(12), payload)
    if chance.random() < 0.003:
        data = bytearray(data)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.soak
def test_mangled_packets_do_no_harm(adbd_builder, tmp_path):
    chance = random.Random(20260101)
    home = tmp_path / "home"
    home.mkdir()
    daemon = Daemon(adbd_builder(True), home, ["--no-auth"])
    folder = tmp_path / "folder"
    folder.mkdir()
    for _ in range(60):
        version = chance.choice([VERSION, VERSION_WITH_CHECKSUMS])
        max_payload = chance.choice([512, 4096, 1 << 20])
        with Wire(daemon.port, version=version, max_payload=max_payload) as wire:
            wire.socket.settimeout(0.05)  # the daemon may stop reading a client that does not read
            try:
                for _ in range(200):
                    wire.socket.sendall(random_packet(chance, folder))
                    if chance.random() < 0.3:
                        wire.socket.recv(1 << 16)
            except (TimeoutError, ConnectionError):
                pass
    with Wire(daemon.port) as wire:
        assert wire.run("echo alive") == (b"alive\n", b"", 0)
    eventually(lambda: not daemon.children(), "all programs are gone")
    assert [path.name for path in folder.iterdir() if path.name not in ("a", "b")] == []
    assert daemon.stop() == 0, daemon.log()
    assert "ERROR" not in daemon.log()
    assert "runtime error" not in daemon.log()


@pytest.mark.slow
def test_noise_instead_of_a_handshake_does_no_harm(adbd_builder, tmp_path):
    chance = random.Random(1)
    daemon = Daemon(adbd_builder(True), tmp_path, ["--no-auth"])
    for _ in range(100):
        with Wire(daemon.port, handshake=False) as wire:
            start = packet(b"CNXN", VERSION, chance.getrandbits(32), b"host::")
            noise = bytearray(start + chance.randbytes(chance.randrange(300)))
            for _ in range(chance.randrange(4)):
                noise[chance.randrange(len(start))] = chance.randrange(256)
            try:
                wire.socket.sendall(noise)
                wire.socket.shutdown(socket.SHUT_WR)
                while True:
                    wire.receive()
            except (Closed, OSError):
                pass
    assert daemon.stop() == 0, daemon.log()
