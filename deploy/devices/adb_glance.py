"""What a look at a phone needs, in one shell round trip: properties, battery, who it is."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.android_text import parse_getprop, printable
from deploy.devices import profiles
from deploy.devices.adb_device import AdbDevice, identity_of
from deploy.errors import DeviceError

_SCRIPT = (
    "getprop; echo; echo $1; cat /proc/sys/kernel/random/boot_id; echo; echo $1; dumpsys battery"
)


@dataclass(frozen=True)
class Glance:
    """What a phone says of itself; a None has its reason in ``unknown``."""

    identity: str
    properties: Mapping[str, str]
    model: str | None
    abi: str | None
    soc: str | None
    os_build: str | None
    battery_percent: float | None
    battery_c: float | None
    unknown: Mapping[str, str]


def glance(device: AdbDevice) -> Glance:
    """Ask ``device`` once. Raises ``DeviceError`` where it says nothing that can be read."""
    mark = secrets.token_hex(12)
    result = device.ask(["sh", "-c", _SCRIPT, "sh", mark])
    parts = result.stdout.split(f"{mark}\n")
    properties = parse_getprop(parts[0])
    if len(parts) != 3 or not properties:
        raise DeviceError(
            f"its shell gives no properties: {printable(result.stdout, 80)}",
            where=device.serial,
            hint="Is Android running on it?",
        )
    unknown: dict[str, str] = {}

    def known(field: str, *names: str) -> str | None:
        for name in names:
            if value := printable(properties.get(name, ""), 256):
                return value
        unknown[field] = f"the properties {', '.join(names)} are empty"
        return None

    emulated = profiles.emulated_by(properties)
    percent, celsius = parse_battery(parts[2])
    if emulated:
        # An emulator's battery is a constant of its configuration.
        percent = celsius = None
    reason = f"an emulator ({emulated}) has none" if emulated else "dumpsys battery does not say"
    for field, value in (("battery_percent", percent), ("battery_c", celsius)):
        if value is None:
            unknown[field] = reason
    return Glance(
        identity=identity_of(properties, parts[1], bool(emulated)) or device.serial,
        properties=properties,
        model=known("model", "ro.product.model"),
        abi=known("abi", "ro.product.cpu.abi"),
        soc=known("soc", "ro.soc.model", "ro.hardware.chipname", "ro.board.platform"),
        os_build=known("os_build", "ro.build.fingerprint", "ro.build.display.id"),
        battery_percent=percent,
        battery_c=celsius,
        unknown=unknown,
    )


_LINE = re.compile(r"^[ \t]+(level|scale|temperature):[ \t]*([0-9]{1,6})[ \t]*$")


def parse_battery(text: str) -> tuple[float | None, float | None]:
    """Percent and degrees Celsius of ``dumpsys battery``, from Android's own block only.

    Vendors print blocks of their own before it, and old values behind it. A temperature outside
    of 10 to 100 °C is not believed: some boards print whole degrees in place of tenths.
    """
    numbers: dict[str, int] = {}
    _, _, block = text.replace("\r", "").partition("Current Battery Service state:")
    for line in block.split("\n")[1:]:
        if not line.startswith((" ", "\t")):
            break
        if found := _LINE.match(line):
            numbers.setdefault(found.group(1), int(found.group(2)))
    level, scale = numbers.get("level"), numbers.get("scale")
    percent = 100 * level / scale if level is not None and scale and level <= scale else None
    celsius = numbers.get("temperature", 0) / 10
    return percent, celsius if 10 <= celsius <= 100 else None
