"""Phones over the ADB protocol, through adb-shell: no ``adb`` program and no ADB server is needed.

adb-shell speaks the legacy shell service, which has no exit codes and merges stderr into stdout.
The exit code is therefore printed behind a random token after the command; stderr stays merged, so
``ShellResult.stderr`` is always empty here.
"""

from __future__ import annotations

import io
import re
import secrets
import shlex
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from adb_shell import exceptions
from adb_shell.adb_device import AdbDevice as Connection
from adb_shell.auth.sign_pythonrsa import PythonRSASigner

from deploy.android_text import printable
from deploy.devices import profiles
from deploy.devices.adb_info import MATCHED_PROPERTIES, read_info, read_properties
from deploy.devices.adb_transport import LimitedTransport, TcpTransport, TooMuchData
from deploy.devices.base import ShellResult
from deploy.errors import DeviceError
from deploy.files import replacing
from deploy.types import DeviceInfo, DeviceProfile, Progress, silent

MAX_OUTPUT_BYTES = 16 << 20
SLOWEST_BYTES_S = 500_000
"""Transfers get the profile's shell time-out and one second more for each of these bytes."""

CONNECT_TIMEOUT_S = 20.0
AUTH_TIMEOUT_S = 20.0
_HANDSHAKE_BYTES = 1 << 16

Result = TypeVar("Result")


def default_key() -> Path:
    """The user's own ADB key, as Google's adb keeps it; it need not exist."""
    return Path.home() / ".android" / "adbkey"


def parse_serial(serial: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; anything else is a ``DeviceError``."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", serial)
    if found is None or not 0 < int(found.group(2)) < 65536:
        raise DeviceError(
            f"{printable(serial, 80)!r} is not HOST:PORT",
            where="device serial",
            hint="Give the address that ADB listens on, such as 127.0.0.1:5555; "
            "`adb tcpip 5555` opens one on a phone.",
        )
    return found.group(1).strip("[]"), int(found.group(2))


def load_signers(keys: Sequence[Path] | None) -> list[Any]:
    """Signers of ``keys``, or of the user's own key where there is one.

    Raises ``DeviceError`` for a key that was named and cannot be read.
    """
    named = keys is not None
    signers = []
    for path in keys if keys is not None else [default_key()]:
        if not named and not path.is_file():
            continue
        try:
            signers.append(PythonRSASigner.FromRSAKeyPath(str(path)))
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


def connect(
    serial: str,
    profile: DeviceProfile | None = None,
    *,
    keys: Sequence[Path] | None = None,
    auth_timeout_s: float = AUTH_TIMEOUT_S,
    progress: Progress = silent,
) -> AdbDevice:
    """Connect to ``HOST:PORT``; without a profile the phone's own properties choose it.

    Args:
        serial: where the ADB daemon listens.
        profile: what is declared about the device; None: found by its properties.
        keys: private keys to sign with (``FILE`` and ``FILE.pub``); None: the user's own.
        auth_timeout_s: how long a person has to accept the key on the phone.
        progress: told when the phone asks for that.
    """
    transport = TcpTransport(*parse_serial(serial))
    signers = load_signers(keys)
    chosen = profile or profiles.load("generic-arm64")
    device = AdbDevice(
        serial,
        chosen,
        transport,
        signers,
        auth_timeout_s=auth_timeout_s,
        progress=progress,
    )
    try:
        properties, reason = read_properties(device)
        if profile is None:
            found = profiles.match(properties)
            if found is None:
                seen = ", ".join(f"{k}={properties.get(k, '')!r}" for k in MATCHED_PROPERTIES[:4])
                raise DeviceError(
                    f"no device profile fits ({printable(reason or seen)})",
                    where=serial,
                    hint="Name a profile, or write one: docs/devices.md.",
                )
            device.profile = found
    except BaseException:
        device.close()
        raise
    return device


class AdbDevice:
    """A phone behind an ADB daemon.

    After any failure the connection is dropped, since nobody knows what is still under way on it;
    the next call makes a new one. Calls that can be repeated without harm are repeated once.
    """

    def __init__(
        self,
        serial: str,
        profile: DeviceProfile,
        transport: LimitedTransport,
        signers: Sequence[Any],
        *,
        auth_timeout_s: float = AUTH_TIMEOUT_S,
        progress: Progress = silent,
    ) -> None:
        self._serial = serial
        self.profile = profile
        self._transport = transport
        self._signers = list(signers)
        self._auth_timeout_s = auth_timeout_s
        self._progress = progress
        self._connection: Any = None

    @property
    def serial(self) -> str:
        """``HOST:PORT``, or what the transport calls the device."""
        return self._serial

    def info(self) -> DeviceInfo:
        """Ask the phone what it is; what it does not say is None with a reason."""
        return read_info(self)

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """Run a command to its end; stderr comes merged into ``stdout``."""
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
        seconds = self.profile.shell_timeout_s + size / SLOWEST_BYTES_S
        self._call(
            f"push to {remote}",
            lambda c: c.push(
                str(local), remote, st_mode=stat.S_IFREG | mode, read_timeout_s=seconds
            ),
            seconds=seconds,
            read_bytes=_HANDSHAKE_BYTES + size // 16,
            repeatable=True,
        )

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """Copy one file from the phone; receiving stops at ``max_bytes``."""
        self._remote_path(remote)
        seconds = self.profile.shell_timeout_s + max_bytes / SLOWEST_BYTES_S

        def receive(connection: Any) -> None:
            with replacing(local) as temporary, temporary.open("wb") as stream:
                connection.pull(remote, _Bounded(stream, max_bytes), read_timeout_s=seconds)

        self._call(
            f"pull of {remote}",
            receive,
            seconds=seconds,
            # Packet headers come on top of the content.
            read_bytes=2 * max_bytes + (1 << 20),
            repeatable=True,
        )

    def close(self) -> None:
        """Let go of the connection; calling it twice is allowed."""
        self._connection = None
        self._transport.close()

    def interrupt(self) -> None:
        """From another thread: end the call that is under way; it raises ``DeviceError``."""
        if isinstance(self._transport, TcpTransport):
            self._transport.interrupt()

    def _shell(
        self, argv: Sequence[str], timeout_s: float | None, cwd: str | None, *, repeatable: bool
    ) -> ShellResult:
        seconds = self.profile.shell_timeout_s if timeout_s is None else timeout_s
        token = secrets.token_hex(12)
        command = self._quote(argv, cwd)
        answer: bytes = self._call(
            printable(argv[0], 60),
            lambda c: c.shell(
                f"( {command}\n) </dev/null 2>&1; echo {token}$?",
                read_timeout_s=seconds,
                decode=False,
            ),
            seconds=seconds,
            read_bytes=MAX_OUTPUT_BYTES,
            repeatable=repeatable,
        )
        # A killed command can leave half a line: the token is the last one, wherever it stands.
        output, found, code = answer.rpartition(token.encode())
        if not found or re.fullmatch(rb"[0-9]{1,3}\s*", code) is None:
            raise DeviceError(
                f"the shell ended before {printable(argv[0], 60)} did",
                where=self.serial,
                hint="Is the phone out of memory, or was ADB restarted on it?",
            )
        return ShellResult(int(code), output.decode("utf-8", errors="replace"))

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
        action: Callable[[Any], Result],
        *,
        seconds: float,
        read_bytes: int,
        repeatable: bool,
    ) -> Result:
        """Do ``action`` on a live connection, and explain whatever goes wrong in one line."""
        for last in (False, True) if repeatable else (True,):
            connection = self._connect()
            self._transport.allow(seconds=seconds, read_bytes=read_bytes)
            try:
                return action(connection)
            except (KeyboardInterrupt, SystemExit, DeviceError):
                self.close()
                raise
            except Exception as error:
                self.close()
                if last or not isinstance(error, ConnectionError):
                    raise self._explained(what, error, seconds) from error
        raise AssertionError("unreachable")

    def _connect(self) -> Any:
        if self._connection is not None and self._transport.alive():
            return self._connection
        self.close()
        connection = Connection(self._transport, banner=b"pocketship")
        asked = False

        def ask_person(_: Any) -> None:
            nonlocal asked
            asked = True
            self._progress(f"{self.serial}: accept this computer's ADB key on the phone")
            self._transport.allow(seconds=self._auth_timeout_s, read_bytes=_HANDSHAKE_BYTES)

        self._transport.allow(seconds=CONNECT_TIMEOUT_S, read_bytes=_HANDSHAKE_BYTES)
        try:
            connection.connect(
                rsa_keys=self._signers,
                read_timeout_s=CONNECT_TIMEOUT_S,
                auth_timeout_s=self._auth_timeout_s,
                auth_callback=ask_person,
            )
        except (KeyboardInterrupt, SystemExit):
            self.close()
            raise
        except Exception as error:
            self.close()
            if asked or isinstance(error, exceptions.DeviceAuthError):
                raise self._unauthorised() from error
            raise self._unreachable(error) from error
        self._connection = connection
        return connection

    def _unauthorised(self) -> DeviceError:
        if not self._signers:
            return DeviceError(
                f"the device wants an ADB key and there is none at {default_key()}",
                where=self.serial,
                hint="`adb keygen ~/.android/adbkey` makes one; or name a key that it knows.",
            )
        return DeviceError(
            "the device did not accept this computer's ADB key",
            where=self.serial,
            hint="Accept the key on the phone's screen, or authorise it when the phone is started.",
        )

    def _unreachable(self, error: Exception) -> DeviceError:
        if isinstance(error, ConnectionRefusedError):
            return DeviceError(
                "connection refused: nothing listens there",
                where=self.serial,
                hint="Start the emulated phone, or `adb tcpip 5555` and check the address.",
            )
        if isinstance(error, ConnectionError):
            return DeviceError(
                "what listens there closed the connection",
                where=self.serial,
                hint="Is it an ADB daemon, and has the phone finished starting?",
            )
        if isinstance(error, TimeoutError):
            return DeviceError(
                f"no answer within {CONNECT_TIMEOUT_S:g} s",
                where=self.serial,
                hint="Is the phone on, in the same network, and is ADB enabled on it?",
            )
        if isinstance(error, OSError):
            return DeviceError(
                f"cannot connect: {printable(error.strerror or str(error))}",
                where=self.serial,
                hint="Check the address and that ADB is enabled on the phone.",
            )
        return DeviceError(
            f"what answers there does not speak ADB: {printable(str(error) or repr(error), 100)}",
            where=self.serial,
            hint="Check the port.",
        )

    def _explained(self, what: str, error: Exception, seconds: float) -> DeviceError:
        what = printable(what)
        if isinstance(error, TimeoutError | exceptions.AdbTimeoutError):
            text = f"{what}: no end within {seconds:g} s"
            hint = "Raise the profile's time-outs, or check the phone."
        elif isinstance(error, TooMuchData):
            text = f"{what}: the device sent more than is allowed"
            hint = "This is not the content that was asked for; check the phone."
        elif isinstance(error, ConnectionError):
            text = f"{what}: the connection to the device was cut"
            hint = "Check cable, network and whether the phone restarted."
        elif isinstance(error, exceptions.PushFailedError | exceptions.AdbCommandFailureException):
            text = f"{what}: the device refused: {printable(_device_words(error), 160)}"
            hint = "Check the free space and the rights of the folder on the device."
        elif isinstance(error, OSError):
            text = f"{what}: {printable(error.strerror or str(error))}"
            hint = "Check the file and the free space on this computer."
        else:
            # adb-shell passes on whatever a malformed answer makes it stumble over.
            text = f"{what}: an answer that is not ADB: {printable(repr(error), 100)}"
            hint = "Check the phone and the address."
        return DeviceError(text, where=self.serial, hint=hint)


class _Bounded(io.BytesIO):
    """Hands what is written on to a file, up to a limit (adb-shell opens paths itself)."""

    def __init__(self, target: io.BufferedWriter, limit: int) -> None:
        super().__init__()
        self._target = target
        self._left = limit

    def write(self, data: Any) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise TooMuchData
        return self._target.write(data)


def _device_words(error: Exception) -> str:
    words = error.args[0] if error.args else ""
    return (
        words.decode("utf-8", errors="replace")
        if isinstance(words, bytes | bytearray)
        else str(words)
    )
