"""Many devices at once: phones side by side, one case at a time on each.

A device that computes on this machine (``host``, an emulator, a simulator) would be disturbed by
whatever else runs here, so those come last, one after the other. What is printed names its device.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from deploy.devices.base import Device, ShellResult
from deploy.errors import DeviceError
from deploy.types import DeviceInfo, DeviceProfile, Progress, Tier

Guard = Callable[[Device], Device]
"""Wraps a connected device so that Ctrl-C ends what is under way on it."""

GRACE_S = 30.0
"""Wall seconds that devices get for cleaning up after Ctrl-C."""

_NUDGE_S = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True)
class Turn:
    """One device: ``serve`` connects to it, does all that is to be done and lets go of it."""

    profile: DeviceProfile
    serve: Callable[[Guard, Progress], None]

    @property
    def computes_here(self) -> bool:
        """Whether this machine's processor does the device's computing."""
        return self.profile.tier is not Tier.DEVICE


def serve_all(turns: Sequence[Turn], progress: Progress) -> None:
    """Serve every device; give back control when all have ended.

    An error of one device leaves the others alone and is raised at the end, the first one only.
    Ctrl-C ends them all: each gives up its case, cleans up behind it, and what had ended is kept.
    """
    away = [turn for turn in turns if not turn.computes_here]
    here = [turn for turn in turns if turn.computes_here]
    if len(away) > 1:
        _side_by_side(away, progress)
    else:
        here = [*away, *here]
    for turn in here:
        turn.serve(lambda device: device, progress)


def _side_by_side(turns: Sequence[Turn], progress: Progress) -> None:
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            progress(line)

    workers = [_Worker(turn, say) for turn in turns]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException:
        _end(workers)
        raise
    for worker in workers:
        if worker.error is not None:
            raise worker.error


def _end(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.stop.set()
    deadline = time.monotonic() + GRACE_S
    while any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
        for worker in workers:
            worker.nudge()
        time.sleep(_NUDGE_S)


class _Worker(threading.Thread):
    """One device's thread. It does not keep the program alive: a second Ctrl-C ends it at once."""

    def __init__(self, turn: Turn, say: Progress) -> None:
        super().__init__(name=turn.profile.name, daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._turn = turn
        self._say = say
        self._device: Interruptible | None = None

    def run(self) -> None:
        try:
            self._turn.serve(self._guard, self._say)
        except KeyboardInterrupt:
            self._say(f"{self.name}: interrupted")
        except Exception as error:
            self.error = error

    def nudge(self) -> None:
        """End the call that is under way, unless the thread knows already that it has to end."""
        if self._device is not None:
            self._device.nudge()

    def _guard(self, device: Device) -> Device:
        self._device = Interruptible(device, self.stop)
        return self._device


@runtime_checkable
class Interrupts(Protocol):
    """A device that can end a call from another thread. Without it calls end by themselves."""

    def interrupt(self) -> None:
        """End the call that is under way, if there is one; it raises ``DeviceError``."""


class Interruptible:
    """A device whose next call raises ``KeyboardInterrupt`` once ``stop`` is set.

    It does so once, in the thread that uses the device: what follows is cleaning up, and passes. A
    call that is under way is ended first, where the device can (:class:`Interrupts`).
    """

    def __init__(self, device: Device, stop: threading.Event) -> None:
        self._device = device
        self._stop = stop
        self._lock = threading.Lock()
        self._told = False

    @property
    def serial(self) -> str:
        """The device's own."""
        return self._device.serial

    @property
    def profile(self) -> DeviceProfile:
        """The device's own."""
        return self._device.profile

    def info(self) -> DeviceInfo:
        """The device's own."""
        return self._call(self._device.info)

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """The device's own."""
        return self._call(lambda: self._device.shell(argv, timeout_s=timeout_s, cwd=cwd))

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """The device's own."""
        self._call(lambda: self._device.push(local, remote, mode=mode))

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """The device's own."""
        self._call(lambda: self._device.pull(remote, local, max_bytes=max_bytes))

    def close(self) -> None:
        """The device's own."""
        self._device.close()

    def nudge(self) -> None:
        """From another thread: end the call that is under way, if its thread was not told yet."""
        with self._lock:
            if not self._told and isinstance(self._device, Interrupts):
                self._device.interrupt()

    def _call(self, action: Callable[[], Result]) -> Result:
        self._check()
        try:
            return action()
        except DeviceError:
            self._check()
            raise

    def _check(self) -> None:
        with self._lock:
            if self._stop.is_set() and not self._told:
                self._told = True
                raise KeyboardInterrupt
