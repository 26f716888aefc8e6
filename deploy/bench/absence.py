"""Devices that are not there: told from those where waiting changes nothing, and waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from adb_shell import exceptions

from deploy.bench.faults import Fault, FaultError
from deploy.bench.waiting import Clock
from deploy.devices.adb_link import NotReady, ShellCut
from deploy.errors import DeviceError
from deploy.types import DeviceInfo, DeviceRun, Progress, Status

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
TELL_EVERY_S = 60.0

_BROKEN = (ConnectionError, TimeoutError, exceptions.AdbTimeoutError, ShellCut)

Result = TypeVar("Result")


class Absent(DeviceError):
    """A device that does not answer now and may do so a little later."""


class Lost(Absent):
    """A device that was there and went away; what became of its cases is kept already.

    ``info`` is what it answered while it was there.
    """

    def __init__(self, what: str, info: DeviceInfo | None = None) -> None:
        super().__init__(what)
        self.info = info


def absent(error: DeviceError) -> Absent | None:
    """``error`` as :class:`Absent` where it was met on the way to a device and may pass by itself.

    That is: no connection, or one that broke or timed out. A key that is not accepted, a device
    that is in use or a profile that does not fit will be so in a minute too.
    """
    if isinstance(error, NotReady):
        passes = error.state == "offline"
    else:
        passes = isinstance(error.__cause__, _BROKEN)
    return Absent(error.what, where=error.where, hint=error.hint) if passes else None


@contextlib.contextmanager
def noticed() -> Iterator[None]:
    """Raise a ``DeviceError`` of the block as :class:`Absent` where :func:`absent` says so."""
    try:
        yield
    except DeviceError as error:
        if (missed := absent(error)) is None:
            raise
        raise missed from error


def check_lost(run: DeviceRun) -> None:
    """Raise :class:`Lost` where a device with cases left did not come back within its bound."""
    if run.status is Status.INVALID and run.reason.startswith(f"{Fault.LOST.value}:"):
        raise Lost(run.reason, run.info)


def refuse_other(before: DeviceInfo, now: DeviceInfo, serial: str) -> None:
    """Raise ``FaultError`` where another device, or another build, answers than before.

    An address can pass to another phone, and figures of two phones must not stand side by side.
    """
    if (before.model, before.abi, before.os_build) != (now.model, now.abi, now.os_build):
        raise FaultError(
            Fault.REPLACED,
            f"{now.model} with build {now.os_build} answers in place of "
            f"{before.model} with build {before.os_build}",
            where=serial,
        )


class Once:
    """A progress that tells each line once while ``repeating`` holds: attempts are alike."""

    def __init__(self, progress: Progress) -> None:
        self.repeating = True
        self._progress = progress
        self._told: set[str] = set()

    def __call__(self, line: str) -> None:
        """Tell ``line``, unless it was told by an earlier attempt."""
        if not self.repeating or line not in self._told:
            self._told.add(line)
            self._progress(line)


class Wait:
    """One device's waiting: bounded, with growing pauses, and told about now and then."""

    def __init__(
        self,
        name: str,
        wait_s: float,
        progress: Progress,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._wait_s = wait_s
        self._progress = progress
        self._now = now
        self._since: float | None = None
        self._told = 0.0
        self._failures = 0

    @property
    def passed_s(self) -> float:
        """Seconds since the device was missed first; 0 while it was not."""
        return 0.0 if self._since is None else self._now() - self._since

    @property
    def over(self) -> bool:
        """Whether it was waited for as long as was asked."""
        return self.passed_s >= self._wait_s

    def failed(self, error: Absent, bound: str = "") -> None:
        """Note that the device did not answer once more; ``bound`` says how long it may stay so."""
        self._failures += 1
        if self._since is None:
            self._since = self._told = self._now()
            how_long = bound or f"for {self._wait_s:g} s"
            self._progress(f"{self._name}: {error.what}; waiting for it {how_long}")
        elif self._now() - self._told >= TELL_EVERY_S:
            self._told = self._now()
            self._progress(f"{self._name}: not there yet, after {self.passed_s:.0f} s")

    def came(self) -> None:
        """Say that it is there; nothing where it was never missed."""
        if self._since is not None:
            self._progress(f"{self._name}: is there, after {self.passed_s:.0f} s")

    def pause_s(self) -> float:
        """How long to leave it alone before the next attempt."""
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10))
        left = self._wait_s - self.passed_s
        return min(pause, left) if left > 0 else pause

    def given_up(self, error: Absent) -> Absent:
        """``error``, with how long it was waited for."""
        if not self._wait_s or isinstance(error, Lost):
            return error
        waited = f"{error.what}; waited {self.passed_s:.0f} s"
        return Absent(waited, where=error.where, hint=error.hint)


def until_there(
    attempt: Callable[[], Result],
    name: str,
    wait_s: float,
    progress: Progress,
    clock: Clock | None = None,
) -> Result:
    """The result of ``attempt``, tried again while it raises :class:`Absent`, for ``wait_s``.

    Raises what it raised last, with how long it was waited for, and every other error at once.
    """
    clock = clock or Clock()
    wait = Wait(name, wait_s, progress, now=clock.now)
    while True:
        try:
            result = attempt()
        except Absent as error:
            if wait.over:
                raise wait.given_up(error) from error.__cause__
            wait.failed(error)
            clock.sleep(wait.pause_s())
        else:
            wait.came()
            return result
