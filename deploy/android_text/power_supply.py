"""Gauges of the battery: ``/sys/class/power_supply``, and samples of them over time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.android_text.printing import printable

MAX_SAMPLES = 200_000
GAUGES = ("current_now", "voltage_now", "charge_counter")
_NODE = re.compile(r"^(?:\S*/)?power_supply/([A-Za-z0-9_.\-]{1,64})/([a-z_]{1,32})=(.*)$")
_INTEGER = re.compile(r"^-?[0-9]{1,15}$")
_SAMPLE = re.compile(r"^([0-9]{1,10})\.([0-9]{2}) (-?[0-9]{1,15}|-) ([0-9]{1,15}|-)[ \t]*$")


@dataclass(frozen=True)
class PowerSupply:
    """One supply's nodes: integers as they stand, and why another one cannot be read.

    µA, µV and µAh by the kernel's rules; drivers differ in sign and scale, so a profile says which.
    """

    name: str
    kind: str | None
    values: dict[str, int]
    refused: dict[str, str]


def parse_power_supplies(text: str) -> list[PowerSupply]:
    """Read lines ``…/power_supply/NAME/NODE=TEXT``, in their order.

    ``Permission denied`` (many Samsung phones) and empty answers are reasons, never zeros.
    """
    kinds: dict[str, str] = {}
    values: dict[str, dict[str, int]] = {}
    refused: dict[str, dict[str, str]] = {}
    for raw in text.split("\n"):
        match = _NODE.match(raw.removesuffix("\r"))
        if match is None:
            continue
        name, node, value = match.group(1), match.group(2), match.group(3).strip()
        if name not in values and len(values) >= 64:
            continue
        values.setdefault(name, {})
        refused.setdefault(name, {})
        if node == "type":
            kinds.setdefault(name, printable(value, 40))
        elif _INTEGER.match(value):
            values[name].setdefault(node, int(value))
        else:
            refused[name].setdefault(node, printable(value, 120) or "the answer is empty")
    return [PowerSupply(name, kinds.get(name), values[name], refused[name]) for name in values]


def battery_of(supplies: list[PowerSupply]) -> PowerSupply | None:
    """The phone's battery: the supply of that name, else the first of type Battery."""
    named = [one for one in supplies if one.name == "battery"]
    typed = [one for one in supplies if (one.kind or "").lower() == "battery"]
    return next(iter(named + typed), None)


@dataclass(frozen=True)
class GaugeSample:
    """One reading: seconds since boot, and two raw values (None: the node gave none)."""

    uptime_s: float
    first: int | None
    second: int | None


def parse_gauge_samples(text: str) -> list[GaugeSample]:
    """Read lines ``UPTIME FIRST SECOND`` (uptime with two decimals, ``-`` for no answer).

    A line that the clock runs backwards to is left out, so times rise; so is a half last line.
    """
    samples: list[GaugeSample] = []
    for raw in text.split("\n"):
        match = _SAMPLE.match(raw.removesuffix("\r"))
        if match is None or len(samples) >= MAX_SAMPLES:
            continue
        uptime = int(match[1]) + int(match[2]) / 100
        if samples and uptime <= samples[-1].uptime_s:
            continue
        first = None if match[3] == "-" else int(match[3])
        second = None if match[4] == "-" else int(match[4])
        samples.append(GaugeSample(uptime, first, second))
    return samples
