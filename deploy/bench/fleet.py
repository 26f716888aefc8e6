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

from deploy.bench.absence import Absent, Lost, Once, Wait, noticed, refuse_other
from deploy.devices.base import Device, ShellResult
from deploy.errors import DeviceError
from deploy.types import DeviceInfo, DeviceProfile, Progress, Tier

Guard = Callable[[Device], Device]
"""Wraps a connected device so that Ctrl-C ends what is under way on it."""

RETURNS = 2
"""How often a device that was lost is taken up again in one run."""

GRACE_S = 30.0
"""Wall seconds that devices get for cleaning up after Ctrl-C."""

_NUDGE_S = 0.2

Result = TypeVar("Result")


@dataclass(frozen=True)
class Turn:
    """One device: ``serve`` connects to it, does all that is to be done and lets go of it.

    It raises :class:`Absent` where the device does not answer: the turn is then taken again while
    other devices are at work, and for ``wait_s`` seconds in any case. A device that was lost
    (:class:`Lost`) was waited for long enough; it gets :data:`RETURNS` more turns, where it comes
    back while others are at work or at the end. ``give_up`` hears once why a device could not be
    had; without it that error is raised at the end, as every other one is.
    """

    profile: DeviceProfile
    serve: Callable[[Guard, Progress], None]
    wait_s: float = 0.0
    give_up: Callable[[DeviceError, Progress], None] | None = None

    @property
    def computes_here(self) -> bool:
        """Whether this machine's processor does the device's computing."""
        return self.profile.tier is not Tier.DEVICE


def serve_all(turns: Sequence[Turn], progress: Progress) -> None:
    """Serve every device; give back control when all have ended.

    An error of one device leaves the others alone and is raised at the end, the first one only.
    Devices that are absent hold nobody up: the others go on, those that compute here too, and the
    absent ones have the end for themselves. Ctrl-C ends them all: each gives up its case, cleans up
    behind it, and what had ended is kept.
    """
    pending = [_Pending(turn) for turn in turns]
    away = [one for one in pending if not one.turn.computes_here]
    here = [one for one in pending if one.turn.computes_here]
    _away(away, progress, last=not here)
    for one in here:
        one.take(lambda device: device, progress, time.sleep, lambda: False, last=len(turns) == 1)
    if here:
        _away([one for one in away if one.open], progress, last=True)
    for one in here:
        if one.open:
            one.take(lambda device: device, progress, time.sleep, lambda: False, last=True)
    for one in pending:
        one.close(progress)


class _Pending:
    """A device's turn until it was taken or is given up."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.open = True
        self._missed: Absent | None = None
        self._wait: Wait | None = None
        self._losses = 0
        self._before: DeviceInfo | None = None

    def take(
        self,
        guard: Guard,
        say: Progress,
        sleep: Callable[[float], None],
        others: Callable[[], bool],
        *,
        last: bool,
    ) -> None:
        """Take the turn, again and again while the device is absent and may be waited for.

        ``others``: whether other devices are at work; ``last``: whether nobody comes behind whom
        waiting would hold up.
        """

        once = Once(say)

        def met(device: Device) -> Device:
            once.repeating = False
            if self._wait is not None:
                self._wait.came()
                self._wait = None
            if self._before is not None:
                _same(self._before, device)
            return guard(device)

        while True:
            try:
                once.repeating = True
                self.turn.serve(met, once)
                self.open = False
                return
            except Absent as error:
                self._missed = error
                wait, busy = self._waited(error, say), others()
                if self._losses > RETURNS or (wait.over and not busy):
                    return
                wait.failed(error, self._bound(busy))
                if not busy and not last:
                    return
                sleep(wait.pause_s())
            except DeviceError as error:
                self._give_up(error, say)
                return

    def close(self, say: Progress) -> None:
        """Give the device up where its turn is still to be taken."""
        if self.open and self._missed is not None:
            waited = self._wait and self._wait.given_up(self._missed)
            self._give_up(waited or self._missed, say)

    def _waited(self, error: Absent, say: Progress) -> Wait:
        if isinstance(error, Lost):
            self._losses += 1
            self._before = error.info
        if self._wait is None:
            wait_s = 0.0 if self._losses else self.turn.wait_s
            self._wait = Wait(self.turn.profile.name, wait_s, say)
        return self._wait

    def _give_up(self, error: DeviceError, say: Progress) -> None:
        self.open = False
        if self._losses:
            # What became of it and its cases was kept when it was lost.
            say(f"{self.turn.profile.name}: {error}")
        elif self.turn.give_up is None:
            raise error
        else:
            self.turn.give_up(error, say)

    def _bound(self, busy: bool) -> str:
        bounds = ["while other devices are at work"] * busy
        if self.turn.wait_s and not self._losses:
            bounds.append(f"for {self.turn.wait_s:g} s")
        return " and ".join(bounds)


def _same(before: DeviceInfo, device: Device) -> None:
    """Raise where a device that came back is another one, or is gone again."""
    with noticed():
        now = device.info()
    refuse_other(before, now, device.serial)


def _away(pending: Sequence[_Pending], progress: Progress, *, last: bool) -> None:
    """Phones side by side; alone there is no thread, so that Ctrl-C is the device's own."""
    if len(pending) == 1:
        pending[0].take(lambda device: device, progress, time.sleep, lambda: False, last=last)
    elif pending:
        _side_by_side(pending, progress, last=last)


class _AtWork:
    """Which of several workers have a device at hand, or have not looked for it yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: set[object] = set()

    def enter(self, worker: object) -> None:
        with self._lock:
            self._busy.add(worker)

    def leave(self, worker: object) -> None:
        with self._lock:
            self._busy.discard(worker)

    def others(self, worker: object) -> bool:
        with self._lock:
            return bool(self._busy - {worker})


def _side_by_side(pending: Sequence[_Pending], progress: Progress, *, last: bool) -> None:
    lock = threading.Lock()

    def say(line: str) -> None:
        with lock:
            progress(line)

    at_work = _AtWork()
    workers = [_Worker(one, say, at_work, last=last) for one in pending]
    try:
        for worker in workers:
            at_work.enter(worker)
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

    def __init__(self, pending: _Pending, say: Progress, at_work: _AtWork, *, last: bool) -> None:
        super().__init__(name=pending.turn.profile.name, daemon=True)
        self.stop = threading.Event()
        self.error: Exception | None = None
        self._pending = pending
        self._say = say
        self._at_work = at_work
        self._last = last
        self._device: Interruptible | None = None

    def run(self) -> None:
        try:
            self._pending.take(self._guard, self._say, self._pause, self._others, last=self._last)
        except KeyboardInterrupt:
            self._say(f"{self.name}: interrupted")
        except Exception as error:
            self.error = error
        finally:
            self._at_work.leave(self)

    def nudge(self) -> None:
        """End the call that is under way, unless the thread knows already that it has to end."""
        if self._device is not None:
            self._device.nudge()

    def _guard(self, device: Device) -> Device:
        self._at_work.enter(self)
        self._device = Interruptible(device, self.stop)
        return self._device

    def _others(self) -> bool:
        """Whether others are at work; to be asked once this one's device turned out absent."""
        self._at_work.leave(self)
        return self._at_work.others(self)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise KeyboardInterrupt


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
