"""One pocketship at a time on a device: a lock that dies with its process, also by ``kill -9``.

A lock is a file in the cache that is held with ``flock``; its name is a hash, because serials come
from users and devices. What it holds is for people only: the lock itself is the kernel's.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from deploy.android_text import printable
from deploy.devices.adb_link import NotReady
from deploy.errors import DeviceError
from deploy.paths import cache_dir
from deploy.types import Progress, silent

_POLL_S = 0.1
_GRACE_S = 0.3
"""A look at a lock holds it for an instant: nobody fails because of that."""
_MAX_NOTE_BYTES = 1 << 12


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, in its own words; fields are empty while it is writing them."""

    pid: int = 0
    command: str = ""
    started_utc: str = ""

    def __str__(self) -> str:
        if not self.pid:
            return "another pocketship"
        return f"process {self.pid} ({self.command}) since {self.started_utc}"


@contextlib.contextmanager
def held(
    name: str, *, wait_s: float = 0.0, serial: str = "", progress: Progress = silent
) -> Iterator[None]:
    """Hold the lock of the device ``name`` (an address, or what the device calls itself).

    Args:
        name: what is locked.
        wait_s: how long to wait for another holder, in seconds.
        serial: how the user calls the device.
        progress: told who is waited for.

    Raises:
        NotReady: someone else holds it still, and who; state ``busy``.
        DeviceError: the cache cannot be written.
    """
    path = _path(name)
    where = serial or name
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        stream = _acquired(path, wait_s, where, progress)
    except OSError as error:
        raise DeviceError(
            f"the device cannot be locked: {error.strerror} ({path})",
            where=where,
            hint="Check the cache folder, or set POCKETSHIP_CACHE.",
        ) from error
    with stream:
        try:
            yield
        finally:
            # While it is held: whoever opened it before finds that it is no longer the lock.
            with contextlib.suppress(OSError):
                path.unlink()


def holder(name: str) -> Holder | None:
    """Who holds the lock of ``name`` now, None where nobody does."""
    try:
        with _path(name).open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _read(stream)
    except OSError:
        return None
    return None


def _acquired(path: Path, wait_s: float, where: str, progress: Progress) -> IO[bytes]:
    started = time.monotonic()
    told = False
    while True:
        stream = path.open("a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(stream, path):
                _sign(stream)
                return stream
            stream.close()
            continue
        except BlockingIOError:
            found = _read(stream)
            stream.close()
        except BaseException:
            stream.close()
            raise
        waited = time.monotonic() - started
        if waited >= max(wait_s, _GRACE_S):
            raise NotReady(
                f"in use by {found}" + (f"; waited {wait_s:g} s" if wait_s else ""),
                state="busy",
                where=where,
                hint="Wait for it to end, or give --wait SECONDS.",
            )
        if wait_s and not told and waited >= _GRACE_S:
            progress(f"{where}: waiting up to {wait_s:g} s for {found}")
            told = True
        time.sleep(_POLL_S)


def _is_still(stream: IO[bytes], path: Path) -> bool:
    """False where the holder before us has removed the file that we opened."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _sign(stream: IO[bytes]) -> None:
    us = Holder(
        pid=os.getpid(),
        command=printable(shlex.join(["pocketship", *sys.argv[1:]]), 200),
        started_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    stream.truncate(0)
    stream.write(json.dumps(asdict(us)).encode())
    stream.flush()


def _read(stream: IO[bytes]) -> Holder:
    try:
        stream.seek(0)
        told = json.loads(stream.read(_MAX_NOTE_BYTES))
        return Holder(
            int(told["pid"]), printable(str(told["command"])), printable(str(told["started_utc"]))
        )
    except (OSError, ValueError, TypeError, KeyError):
        return Holder()


def _path(name: str) -> Path:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return cache_dir() / "locks" / f"{digest[:32]}.lock"
