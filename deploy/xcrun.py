"""Apple's command-line tools, which all start through ``xcrun``, run within bounds."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from deploy.errors import DeviceError

MAX_OUTPUT_BYTES = 16 << 20
"""More than any list of simulators has; a tool that prints more is not believed."""


@dataclass(frozen=True)
class Done:
    """How a tool ended. A tool that a signal ended has 128 + its number, as in a shell."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """The last line of what it said; its exit code where it said nothing."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {self.exit_code}"


def available() -> bool:
    """Whether there is an ``xcrun`` on PATH."""
    return shutil.which("xcrun") is not None


def run(words: Sequence[str], *, timeout_s: float) -> Done:
    """Run ``xcrun WORDS`` without a shell; its whole process group dies with a time-out.

    Raises ``DeviceError`` where there is no xcrun, it cannot be started, it takes longer than
    ``timeout_s`` seconds or prints more than :data:`MAX_OUTPUT_BYTES`.
    """
    program = shutil.which("xcrun")
    if program is None:
        raise DeviceError(
            "xcrun is missing: the iOS simulator needs a Mac with Xcode",
            where="ios-simulator",
            hint="Install Xcode and an iOS runtime, or mark the device 'optional: true'.",
        )
    what = "xcrun " + " ".join(words[:2])
    if any("\0" in word for word in words):
        raise DeviceError("an argument with a NUL character", where=what)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                [program, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"cannot be started: {error.strerror}", where=what) from error
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"did not end within {timeout_s:g} s",
                where=what,
                hint="Restart the simulator service (killall -9 com.apple.CoreSimulator."
                "CoreSimulatorService), or raise the profile's time-outs.",
            ) from None
        finally:
            # Whatever ended the wait, also Ctrl-C: nothing of the group stays behind.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        code = process.returncode
        return Done(code if code >= 0 else 128 - code, _text(out, what), _text(err, what))


def _text(stream: IO[bytes], what: str) -> str:
    if stream.seek(0, os.SEEK_END) > MAX_OUTPUT_BYTES:
        raise DeviceError(f"printed more than {MAX_OUTPUT_BYTES} bytes", where=what)
    stream.seek(0)
    return stream.read().decode("utf-8", errors="replace")
