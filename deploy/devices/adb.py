"""From a serial to a connected phone: which transport, which profile, and whether the two fit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from deploy.android_text import printable
from deploy.devices import adb_presence, adb_usb, profiles
from deploy.devices.adb_device import AdbDevice as AdbDevice
from deploy.devices.adb_device import identity
from deploy.devices.adb_direct import AUTH_TIMEOUT_S, DirectLink, load_signers
from deploy.devices.adb_info import MATCHED_PROPERTIES, read_properties
from deploy.devices.adb_link import Link
from deploy.devices.adb_transport import TcpTransport
from deploy.errors import DeviceError
from deploy.types import DeviceProfile, Progress, Tier, silent

Transport = Literal["tcp", "usb", "adb-server"]
TRANSPORTS: tuple[Transport, ...] = ("tcp", "usb", "adb-server")

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}")


def parse_serial(serial: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``[IPV6]:PORT``; anything else is a ``DeviceError``."""
    found = _ADDRESS.fullmatch(serial)
    if found is None or not 0 < int(found.group(2)) < 65536:
        raise DeviceError(
            f"{printable(serial, 80)!r} is not HOST:PORT",
            where="device serial",
            hint="Give the address that ADB listens on, such as 127.0.0.1:5555; "
            "`adb tcpip 5555` opens one on a phone.",
        )
    return found.group(1).strip("[]"), int(found.group(2))


def check_serial(serial: str, transport: Transport | None) -> None:
    """``DeviceError`` where ``serial`` cannot name a device on that transport (None: on any)."""
    if transport == "tcp":
        parse_serial(serial)
    elif _SERIAL.fullmatch(serial) is None and _ADDRESS.fullmatch(serial) is None:
        raise DeviceError(
            f"{printable(serial, 80)!r} is no serial",
            where="device serial",
            hint="Give HOST:PORT, or the serial that `pocketship devices` shows.",
        )


def link(
    serial: str,
    transport: Transport | None = None,
    *,
    keys: Sequence[Path] | None = None,
    auth_timeout_s: float = AUTH_TIMEOUT_S,
    connect_timeout_s: float | None = None,
    progress: Progress = silent,
) -> Link:
    """How to reach ``serial``. Connects to no device yet.

    Without ``transport``: the ADB server where one runs and lists the serial, because it then owns
    the USB device; else TCP for ``HOST:PORT``, else USB.
    """
    check_serial(serial, transport)
    if transport is None:
        transport = _chosen(serial)
    if transport == "adb-server":
        # Imported only where a server is used: adbutils brings imaging and HTTP libraries along.
        from deploy.devices.adb_server import ServerLink

        return ServerLink(serial)
    carrier = (
        TcpTransport(*parse_serial(serial)) if transport == "tcp" else adb_usb.UsbTransport(serial)
    )
    return DirectLink(
        serial,
        transport,
        carrier,
        load_signers(keys, progress),
        auth_timeout_s=auth_timeout_s,
        connect_timeout_s=connect_timeout_s,
        progress=progress,
    )


def server_devices() -> dict[str, str] | None:
    """Serial to state, in adb's words, of the ADB server's devices; None where no server runs.

    Raises ``DeviceError`` where what listens there is no ADB server.
    """
    if not adb_presence.listens():
        return None
    from deploy.devices import adb_server

    return adb_server.listed()


def _chosen(serial: str) -> Transport:
    is_address = _ADDRESS.fullmatch(serial) is not None
    try:
        state = (server_devices() or {}).get(serial)
    except DeviceError:
        # Something else on the server's port is no reason not to reach a phone without it.
        state = None
    # What the server cannot use now may be reached past it, but for USB, which it holds.
    if state is not None and (state == "device" or not is_address):
        return "adb-server"
    return "tcp" if is_address else "usb"


def connect(
    serial: str,
    profile: DeviceProfile | None = None,
    *,
    transport: Transport | None = None,
    keys: Sequence[Path] | None = None,
    auth_timeout_s: float = AUTH_TIMEOUT_S,
    connect_timeout_s: float | None = None,
    progress: Progress = silent,
) -> AdbDevice:
    """Connect to a phone; without a profile its own properties choose it.

    Args:
        serial: ``HOST:PORT``, a USB serial, or what the ADB server calls the device.
        profile: what is declared about the device; None: found by its properties.
        transport: ``tcp``, ``usb`` or ``adb-server``; None: see :func:`link`.
        keys: private keys to sign with (``FILE`` and ``FILE.pub``); None: the user's own. Through
            an ADB server its keys count.
        auth_timeout_s: how long a person has to accept the key on the phone.
        connect_timeout_s: for the connection without that; None: 20 s.
        progress: told when the phone asks for that.

    Raises:
        DeviceError: it cannot be reached, no profile fits, or ``profile`` is a phone's and the
            device is an emulator: its figures would be taken for a phone's.
    """
    chosen_link = link(
        serial,
        transport,
        keys=keys,
        auth_timeout_s=auth_timeout_s,
        connect_timeout_s=connect_timeout_s,
        progress=progress,
    )
    device = AdbDevice(serial, profile or profiles.load("generic-arm64"), chosen_link)
    try:
        properties, reason = read_properties(device)
        emulated = profiles.emulated_by(properties)
        if profile is None:
            device.profile = _fitting(properties, reason, serial)
        elif emulated and profile.tier is Tier.DEVICE:
            raise DeviceError(
                f"this is an emulator ({emulated}), and the profile '{profile.name}' is a phone's",
                where=serial,
                hint="Choose an emulator's profile, or 'auto'.",
            )
        if doubt := profiles.doubts(device.profile, properties):
            progress(f"{serial}: {doubt}")
        device.identity = identity(device, properties, emulated=bool(emulated))
    except BaseException:
        device.close()
        raise
    return device


def _fitting(properties: dict[str, str], reason: str, serial: str) -> DeviceProfile:
    found = profiles.match(properties)
    if found is None:
        seen = ", ".join(f"{k}={properties.get(k, '')!r}" for k in MATCHED_PROPERTIES[:4])
        raise DeviceError(
            f"no device profile fits ({printable(reason or seen)})",
            where=serial,
            hint="Name a profile, or write one: docs/devices.md.",
        )
    return found
