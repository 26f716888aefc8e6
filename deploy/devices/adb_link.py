"""What carries ADB's services to a device: the calls that every way of reaching it has.

A link knows nothing of profiles, retries or wording; :class:`deploy.devices.adb_device.AdbDevice`
does. Every call has an :class:`Allowance`, because sizes and the pace come from the device.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from deploy.errors import DeviceError


class TooMuchData(Exception):
    """The device sent more than the call allows."""


class Refused(Exception):
    """The device answered that it does not do this; the text is its own, untrusted."""


class ShellCut(Exception):
    """A shell ended before the command did, so that there is no exit code."""


class NotReady(DeviceError):
    """A device that is there, or should be, and cannot be used now.

    ``state`` is one of :data:`deploy.devices.discovery.STATES`: what ``pocketship devices`` shows.
    """

    def __init__(self, what: str, *, state: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.state = state


class Allowance:
    """The wall seconds and the received bytes that one call may take."""

    def __init__(self, seconds: float, read_bytes: int) -> None:
        self.seconds = seconds
        self.read_bytes = read_bytes
        self._deadline = time.monotonic() + seconds
        self._readable = read_bytes

    def left(self) -> float:
        """Seconds that are left; raises ``TimeoutError`` where there are none."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def take(self, received: int) -> None:
        """Count ``received`` bytes; raises :class:`TooMuchData` where that is more than allowed."""
        self._readable -= received
        if self._readable < 0:
            raise TooMuchData


@dataclass(frozen=True)
class Answer:
    """What a command left; ``stderr`` is empty where the link merges it into ``stdout``."""

    exit_code: int
    stdout: bytes
    stderr: bytes = b""


class Link(Protocol):
    """One way to a device's ADB daemon.

    Calls raise whatever their library raises, besides the exceptions of this module;
    :func:`deploy.devices.adb_errors.explained` makes one line of it.
    """

    @property
    def kind(self) -> str:
        """``tcp``, ``usb`` or ``adb-server``."""

    def connect(self) -> None:
        """Have a live connection; does nothing where there is one. Raises ``DeviceError``."""

    def shell(self, command: str, allowance: Allowance) -> Answer:
        """Run one command line of the device's shell, without input, to its end."""

    def push(self, local: Path, remote: str, mode: int, allowance: Allowance) -> None:
        """Copy a file to the device."""

    def pull(self, remote: str, into: IO[bytes], max_bytes: int, allowance: Allowance) -> None:
        """Copy a file's content from the device; :class:`TooMuchData` beyond ``max_bytes``."""

    def interrupt(self) -> None:
        """From another thread: end the call that is under way, where that is possible."""

    def close(self) -> None:
        """Drop the connection; calling it twice is allowed."""


def marked(command: str) -> tuple[str, str]:
    """``command`` for the legacy shell service, and the token behind which the exit code comes.

    That service has no exit codes and merges stderr into stdout.
    """
    token = secrets.token_hex(12)
    return f"( {command}\n) </dev/null 2>&1; echo {token}$?", token


def unmarked(output: bytes, token: str) -> Answer:
    """Output and exit code of a :func:`marked` command; :class:`ShellCut` where it has none."""
    # A killed command can leave half a line: the token is the last one, wherever it stands.
    text, found, code = output.rpartition(token.encode())
    if not found or re.fullmatch(rb"[0-9]{1,3}\s*", code) is None:
        raise ShellCut
    return Answer(int(code), text)
