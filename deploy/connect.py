"""From a device's name in a pipeline to a connected device, and away again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy import nearby
from deploy.bench import absence
from deploy.bench.absence import Absent, Once
from deploy.config import DeviceConfig
from deploy.devices import adb, discovery, locks, profiles, simctl
from deploy.devices.base import Device
from deploy.devices.host import HostDevice
from deploy.devices.replay import ReplayDevice
from deploy.devices.simctl_text import is_udid
from deploy.emulator import machine
from deploy.errors import ConfigError, DeviceError
from deploy.types import DeviceProfile, Progress

Connector = Callable[[DeviceConfig, DeviceProfile, Progress], Iterator[Device]]


@contextlib.contextmanager
def connected(wanted: DeviceConfig, progress: Progress) -> Iterator[Device]:
    """:func:`at_once`, but a device that does not answer is waited for (``reach_s``)."""
    once = Once(progress)
    with contextlib.ExitStack() as stack:
        yield absence.until_there(
            lambda: stack.enter_context(at_once(wanted, once)),
            wanted.serial or wanted.profile,
            wanted.reach_s,
            progress,
        )


@contextlib.contextmanager
def at_once(wanted: DeviceConfig, progress: Progress) -> Iterator[Device]:
    """Connect to a device, starting it where it is an emulated one; let go of it at the end.

    A device is locked meanwhile, by its address and by what it calls itself, so that a second
    pocketship waits (``busy_s``) or fails, also where it takes another transport. This machine
    (``host``) is not locked: everything else on it disturbs a measurement as much.

    Raises ``DeviceError`` where it cannot be had (:class:`Absent` where it could be later),
    ``ConfigError`` where it is named wrongly.
    """
    profile = profiles.load(wanted.profile)
    with contextlib.contextmanager(_CONNECTORS[profile.transport])(
        wanted, profile, progress
    ) as device:
        yield device


def check(wanted: DeviceConfig) -> DeviceProfile:
    """The device's profile; ``ConfigError`` where it is named wrongly. Connects to nothing."""
    profile = profiles.load(wanted.profile)
    where = f"device '{profile.name}'"
    if profile.transport == "host" and wanted.serial is not None:
        raise ConfigError("is this machine and takes no serial", where=where)
    if profile.transport == "simctl":
        if wanted.serial is not None and not is_udid(wanted.serial):
            raise ConfigError(
                "serial is no identifier of a simulator",
                where=where,
                hint="Give a UDID of: xcrun simctl list devices; or none, and one is created.",
            )
        return profile
    auto = profile.name == profiles.AUTO
    if wanted.transport is not None and wanted.serial is None and not auto:
        raise ConfigError("a transport needs a serial", where=where)
    if profile.transport == "replay":
        _recording(wanted, profile)
    elif wanted.serial is not None:
        try:
            adb.check_serial(wanted.serial, wanted.transport)
        except DeviceError as error:
            # Nothing was reached yet: it is the file that is wrong, not the device.
            raise ConfigError(f"serial {error.what}", where=where, hint=error.hint) from None
    if profile.transport == "adb" and wanted.serial is None and not auto:
        raise ConfigError(
            "needs a serial",
            where=where,
            hint="Give 'serial:', HOST:PORT or what `pocketship devices` shows.",
        )
    return profile


def resolved(wanted: DeviceConfig, progress: Progress) -> DeviceConfig:
    """``wanted`` with its profile and serial, where it says ``auto``: the phone is asked.

    Without a serial it must be the only phone that is there. One that does not answer is waited for
    (``reach_s``). An optional device that cannot be had stays as it is. Raises ``DeviceError``.
    """
    if wanted.profile != profiles.AUTO:
        return wanted
    check(wanted)
    once = Once(progress)

    def ask() -> tuple[str, str]:
        serial = wanted.serial or _only_phone(wanted.transport)
        with (
            locks.held(serial, wait_s=wanted.busy_s, progress=once),
            contextlib.closing(_reached(serial, None, wanted, once)) as device,
        ):
            return serial, device.profile.name

    try:
        serial, name = absence.until_there(ask, wanted.serial or "auto", wanted.reach_s, progress)
    except DeviceError as error:
        if not wanted.optional:
            raise
        progress(f"{wanted.serial or 'auto'}: {error}")
        return wanted
    progress(f"{serial}: the profile {name} fits")
    return wanted.model_copy(update={"profile": name, "serial": serial})


def _only_phone(transport: adb.Transport | None) -> str:
    seen = [
        one
        for one in discovery.sightings(sources=nearby.sources())
        if one.transport in ((transport,) if transport else adb.TRANSPORTS)
    ]
    ready = [one.serial for one in seen if one.state == "device"]
    if len(ready) == 1:
        return ready[0]
    there = "; ".join(f"{one.serial} ({one.state})" for one in seen) or "none"
    may_come = not ready and all(one.state == "offline" for one in seen)
    raise (Absent if may_come else DeviceError)(
        f"'auto' without a serial needs exactly one phone; there are: {there}",
        hint="Name one with 'serial:', or plug one in; see: pocketship devices.",
    )


def _host(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    device = HostDevice(profile)
    try:
        yield device
    finally:
        device.close()


def _adb(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    check(wanted)
    if profile.name == profiles.AUTO:
        raise DeviceError(
            "the phone was not there when its profile was to be chosen",
            where=wanted.serial or "device 'auto'",
            hint="Begin a new run, or name the profile.",
        )
    serial = str(wanted.serial)
    with contextlib.ExitStack() as stack:

        def lock(name: str) -> None:
            waiting = locks.held(name, wait_s=wanted.busy_s, serial=serial, progress=progress)
            stack.enter_context(waiting)

        # The address first: a phone that is measuring is not even asked who it is.
        lock(serial)
        device = stack.enter_context(
            contextlib.closing(_reached(serial, profile, wanted, progress))
        )
        if device.identity != serial:
            lock(device.identity)
        yield device


def _reached(
    serial: str, profile: DeviceProfile | None, wanted: DeviceConfig, progress: Progress
) -> adb.AdbDevice:
    """A connected phone; :class:`Absent` where it does not answer."""
    with absence.noticed():
        return adb.connect(serial, profile, transport=wanted.transport, progress=progress)


def _recording(wanted: DeviceConfig, profile: DeviceProfile) -> ReplayDevice:
    where = f"device '{profile.name}'"
    if wanted.serial is None:
        raise ConfigError(
            "needs the recording's folder", where=where, hint="Give 'serial: FOLDER'."
        )
    try:
        return ReplayDevice(Path(wanted.serial).expanduser(), profile)
    except DeviceError as error:
        raise ConfigError(f"serial {error.what}", where=where, hint=error.hint) from None


def _replay(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    progress(f"{profile.name}: answers come from the recording {wanted.serial}")
    yield _recording(wanted, profile)


def _emulator(wanted: DeviceConfig, profile: DeviceProfile, progress: Progress) -> Iterator[Device]:
    if wanted.serial is not None:
        yield from _adb(wanted, profile, progress)
        return
    progress(f"{profile.name}: starting the emulated phone")
    phone = machine.start(profile, progress=progress)
    try:
        yield from _adb(wanted.model_copy(update={"serial": phone.serial}), profile, progress)
    except Absent as error:
        # It was started just now: another attempt would start another one.
        raise DeviceError(error.what, where=error.where, hint=error.hint) from error
    finally:
        phone.stop()


def _simulator(
    wanted: DeviceConfig, profile: DeviceProfile, progress: Progress
) -> Iterator[Device]:
    check(wanted)
    with contextlib.ExitStack() as stack:
        if (udid := wanted.serial) is not None:
            stack.enter_context(
                locks.held(udid, wait_s=wanted.busy_s, serial=udid, progress=progress)
            )
        yield stack.enter_context(
            contextlib.closing(simctl.connect(profile, udid, progress=progress))
        )


_CONNECTORS: dict[str, Connector] = {
    "host": _host,
    "adb": _adb,
    "emulator": _emulator,
    "replay": _replay,
    "simctl": _simulator,
}
