"""``dumpsys battery``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TITLE = "Current Battery Service state:"
_LINE = re.compile(r"^[ \t]+([A-Za-z][A-Za-z ]{0,40}):[ \t]*(-?[0-9]{1,12}|true|false)[ \t]*$")
_NUMBERS = ("Charge counter", "status", "health", "level", "scale", "voltage", "temperature")
_POWERED = ("AC", "USB", "Wireless", "Dock")
STATUS_CHARGING, STATUS_DISCHARGING, STATUS_NOT_CHARGING, STATUS_FULL = 2, 3, 4, 5
LOWEST_C, HIGHEST_C = 10.0, 100.0


@dataclass(frozen=True)
class Battery:
    """Raw numbers of Android's own block, in its units; None where a line is missing or odd.

    ``powered`` has the names of the power sources that are connected, None where no line about a
    source was there. ``frozen``: somebody overrode the values (``dumpsys battery set``).
    """

    level: int | None = None
    scale: int | None = None
    status: int | None = None
    health: int | None = None
    voltage_mv: int | None = None
    temperature_dc: int | None = None
    charge_counter_uah: int | None = None
    powered: tuple[str, ...] | None = None
    frozen: bool = False

    @property
    def percent(self) -> float | None:
        """Level of 100; the scale is 100 nearly everywhere, but need not be."""
        if self.level is None or not self.scale or not 0 <= self.level <= self.scale:
            return None
        return 100 * self.level / self.scale

    @property
    def celsius(self) -> float | None:
        """Temperature in °C, from tenths.

        Below 10 °C and above 100 °C it is not believed: some boards print whole degrees (``26``),
        others 0 where they have no sensor, and taken for tenths a hot battery would look cold.
        """
        if self.temperature_dc is None:
            return None
        celsius = self.temperature_dc / 10
        return celsius if LOWEST_C <= celsius <= HIGHEST_C else None

    @property
    def charging(self) -> bool | None:
        """Whether a power source is connected (a full battery that stays plugged in counts)."""
        return None if self.powered is None else bool(self.powered)


def parse_dumpsys_battery(text: str) -> Battery:
    """Read the block ``Current Battery Service state:`` and no other.

    A vendor's block (``Current OPLUS Battery Service state:``) can stand before it; a line without
    indentation (a vendor's, or ``[EventLogBuffer]`` with old values) ends it. Only known keys
    count, each once: ``charge counter:`` of Samsung is not ``Charge counter:``.
    """
    numbers: dict[str, int] = {}
    sources: dict[str, bool] = {}
    frozen = False
    for line in _block(text):
        if "(UPDATES STOPPED" in line:
            frozen = True
        found = _LINE.match(line)
        if found is None:
            continue
        key, value = found.groups()
        source = key.removesuffix(" powered")
        if key != source and source in _POWERED and value in {"true", "false"}:
            sources.setdefault(source, value == "true")
        elif key in _NUMBERS and value not in {"true", "false"}:
            numbers.setdefault(key, int(value))
    return Battery(
        level=numbers.get("level"),
        scale=numbers.get("scale"),
        status=numbers.get("status"),
        health=numbers.get("health"),
        voltage_mv=numbers.get("voltage"),
        temperature_dc=numbers.get("temperature"),
        charge_counter_uah=numbers.get("Charge counter"),
        powered=tuple(name for name, on in sources.items() if on) if sources else None,
        frozen=frozen,
    )


def _block(text: str) -> Iterator[str]:
    inside = False
    for raw in text.split("\n"):
        line = raw.removesuffix("\r").rstrip()
        if inside and line and line[0] not in " \t":
            return
        if inside:
            yield line
        inside = inside or line == _TITLE
