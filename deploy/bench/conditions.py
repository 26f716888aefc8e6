"""Under which conditions a case runs: cool, with fixed clocks where the phone can, and undisturbed.

docs/measuring.md says what is checked and why. Nothing here is a figure; it decides whether figures
count.
"""

from __future__ import annotations

import dataclasses
import secrets
from dataclasses import dataclass

from deploy.android_text import split_sections, thermal_status_word
from deploy.bench.faults import Fault
from deploy.bench.passes.base import Around, CaseRun, Gathered, Pass, PassFailed
from deploy.bench.settings import FIXED_PERFORMANCE, Settings
from deploy.bench.waiting import Clock, clock_for
from deploy.devices.base import Device
from deploy.devices.questions import state_argv
from deploy.errors import DeviceError
from deploy.metrics.thermal import Asked, device_state, disturbed, too_warm, unknowns
from deploy.types import DeviceInfo, DeviceState, Progress, Status, Tier, silent

WAIT_S = 600.0
LOOK_EVERY_S = 15.0
_REPLAYED = "answered from a recording, not by a device"


def ask_state(device: Device, clock: Clock | None = None) -> Asked:
    """Battery, temperatures, clocks and uptime of a device in one round trip.

    Raises ``DeviceError``; what the device does not say is None with a reason.
    """
    clock = clock or Clock()
    token = secrets.token_hex(8)
    sent = clock.now()
    answer = device.shell(state_argv(token))
    received = clock.now()
    sections = split_sections(answer.stdout, token)
    return Asked(device_state(sections, tier=device.profile.tier), sent, received)


def state(device: Device) -> DeviceState:
    """The state alone; see :func:`ask_state`."""
    return ask_state(device).state


class ThermalGate:
    """Lets a case begin when the device is cool: battery at most 37 °C and thermal status none."""

    def __init__(
        self,
        device: Device,
        *,
        progress: Progress = silent,
        clock: Clock | None = None,
        wait_s: float = WAIT_S,
    ) -> None:
        self._device = device
        self._progress = progress
        self._clock = clock or clock_for(device)
        self._wait_s = wait_s

    def pass_through(self) -> Asked:
        """The state in which the case may begin, after waiting for it as long as need be.

        Raises :class:`PassFailed` (``invalid``, a reason that begins with ``thermal``) after
        ``wait_s`` seconds, ``DeviceError`` for a lost device.
        """
        begun = self._clock.now()
        while True:
            asked = ask_state(self._device, self._clock)
            reason = too_warm(asked.state)
            if not reason:
                return asked
            left = self._wait_s - (self._clock.now() - begun)
            if left <= 0:
                raise PassFailed(
                    Status.INVALID,
                    f"thermal: {reason}, and it did not cool down within {self._wait_s:g} s",
                )
            self._progress(
                f"{self._device.serial}: waiting for it to cool down: {reason} "
                f"(at most {left:.0f} s more)"
            )
            self._clock.sleep(min(LOOK_EVERY_S, left))


class Conditions:
    """The conditions of all cases on a device: :meth:`begin`, then each case, then :meth:`end`."""

    def __init__(
        self,
        device: Device,
        info: DeviceInfo,
        *,
        progress: Progress = silent,
        clock: Clock | None = None,
    ) -> None:
        self._device = device
        self._progress = progress
        self._clock = clock or clock_for(device)
        self._gate = ThermalGate(device, progress=progress, clock=self._clock)
        self._settings = Settings(device)
        transport = device.profile.transport
        self._real_time = info.clock == "monotonic" and transport != "replay"
        self._warnings: tuple[str, ...] = (_REPLAYED,) if transport == "replay" else ()
        self._not_fixed: tuple[str, ...] = ()

    def begin(self) -> None:
        """Restore what an earlier run left changed, then ask for fixed performance.

        To be called again after the device restarted, which ends the mode. Raises ``DeviceError``
        for a lost device; what cannot be set becomes a warning of each case.
        """
        self._tell(self._settings.restore_all())
        if self._device.profile.transport in {"host", "simctl"}:
            return
        why_not = self._settings.change(FIXED_PERFORMANCE.name, former="false", value="true")
        tell = why_not and self._device.profile.tier is Tier.DEVICE
        self._not_fixed = (
            (f"fixed performance mode cannot be set ({why_not}): clocks vary more",) if tell else ()
        )

    def end(self) -> None:
        """Restore the settings. Where the device is lost, the next contact does it."""
        try:
            self._tell(self._settings.restore_all())
        except DeviceError as error:
            self._progress(f"settings are restored at the next contact: {error}")

    def before(self) -> Asked:
        """Wait for a cool device; its state is the case's ``before``. Raises as the gate does."""
        return self._gate.pass_through()

    def after(self, before: Asked) -> tuple[DeviceState, str, tuple[str, ...]]:
        """The state after, why the case does not count (or nothing), and its warnings."""
        asked = ask_state(self._device, self._clock)
        reason = disturbed(before, asked, real_time=self._real_time)
        warnings = [
            *self._warnings,
            *self._not_fixed,
            *unknowns(before.state, tier=self._device.profile.tier),
        ]
        if asked.state.thermal_status and not reason and before.state.thermal_status is None:
            word = thermal_status_word(asked.state.thermal_status)
            warnings.append(f"the thermal status is {word} after the case; before it was not known")
        return asked.state, reason, tuple(warnings)

    def framed(self, one: Pass) -> Pass:
        """``one`` that waits for a cool device first and fails where the device was disturbed."""
        return Framed(one, self)

    def _tell(self, problems: list[str]) -> None:
        for problem in problems:
            self._progress(f"{self._device.serial}: {problem}")


@dataclass(frozen=True)
class Framed(Around):
    """A pass between two looks at its device; each attempt at it is framed anew."""

    conditions: Conditions

    def measure(self, run: CaseRun) -> Gathered:
        """Wait, measure, look again. Raises what the pass raises, and as the conditions do."""
        before = self.conditions.before()
        gathered = self.inner.measure(run)
        after, spoilt, warnings = self.conditions.after(before)
        if spoilt:
            restarted = before.state.boot_id != after.boot_id
            raise PassFailed(Status.INVALID, spoilt, Fault.REBOOTED if restarted else None)
        return dataclasses.replace(
            gathered, before=before.state, after=after, warnings=gathered.warnings + warnings
        )
