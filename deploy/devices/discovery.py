"""Every phone that can be seen from here, what it is, and what to do where it cannot be used.

Seeing and asking are apart: a source only lists (:class:`Sighting`), then every device that may be
asked is asked at the same time, each within :data:`ASK_TIMEOUT_S`. One that is locked by a running
pocketship is not asked at all, so that a look disturbs no measurement.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from deploy.android_text import printable
from deploy.devices import adb, adb_presence, adb_usb, locks, profiles, simctl
from deploy.devices.adb_device import AdbDevice
from deploy.devices.adb_glance import Glance, glance
from deploy.devices.adb_link import NotReady
from deploy.errors import DeviceError
from deploy.types import Model

STATES = ("device", "unauthorised", "offline", "busy", "no permissions")
"""What a device's ``state`` can be; ``device`` is a usable one, as adb calls it."""

ASK_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 3.0
_SHELL_TIMEOUT_S = 4.0
_AUTH_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Sighting:
    """A device that a source lists.

    ``transport`` is one of :data:`deploy.devices.adb.TRANSPORTS` where ``ask`` is None: then it is
    asked over ADB. Else ``ask`` gets the sighting and gives its row, or raises ``DeviceError``.
    """

    serial: str
    transport: str
    state: str = "device"
    hint: str = ""
    ask: Callable[[Sighting], Found] | None = None


Source = Callable[[], Iterable[Sighting]]
"""Lists devices within a few seconds. Raises ``DeviceError`` where it cannot look at all."""


class Found(Model):
    """One row of ``pocketship devices``. A None has its reason in ``unknown[field]``."""

    serial: str
    transport: str
    state: str
    hint: str = ""
    profile: str | None = None
    tier: str | None = None
    model: str | None = None
    abi: str | None = None
    soc: str | None = None
    os_build: str | None = None
    battery_percent: float | None = None
    battery_c: float | None = None
    unknown: dict[str, str] = Field(default_factory=dict)


def _on_server() -> list[Sighting]:
    devices = adb.server_devices()
    if devices is None:
        return []
    from deploy.devices import adb_server

    seen = []
    for serial, word in devices.items():
        if word == "device":
            seen.append(Sighting(serial, "adb-server"))
        else:
            why = adb_server.not_ready(serial, word)
            seen.append(Sighting(serial, "adb-server", why.state, f"{why.what}. {why.hint}"))
    return seen


def _on_usb() -> list[Sighting]:
    if adb_presence.listens():
        return []  # The server owns what is on USB.
    seen = []
    for serial, word in adb_usb.listed().items():
        state = word if word in STATES else "offline"
        hint = adb_usb.PERMISSIONS_HINT if state == "no permissions" else ""
        seen.append(Sighting(serial, "usb", state, hint or (word if state != word else "")))
    return seen


def _simulators() -> list[Sighting]:
    def of(one: simctl.Seen) -> Sighting:
        state = "device" if one.usable else "offline"
        return Sighting(one.udid, "simctl", state, one.hint, ask=lambda _: _simulator(one))

    return [of(one) for one in simctl.listed()]


def _simulator(one: simctl.Seen) -> Found:
    """``xcrun`` has told all there is: nothing is asked inside."""
    profile = profiles.load("ios-simulator")
    return Found(
        serial=one.udid,
        transport="simctl",
        state="device",
        hint=one.hint,
        profile=profile.name,
        tier=profile.tier.value,
        model=printable(one.model, 128),
        abi=profile.abi,
        os_build=printable(one.os_build, 128),
        unknown={
            "soc": "a simulator computes on its Mac",
            "battery_percent": "a simulator has none",
            "battery_c": "a simulator has none",
        },
    )


SOURCES: dict[str, Source] = {"ADB server": _on_server, "USB": _on_usb, "simctl": _simulators}
"""Name to source. A new kind of device adds one; the first to list a serial wins."""


def sightings(
    serials: Sequence[str] = (),
    *,
    sources: Mapping[str, Source] | None = None,
    troubles: list[str] | None = None,
) -> list[Sighting]:
    """Everything that the sources list, then ``serials`` that none does, each serial once.

    A source that cannot look appends its reason to ``troubles``.
    """
    seen: dict[str, Sighting] = {}
    for name, source in (SOURCES if sources is None else sources).items():
        try:
            for one in source():
                seen.setdefault(one.serial, one)
        except DeviceError as error:
            if troubles is not None:
                troubles.append(f"{name}: {error}")
    for serial in serials:
        adb.check_serial(serial, None)
        kind = "tcp" if ":" in serial else "usb"
        seen.setdefault(serial, Sighting(serial, kind))
    return list(seen.values())


def ask_all(seen: Sequence[Sighting], *, timeout_s: float = ASK_TIMEOUT_S) -> list[Found]:
    """What each sighting is, in their order; all are asked at once, and ``timeout_s`` bounds all.

    Never raises for what a device does: that is its state and its hint.
    """
    answers: dict[int, Found] = {}

    def work(number: int, one: Sighting) -> None:
        answers[number] = ask(one)

    # Daemons: a device that hangs must not hold the command's end up.
    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(seen)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {timeout_s:g} s; restart the phone, or ADB on it"
    return [answers.get(number) or _plain(one, "offline", late) for number, one in enumerate(seen)]


def ask(one: Sighting) -> Found:
    """One device's row; asks it only where it is ready and nobody holds it."""
    if one.state != "device":
        return _plain(one, one.state, one.hint)
    if who := locks.holder(one.serial):
        return _plain(one, "busy", f"in use by {who}; wait for it to end")
    try:
        if one.ask is not None:
            return one.ask(one)
        return _over_adb(one)
    except NotReady as error:
        return _plain(one, error.state, f"{error.what}. {error.hint}".strip())
    except DeviceError as error:
        return _plain(one, "offline", f"{error.what}. {error.hint}".strip())


def _over_adb(one: Sighting) -> Found:
    asked = profiles.load("generic-arm64").model_copy(update={"shell_timeout_s": _SHELL_TIMEOUT_S})
    kind = next(known for known in adb.TRANSPORTS if known == one.transport)
    link = adb.link(
        one.serial, kind, auth_timeout_s=_AUTH_TIMEOUT_S, connect_timeout_s=CONNECT_TIMEOUT_S
    )
    device = AdbDevice(one.serial, asked, link)
    with contextlib.closing(device):
        seen = glance(device)
    # By another transport the same phone may be locked under its own name.
    state, hint = "device", ""
    if seen.identity != one.serial and (who := locks.holder(seen.identity)):
        state, hint = "busy", f"in use by {who}; wait for it to end"
    return _described(one, state, hint, seen)


def _described(one: Sighting, state: str, hint: str, seen: Glance) -> Found:
    fitting = profiles.match(seen.properties)
    unknown = dict(seen.unknown)
    if fitting is None:
        unknown["profile"] = "no profile fits; write one: docs/devices.md"
        unknown["tier"] = "no profile fits"
    elif doubt := profiles.doubts(fitting, seen.properties):
        hint = hint or doubt
    return Found(
        serial=printable(one.serial, 128),
        transport=one.transport,
        state=state,
        hint=hint or unknown.get("profile", ""),
        profile=fitting.name if fitting else None,
        tier=fitting.tier.value if fitting else None,
        model=seen.model,
        abi=seen.abi,
        soc=seen.soc,
        os_build=seen.os_build,
        battery_percent=seen.battery_percent,
        battery_c=seen.battery_c,
        unknown=unknown,
    )


_ASKED = ("profile", "tier", "model", "abi", "soc", "os_build", "battery_percent", "battery_c")


def _plain(one: Sighting, state: str, hint: str) -> Found:
    return Found(
        serial=printable(one.serial, 128),
        transport=one.transport,
        state=state,
        hint=" ".join(hint.split()),
        unknown=dict.fromkeys(_ASKED, "the device was not asked" if state == "busy" else state),
    )
