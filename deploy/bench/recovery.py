"""Trying again: bounded, with growing pauses, and only where another attempt can help."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from deploy.bench import faults
from deploy.bench.absence import refuse_other
from deploy.bench.agent import CaseAgent
from deploy.bench.faults import CONSEQUENCES, Fault
from deploy.bench.passes.base import PassFailed
from deploy.devices.base import Device
from deploy.errors import DeviceError, PocketshipError
from deploy.types import DeviceInfo, Progress, silent

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How often and how long is tried.

    ``attempts`` a case; ``comeback_s`` wall seconds for a device to answer again (a phone that
    restarts takes about a minute); pauses double from ``first_pause_s`` to ``longest_pause_s``.
    """

    attempts: int = 3
    comeback_s: float = 120.0
    first_pause_s: float = 0.25
    longest_pause_s: float = 3.0

    def pause_s(self, number: int) -> float:
        """The pause after failure ``number``, counted from 1."""
        return min(self.longest_pause_s, self.first_pause_s * 2.0 ** (number - 1))


PATIENT = Patience()


class Recovery:
    """Sees one device through its faults. ``lost`` says why it was given up, empty before."""

    def __init__(
        self,
        device: Device,
        agent: CaseAgent,
        patience: Patience,
        progress: Progress = silent,
        *,
        prepared: Callable[[DeviceInfo], None] = lambda info: None,
    ) -> None:
        """``prepared`` is called after each preparing, the one after a restart too."""
        self._device = device
        self._prepared = prepared
        self._agent = agent
        self._patience = patience
        self._progress = progress
        self._boot: str | None = None
        self._info: DeviceInfo | None = None
        self.lost = ""

    def prepare(self) -> DeviceInfo:
        """First contact: what the device is, and all that every case needs on it."""
        self._info = self._device.info()
        self._boot = self._boot_id()
        self._agent.prepare()
        self._prepared(self._info)
        return self._info

    def persist(self, what: str, action: Callable[[], Result]) -> tuple[Result, int]:
        """Do ``action`` until it ends with a result; gives that and the number of attempts.

        Raises :class:`PassFailed` with the fault and the number of attempts where no further one
        is allowed, can help, or is left. ``action`` is begun afresh each time: it must not rely
        on a failed attempt.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                return action(), attempt
            except PassFailed as error:
                failed = self._blamed(error)
            except (PocketshipError, OSError, ValueError) as error:
                failed = self._understood(error)
            failed.attempts = attempt
            again = failed.fault is not None and CONSEQUENCES[failed.fault].retried
            if self.lost or not again or attempt >= self._patience.attempts:
                raise failed
            self._progress(f"{self._device.serial}: {what}: {failed.reason} Trying again.")
            time.sleep(self._patience.pause_s(attempt))

    def settle(self) -> None:
        """After a case that ended badly: nothing of it runs on, or the device is ``lost``."""
        if not self.lost:
            with contextlib.suppress(PassFailed):
                self.persist("cleaning up", self._agent.clean_up)

    def _blamed(self, error: PassFailed) -> PassFailed:
        """Put a name to the end of a runner; a device that is going down ends runners too."""
        if error.fault is None:
            return error
        if CONSEQUENCES[error.fault].asks:
            fault, reason = self._asked(error.fault, error.reason)
            if self.lost or fault is Fault.REBOOTED:
                return PassFailed(CONSEQUENCES[fault].status, reason, fault)
        reason = faults.in_words(error.fault, error.reason)
        return PassFailed(error.status, reason, error.fault)

    def _understood(self, error: Exception) -> PassFailed:
        """Put a name to an error."""
        if isinstance(error, PocketshipError):
            fault, reason = faults.of(error), faults.explained(faults.of(error), error)
            if CONSEQUENCES[fault].asks:
                what = f"{error.where}: {error.what}" if error.where else error.what
                fault, reason = self._asked(fault, what, error.hint)
        else:
            # The inputs on this machine: unreadable, or outputs of a dtype that has no size.
            fault, reason = Fault.LOCAL, faults.in_words(Fault.LOCAL, str(error))
        return PassFailed(CONSEQUENCES[fault].status, reason, fault)

    def _asked(self, fault: Fault, what: str, hint: str = "") -> tuple[Fault, str]:
        """The fault and its words, after asking the device whether and since when it is on."""
        try:
            rebooted, failures = self._until_it_answers()
        except DeviceError as gone:
            known = faults.of(gone)
            fault = Fault.LOST if CONSEQUENCES[known].passes else known
            told = gone.what if fault is known else f"{what}; then for long: {gone.what}"
            self.lost = faults.in_words(fault, told)
            return fault, self.lost
        if rebooted:
            return Fault.REBOOTED, faults.in_words(Fault.REBOOTED, what)
        if failures and fault in {Fault.HUNG, Fault.SLOW}:
            return Fault.FROZE, faults.in_words(Fault.FROZE, what)
        return fault, faults.in_words(fault, what, hint)

    def _until_it_answers(self) -> tuple[bool, int]:
        """Wait within the bound until the device can be used.

        Gives whether it restarted meanwhile, and how often it did not answer. Raises what it last
        met when the time is over, and at once what waiting does not change.
        """
        deadline = time.monotonic() + self._patience.comeback_s
        failures = 0
        while True:
            try:
                boot = self._boot_id()
                rebooted = self._info is not None and boot != self._boot
                if rebooted:
                    self._again(boot)
                self._agent.clean_up()
                return rebooted, failures
            except DeviceError as error:
                failures += 1
                pause = self._patience.pause_s(failures)
                waiting_helps = CONSEQUENCES[faults.of(error)].passes
                if not waiting_helps or time.monotonic() + pause > deadline:
                    raise
                if failures == 1:
                    self._progress(f"{self._device.serial}: does not answer; waiting for it")
                time.sleep(pause)

    def _again(self, boot: str | None) -> None:
        """Prepare a device that restarted, once it is sure that it is the same one."""
        now = self._device.info()
        if self._info is not None:
            refuse_other(self._info, now, self._device.serial)
        self._agent.prepare()
        self._prepared(now)
        self._boot = boot

    def _boot_id(self) -> str | None:
        """The kernel's random number of this boot; None where the device does not show it."""
        said = self._device.shell(["cat", _BOOT_ID]).stdout.strip()
        return said if _UUID.fullmatch(said) else None
