"""Our own ADB daemon, built for this machine, as a phone for tests: real sockets, real shells."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from adb_shell.auth.keygen import keygen

from deploy import harness
from deploy.devices import adb, adb_presence, adb_usb, locks
from deploy.devices.host import HostDevice
from deploy.emulator import machine
from deploy.types import DeviceProfile

GETPROP = """\
#!/bin/sh
cat <<'END'
[ro.product.cpu.abi]: [x86_64]
[ro.product.manufacturer]: [pocketship]
[ro.product.model]: [native adbd]
[ro.build.fingerprint]: [pocketship/native/test:1]
[ro.serialno]: [SECRET@NUMBER@]
END
"""


@dataclass
class NativeAdbd:
    """A running daemon. ``commands`` is first on its shells' PATH and starts with a getprop.

    ``shared_key`` is an ADB key that exists; None: it makes one, which takes a moment.
    """

    program: Path
    folder: Path
    shared_key: Path | None = None
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.key = self.shared_key or self.folder / "adbkey"
        if self.shared_key is None:
            keygen(str(self.key))
        self.commands = self.folder / "commands"
        self.commands.mkdir()
        getprop = self.commands / "getprop"
        # One of its own, as every phone has: locks go by it.
        getprop.write_text(GETPROP.replace("@NUMBER@", secrets.token_hex(6)))
        getprop.chmod(0o755)
        self.port = self.start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, port: int = 0) -> int:
        """Start the daemon (again); its port, once it listens."""
        port_file = self.folder / "port"
        port_file.unlink(missing_ok=True)
        process = subprocess.Popen(
            [
                str(self.program),
                *("--listen", f"127.0.0.1:{port}"),
                *("--authorized-keys", f"{self.key}.pub"),
                *("--port-file", str(port_file)),
                *("--path-prefix", str(self.commands)),
            ],
            stdin=subprocess.DEVNULL,
        )
        self.processes.append(process)
        for _ in range(2000):
            if port_file.exists():
                return int(port_file.read_text())
            if process.poll() is not None:
                break
            threading.Event().wait(0.005)
        raise AssertionError(f"adbd did not start (exit code {process.poll()})")

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def profile(self, work_dir: Path | str, **changes: object) -> DeviceProfile:
        """A profile for this daemon: this machine's architecture behind ADB."""
        host = HostDevice().profile
        return host.model_copy(
            update={"name": "native-adbd", "transport": "adb", "work_dir": str(work_dir), **changes}
        )

    def connect(self, work_dir: Path | str, **changes: object) -> adb.AdbDevice:
        return adb.connect(self.serial, self.profile(work_dir, **changes), keys=[self.key])


@contextlib.contextmanager
def running(program: Path, folder: Path, shared_key: Path | None = None) -> Iterator[NativeAdbd]:
    daemon = NativeAdbd(program, folder, shared_key)
    try:
        yield daemon
    finally:
        daemon.kill()


def hide_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No phone of this machine's is there, and no lock of another run's."""
    monkeypatch.setattr(locks, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(adb_presence, "listens", lambda: False)
    monkeypatch.setattr(adb_usb, "listed", dict)
    monkeypatch.setattr(machine, "running", list)


@contextlib.contextmanager
def trusting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NativeAdbd]:
    """A daemon that trusts this user's key; the user's home is below ``tmp_path``."""
    with running(harness.adbd(HostDevice().profile.abi), tmp_path / "adbd") as daemon:
        home = tmp_path / "home"
        (home / ".android").mkdir(parents=True)
        for suffix in ("", ".pub"):
            (home / f".android/adbkey{suffix}").symlink_to(f"{daemon.key}{suffix}")
        monkeypatch.setenv("HOME", str(home))
        yield daemon
