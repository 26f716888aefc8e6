"""Everything that can go wrong around a case: a closed list of names, each with its remedy.

A fault is named by what was observed (an exit code, a hash, how a call ended, whether the device
answers again and since when it runs), never by guessing from a message, but for the system's own
words for a full disk. The list is closed as hyperfine's list of warnings is.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from subprocess import TimeoutExpired

from adb_shell import exceptions

from deploy.devices.adb_link import NotReady, Refused, TooMuchData
from deploy.errors import DeviceError, PocketshipError
from deploy.types import Status


class Fault(StrEnum):
    """What happened; the value begins the reason of the case."""

    LOST = "device lost"
    REPLACED = "another device"
    REBOOTED = "device rebooted"
    FROZE = "device froze"
    CUT = "connection cut"
    SLOW = "link too slow"
    DAMAGED = "transfer damaged"
    NO_ROOM = "no room on the device"
    REFUSED = "device refused"
    LOCAL = "file not usable here"
    NOT_STARTED = "runner not started"
    HUNG = "runner hung"
    ENDED = "runner ended"
    KILLED = "runner killed"
    CRASHED = "runner crashed"
    GARBAGE = "result unusable"
    MODEL = "model refused"


@dataclass(frozen=True)
class Consequence:
    """What follows from a fault.

    ``status`` is what the case becomes where no further attempt is made; ``retried``: another
    attempt can help; ``asks``: whether and since when the device is on is asked before anything
    else; ``lasts``: met while asking, it is no reason to wait.
    """

    status: Status
    remedy: str
    retried: bool = False
    asks: bool = False
    lasts: bool = False

    @property
    def passes(self) -> bool:
        """Whether a device that is met in this state may be in another one a little later."""
        return self.asks and not self.lasts


_INVALID, _FAILED = Status.INVALID, Status.FAILED

CONSEQUENCES: dict[Fault, Consequence] = {
    Fault.LOST: Consequence(_INVALID, "Check power, cable and network; --resume goes on."),
    Fault.REPLACED: Consequence(_INVALID, "Check which device has this address; --resume goes on."),
    Fault.REBOOTED: Consequence(
        _INVALID, "Check its power and its temperature.", retried=True, asks=True
    ),
    Fault.FROZE: Consequence(
        _INVALID, "Keep the device awake and its load low.", retried=True, asks=True
    ),
    Fault.CUT: Consequence(_INVALID, "Check cable and network.", retried=True, asks=True),
    Fault.SLOW: Consequence(
        _INVALID, "Use a faster link or raise the profile's time-outs.", retried=True, asks=True
    ),
    Fault.DAMAGED: Consequence(
        _INVALID, "Check cable and storage of the device.", retried=True, asks=True
    ),
    Fault.NO_ROOM: Consequence(_INVALID, "Make room on the device."),
    # A file that is not there any more may have gone with a restart.
    Fault.REFUSED: Consequence(
        _INVALID, "Check that the work folder can be written.", asks=True, lasts=True
    ),
    Fault.LOCAL: Consequence(_INVALID, "Export the model again."),
    Fault.NOT_STARTED: Consequence(_INVALID, "Check the bundle and the device's architecture."),
    Fault.HUNG: Consequence(
        _INVALID, "Raise the profile's case_timeout_s, or measure less.", asks=True
    ),
    Fault.ENDED: Consequence(_INVALID, "Look for what ends processes on the device.", asks=True),
    Fault.KILLED: Consequence(
        _FAILED, "Use a smaller model or a device with more memory.", asks=True
    ),
    Fault.CRASHED: Consequence(_FAILED, "Look at the model and the runtime's version."),
    Fault.GARBAGE: Consequence(_INVALID, "Check the runner on the device."),
    Fault.MODEL: Consequence(_FAILED, "Look at the model, its inputs and its export."),
}


class FaultError(DeviceError):
    """A ``DeviceError`` whose fault is known where it is raised."""

    def __init__(self, fault: Fault, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.fault = fault


FULL_DISK = os.strerror(errno.ENOSPC)
"""``No space left on device``: the same words in glibc, musl and Android's bionic."""


_MEANINGS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], Fault], ...] = (
    (TooMuchData, Fault.GARBAGE),
    ((TimeoutError, TimeoutExpired, exceptions.AdbTimeoutError), Fault.SLOW),
    (ConnectionError, Fault.CUT),
    (exceptions.InvalidChecksumError, Fault.DAMAGED),
    ((Refused, exceptions.PushFailedError, exceptions.AdbCommandFailureException), Fault.REFUSED),
    (OSError, Fault.REFUSED),
)
"""The first that fits counts: time-outs and broken connections are ``OSError`` too."""


def of(error: PocketshipError) -> Fault:
    """The fault behind an error of a device's call, or of a file on this machine.

    Transports raise ``from`` what they met. What is unknown counts as a broken connection: another
    attempt is bounded and does no harm, a case given up early is lost.
    """
    if isinstance(error, FaultError):
        return error.fault
    if not isinstance(error, DeviceError):
        return Fault.LOCAL
    if isinstance(error, NotReady) and error.state != "offline":
        return Fault.REFUSED
    met = list(_causes(error))
    if FULL_DISK in error.what or any(getattr(one, "errno", None) == errno.ENOSPC for one in met):
        return Fault.NO_ROOM
    meanings = (fault for one in met for kinds, fault in _MEANINGS if isinstance(one, kinds))
    return next(meanings, Fault.CUT)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error was raised from, nearest first; ``from None`` hides it from people only."""
    seen: set[int] = set()
    following = error.__cause__ or error.__context__
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


_CRASHES = {
    *(signal.SIGILL, signal.SIGTRAP, signal.SIGABRT),
    *(signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV),
}


def of_exit(code: int, printed: str) -> Fault:
    """The fault behind a runner's exit code other than 0 (docs/architecture.md)."""
    if code in {3, 4, 5, 6}:
        return Fault.MODEL
    if code == 128 + signal.SIGKILL:
        return Fault.KILLED
    if code - 128 in _CRASHES:
        return Fault.CRASHED
    if FULL_DISK in printed:
        return Fault.NO_ROOM
    return Fault.NOT_STARTED if code in {2, 126, 127} else Fault.ENDED


def in_words(fault: Fault, what: str, hint: str = "") -> str:
    """``<fault>: <what>. <what to do>`` in one line."""
    end = hint or CONSEQUENCES[fault].remedy
    return f"{fault.value}: {what.rstrip('.')}. {end}"


def explained(fault: Fault, error: PocketshipError) -> str:
    """:func:`in_words` of an error, with its own hint where it has one."""
    what = f"{error.where}: {error.what}" if error.where else error.what
    return in_words(fault, " ".join(what.split()), error.hint)
