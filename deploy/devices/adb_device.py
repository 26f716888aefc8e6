"""A phone behind ADB, whatever link carries it: the calls, their limits, and what is repeated."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from deploy.android_text import printable
from deploy.devices.adb_errors import explained
from deploy.devices.adb_info import read_info
from deploy.devices.adb_link import Allowance, Answer, Link
from deploy.devices.base import ShellResult
from deploy.errors import DeviceError
from deploy.files import replacing
from deploy.types import DeviceInfo, DeviceProfile

MAX_OUTPUT_BYTES = 16 << 20
SLOWEST_BYTES_S = 500_000
"""Transfers get the profile's shell time-out and one second more for each of these bytes."""

_ANSWER_BYTES = 1 << 16

Result = TypeVar("Result")


class AdbDevice:
    """A phone behind an ADB daemon.

    After any failure the connection is dropped, since nobody knows what is still under way on it;
    the next call makes a new one. Calls that can be repeated without harm are repeated once.
    """

    def __init__(self, serial: str, profile: DeviceProfile, link: Link) -> None:
        self._serial = serial
        self.profile = profile
        self.identity = serial
        """The same whatever transport reaches the device, once it was asked: its lock's name."""
        self._link = link

    @property
    def serial(self) -> str:
        """``HOST:PORT``, a USB serial, or what the ADB server calls the device."""
        return self._serial

    @property
    def transport(self) -> str:
        """``tcp``, ``usb`` or ``adb-server``."""
        return self._link.kind

    def info(self) -> DeviceInfo:
        """Ask the phone what it is; what it does not say is None with a reason."""
        return read_info(self)

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """Run a command to its end; over TCP and USB stderr comes merged into ``stdout``."""
        return self._shell(argv, timeout_s, cwd, repeatable=False)

    def ask(self, argv: Sequence[str]) -> ShellResult:
        """:meth:`shell` for a command that only reads: repeated once if the connection breaks."""
        return self._shell(argv, None, None, repeatable=True)

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy one file to ``remote``. Whether it arrived whole, a hash on the device says."""
        try:
            size = local.stat().st_size
        except OSError as error:
            raise DeviceError(f"cannot read {local}: {error.strerror}", where=self.serial) from None
        if not local.is_file():
            raise DeviceError(f"{local} is not a file", where=self.serial)
        self._remote_path(remote)
        self._call(
            f"push to {remote}",
            lambda allowance: self._link.push(local, remote, mode, allowance),
            seconds=self.profile.shell_timeout_s + size / SLOWEST_BYTES_S,
            read_bytes=_ANSWER_BYTES + size // 16,
            repeatable=True,
        )

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy one file from the phone; receiving stops at ``max_bytes``."""
        self._remote_path(remote)

        def receive(allowance: Allowance) -> None:
            with replacing(local) as temporary, temporary.open("wb") as stream:
                self._link.pull(remote, stream, max_bytes, allowance)

        self._call(
            f"pull of {remote}",
            receive,
            seconds=self.profile.shell_timeout_s + max_bytes / SLOWEST_BYTES_S,
            # Packet headers come on top of the content.
            read_bytes=2 * max_bytes + (1 << 20),
            repeatable=True,
        )

    def close(self) -> None:
        """Let go of the connection; calling it twice is allowed."""
        self._link.close()

    def interrupt(self) -> None:
        """From another thread: end the call that is under way; it raises ``DeviceError``."""
        self._link.interrupt()

    def _shell(
        self, argv: Sequence[str], timeout_s: float | None, cwd: str | None, *, repeatable: bool
    ) -> ShellResult:
        command = self._quote(argv, cwd)

        def run(allowance: Allowance) -> Answer:
            return self._link.shell(command, allowance)

        answer = self._call(
            printable(argv[0], 60),
            run,
            seconds=self.profile.shell_timeout_s if timeout_s is None else timeout_s,
            read_bytes=MAX_OUTPUT_BYTES,
            repeatable=repeatable,
        )
        out, err = (text.decode("utf-8", "replace") for text in (answer.stdout, answer.stderr))
        return ShellResult(answer.exit_code, out, err)

    def _quote(self, argv: Sequence[str], cwd: str | None) -> str:
        words = [*argv, *([cwd] if cwd is not None else [])]
        if not argv or any("\0" in word for word in words):
            raise DeviceError("an empty command or one with a NUL character", where=self.serial)
        command = shlex.join(argv)
        return command if cwd is None else f"cd -- {shlex.quote(cwd)} && {command}"

    def _remote_path(self, remote: str) -> None:
        if not remote.startswith("/") or "\0" in remote:
            raise DeviceError(
                f"{printable(remote)!r} is not an absolute path on the device", where=self.serial
            )

    def _call(
        self,
        what: str,
        action: Callable[[Allowance], Result],
        *,
        seconds: float,
        read_bytes: int,
        repeatable: bool,
    ) -> Result:
        """Do ``action`` on a live connection, and explain whatever goes wrong in one line."""
        for last in (False, True) if repeatable else (True,):
            self._link.connect()
            try:
                return action(Allowance(seconds, read_bytes))
            except (KeyboardInterrupt, SystemExit, DeviceError):
                self.close()
                raise
            except Exception as error:
                self.close()
                if last or not isinstance(error, ConnectionError):
                    raise explained(what, error, seconds, self.serial) from error
        raise AssertionError("unreachable")


_PLACEHOLDERS = {"", "unknown", "0", "0123456789ABCDEF", "1234567890ABCDEF", "0000000000000000"}


def identity_of(properties: Mapping[str, str], boot_id: str, emulated: bool) -> str | None:
    """A name that is the same whatever transport reaches a device, for its lock; None: it has none.

    The serial number that the phone itself states; where that is a maker's placeholder, or an
    emulator's, which are all alike, ``boot_id``: the kernel's random number of this boot.
    """
    for name in ("ro.serialno", "ro.boot.serialno"):
        number = printable(properties.get(name, ""), 128)
        if number.upper() not in _PLACEHOLDERS and not (emulated and number[:8] == "EMULATOR"):
            return number
    text = boot_id.strip().lower()
    return text if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) else None


def identity(device: AdbDevice, properties: Mapping[str, str], *, emulated: bool) -> str:
    """:func:`identity_of` a connected device; its address where it says nothing better."""
    named = identity_of(properties, "", emulated)
    if named is None:
        boot = device.ask(["cat", "/proc/sys/kernel/random/boot_id"])
        named = identity_of(properties, boot.stdout if boot.exit_code == 0 else "", emulated)
    return named or device.serial
