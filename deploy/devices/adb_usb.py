"""A phone on USB without an ADB server, through adb-shell and libusb.

Never run on real USB hardware so far: written from adb-shell's and libusb's interfaces, and tested
with a stand-in for ``usb1`` whose transfers lead to our own ADB daemon.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

from adb_shell.transport.base_transport import BaseTransport

from deploy.android_text import printable
from deploy.devices.adb_link import Allowance, NotReady
from deploy.devices.adb_transport import RECEIVE_BYTES
from deploy.errors import DeviceError, first_line

PERMISSIONS_HINT = (
    "On Linux install the udev rules (Debian, Ubuntu: android-sdk-platform-tools-common) and be in "
    "the group plugdev."
)

_DRAIN_TRANSFERS = 64
_DRAIN_WAIT_S = 0.02


def listed() -> dict[str, str]:
    """Serial of each USB device with an ADB interface, to ``device`` or why it cannot be had.

    Raises ``DeviceError`` where libusb is missing.
    """
    found: dict[str, str] = {}
    for number, device in enumerate(_devices(), 1):
        try:
            found[printable(str(device.serial_number), 128)] = "device"
        except Exception as error:  # usb1 has a class for each of libusb's codes
            # Without permission not even the serial number can be read.
            state = "no permissions" if _means(error, "Access") else first_line(error)
            found[f"usb device {number}"] = state
    return found


def _library() -> Any:
    """adb-shell's USB module; ``DeviceError`` that says what to install where it cannot load."""
    try:
        return importlib.import_module("adb_shell.transport.usb_transport")
    except Exception as error:  # ImportError without usb1, OSError without libusb, USBError from it
        raise DeviceError(
            f"USB without an ADB server is not available: {printable(first_line(error), 100)}",
            hint="Install libusb-1.0 and `pip install 'pocketship[usb]'`; or let an ADB server own "
            "the phone: adb start-server.",
        ) from error


def _devices() -> Iterator[Any]:
    library = _library()
    try:
        yield from library.UsbTransport.find_all_adb_devices()
    except Exception as error:
        raise DeviceError(
            f"the USB devices cannot be listed: {printable(first_line(error), 100)}",
            hint="Is /dev/bus/usb there and readable?",
        ) from error


class UsbTransport(BaseTransport):  # type: ignore[misc]
    """A USB interface of class ADB; a :class:`deploy.devices.adb_transport.LimitedTransport`."""

    def __init__(self, serial: str) -> None:
        self._serial = serial
        self._usb: Any = None
        self._allowance: Allowance | None = None

    def allow(self, allowance: Allowance) -> None:
        """Hold the calls that follow to ``allowance``."""
        self._allowance = allowance

    def alive(self) -> bool:
        """False when there is no connection; a cable that was pulled shows by the next call."""
        return self._usb is not None

    def connect(self, transport_timeout_s: float | None) -> None:
        """Claim the interface, and drop what an earlier connection left in it.

        Raises :class:`NotReady` where the device is absent, busy or not permitted.
        """
        for usb in _devices():
            with contextlib.suppress(Exception):  # not readable: another device, or no permission
                if str(usb.serial_number) == self._serial:
                    break
        else:
            known = ", ".join(listed()) or "none"
            raise NotReady(
                f"no such device on USB; there are: {known}",
                state="offline",
                where=self._serial,
                hint="Plug it in and switch on USB debugging.",
            )
        try:
            usb.connect(self._left())
        except Exception as error:
            raise self._not_claimed(error) from error
        self._usb = usb
        self._drain()

    def interrupt(self) -> None:
        """Nothing: libusb's blocking transfers end at their time-out."""

    def close(self) -> None:
        """Release the interface; calling it twice is allowed."""
        usb, self._usb = self._usb, None
        if usb is not None:
            with contextlib.suppress(Exception):  # an unplugged device cannot be released
                usb.close()

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """At least one byte of the next transfer."""
        usb = self._connected()
        while True:
            try:
                data = bytes(usb.bulk_read(min(numbytes, RECEIVE_BYTES), self._left()))
            except Exception as error:
                raise _ours(error) from error
            if self._allowance is not None:
                self._allowance.take(len(data))
            if data:  # An empty transfer only ends the one before it.
                return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Send all of ``data``."""
        usb = self._connected()
        left = memoryview(data)
        while left:
            try:
                sent = int(usb.bulk_write(bytes(left), self._left()))
            except Exception as error:
                raise _ours(error) from error
            left = left[sent:]
        return len(data)

    def _drain(self) -> None:
        # A session that was killed can leave its last answers in the device's queue.
        for _ in range(_DRAIN_TRANSFERS):
            try:
                self._usb.bulk_read(RECEIVE_BYTES, _DRAIN_WAIT_S)
            except Exception as error:
                if _means(error, "Timeout"):
                    return
                self.close()
                raise _ours(error) from error

    def _connected(self) -> Any:
        if self._usb is None:
            raise ConnectionResetError("there is no connection")
        return self._usb

    def _left(self) -> float:
        # libusb takes 0 ms for "no time-out".
        return max(0.001, self._allowance.left()) if self._allowance else 10.0

    def _not_claimed(self, error: Exception) -> NotReady:
        if _means(error, "Busy"):
            what, state = "another program holds this USB device", "busy"
            hint = "Is it an ADB server? Use it (transport: adb-server), or: adb kill-server."
        elif _means(error, "Access"):
            what, state = "this user may not open the USB device", "no permissions"
            hint = PERMISSIONS_HINT
        else:
            what, state = f"cannot be opened: {printable(first_line(error), 100)}", "offline"
            hint = "Plug it in again."
        return NotReady(what, state=state, where=self._serial, hint=hint)


def _means(error: BaseException, word: str) -> bool:
    """Whether ``error``, or the USB error that adb-shell wrapped in it, is of that kind."""
    inner = getattr(error, "usb_error", None)
    names = {type(one).__name__ for one in (error, inner) if one is not None}
    return f"USBError{word}" in names


def _ours(error: Exception) -> Exception:
    """adb-shell's and libusb's errors as those that every transport raises."""
    if isinstance(error, TimeoutError) or _means(error, "Timeout"):
        return TimeoutError(str(error))
    return ConnectionResetError(f"USB: {first_line(error)}")
