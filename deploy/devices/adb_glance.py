"""What a look at a phone needs, in one shell round trip: properties, battery, who it is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.android_text import parse_dumpsys_battery, parse_getprop, printable
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
    battery = parse_dumpsys_battery(parts[2])
    percent, celsius = battery.percent, battery.celsius
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
