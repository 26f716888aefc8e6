"""A device's ADB daemon without an ADB server, through adb-shell: over TCP or USB.

adb-shell speaks the legacy shell service, which has no exit codes and merges stderr into stdout:
:func:`deploy.devices.adb_link.marked` gets the code, stderr stays merged.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from adb_shell import exceptions
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from deploy.android_text import printable
from deploy.devices import adb_errors
from deploy.devices.adb_link import Allowance, Answer, TooMuchData, marked, unmarked
from deploy.devices.adb_packets import FastConnection
from deploy.devices.adb_transport import LimitedTransport
from deploy.errors import DeviceError
from deploy.types import Progress, silent

CONNECT_TIMEOUT_S = 20.0
AUTH_TIMEOUT_S = 20.0
_HANDSHAKE_BYTES = 1 << 16


def default_key() -> Path:
    """The user's own ADB key, as Google's adb keeps it; it need not exist."""
    return Path.home() / ".android" / "adbkey"


def load_signers(keys: Sequence[Path] | None, progress: Progress = silent) -> list[Any]:
    """Signers of ``keys``, or of the user's own key where there is one.

    ``progress`` is told of a private key that others may read: it lets them into the phone. Raises
    ``DeviceError`` for a key that was named and cannot be read.
    """
    named = keys is not None
    signers = []
    for path in keys if keys is not None else [default_key()]:
        if not named and not path.is_file():
            continue
        try:
            signers.append(PythonRSASigner.FromRSAKeyPath(str(path)))
            if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                progress(f"others may use the ADB key {path}: chmod 600 {path}")
        except FileNotFoundError as error:
            raise DeviceError(
                f"the ADB key {error.filename} does not exist",
                where=str(path),
                hint="Both halves are needed; `adb keygen FILE` makes them.",
            ) from None
        except Exception as error:
            # The libraries below raise whatever their decoders raise.
            raise DeviceError(
                f"not an ADB key: {printable(str(error), 80)}",
                where=str(path),
                hint="`adb keygen FILE` makes one.",
            ) from None
    return signers


class DirectLink:
    """A :class:`deploy.devices.adb_link.Link` that speaks the ADB protocol itself."""

    def __init__(
        self,
        serial: str,
        kind: str,
        transport: LimitedTransport,
        signers: Sequence[Any],
        *,
        auth_timeout_s: float = AUTH_TIMEOUT_S,
        connect_timeout_s: float | None = None,
        progress: Progress = silent,
    ) -> None:
        self._serial = serial
        self._kind = kind
        self._transport = transport
        self._signers = list(signers)
        self._auth_timeout_s = auth_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._progress = progress
        self._connection: Any = None

    @property
    def kind(self) -> str:
        """``tcp`` or ``usb``."""
        return self._kind

    def connect(self) -> None:
        """Have a live connection; raises ``DeviceError`` with what to do about it."""
        if self._connection is not None and self._transport.alive():
            return
        self.close()
        connection = FastConnection(self._transport, banner=b"pocketship")
        asked = False

        def ask_person(_: Any) -> None:
            nonlocal asked
            asked = True
            self._progress(f"{self._serial}: accept this computer's ADB key on the phone")
            self._transport.allow(Allowance(self._auth_timeout_s, _HANDSHAKE_BYTES))

        seconds = self._connect_timeout_s or CONNECT_TIMEOUT_S
        self._transport.allow(Allowance(seconds, _HANDSHAKE_BYTES))
        try:
            connection.connect(
                rsa_keys=self._signers,
                read_timeout_s=seconds,
                auth_timeout_s=self._auth_timeout_s,
                auth_callback=ask_person,
            )
        except (KeyboardInterrupt, SystemExit, DeviceError):
            self.close()
            raise
        except Exception as error:
            self.close()
            if asked or isinstance(error, exceptions.DeviceAuthError):
                missing = "" if self._signers else str(default_key())
                raise adb_errors.unauthorised(self._serial, without_key_at=missing) from error
            raise adb_errors.unreachable(error, seconds, self._serial) from error
        self._connection = connection

    def shell(self, command: str, allowance: Allowance) -> Answer:
        """Run one command line; stderr comes merged into stdout."""
        line, token = marked(command)
        self._transport.allow(allowance)
        output: bytes = self._connection.shell(line, read_timeout_s=allowance.seconds, decode=False)
        return unmarked(output, token)

    def push(self, local: Path, remote: str, mode: int, allowance: Allowance) -> None:
        """Copy a file to the device."""
        self._transport.allow(allowance)
        self._connection.push(
            str(local), remote, st_mode=stat.S_IFREG | mode, read_timeout_s=allowance.seconds
        )

    def pull(self, remote: str, into: IO[bytes], max_bytes: int, allowance: Allowance) -> None:
        """Copy a file's content from the device."""
        self._transport.allow(allowance)
        self._connection.pull(remote, _Bounded(into, max_bytes), read_timeout_s=allowance.seconds)

    def interrupt(self) -> None:
        """From another thread: end the call that is under way, where the transport can."""
        self._transport.interrupt()

    def close(self) -> None:
        """Drop the connection; calling it twice is allowed."""
        self._connection = None
        self._transport.close()


class _Bounded(io.BytesIO):
    """Hands what is written on to a file, up to a limit (adb-shell opens paths itself)."""

    def __init__(self, target: IO[bytes], limit: int) -> None:
        super().__init__()
        self._target = target
        self._left = limit

    def write(self, data: Any) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise TooMuchData
        return self._target.write(data)
