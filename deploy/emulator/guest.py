"""What a phone learns at its start: who it is, whose keys it trusts, how its clock runs.

The image is the same for all profiles; this comes in a small archive after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from deploy.emulator import cpio
from deploy.errors import ConfigError
from deploy.types import DeviceProfile, EmulatorSpec

ICOUNT_PROPERTY = "ro.boot.pocketship.icount"
_OWN_PREFIX = "ro.boot.pocketship."

# The constants that Android's own emulator answers. They are no measurement.
_BATTERY = {
    "AC powered": "true",
    "USB powered": "false",
    "Wireless powered": "false",
    "Dock powered": "false",
    "Max charging current": "0",
    "Max charging voltage": "0",
    "Charge counter": "10000",
    "status": "4",
    "health": "2",
    "present": "true",
    "level": "100",
    "scale": "100",
    "voltage": "5000",
    "temperature": "250",
    "technology": "Li-ion",
}

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*")


def emulator_of(profile: DeviceProfile) -> EmulatorSpec:
    """How to emulate the profile's phone.

    Raises:
        ConfigError: the profile is of no emulated phone, or asks for what QEMU's line cannot hold.
    """
    where = f"device profile {profile.name}"
    if profile.emulator is None or profile.transport != "emulator":
        raise ConfigError("this profile is not an emulated phone", where=where)
    if profile.abi != "arm64-v8a":
        raise ConfigError(f"abi: the emulated phone is arm64-v8a, not {profile.abi}", where=where)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", profile.emulator.cpu):
        raise ConfigError(f"emulator.cpu: {profile.emulator.cpu!r} is no CPU model", where=where)
    return profile.emulator


def properties(profile: DeviceProfile, *, serial: str, icount: bool) -> dict[str, str]:
    """Android properties of one start. The clock's property is there only when it is true.

    Raises:
        ConfigError: the profile has a property that a phone could not hold or that is ours to set.
    """
    spec = emulator_of(profile)
    for key, value in spec.properties.items():
        where = f"device profile {profile.name}: emulator.properties"
        if not _KEY.fullmatch(key):
            raise ConfigError(f"{key!r} is no property name", where=where)
        if not value.isprintable():
            raise ConfigError(f"{key}: the value has control characters", where=where)
        if key.startswith(_OWN_PREFIX):
            raise ConfigError(f"{key} says how the phone was started, leave it out", where=where)
    own = {
        "ro.product.cpu.abi": profile.abi,
        "ro.product.cpu.abilist": profile.abi,
        "ro.product.cpu.abilist64": profile.abi,
        "ro.product.name": profile.name.replace("-", "_"),
        "ro.product.device": profile.name.replace("-", "_"),
        "ro.serialno": serial,
        "ro.boot.serialno": serial,
        "ro.boot.pocketship.profile": profile.name,
    }
    if icount:
        own[ICOUNT_PROPERTY] = "1"
    return own | spec.properties


def battery(profile: DeviceProfile) -> dict[str, str]:
    """Lines of ``dumpsys battery``: the Android emulator's constants, then the profile's values.

    Raises:
        ConfigError: the profile has a battery key that ``dumpsys battery`` does not print.
    """
    values = emulator_of(profile).battery
    where = f"device profile {profile.name}: emulator.battery"
    for key, value in values.items():
        if key not in _BATTERY:
            raise ConfigError(f"{key!r} is not one of {', '.join(_BATTERY)}", where=where)
        if not value.isprintable():
            raise ConfigError(f"{key}: the value has control characters", where=where)
    return _BATTERY | values


def archive(profile: DeviceProfile, *, serial: str, keys: Sequence[str], icount: bool) -> bytes:
    """The compressed archive of one start.

    Args:
        profile: whose phone it is.
        serial: serial number that the phone tells.
        keys: authorised public keys, one line each.
        icount: whether the guest's clock counts instructions.
    """
    wanted = properties(profile, serial=serial, icount=icount)
    lines = "".join(f"{key}={value}\n" for key, value in sorted(wanted.items()))
    levels = "".join(f"{key}: {value}\n" for key, value in battery(profile).items())
    return cpio.compress(
        cpio.archive(
            [
                cpio.file("vendor/build.prop", lines.encode()),
                cpio.file("vendor/etc/battery", levels.encode()),
                cpio.file("adb_keys", "".join(f"{key}\n" for key in keys).encode()),
            ]
        )
    )
