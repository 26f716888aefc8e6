"""What surrounds a case: the state of a device from its answers, and whether figures may be taken.

Pure functions; :mod:`deploy.bench.conditions` asks the device and waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deploy.android_text import (
    Battery,
    ThermalService,
    parse_boot_id,
    parse_dumpsys_battery,
    parse_governors,
    parse_thermal_zones,
    parse_thermalservice,
    parse_time_in_state,
    parse_uptime_s,
    printable,
    thermal_status_word,
)
from deploy.types import DeviceState, Tier

MAX_BATTERY_C = 37.0
CLOCK_SLACK_S = 0.5
"""Beyond the two calls' own duration, and 0.1 % of the time between them (a quartz is better)."""


def device_state(sections: Mapping[str, str], *, tier: Tier) -> DeviceState:
    """The state that the sections of :func:`deploy.devices.questions.state_argv` tell.

    What an emulator prints of its battery and sensors is constants, no data: only its clock, its
    time in state and its thermal status (which tests can override) count.
    """
    unknown: dict[str, str] = {}
    thermal = parse_thermalservice(sections.get("dumpsys_thermalservice", ""))
    battery = parse_dumpsys_battery(sections.get("dumpsys_battery", ""))
    temperatures = thermal.temperatures_c or parse_thermal_zones(sections.get("thermal_zones", ""))
    if tier in {Tier.EMULATOR, Tier.SIMULATOR}:
        constants = "an emulator's battery and sensors are constants, not data"
        battery, temperatures = Battery(), {}
        for name in ("battery_percent", "battery_c", "charging", "temperatures_c"):
            unknown[name] = constants
    values = {
        "uptime_s": (parse_uptime_s(sections.get("uptime", "")), "uptime"),
        "boot_id": (parse_boot_id(sections.get("boot_id", "")), "boot_id"),
        "battery_percent": (battery.percent, "dumpsys_battery"),
        "battery_c": (_battery_c(battery, thermal, tier), "dumpsys_battery"),
        "charging": (battery.charging, "dumpsys_battery"),
        "thermal_status": (thermal.status, "dumpsys_thermalservice"),
        "temperatures_c": (temperatures or None, "dumpsys_thermalservice"),
        "time_in_state_ms": (
            parse_time_in_state(sections.get("time_in_state", "")) or None,
            "time_in_state",
        ),
        "governors": (parse_governors(sections.get("governors", "")) or None, "governors"),
    }
    for name, (value, section) in values.items():
        if value is None:
            unknown.setdefault(name, _why(sections, section))
    known = {name: value for name, (value, _) in values.items() if value is not None}
    return DeviceState.model_validate({**known, "unknown": unknown})


def _battery_c(battery: Battery, thermal: ThermalService, tier: Tier) -> float | None:
    """The battery service's own value; the thermal HAL's hottest battery sensor without one."""
    if battery.celsius is not None or tier in {Tier.EMULATOR, Tier.SIMULATOR}:
        return battery.celsius
    return thermal.battery_c


def _why(sections: Mapping[str, str], section: str) -> str:
    """A refusal is one short line and is quoted; a long answer without the value is not."""
    if section not in sections:
        return "the device did not answer this question"
    text = sections[section].strip()
    if not text:
        return "the device has no such thing"
    if "\n" in text:
        return "its answer does not have it in a form that is known"
    return printable(text, 160)


def too_warm(state: DeviceState) -> str:
    """Why no case may begin now, or nothing. What is unknown is no reason to refuse."""
    if state.thermal_status:
        return f"the thermal status is {thermal_status_word(state.thermal_status)}"
    if state.battery_c is not None and state.battery_c > MAX_BATTERY_C:
        return f"the battery has {state.battery_c:.1f} °C, more than {MAX_BATTERY_C:g}"
    return ""


def unknowns(state: DeviceState, *, tier: Tier) -> tuple[str, ...]:
    """Warnings about what the gate could not see; emulated phones and computers have none."""
    if tier is not Tier.DEVICE:
        return ()
    return tuple(
        f"{what} is not known ({state.unknown.get(name, 'no reason given')}): the case ran without "
        "that check"
        for name, what in (
            ("thermal_status", "the thermal status"),
            ("battery_c", "the battery's temperature"),
            ("boot_id", "the boot id"),
        )
        if getattr(state, name) is None
    )


@dataclass(frozen=True)
class Asked:
    """A state, and this machine's monotonic seconds when its question left and its answer came."""

    state: DeviceState
    sent_s: float
    received_s: float


def disturbed(before: Asked, after: Asked, *, real_time: bool) -> str:
    """Why what was measured between two states does not count, or nothing.

    ``real_time`` is false where the device's clock is not meant to follow this machine's: one that
    counts instructions, or a recording. Else the device's own time between the answers must be what
    passed here, within the calls' duration, :data:`CLOCK_SLACK_S` and 0.1 %: a device that was
    frozen or whose clock jumped gives durations that nobody can trust.
    """
    old, new = before.state, after.state
    if old.boot_id is not None and new.boot_id is not None and old.boot_id != new.boot_id:
        return "the device restarted while the case ran"
    if old.uptime_s is not None and new.uptime_s is not None:
        passed = new.uptime_s - old.uptime_s
        if passed < 0:
            return "the device restarted while the case ran: its uptime went back"
        least = after.sent_s - before.received_s
        most = after.received_s - before.sent_s
        slack = CLOCK_SLACK_S + 0.001 * most
        if real_time and not least - slack <= passed <= most + slack:
            return (
                f"the device's clock jumped while the case ran: {passed:.1f} s passed on it and "
                f"{least:.1f} to {most:.1f} s here"
            )
    if (
        old.thermal_status is not None
        and new.thermal_status is not None
        and old.thermal_status != new.thermal_status
    ):
        return (
            f"thermal: the status changed from {thermal_status_word(old.thermal_status)} to "
            f"{thermal_status_word(new.thermal_status)} while the case ran"
        )
    return ""
