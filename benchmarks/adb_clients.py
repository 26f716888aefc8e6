"""Two ADB clients behind one interface: Google's `adb` program and the adb-shell library.

Google's client gets a server, home and key of its own, so that neither the user's adb server nor
their devices are touched.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from adb_shell.adb_device import AdbDeviceTcp
from adb_shell.auth.keygen import keygen
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

TIMEOUT_S = 300.0


class Client(Protocol):
    """One connected client; transfers raise when they fail."""

    name: str
    version: str

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device."""

    def close(self) -> None:
        """Disconnect."""


class GoogleAdb:
    """Google's client, one process a command as a user would start it."""

    name = "adb"

    def __init__(self, program: str, serial: str, key: Path) -> None:
        self._program = program
        self._serial = serial
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ADB_", "ANDROID_"))}
        # The client reads its key from HOME; the folder holds nothing else.
        self._environment = kept | {
            "HOME": str(key.parent.parent),
            "ANDROID_ADB_SERVER_PORT": str(port),
        }
        self.server_port = str(port)
        self.version = self._run("version").splitlines()[1].rpartition(" ")[2]
        try:
            # `adb connect` ends with 0 also when it fails: the shell is what tells.
            self._run("connect", serial)
            self._run("-s", serial, "shell", "true")
        except BaseException:
            self.close()
            raise

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device."""
        self._run("-s", self._serial, "push", str(local), remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device."""
        self._run("-s", self._serial, "pull", remote, str(local))

    def close(self) -> None:
        """Stop the private server."""
        self._run("kill-server")

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
            env=self._environment,
        )
        if done.returncode != 0:
            last = (done.stdout.strip().splitlines() or ["no output"])[-1]
            raise OSError(f"adb {' '.join(arguments)}: {last}")
        return done.stdout


class AdbShell:
    """The adb-shell library, which pocketship's own transport is built on."""

    name = "adb-shell"

    def __init__(self, serial: str, key: Path) -> None:
        self.version = version("adb-shell")
        host, _, port = serial.rpartition(":")
        self._device = AdbDeviceTcp(host, int(port), default_transport_timeout_s=TIMEOUT_S)
        signer = PythonRSASigner.FromRSAKeyPath(str(key))
        self._device.connect(rsa_keys=[signer], auth_timeout_s=TIMEOUT_S)

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device."""
        self._device.push(str(local), remote, read_timeout_s=TIMEOUT_S)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device."""
        self._device.pull(remote, str(local), read_timeout_s=TIMEOUT_S)

    def close(self) -> None:
        """Disconnect."""
        self._device.close()


def make_key(folder: Path) -> Path:
    """A fresh private key at ``<folder>/.android/adbkey``, its public half beside it."""
    key = folder / ".android" / "adbkey"
    key.parent.mkdir(mode=0o700)
    keygen(str(key))
    key.chmod(0o600)
    return key


def connect(serial: str, key: Path) -> tuple[list[Client], dict[str, str]]:
    """Every client that works here, and for each other one why it does not."""
    clients: list[Client] = []
    absent: dict[str, str] = {}
    if program := shutil.which("adb"):
        clients.append(GoogleAdb(program, serial, key))
    else:
        absent["adb"] = "Google's adb is not installed"
    try:
        clients.append(AdbShell(serial, key))
    except BaseException:
        for client in clients:
            client.close()
        raise
    return clients, absent
