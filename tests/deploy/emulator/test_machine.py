"""Starting and stopping real phones."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_shell.auth.keygen import keygen
from adb_shell.exceptions import DeviceAuthError, TcpTimeoutException

from deploy.emulator import commands, machine
from deploy.emulator.keys import ensure_key, public_path
from deploy.emulator.machine import Phone
from deploy.errors import ConfigError, DeviceError
from deploy.types import DeviceProfile

from .conftest import Adb, Shell, connect, load_profile, processes_in

pytestmark = pytest.mark.phone


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.05)


def changed(profile: DeviceProfile, **emulator: object) -> DeviceProfile:
    assert profile.emulator is not None
    spec = profile.emulator.model_copy(update=emulator)
    return profile.model_copy(update={"emulator": spec})


LOW = load_profile("emulated-arm64-lowmem")


def test_a_phone_is_listed_and_listens_on_the_loopback_only(phone: Phone) -> None:
    assert phone in machine.running()
    assert commands.find(phone.serial) == phone
    listening = subprocess.run(["ss", "-Hltn"], capture_output=True, text=True).stdout
    port = phone.serial.rpartition(":")[2]
    addresses = [line.split()[3] for line in listening.splitlines() if f":{port} " in line]
    assert addresses == [phone.serial]


def test_memory_and_disk_have_the_profiles_sizes(shell: Shell) -> None:
    spec = load_profile("emulated-arm64").emulator
    assert spec is not None
    total = re.search(r"MemTotal: +(\d+) kB", shell("cat /proc/meminfo"))
    assert total and 0.94 * spec.memory_mib < int(total[1]) / 1024 < spec.memory_mib
    disk = shell("df -k /data/local/tmp").splitlines()[-1].split()
    assert 0.9 * spec.disk_mib < int(disk[1]) / 1024 < spec.disk_mib


def test_a_large_file_arrives_whole(shell: Shell, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 20
    (tmp_path / "large").write_bytes(content)
    shell.device.push(str(tmp_path / "large"), "/data/local/tmp/large")
    told = shell("sha256sum /data/local/tmp/large; rm /data/local/tmp/large")
    assert told.split()[0] == hashlib.sha256(content).hexdigest()


@pytest.mark.adb
def test_a_large_file_arrives_whole_by_google_adb(adb: Adb, phone: Phone, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 20
    (tmp_path / "large").write_bytes(content)
    adb("connect", phone.serial)
    there = "/data/local/tmp/large2"
    assert adb("-s", phone.serial, "push", str(tmp_path / "large"), there).returncode == 0
    assert adb("-s", phone.serial, "pull", there, str(tmp_path / "back")).returncode == 0
    assert (tmp_path / "back").read_bytes() == content
    adb("-s", phone.serial, "shell", "rm", there)


def test_a_key_that_is_not_authorised_is_refused(phone: Phone, tmp_path: Path) -> None:
    keygen(str(tmp_path / "stranger"))
    # As a phone that nobody taps "allow" on, it keeps the stranger waiting.
    with pytest.raises((DeviceAuthError, TcpTimeoutException)):
        connect(phone, tmp_path / "stranger", patience_s=3)


@pytest.mark.adb
def test_google_adb_with_another_key_gets_no_shell(adb: Adb, phone: Phone, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    other = Adb({**adb.environ, "HOME": str(tmp_path), "ANDROID_ADB_SERVER_PORT": port})
    other("connect", phone.serial)
    try:
        done = other("-s", phone.serial, "shell", "id")
        assert done.returncode != 0 and "uid" not in done.stdout
        assert "unauthorized" in other("devices").stdout
    finally:
        other("kill-server")


BUSY = """
#include <cstdio>
#include <ctime>
static long long now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}
int main() {
  static unsigned table[1 << 16];
  for (int round = 0; round < 4; round++) {
    const long long begin = now();
    unsigned x = 1;
    for (int i = 0; i < 16000000; i++) {
      x = x * 1664525u + 1013904223u;
      table[x >> 16] += x;
    }
    printf("%lld\\n", now() - begin);
  }
}
"""


@pytest.mark.slow
def test_two_phones_at_once_count_alike(phone: Phone, shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "busy.cpp").write_text(BUSY)
    compiler = ["aarch64-linux-gnu-g++", "-O1", "-static", "-o", str(tmp_path / "busy")]
    subprocess.run([*compiler, str(tmp_path / "busy.cpp")], check=True)
    keygen(str(tmp_path / "friend"))
    second = machine.start(load_profile("emulated-arm64"), keys=[tmp_path / "friend.pub"])
    try:
        assert second.serial != phone.serial
        assert set(machine.running()) >= {phone, second}
        other = connect(second, tmp_path / "friend")
        counts: list[int] = []
        for each in (shell, other):
            there = "/data/local/tmp/busy"
            each.device.push(str(tmp_path / "busy"), there, st_mode=0o100755)
            each("sync")  # writing back what was pushed would be counted
            # The first round also touches the table's pages for the first time.
            rounds = [list(map(int, each(there).split())) for _ in range(3)]
            counts += [count for one in rounds for count in one[1:]]
        other.device.close()
        assert min(counts) > 16_000_000 * 5, "nanoseconds of the guest are instructions"
        assert (max(counts) - min(counts)) / min(counts) < 0.001, counts
    finally:
        second.stop()
    assert not second.alive() and not second.folder.exists()
    assert phone.alive()


def test_a_frozen_phone_lives_and_thaws(phone: Phone, shell: Shell) -> None:
    phone.monitor("stop")
    assert phone.monitor("query-status")["running"] is False
    assert phone.alive()
    phone.monitor("cont")
    assert shell("echo thawed") == "thawed\n"


@pytest.mark.soak
def test_limits_reboot_and_end_of_a_small_phone(own_world: Path) -> None:
    small = machine.start(LOW)
    sh = connect(small)
    assert "No space left" in sh("dd if=/dev/zero of=/data/local/tmp/f bs=1M count=300 2>&1")
    sh("rm /data/local/tmp/f; echo kept >/data/local/tmp/kept; settings put global k v; sync")
    # More than its memory: the kernel ends that process, not the phone.
    eater = "awk 'BEGIN { s = \"x\"; while (1) s = s s }'; echo code $?"
    assert "code 137" in sh(eater) or "out of memory" in sh(eater)
    sh("dumpsys battery set level 3")
    booted = sh("cat /proc/sys/kernel/random/boot_id")
    assert small.console.read_text(errors="replace").count("network up") == 1
    sh("setprop sys.powerctl reboot")
    sh.device.close()
    until(lambda: small.console.read_text(errors="replace").count("adbd: listening") == 2)
    again = connect(small)
    assert again("cat /proc/sys/kernel/random/boot_id") != booted
    assert again("cat /data/local/tmp/kept; settings get global k") == "kept\nv\n"
    assert "level: 100" in again("dumpsys battery"), "an override does not survive a reboot"
    os.kill(small.qemu_pid, signal.SIGKILL)
    until(lambda: not small.alive())
    assert small not in machine.running()
    small.stop()
    assert not small.folder.exists()
    kept = small.folder.parent / "logs" / f"{small.folder.name}.console.log"
    assert "network up" in kept.read_text(errors="replace"), "the console of a dead phone is kept"


def test_without_counting_the_phone_does_not_claim_to_count(own_world: Path) -> None:
    timed = machine.start(LOW, icount=False)
    try:
        assert not timed.icount
        opened = connect(timed)
        assert opened("getprop ro.boot.pocketship.icount") == "\n"
        opened.device.close()
    finally:
        timed.stop()


SCRIPT = """
import sys
from pathlib import Path
import yaml
from deploy.emulator import machine
from deploy.types import DeviceProfile
profile = DeviceProfile.model_validate(yaml.safe_load(Path(sys.argv[1]).read_text()))
detached = sys.argv[2] == "detached"
phone = machine.start(profile, detached=detached, progress=lambda line: print(line, flush=True))
print("serial", phone.serial, flush=True)
sys.stdin.read()
"""


def starter(tmp_path: Path, *, detached: bool, until_line: str) -> subprocess.Popen[str]:
    """Another pocketship that starts a small phone; returns when it has said ``until_line``."""
    profile = tmp_path / "profile.yaml"
    profile.write_text(LOW.model_dump_json())
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(profile), "detached" if detached else "attached"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(machine.__file__).parents[2])},
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith(until_line):
            return process
    raise AssertionError(f"it ended before it said {until_line!r}")


@pytest.fixture
def lonely_state(
    own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    monkeypatch.setenv("POCKETSHIP_STATE", str(tmp_path / "state"))
    yield tmp_path / "state"
    for left in machine.running():
        left.stop()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("detached", "stage"), [(False, "serial"), (False, "kernel up"), (True, "starting")]
)
def test_a_killed_pocketship_leaves_no_phone(
    lonely_state: Path, tmp_path: Path, sign: signal.Signals, detached: bool, stage: str
) -> None:
    process = starter(tmp_path, detached=detached, until_line=stage)
    process.send_signal(sign)
    process.wait()
    until(lambda: not processes_in(lonely_state))
    phones = lonely_state / "phones"
    # Killed before its supervisor ran it can leave a folder, which the next look removes.
    until(
        lambda: machine.running() == [] and {p.name for p in phones.iterdir()} <= {".lock", "logs"}
    )


@pytest.mark.slow
def test_a_detached_phone_outlives_its_starter_and_is_stopped(
    lonely_state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    process = starter(tmp_path, detached=True, until_line="serial")
    process.kill()
    process.wait()
    [phone] = machine.running()
    assert phone.detached
    assert commands.shell(phone.serial, ["exit", "3"]) == 3
    with monkeypatch.context() as without_adb:
        without_adb.setenv("PATH", "")
        assert commands.shell(phone.serial, ["echo out;", "exit", "4"]) == 4
        assert capsys.readouterr().out == "out\n"
        with pytest.raises(DeviceError, match="needs Google's adb"):
            commands.shell(phone.serial)
    with pytest.raises(DeviceError, match=phone.serial):
        commands.find("127.0.0.1:1")
    assert commands.stop(None) == [phone]
    assert machine.running() == [] and processes_in(lonely_state) == []
    with pytest.raises(DeviceError, match="no emulated phone runs"):
        commands.stop(None)


def test_a_taken_port_is_said(own_world: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"port {port} on 127.0.0.1 is in use"):
            machine.start(LOW, port=port)


def test_no_free_port_is_said(
    own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All ports of a machine cannot be taken in a test: this says what QEMU says then.
    qemu = tmp_path / "qemu-system-aarch64"
    qemu.write_text(
        '#!/bin/sh\necho "-netdev user: Could not set up host forwarding rule '
        "'tcp:127.0.0.1:0-:5555'\" >&2\nexit 1\n"
    )
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(DeviceError, match="no free port"):
        machine.start(LOW)


def test_without_qemu_its_package_is_named(
    own_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="Install the package qemu-system-arm"):
        machine.start(LOW)


def test_a_processor_that_qemu_does_not_know(own_world: Path) -> None:
    with pytest.raises(DeviceError, match=r"QEMU did not start.*cortex-z99"):
        machine.start(changed(LOW, cpu="cortex-z99"))


@pytest.mark.slow
def test_a_phone_that_cannot_boot_says_where_its_console_is(own_world: Path) -> None:
    with pytest.raises(DeviceError) as error:
        machine.start(changed(LOW, memory_mib=36), boot_timeout_s=60)
    message = str(error.value)
    log = re.search(r"Console log: (\S+\.console\.log)", message)
    assert log, message
    assert "\n" not in message


def test_a_profile_of_a_real_phone_is_refused(own_world: Path) -> None:
    with pytest.raises(ConfigError, match="not an emulated phone"):
        machine.start(LOW.model_copy(update={"transport": "adb", "emulator": None}))


def test_a_key_file_that_is_none_is_refused_before_anything_starts(own_world: Path) -> None:
    with pytest.raises(DeviceError, match="not a public ADB key"):
        machine.start(LOW, keys=[ensure_key()])
    assert public_path(ensure_key()).is_file()


def test_a_state_folder_that_cannot_be_written(
    own_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("POCKETSHIP_STATE", str(tmp_path / "file/state"))
    with pytest.raises(DeviceError, match="cannot make the phone's folder"):
        machine.start(LOW)
