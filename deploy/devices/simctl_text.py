"""What ``xcrun simctl list -j`` says: text -> dataclasses, without I/O.

The format is the one that Xcode 11 and later print: ``devices`` maps a runtime's identifier to its
devices, ``runtimes`` and ``devicetypes`` are lists. Written from published examples: no Mac was at
hand. Other keys are ignored; an entry without what is needed of it is left out, because a list with
one broken device must not hide the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.android_text import printable

_UDID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_IDENTIFIER = re.compile(r"com\.apple\.CoreSimulator\.Sim(?:Runtime|DeviceType)\.[\w.-]{1,120}")
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}")


@dataclass(frozen=True)
class Runtime:
    """An installed system. ``device_types`` is empty where this Xcode does not say (before 13)."""

    identifier: str
    platform: str
    version: tuple[int, ...]
    build: str
    device_types: tuple[str, ...]

    @property
    def name(self) -> str:
        """As people call it: ``iOS 17.5``."""
        return f"{self.platform} {'.'.join(map(str, self.version))}"


@dataclass(frozen=True)
class DeviceType:
    """A model that can be simulated."""

    identifier: str
    name: str


@dataclass(frozen=True)
class Simulated:
    """A simulated device. ``state`` is ``Booted``, ``Shutdown``, ``Booting`` or another word."""

    udid: str
    name: str
    state: str
    runtime: str
    device_type: str
    unavailable: str = ""

    @property
    def booted(self) -> bool:
        """Whether its system runs."""
        return self.state == "Booted"


@dataclass(frozen=True)
class Listing:
    """Everything that one call of ``simctl list -j`` tells."""

    devices: tuple[Simulated, ...]
    runtimes: tuple[Runtime, ...]
    device_types: tuple[DeviceType, ...]

    def device(self, udid: str) -> Simulated | None:
        """The device of that identifier, whatever its case; None where there is none."""
        return next((one for one in self.devices if one.udid.lower() == udid.lower()), None)

    def runtime(self, identifier: str) -> Runtime | None:
        """The available runtime of that identifier."""
        return next((one for one in self.runtimes if one.identifier == identifier), None)

    def type_name(self, identifier: str) -> str:
        """What a device type is called; its identifier's last part where nobody says."""
        known = (one.name for one in self.device_types if one.identifier == identifier)
        return next(known, identifier.rpartition(".")[2])


def is_udid(text: str) -> bool:
    """Whether ``text`` has the form of a simulator's identifier (a UUID)."""
    return _UDID.fullmatch(text) is not None


def created_udid(stdout: str) -> str | None:
    """The identifier that ``simctl create`` prints as its last line; None for anything else."""
    lines = [line.strip() for line in stdout.splitlines() if line.strip()]
    return lines[-1] if lines and is_udid(lines[-1]) else None


def parse_list(text: str) -> Listing:
    """Read ``simctl list -j``. ``ValueError`` says what is wrong where it is no such answer."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("is not a JSON object")
    by_runtime = data.get("devices")
    if not isinstance(by_runtime, dict):
        raise ValueError("has no 'devices'")
    devices = [
        found
        for runtime, entries in by_runtime.items()
        for entry in _objects(entries)
        if (found := _device(runtime, entry))
    ]
    runtimes = filter(None, map(_runtime, _objects(data.get("runtimes"))))
    types = filter(None, map(_type, _objects(data.get("devicetypes"))))
    return Listing(tuple(devices), tuple(runtimes), tuple(types))


def newest_ios(runtimes: Sequence[Runtime], at_least: tuple[int, ...]) -> Runtime | None:
    """The newest installed iOS of at least that version; None where there is none."""
    fitting = [one for one in runtimes if one.platform == "iOS" and one.version >= at_least]
    return max(fitting, key=lambda one: (one.version, one.build), default=None)


def parse_version(text: str) -> tuple[int, ...] | None:
    """``17.5`` as (17, 5); None for anything else."""
    found = _VERSION.fullmatch(text)
    return tuple(int(part) for part in text.split(".")) if found else None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _word(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return printable(value, 128) if isinstance(value, str) else ""


def _device(runtime: str, entry: dict[str, Any]) -> Simulated | None:
    udid = _word(entry, "udid")
    if not is_udid(udid):
        return None
    unavailable = ""
    if entry.get("isAvailable") is False:
        unavailable = _word(entry, "availabilityError") or "not available"
    return Simulated(
        udid=udid,
        name=_word(entry, "name"),
        state=_word(entry, "state"),
        runtime=runtime if _IDENTIFIER.fullmatch(runtime) else "",
        device_type=_word(entry, "deviceTypeIdentifier"),
        unavailable=unavailable,
    )


def _runtime(entry: dict[str, Any]) -> Runtime | None:
    identifier = _word(entry, "identifier")
    version = parse_version(_word(entry, "version"))
    if not _IDENTIFIER.fullmatch(identifier) or version is None:
        return None
    if entry.get("isAvailable") is not True:
        return None
    # "platform" came with Xcode 12; the identifier always has it: ...SimRuntime.iOS-17-5.
    platform = _word(entry, "platform") or identifier.rpartition(".")[2].partition("-")[0]
    types = (_word(one, "identifier") for one in _objects(entry.get("supportedDeviceTypes")))
    known = tuple(one for one in types if _IDENTIFIER.fullmatch(one))
    return Runtime(identifier, platform, version, _word(entry, "buildversion"), known)


def _type(entry: dict[str, Any]) -> DeviceType | None:
    identifier = _word(entry, "identifier")
    return (
        DeviceType(identifier, _word(entry, "name")) if _IDENTIFIER.fullmatch(identifier) else None
    )
