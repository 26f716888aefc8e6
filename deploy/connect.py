"""From a device's name in a pipeline to a connected device, and away again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from deploy.config import DeviceConfig
from deploy.devices import adb, profiles, simctl
from deploy.devices.base import Device
from deploy.devices.host import HostDevice
from deploy.devices.simctl_text import is_udid
from deploy.emulator import machine
from deploy.errors import ConfigError, DeviceError
from deploy.types import DeviceProfile, Progress

Connector = Callable[[DeviceConfig, DeviceProfile, Progress], Iterator[Device]]


@contextlib.contextmanager
def connected(wanted: DeviceConfig, progress: Progress) -> Iterator[Device]:
    """Connect to a device, starting it where it is an emulated one; let go of it at the end.

    Raises ``DeviceError`` where it cannot be had, ``ConfigError`` where it is named wrongly.
    """
    profile = profiles.load(wanted.profile)
    with contextlib.contextmanager(_CONNECTORS[profile.transport])(
        wanted, profile, progress
    ) as device:
        yield device


def check(wanted: DeviceConfig) -> DeviceProfile:
    """The device's profile; ``ConfigError`` where it is named wrongly. Connects to nothing."""
    profile = profiles.load(wanted.profile)
    if profile.transport == "host" and wanted.serial is not None:
        raise ConfigError("is this machine and takes no serial", where=f"device '{profile.name}'")
    if profile.transport == "simctl":
        if wanted.serial is not None and not is_udid(wanted.serial):
            raise ConfigError(
                "serial is no identifier of a simulator",
                where=f"device '{profile.name}'",
                hint="Give a UDID of: xcrun simctl list devices; or none, and one is created.",
            )
        return profile
    if wanted.serial is not None:
        try:
            adb.parse_serial(wanted.serial)
        except DeviceError as error:
            # Nothing was reached yet: it is the file that is wrong, not the device.
            where = f"device '{profile.name}'"
            raise ConfigError(f"serial {error.what}", where=where, hint=error.hint) from None
    if profile.transport == "adb" and wanted.serial is None:
        raise ConfigError(
            "needs a serial",
            where=f"device '{profile.name}'",
            hint="Give 'serial: HOST:PORT', as in: adb tcpip 5555; adb connect HOST:5555.",
        )
    return profile


def _host(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    device = HostDevice(profile)
    try:
        yield device
    finally:
        device.close()


def _adb(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    check(wanted)
    device = adb.connect(str(wanted.serial), profile, progress=progress)
    try:
        yield device
    finally:
        device.close()


def _emulator(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    if wanted.serial is not None:
        yield from _adb(wanted, profile, progress)
        return
    progress(f"{profile.name}: starting the emulated phone")
    phone = machine.start(profile, progress=progress)
    try:
        yield from _adb(wanted.model_copy(update={"serial": phone.serial}), profile, progress)
    finally:
        phone.stop()


def _simulator(
    wanted: DeviceConfig, profile: DeviceProfile, progress: Progress
) -> Iterator[Device]:
    check(wanted)
    device = simctl.connect(profile, wanted.serial, progress=progress)
    try:
        yield device
    finally:
        device.close()


_CONNECTORS: dict[str, Connector] = {
    "host": _host,
    "adb": _adb,
    "emulator": _emulator,
    "simctl": _simulator,
}
