"""What every transport can do. A device is reached through these calls and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deploy.types import DeviceInfo, DeviceProfile


@dataclass(frozen=True)
class ShellResult:
    """What a command on the device did; ``stderr`` is empty where the transport merges it."""

    exit_code: int
    stdout: str
    stderr: str = ""


class Device(Protocol):
    """A connected device. Calls raise ``DeviceError`` when the device cannot be reached.

    ``argv`` is a list of words, quoted by the transport: data never becomes shell syntax.
    """

    @property
    def serial(self) -> str:
        """``127.0.0.1:PORT``, a USB serial, or ``host``."""

    @property
    def profile(self) -> DeviceProfile:
        """What is declared about this device."""

    def info(self) -> DeviceInfo:
        """Ask the device what it is (observed, not declared)."""

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """Run a command to its end. ``timeout_s`` None: the profile's ``shell_timeout_s``.

        A non-zero exit code is a result; only a lost or late device is a ``DeviceError``.
        """

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy one file to ``remote`` (absolute; its folder exists)."""

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy one file from the device, whole or not at all; refuse more than ``max_bytes``."""

    def close(self) -> None:
        """Let go of the connection; calling it twice is allowed."""
