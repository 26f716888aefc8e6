"""This machine as a device: real processes, real files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deploy.devices import profiles
from deploy.devices.host import HostDevice
from deploy.errors import DeviceError
from deploy.types import Tier

HOSTILE = ["$(touch pwned)", "`id`", "a b", "'", '"', "new\nline", "*", "-n", "", ";exit 3", "ü€"]


@pytest.fixture
def device(tmp_path: Path) -> HostDevice:
    profile = profiles.load("host").model_copy(update={"work_dir": str(tmp_path / "dev")})
    return HostDevice(profile)


def test_words_arrive_as_they_are(device: HostDevice, tmp_path: Path) -> None:
    code = "import sys; print(sys.argv[1:])"
    result = device.shell([sys.executable, "-c", code, *HOSTILE], cwd=str(tmp_path))
    assert result.exit_code == 0
    assert eval(result.stdout) == HOSTILE
    assert list(tmp_path.iterdir()) == []


def test_streams_and_codes(device: HostDevice) -> None:
    result = device.shell(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (result.exit_code, result.stdout, result.stderr) == (7, "out\n", "err\n")
    assert device.shell(["sh", "-c", "kill -SEGV $$"]).exit_code == 139
    assert device.shell(["no-such-program"]).exit_code == 127
    assert device.shell(["true"], cwd="/no/such/folder").exit_code == 127


def test_late_commands_die_with_their_children(device: HostDevice, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = 'sleep 600 & echo $! >"$1"; wait'
    with pytest.raises(DeviceError, match=r"did not end within 0\.5 s"):
        device.shell(["sh", "-c", script, "sh", str(note)], timeout_s=0.5)
    _assert_gone(int(note.read_text()))


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is missing")
def test_a_command_dies_with_a_killed_pocketship(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import sys; from deploy.devices.host import HostDevice; "
        "HostDevice().shell(['sh', '-c', 'echo $$ >$1; exec sleep 600', 'sh', sys.argv[1]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(note)], cwd=Path(__file__).parents[3]
    )
    for _ in range(6000):
        if note.exists() and note.read_text().endswith("\n"):
            break
        assert process.poll() is None
        threading.Event().wait(0.005)
    process.kill()
    process.wait()
    _assert_gone(int(note.read_text()))


def test_background_children_do_not_outlive_a_command(device: HostDevice, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    device.shell(["sh", "-c", 'sleep 600 & echo $! >"$1"', "sh", str(note)])
    _assert_gone(int(note.read_text()))


def _assert_gone(pid: int) -> None:
    # A killed orphan stays a zombie until whoever adopts it collects it.
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"process {pid} is still there")


@pytest.mark.parametrize("words", [[], ["echo", "a\0b"]])
def test_words_that_cannot_be_passed(device: HostDevice, words: list[str]) -> None:
    with pytest.raises(DeviceError):
        device.shell(words)


def test_files_come_and_go_whole(device: HostDevice, tmp_path: Path) -> None:
    source, back = tmp_path / "a file $(id)", tmp_path / "back"
    source.write_bytes(os.urandom(100_000))
    remote = str(tmp_path / "dev 'x'")
    device.push(source, remote, mode=0o755)
    assert Path(remote).stat().st_mode & 0o777 == 0o755
    with pytest.raises(DeviceError, match="more than 99999"):
        device.pull(remote, back, max_bytes=99_999)
    assert not back.exists()
    device.pull(remote, back, max_bytes=100_000)
    assert back.read_bytes() == source.read_bytes()


def test_missing_files_are_device_errors(device: HostDevice, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        device.pull(str(tmp_path / "no"), tmp_path / "x", max_bytes=1)
    with pytest.raises(DeviceError, match="No such file"):
        device.push(tmp_path / "no", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


def test_info_is_observed_and_explains_gaps(device: HostDevice) -> None:
    info = device.info()
    assert info.tier is Tier.HOST
    assert info.clock == "monotonic"
    assert info.cpu_count == len(os.sched_getaffinity(0))
    for field in type(info).model_fields:
        if getattr(info, field) is None:
            assert info.unknown[field], field


def test_work_folder_is_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path))
    assert HostDevice().profile.work_dir == str(tmp_path / "host-device")


def test_a_flood_of_output_is_refused(device: HostDevice) -> None:
    started = time.monotonic()
    with pytest.raises(DeviceError, match="printed more than"):
        device.shell(["head", "-c", "20000000", "/dev/zero"])
    assert time.monotonic() - started < 30
