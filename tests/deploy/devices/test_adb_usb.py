"""USB: a stand-in for the module ``usb1`` whose bulk transfers lead to our own ADB daemon.

It keeps what differs from a stream: a transfer is read with a buffer that must hold it, a header
and its body are transfers of their own, and errors are usb1's classes. No real USB device was ever
used.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy.devices import adb, adb_presence, adb_usb, discovery
from deploy.devices.adb_link import NotReady
from deploy.devices.host import HostDevice
from deploy.errors import DeviceError
from tests.deploy.devices.test_adb import HOSTILE
from tests.deploy.native_adbd import NativeAdbd

IN, OUT = 0x81, 0x02


class USBError(Exception):
    pass


class USBErrorTimeout(USBError):
    pass


class USBErrorBusy(USBError):
    pass


class USBErrorAccess(USBError):
    pass


class USBErrorNoDevice(USBError):
    pass


class USBErrorOverflow(USBError):
    pass


class USBErrorNotFound(USBError):
    pass


class Handle:
    """An open device: transfers to and from a daemon's socket."""

    def __init__(self, phone: Phone) -> None:
        self._phone = phone
        self._socket = socket.create_connection(("127.0.0.1", phone.port), timeout=5)
        self._transfer = phone.stale
        phone.stale = b""
        self._ended = not self._transfer

    def kernelDriverActive(self, number: int) -> bool:
        return False

    def claimInterface(self, number: int) -> None:
        if self._phone.claim_error is not None:
            raise self._phone.claim_error

    def releaseInterface(self, number: int) -> None:
        pass

    def close(self) -> None:
        self._socket.close()

    def bulkRead(self, endpoint: int, length: int, timeout: int) -> bytearray:
        assert endpoint == IN
        assert timeout > 0, "libusb takes 0 for no time-out"
        if self._phone.unplugged:
            raise USBErrorNoDevice
        if self._transfer:
            if len(self._transfer) > length:
                raise USBErrorOverflow
            data, self._transfer = self._transfer, b""
            return bytearray(data)
        # The daemon's stream cut into transfers: 24 bytes of header, then the body.
        head = self._exactly(24, timeout)
        (size,) = struct.unpack_from("<I", head, 12)
        self._transfer = self._exactly(size, 5000) if size else b""
        return bytearray(head)

    def _exactly(self, count: int, timeout: int) -> bytes:
        self._socket.settimeout(timeout / 1000)
        data = b""
        try:
            while len(data) < count:
                got = self._socket.recv(count - len(data))
                if not got:
                    raise USBErrorNoDevice
                data += got
        except TimeoutError:
            raise USBErrorTimeout from None
        except OSError:
            raise USBErrorNoDevice from None
        return data

    def bulkWrite(self, endpoint: int, data: bytes, timeout: int) -> int:
        assert endpoint == OUT
        assert timeout > 0
        # libusb may take a part.
        part = bytes(data[: self._phone.most])
        self._socket.sendall(part)
        return len(part)


class Phone:
    """One device on the bus, and its only interface."""

    def __init__(self, port: int, serial: str) -> None:
        self.port = port
        self.serial = serial
        self.stale = b""
        self.most = 1 << 30
        self.unplugged = False
        self.claim_error: USBError | None = None
        self.serial_error: USBError | None = None
        self.triple = (0xFF, 0x42, 0x01)

    def iterSettings(self) -> Iterator[Any]:
        yield types.SimpleNamespace(
            getClass=lambda: self.triple[0],
            getSubClass=lambda: self.triple[1],
            getProtocol=lambda: self.triple[2],
            getNumber=lambda: 0,
            iterEndpoints=lambda: [
                types.SimpleNamespace(getAddress=lambda: IN),
                types.SimpleNamespace(getAddress=lambda: OUT),
            ],
        )

    def getSerialNumber(self) -> str:
        if self.serial_error is not None:
            raise self.serial_error
        return self.serial

    def open(self) -> Handle:
        return Handle(self)


Bus = list[Phone]


def stand_in(devices: Sequence[Phone]) -> types.ModuleType:
    module = types.ModuleType("usb1")

    class USBContext:
        def open(self) -> None:
            pass

        def getDeviceIterator(self, skip_on_error: bool) -> Iterator[Phone]:
            return iter(devices)

    for error in (USBError, *USBError.__subclasses__()):
        setattr(module, error.__name__, error)
    module.__dict__.update(USBContext=USBContext, CLASS_VENDOR_SPEC=0xFF, ENDPOINT_DIR_MASK=0x80)
    return module


@pytest.fixture
def bus(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """An empty bus; no ADB server runs."""
    devices: Bus = []
    monkeypatch.setitem(sys.modules, "usb1", stand_in(devices))
    monkeypatch.delitem(sys.modules, "adb_shell.transport.usb_transport", raising=False)
    monkeypatch.setattr(adb_presence, "listens", lambda: False)
    yield devices
    sys.modules.pop("adb_shell.transport.usb_transport", None)


@pytest.fixture
def phone(bus: Bus, adbd: NativeAdbd) -> Phone:
    hub = Phone(adbd.port, "HUB")
    hub.triple = (9, 0, 0)
    bus += [hub, Phone(adbd.port, "R58M12ABCDE")]
    return bus[1]


@pytest.fixture
def device(phone: Phone, adbd: NativeAdbd, tmp_path: Path) -> Iterator[adb.AdbDevice]:
    connected = adb.connect(phone.serial, adbd.profile(tmp_path), keys=[adbd.key])
    yield connected
    connected.close()


def test_shells_and_files(device: adb.AdbDevice, phone: Phone, tmp_path: Path) -> None:
    assert device.transport == "usb"
    result = device.shell(["printf", "<%s>", *HOSTILE])
    assert (result.exit_code, result.stdout) == (0, "".join(f"<{word}>" for word in HOSTILE))
    source, back = tmp_path / "a file", tmp_path / "back"
    source.write_bytes(os.urandom(1_500_001))
    phone.most = 100_000
    device.push(source, str(tmp_path / "there"))
    device.pull(str(tmp_path / "there"), back, max_bytes=1_500_001)
    assert len({hashlib.sha256(p.read_bytes()).hexdigest() for p in (source, back)}) == 1
    with pytest.raises(DeviceError, match="more than is allowed"):
        device.shell(["cat", "/dev/zero"])
    with pytest.raises(DeviceError, match=r"sleep: no end within 0\.3 s"):
        device.shell(["sleep", "60"], timeout_s=0.3)
    assert device.shell(["exit", "7"]).exit_code == 7


def test_what_a_killed_session_left_is_dropped(
    phone: Phone, adbd: NativeAdbd, tmp_path: Path
) -> None:
    phone.stale = b"WRTE" + bytes(5000)
    device = adb.connect(phone.serial, adbd.profile(tmp_path), keys=[adbd.key])
    assert device.shell(["echo", "clean"]).stdout == "clean\n"
    device.close()


def test_a_cable_that_is_pulled(device: adb.AdbDevice, phone: Phone) -> None:
    assert device.shell(["true"]).exit_code == 0
    phone.unplugged = True
    with pytest.raises(DeviceError, match="was cut"):
        device.shell(["true"])
    phone.unplugged = False
    assert device.shell(["echo", "again"]).stdout == "again\n"


@pytest.mark.parametrize(
    ("error", "state", "says"),
    [
        (USBErrorBusy(), "busy", "another program holds this USB device"),
        (USBErrorAccess(), "no permissions", "udev rules"),
        (USBErrorNoDevice("gone"), "offline", "cannot be opened: gone"),
    ],
)
def test_devices_that_cannot_be_opened(
    phone: Phone, adbd: NativeAdbd, error: USBError, state: str, says: str
) -> None:
    phone.claim_error = error
    with pytest.raises(NotReady, match=says) as no:
        adb.connect(phone.serial, HostDevice().profile, keys=[adbd.key])
    assert no.value.state == state
    assert "\n" not in str(no.value)


def test_devices_on_the_bus(phone: Phone, bus: Bus) -> None:
    secret = Phone(phone.port, "HIDDEN")
    secret.serial_error = USBErrorAccess()
    bus.append(secret)
    assert adb_usb.listed() == {"R58M12ABCDE": "device", "usb device 2": "no permissions"}
    row = discovery.sightings()[1]
    assert (row.serial, row.transport, row.state) == ("usb device 2", "usb", "no permissions")
    assert "udev" in row.hint
    with pytest.raises(NotReady, match="no such device on USB; there are: R58M12ABCDE, usb dev"):
        adb.connect("OTHER", transport="usb")


def test_without_the_library_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "usb1", None)
    monkeypatch.delitem(sys.modules, "adb_shell.transport.usb_transport", raising=False)
    monkeypatch.setattr(adb_presence, "listens", lambda: False)
    with pytest.raises(DeviceError, match=r"pip install 'pocketship\[usb\]'.*adb start-server"):
        adb.connect("R58M12ABCDE")
    troubles: list[str] = []
    assert discovery.sightings(["1.2.3.4:5"], troubles=troubles)[0].transport == "tcp"
    assert "USB" in troubles[0]
