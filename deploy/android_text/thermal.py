"""Temperatures: ``dumpsys thermalservice`` and the kernel's thermal zones."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from deploy.android_text.printing import printable

MAX_SENSORS = 256
STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


def thermal_status_word(status: int) -> str:
    """Android's thermal status in its own word: ``0`` is ``none``."""
    return STATUSES[status] if 0 <= status < len(STATUSES) else str(status)


"""Android's thermal status 0 to 6 (``PowerManager.THERMAL_STATUS_*``)."""

COLDEST_C, HOTTEST_C = -30.0, 150.0
_BATTERY_TYPE = 2
# Types 6 to 8 of the thermal HAL are voltages, currents and percentages; -1 is anything.
_NO_TEMPERATURE = frozenset({6, 7, 8})
_STATUS = re.compile(r"^[ \t]*Thermal Status: ([0-9])[ \t]*$")
_OVERRIDE = re.compile(r"^[ \t]*IsStatusOverride: (true|false)[ \t]*$")
_HEADING = re.compile(r"^[ \t]*([A-Z][A-Za-z ]{0,60}):[ \t]*$")
_TEMPERATURE = re.compile(
    r"^[ \t]*Temperature\{mValue=(-?[0-9]{1,9}(?:\.[0-9]{1,12})?), mType=(-?[0-9]{1,3}), "
    r"mName=([^,{}]{1,80}), mStatus=([0-9])\}[ \t]*$"
)
_ZONE = re.compile(r"^(?:\S*/)?thermal_zone([0-9]{1,4}) (\S{1,80}) (-?[0-9]{1,9})[ \t]*$")


@dataclass(frozen=True)
class ThermalService:
    """``status`` 0 to 6, ``temperatures_c`` from the HAL's live section: sensor to °C.

    ``battery_c`` is the hottest of the sensors of type BATTERY. ``overridden``: the status was set
    by ``cmd thermalservice override-status``.
    """

    status: int | None = None
    overridden: bool = False
    temperatures_c: dict[str, float] = field(default_factory=dict)
    battery_c: float | None = None


def parse_thermalservice(text: str) -> ThermalService:
    """Read ``dumpsys thermalservice``.

    Only ``Current temperatures from HAL:`` counts: ``Cached temperatures:`` are of the last event
    and can be hours old. Values that are no temperature are left out: the types 6 to 8, the
    sentinels of missing sensors (0.0, -99.9, -273.15) and everything beyond -30 to 150 °C. Old
    Samsung phones (``Sdhms``) number the types one higher and name their sensors ``TYPE_…``; there
    the name decides.
    """
    status: int | None = None
    overridden = False
    heading = ""
    sensors: dict[str, float] = {}
    battery: float | None = None
    for raw in text.split("\n"):
        line = raw.removesuffix("\r")
        if match := _HEADING.match(line):
            heading = match.group(1)
        elif match := _OVERRIDE.match(line):
            overridden = overridden or match.group(1) == "true"
        elif status is None and (match := _STATUS.match(line)):
            status = int(match.group(1)) if int(match.group(1)) < len(STATUSES) else None
        elif heading == "Current temperatures from HAL" and (match := _TEMPERATURE.match(line)):
            celsius, kind, name = float(match[1]), int(match[2]), printable(match[3], 80)
            if name.startswith("TYPE_"):
                kind = _BATTERY_TYPE if name == "TYPE_BATTERY" else 0
            elif kind in _NO_TEMPERATURE:
                continue
            if not _believed(celsius) or len(sensors) >= MAX_SENSORS:
                continue
            sensors.setdefault(name, celsius)
            if kind == _BATTERY_TYPE:
                battery = celsius if battery is None else max(battery, celsius)
    return ThermalService(status, overridden, sensors, battery)


def parse_thermal_zones(text: str) -> dict[str, float]:
    """Sensor to °C from lines ``thermal_zoneN TYPE VALUE`` (a zone's ``type`` and ``temp`` files).

    The kernel's unit is m°C; some vendors' drivers give tenths or whole degrees. Which one is told
    by the size, and a value that would fit two of them as a phone's temperature is left out rather
    than guessed: 1,000 and more are m°C, 151 to 999 are tenths, 15 to 150 are whole degrees. Of two
    zones with the same type the later one is named ``TYPE#N``.
    """
    zones: dict[str, float] = {}
    for raw in text.split("\n"):
        match = _ZONE.match(raw.removesuffix("\r"))
        if match is None or len(zones) >= MAX_SENSORS:
            continue
        celsius = _zone_celsius(int(match.group(3)))
        if celsius is None:
            continue
        name = printable(match.group(2), 80)
        zones.setdefault(name if name not in zones else f"{name}#{match.group(1)}", celsius)
    return zones


def _zone_celsius(value: int) -> float | None:
    if abs(value) >= 1000:
        celsius = value / 1000
    elif 150 < value < 1000:
        celsius = value / 10
    elif 15 <= value <= 150:
        celsius = float(value)
    else:
        return None
    return celsius if _believed(celsius) else None


def _believed(celsius: float) -> bool:
    return COLDEST_C <= celsius <= HOTTEST_C and celsius != 0.0
