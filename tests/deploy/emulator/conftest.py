"""A home, a state folder and an adb server of the tests' own; the cache is the user's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from deploy.emulator import machine
from deploy.emulator.keys import ensure_key
from deploy.emulator.machine import Phone
from deploy.paths import cache_dir, profiles_dir
from deploy.types import DeviceProfile


def load_profile(name: str) -> DeviceProfile:
    text = (profiles_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    return DeviceProfile.model_validate(yaml.safe_load(text))


def processes_in(folder: Path) -> list[int]:
    """Processes that work in a folder, as a phone's QEMU does."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                inside = (entry / "cwd").readlink().is_relative_to(folder)
            except OSError:
                continue
            if inside:
                found.append(int(entry.name))
    return found


@dataclass
class Shell:
    """One command after the other on a phone, by the library that pocketship uses."""

    device: AdbDeviceTcp

    def __call__(self, command: str) -> str:
        # The old shell service merges stderr and has no exit code; so does this.
        return str(self.device.shell(command, read_timeout_s=300, timeout_s=300))


def connect(phone: Phone, private_key: Path | None = None, *, patience_s: float = 60) -> Shell:
    host, _, port = phone.serial.rpartition(":")
    device = AdbDeviceTcp(host, int(port), default_transport_timeout_s=60)
    signer = PythonRSASigner.FromRSAKeyPath(str(private_key or ensure_key()))
    device.connect(rsa_keys=[signer], auth_timeout_s=patience_s)
    return Shell(device)


@pytest.fixture(scope="session")
def own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """State and home of the tests' own, with a long path as users have; gives the state folder."""
    if shutil.which("qemu-system-aarch64") is None:
        pytest.skip("qemu-system-aarch64 is not installed")
    root = tmp_path_factory.mktemp("world") / ("deep," * 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POCKETSHIP_CACHE", str(cache_dir()))
        patch.setenv("POCKETSHIP_STATE", str(root / "state"))
        patch.setenv("HOME", str(root / "home"))
        # An adb server keeps the key of the home that it was started in.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            patch.setenv("ANDROID_ADB_SERVER_PORT", str(free.getsockname()[1]))
        yield root / "state"
        for phone in machine.running():
            phone.stop()
        if shutil.which("adb"):
            subprocess.run(["adb", "kill-server"], capture_output=True)


@pytest.fixture(scope="session")
def phone(own_world: Path) -> Iterator[Phone]:
    """The phone that most tests share."""
    started = machine.start(load_profile("emulated-arm64"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def shell(phone: Phone) -> Iterator[Shell]:
    opened = connect(phone)
    yield opened
    opened.device.close()


@dataclass
class Adb:
    """Google's adb, with a server of the tests' own."""

    environ: dict[str, str]

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["adb", *argv], env=self.environ, capture_output=True, text=True, timeout=300
        )


@pytest.fixture(scope="session")
def adb(own_world: Path) -> Adb:
    if shutil.which("adb") is None:
        pytest.skip("Google's adb is not installed")
    ensure_key()
    return Adb(dict(os.environ))
