"""ADB against our own daemon, built for this machine, and sockets that are no daemon at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_shell.auth.keygen import keygen

from deploy.devices import adb, adb_direct
from deploy.errors import DeviceError
from tests.deploy.native_adbd import NativeAdbd

HOSTILE = [
    "$(touch pwned)",
    "`id`",
    "a b",
    "'",
    '"',
    "new\nline",
    "*",
    "-n",
    "",
    ";exit 3",
    "ü€",
    "#",
]


@pytest.fixture
def device(adbd: NativeAdbd, tmp_path: Path) -> Iterator[adb.AdbDevice]:
    connected = adbd.connect(tmp_path / "dev")
    yield connected
    connected.close()


def test_words_arrive_as_they_are(device: adb.AdbDevice, tmp_path: Path) -> None:
    folder = tmp_path / "it's $(id)\nhere"
    folder.mkdir()
    result = device.shell(["printf", "<%s>", *HOSTILE], cwd=str(folder))
    assert result.exit_code == 0
    assert result.stdout == "".join(f"<{word}>" for word in HOSTILE)
    assert device.shell(["pwd"], cwd=str(folder)).stdout == f"{folder}\n"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("code", [0, 1, 3, 126, 139, 255])
def test_exit_codes(device: adb.AdbDevice, code: int) -> None:
    assert device.shell(["sh", "-c", f"printf no-newline; exit {code}"]).exit_code == code


def test_builtins_cannot_swallow_the_exit_code(device: adb.AdbDevice) -> None:
    assert device.shell(["exit", "5"]).exit_code == 5
    assert device.shell(["no-such-program"]).exit_code == 127
    assert device.shell(["true"], cwd="/no/such/folder").exit_code != 0


def test_errors_come_merged_and_stdin_is_empty(device: adb.AdbDevice) -> None:
    result = device.shell(["sh", "-c", "cat; echo out; echo err >&2"])
    assert sorted(result.stdout.split()) == ["err", "out"]
    assert result.stderr == ""


def test_output_that_looks_like_an_exit_code(device: adb.AdbDevice) -> None:
    assert device.shell(["echo", "deadbeef0\n0"]).stdout == "deadbeef0\n0\n"


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_001])
def test_files_come_and_go(device: adb.AdbDevice, tmp_path: Path, size: int) -> None:
    source, back = tmp_path / "a file", tmp_path / "back"
    source.write_bytes(os.urandom(size))
    remote = str(tmp_path / "re 'mote' $(id)")
    device.push(source, remote, mode=0o755)
    assert Path(remote).stat().st_mode & 0o777 == 0o755
    device.pull(remote, back, max_bytes=size)
    digests = {hashlib.sha256(p.read_bytes()).hexdigest() for p in (source, Path(remote), back)}
    assert len(digests) == 1


def test_a_pull_stops_at_its_limit(device: adb.AdbDevice, tmp_path: Path) -> None:
    big, back = tmp_path / "big", tmp_path / "back"
    big.write_bytes(bytes(3_000_000))
    back.write_bytes(b"before")
    with pytest.raises(DeviceError, match="more than is allowed"):
        device.pull(str(big), back, max_bytes=2_999_999)
    assert back.read_bytes() == b"before"
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".tmp") == []
    device.pull(str(big), back, max_bytes=3_000_000)
    assert back.stat().st_size == 3_000_000


def test_endless_output_is_refused(device: adb.AdbDevice) -> None:
    with pytest.raises(DeviceError, match="more than is allowed"):
        device.shell(["cat", "/dev/zero"])
    assert device.shell(["echo", "again"]).stdout == "again\n"


def test_files_that_are_not_there(device: adb.AdbDevice, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        device.pull(str(tmp_path / "no"), tmp_path / "x", max_bytes=10)
    with pytest.raises(DeviceError, match="No such file"):
        device.push(tmp_path / "no", str(tmp_path / "x"))
    (tmp_path / "f").write_text("x")
    with pytest.raises(DeviceError, match="refused"):
        device.push(tmp_path / "f", str(tmp_path / "no" / "\n" / "f") + "/")
    for remote in ("relative", "/nul\0", ""):
        with pytest.raises(DeviceError, match="absolute"):
            device.push(tmp_path / "f", remote)


def test_a_late_command_is_a_device_error_and_the_next_one_works(device: adb.AdbDevice) -> None:
    with pytest.raises(DeviceError, match=r"sleep: no end within 0\.3 s"):
        device.shell(["sleep", "60"], timeout_s=0.3)
    assert device.shell(["echo", "here"]).stdout == "here\n"


def test_a_restarted_daemon_is_reached_again(
    adbd: NativeAdbd, device: adb.AdbDevice, tmp_path: Path
) -> None:
    assert device.shell(["true"]).exit_code == 0
    adbd.kill()
    adbd.start(adbd.port)
    assert device.shell(["echo", "back"]).stdout == "back\n"
    adbd.kill()
    with pytest.raises(DeviceError, match="refused"):
        device.shell(["true"])
    device.close()
    device.close()


def test_a_cut_command_is_not_repeated_but_a_reading_one_is(
    adbd: NativeAdbd, device: adb.AdbDevice, tmp_path: Path
) -> None:
    counter = tmp_path / "count"
    # Kills the daemon under itself, which the test's thread starts again.
    script = f'echo x >>"$1"; kill -9 {adbd.processes[0].pid}; sleep 5'

    def restart() -> None:
        adbd.processes[0].wait()
        adbd.start(adbd.port)

    thread = threading.Thread(target=restart)
    thread.start()
    with pytest.raises(DeviceError, match="was cut"):
        device.shell(["sh", "-c", script, "sh", str(counter)])
    thread.join()
    assert counter.read_text() == "x\n"
    assert device.info().model == "native adbd"


def test_info_is_what_the_device_answers(device: adb.AdbDevice) -> None:
    info = device.info()
    assert (info.model, info.manufacturer, info.abi) == ("native adbd", "pocketship", "x86_64")
    assert info.clock == "monotonic"
    assert info.soc is None
    assert "ro.soc.model" in info.unknown["soc"]
    assert info.kernel == os.uname().release
    assert info.memory_total_kib is not None
    assert "SECRET" not in info.model_dump_json()
    for field in type(info).model_fields:
        if getattr(info, field) is None:
            assert info.unknown[field], field


def test_the_counting_clock_is_a_property(adbd: NativeAdbd, device: adb.AdbDevice) -> None:
    getprop = adbd.commands / "getprop"
    getprop.write_text("#!/bin/sh\necho '[ro.boot.pocketship.icount]: [1]'\n")
    assert device.info().clock == "icount"
    getprop.write_text("#!/bin/sh\nexit 1\n")
    info = device.info()
    assert info.clock == "monotonic"
    assert "exit code 1" in info.unknown["model"]


def test_the_profile_is_found_by_the_properties(adbd: NativeAdbd) -> None:
    getprop = adbd.commands / "getprop"
    getprop.write_text(
        "#!/bin/sh\necho '[ro.product.cpu.abi]: [arm64-v8a]'\n"
        "echo '[ro.product.manufacturer]: [Google]'\necho '[ro.product.device]: [shiba]'\n"
    )
    device = adb.connect(adbd.serial, keys=[adbd.key])
    assert device.profile.name == "pixel-8"
    device.close()
    getprop.write_text("#!/bin/sh\necho '[ro.product.model]: [\033[31mOdd]'\n")
    with pytest.raises(DeviceError, match="no device profile fits") as caught:
        adb.connect(adbd.serial, keys=[adbd.key])
    assert "\033" not in str(caught.value)


def test_a_key_that_is_not_authorised(adbd: NativeAdbd, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    keygen(str(stranger))
    profile = adbd.profile(tmp_path)
    with pytest.raises(DeviceError, match="did not accept this computer's ADB key"):
        adb.connect(adbd.serial, profile, keys=[stranger], auth_timeout_s=1.0)
    with pytest.raises(DeviceError, match="wants an ADB key"):
        adb.connect(adbd.serial, profile, keys=[])


@pytest.mark.parametrize(("mode", "told"), [(0o600, 0), (0o400, 0), (0o640, 1), (0o604, 1)])
def test_a_private_key_that_others_may_read_is_told(tmp_path: Path, mode: int, told: int) -> None:
    key = tmp_path / "key"
    keygen(str(key))
    key.chmod(mode)
    said: list[str] = []
    assert len(adb.load_signers([key], said.append)) == 1
    assert len(said) == told
    assert all("chmod 600" in line for line in said)


def test_keys_that_are_no_keys(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="does not exist"):
        adb.load_signers([tmp_path / "no"])
    bad = tmp_path / "bad"
    bad.write_text("not a key")
    (tmp_path / "bad.pub").write_text("not a key")
    with pytest.raises(DeviceError, match="not an ADB key"):
        adb.load_signers([bad])


@pytest.mark.parametrize(
    "serial", ["", "host", "1.2.3.4", "a:b", ":5555", "h:0", "h:65536", "$(id):1", "a b:1", "h:1\n"]
)
def test_a_serial_that_is_no_address(serial: str) -> None:
    with pytest.raises(DeviceError, match="is not HOST:PORT"):
        adb.parse_serial(serial)


def test_addresses() -> None:
    assert adb.parse_serial("127.0.0.1:5555") == ("127.0.0.1", 5555)
    assert adb.parse_serial("[::1]:5555") == ("::1", 5555)
    assert adb.parse_serial("my-phone.local:1") == ("my-phone.local", 1)


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that does with each connection what ``answer`` says."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def _packet(command: bytes, arg0: int, arg1: int, length: int) -> bytes:
    number = int.from_bytes(command, "little")
    return struct.pack("<6I", number, arg0, arg1, length, 0, number ^ 0xFFFFFFFF)


def _web_server(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100)
    connection.recv(4096)


def _flood(connection: socket.socket) -> None:
    connection.sendall(_packet(b"CNXN", 0x01000000, 4096, 0xFFFFFFFF))
    while True:
        connection.sendall(bytes(65536))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda c: None, "closed the connection"),
        (_web_server, "does not speak ADB"),
        (_flood, "does not speak ADB"),
    ],
)
def test_what_is_no_adb_daemon_is_said_at_once(
    answer: Callable[[socket.socket], None], says: str, adbd: NativeAdbd, tmp_path: Path
) -> None:
    started = time.monotonic()
    with answering(answer) as serial, pytest.raises(DeviceError, match=says) as caught:
        adb.connect(serial, adbd.profile(tmp_path), keys=[adbd.key])
    assert time.monotonic() - started < adb_direct.CONNECT_TIMEOUT_S
    assert "\n" not in str(caught.value)


def test_silence_ends_with_the_timeout(
    adbd: NativeAdbd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adb_direct, "CONNECT_TIMEOUT_S", 0.3)
    with (
        answering(lambda c: threading.Event().wait(2)) as serial,
        pytest.raises(DeviceError, match=r"no answer within 0\.3 s"),
    ):
        adb.connect(serial, adbd.profile(tmp_path), keys=[adbd.key])


def test_nothing_listens(adbd: NativeAdbd, tmp_path: Path) -> None:
    adbd.kill()
    with pytest.raises(DeviceError, match="connection refused"):
        adb.connect(adbd.serial, adbd.profile(tmp_path), keys=[adbd.key])
