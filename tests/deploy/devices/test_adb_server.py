"""Devices behind an ADB server: Google's own, where it is installed, is the judge."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import harness
from deploy.devices import adb, adb_presence, adb_server, discovery
from deploy.devices.adb_link import Allowance, NotReady
from deploy.devices.host import HostDevice
from deploy.errors import DeviceError
from tests.deploy.devices.test_adb import HOSTILE
from tests.deploy.native_adbd import NativeAdbd, running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """Google's adb with a server, home and key of its own."""

    def __init__(self, home: Path, key: Path) -> None:
        (home / ".android").mkdir(parents=True)
        for suffix in ("", ".pub"):
            shutil.copy(f"{key}{suffix}", home / f".android/adbkey{suffix}")
        self.port = free_port()
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("ADB_", "ANDROID_"))}
        self.environ = keep | {"HOME": str(home), "ANDROID_ADB_SERVER_PORT": str(self.port)}

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["adb", *words], env=self.environ, capture_output=True, text=True, timeout=60
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeAdbd]:
    folder = tmp_path_factory.mktemp("server") / "adbd"
    with running(harness.adbd(HostDevice().profile.abi), folder) as started:
        yield started


@pytest.fixture(scope="module")
def google(daemon: NativeAdbd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if shutil.which("adb") is None:
        pytest.skip("Google's adb is not installed")
    server = Server(tmp_path_factory.mktemp("google"), daemon.key)
    assert "connected to" in server("connect", daemon.serial)
    yield server
    server("kill-server")


@pytest.fixture
def port(google: Server, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(google.port))
    return google.port


@pytest.fixture
def device(daemon: NativeAdbd, port: int, tmp_path: Path) -> Iterator[adb.AdbDevice]:
    # No key is named: it is the server that has one.
    connected = adb.connect(daemon.serial, daemon.profile(tmp_path))
    yield connected
    connected.close()


@pytest.mark.adb
def test_a_server_that_knows_the_serial_is_chosen_unless_another_way_is_forced(
    device: adb.AdbDevice, daemon: NativeAdbd, tmp_path: Path
) -> None:
    assert device.transport == "adb-server"
    assert adb.server_devices() == {daemon.serial: "device"}
    forced = adb.connect(
        daemon.serial, daemon.profile(tmp_path), transport="tcp", keys=[daemon.key]
    )
    with contextlib.closing(forced):
        assert forced.transport == "tcp"
        # One phone, one lock, whatever the way.
        assert forced.identity == device.identity != daemon.serial


@pytest.mark.adb
@pytest.mark.parametrize("shell_v2", [True, False])
def test_shells(
    device: adb.AdbDevice, tmp_path: Path, shell_v2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shell_v2:  # as on Android before 7
        link = adb_server.ServerLink(device.serial)
        link.connect()
        monkeypatch.setattr(link, "_features", frozenset({"cmd"}))
        monkeypatch.setattr(device, "_link", link)
    folder = tmp_path / "it's $(id)\nhere"
    folder.mkdir()
    result = device.shell(["printf", "<%s>", *HOSTILE], cwd=str(folder))
    assert (result.exit_code, result.stdout) == (0, "".join(f"<{word}>" for word in HOSTILE))
    assert list(folder.iterdir()) == []
    for code in (0, 3, 255):
        assert device.shell(["sh", "-c", f"printf no-newline; exit {code}"]).exit_code == code
    assert device.shell(["exit", "5"]).exit_code == 5
    both = device.shell(["sh", "-c", "cat; echo out; echo err >&2"])
    if shell_v2:
        assert (both.stdout, both.stderr) == ("out\n", "err\n")
    else:
        assert sorted(both.stdout.split()) == ["err", "out"]
    with pytest.raises(DeviceError, match="more than is allowed"):
        device.shell(["cat", "/dev/zero"])
    with pytest.raises(DeviceError, match=r"sleep: no end within 0\.3 s"):
        device.shell(["sleep", "60"], timeout_s=0.3)
    assert device.shell(["echo", "again"]).stdout == "again\n"


@pytest.mark.adb
@pytest.mark.parametrize("size", [0, 1, 65536, 5_000_001])
def test_files_come_and_go(device: adb.AdbDevice, tmp_path: Path, size: int) -> None:
    source, back = tmp_path / "a file", tmp_path / "back"
    source.write_bytes(os.urandom(size))
    remote = str(tmp_path / "re 'mote' $(id) ü")
    device.push(source, remote, mode=0o755)
    assert Path(remote).stat().st_mode & 0o777 == 0o755
    device.pull(remote, back, max_bytes=size)
    digests = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (source, Path(remote), back)}
    assert len(digests) == 1


@pytest.mark.adb
def test_files_that_cannot_be_had(device: adb.AdbDevice, tmp_path: Path) -> None:
    big, back = tmp_path / "big", tmp_path / "back"
    big.write_bytes(bytes(3_000_000))
    back.write_bytes(b"before")
    with pytest.raises(DeviceError, match="more than is allowed"):
        device.pull(str(big), back, max_bytes=2_999_999)
    with pytest.raises(DeviceError, match=r"refused: .*No such file"):
        device.pull(str(tmp_path / "no"), back, max_bytes=10)
    assert back.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "big"]
    # A refusal in the middle of a large push is still told in the device's words.
    with pytest.raises(DeviceError, match="refused: "):
        device.push(big, "/proc/version/no/such/place")
    with pytest.raises(DeviceError, match="a path of 1"):
        device.push(big, "/" + "x" * 1100)


@pytest.mark.adb
def test_a_device_that_the_server_has_not_or_cannot_use(
    google: Server, port: int, daemon: NativeAdbd, tmp_path: Path
) -> None:
    profile = daemon.profile(tmp_path)
    with pytest.raises(NotReady, match=r"knows no such device; it has: 127\.0\.0\.1:\d+\."):
        adb.connect("R58M12ABCDE", profile, transport="adb-server")
    with running(daemon.program, tmp_path / "other") as stranger:
        google("connect", stranger.serial)
        with pytest.raises(NotReady, match="did not accept this computer's ADB key") as no:
            adb.connect(stranger.serial, profile, transport="adb-server")
        assert no.value.state == "unauthorised"
        (row,) = [
            one for one in discovery.ask_all(discovery.sightings()) if one.serial == stranger.serial
        ]
        assert (row.state, row.transport) == ("unauthorised", "adb-server")
        assert "Accept the key on the phone's screen" in row.hint
        # An address can be reached past the server that cannot use it.
        past = adb.connect(stranger.serial, profile, keys=[stranger.key])
        with contextlib.closing(past):
            assert past.transport == "tcp"
        google("disconnect", stranger.serial)


def test_no_server_runs_and_none_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "started"
    fake = tmp_path / "adb"
    fake.write_text(f"#!/bin/sh\necho $0 $@ >>{log}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("ADBUTILS_ADB_PATH", str(fake))
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    assert adb.server_devices() is None
    assert adb_server.listed() is None, "also where it ends between the probe and the request"
    with pytest.raises(NotReady, match="no ADB server runs"):
        adb.connect("ABC", transport="adb-server")
    assert not log.exists()


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "5037; id", "٣"])
def test_a_port_that_is_none(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", port)
    with pytest.raises(DeviceError, match=r"ANDROID_ADB_SERVER_PORT is .* and no port"):
        adb_presence.address()


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("unauthorized", "unauthorised"),
        ("offline", "offline"),
        ("no permissions (user in plugdev group; are your udev rules wrong?)", "no permissions"),
        ("authorizing", "offline"),
        ("sideload", "offline"),
        ("recovery\x1b[31m", "offline"),
    ],
)
def test_states_of_the_server_in_our_words(word: str, state: str) -> None:
    why = adb_server.not_ready("ABC", word)
    assert why.state == state
    assert state in discovery.STATES
    assert why.hint
    assert "\x1b" not in str(why)


@contextlib.contextmanager
def fake_server(
    service: Callable[[socket.socket], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A server that has the device ABC and does with its services what ``service`` says."""

    def text(words: str) -> bytes:
        return b"OKAY" + f"{len(words):04x}{words}".encode()

    def answer(connection: socket.socket) -> None:
        words = connection.recv(int(connection.recv(4), 16)).decode()
        if words == "host:devices":
            connection.sendall(text("ABC\tdevice\n"))
        elif words.endswith(":features"):
            connection.sendall(text("shell_v2"))
        else:
            connection.sendall(b"OKAY")
            connection.recv(int(connection.recv(4), 16))
            connection.sendall(b"OKAY")
            service(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError, ValueError):
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(server.getsockname()[1]))
        yield
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def packet(kind: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BI", kind, len(data) if length is None else length) + data


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (packet(1, b"half"), ConnectionError),
        (packet(1, b"x", 0xFFFFFFFF), ConnectionError),
        (packet(3, b""), ValueError),
        (packet(9, b"odd"), ValueError),
        (b"", ConnectionError),
    ],
)
def test_a_broken_shell_answer_is_never_an_exit_code(
    sent: bytes, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_server(lambda c: c.sendall(sent), monkeypatch):
        link = adb_server.ServerLink("ABC")
        link.connect()
        with pytest.raises(error):
            link.shell("true", Allowance(10, 1 << 20))


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"DATA" + struct.pack("<I", 4) + b"ab", "was cut"),
        (b"DATA" + struct.pack("<I", 0xFFFFFFFF), "more than is allowed"),
        (b"FAIL" + struct.pack("<I", 0xFFFFFFFF) + b"no\x1b[31m", "was cut"),
        (b"FAIL" + struct.pack("<I", 7) + b"no\x1b[31m", r"refused: no\?\[31m"),
        (b"WHAT" + struct.pack("<I", 0), "not ADB"),
    ],
)
def test_a_broken_file_is_never_taken_for_whole(
    sent: bytes, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def send(connection: socket.socket) -> None:
        connection.recv(1 << 16)
        connection.sendall(sent)

    with fake_server(send, monkeypatch):
        profile = HostDevice().profile
        device = adb.AdbDevice("ABC", profile, adb_server.ServerLink("ABC"))
        with pytest.raises(DeviceError, match=says):
            device.pull("/x", tmp_path / "x", max_bytes=100)
    assert list(tmp_path.iterdir()) == []
