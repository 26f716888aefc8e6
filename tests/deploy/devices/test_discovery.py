"""What ``pocketship devices`` sees: states, hints, and devices that do not answer."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from deploy.devices import adb_presence, adb_usb, discovery, locks
from deploy.devices.adb_usb import PERMISSIONS_HINT
from deploy.devices.discovery import Found, Sighting
from deploy.errors import DeviceError
from tests.deploy.native_adbd import NativeAdbd

BATTERY = """\
Current OPLUS Battery Service state:
  level: 11
  temperature: 999
Current Battery Service state:
  AC powered: false
  Max charging current: 0
  level: 41
  scale: 50
  temperature: 314
  technology: Li-ion
[EventLogBuffer]
  level: 3
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not the whole cache, where the daemon is built.
    monkeypatch.setattr(locks, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(adb_presence, "listens", lambda: False)
    monkeypatch.setattr(adb_usb, "listed", dict)


@pytest.fixture
def phone(adbd: NativeAdbd, monkeypatch: pytest.MonkeyPatch) -> NativeAdbd:
    """A daemon whose key is this user's, and that has a battery."""
    home = adbd.folder / "home"
    (home / ".android").mkdir(parents=True)
    for suffix in ("", ".pub"):
        (home / f".android/adbkey{suffix}").symlink_to(f"{adbd.key}{suffix}")
    monkeypatch.setenv("HOME", str(home))
    dumpsys = adbd.commands / "dumpsys"
    dumpsys.write_text(f'#!/bin/sh\n[ "$1" = battery ] && cat <<END\n{BATTERY}END\n')
    dumpsys.chmod(0o755)
    return adbd


def ask(*serials: str, timeout_s: float = 30) -> list[Found]:
    return discovery.ask_all(discovery.sightings(serials), timeout_s=timeout_s)


def test_a_phone_that_answers(phone: NativeAdbd) -> None:
    (row,) = ask(phone.serial)
    assert (row.serial, row.transport, row.state) == (phone.serial, "tcp", "device")
    assert (row.profile, row.tier, row.model) == ("generic-x86_64", "device", "native adbd")
    assert (row.abi, row.os_build) == ("x86_64", "pocketship/native/test:1")
    assert (row.battery_percent, row.battery_c) == (82, 31.4)
    assert "no profile knows this phone" in row.hint
    assert row.soc is None
    assert "ro.soc.model" in row.unknown["soc"]
    assert "SECRET" not in row.model_dump_json()


def test_an_emulator_has_no_battery_and_never_a_phone_s_profile(phone: NativeAdbd) -> None:
    with (phone.commands / "getprop").open("a") as script:
        script.write("echo '[ro.boot.qemu]: [1]'\n")
    (row,) = ask(phone.serial)
    assert (row.profile, row.tier, row.hint) == ("avd-x86_64", "emulator", "")
    assert row.battery_percent is None
    assert "ro.boot.qemu=1" in row.unknown["battery_percent"]


def test_hostile_words_stay_one_printable_line(phone: NativeAdbd) -> None:
    (phone.commands / "getprop").write_text(
        "#!/bin/sh\nprintf '[ro.product.model]: [\\033[2Jx\\ny]\\n'\n"
        "echo '[ro.product.cpu.abi]: [mips]'\n"
    )
    (row,) = ask(phone.serial)
    assert row.model == "?[2Jx y"
    assert row.profile is None
    assert "no profile fits" in row.hint
    (phone.commands / "getprop").write_text("#!/bin/sh\nhead -c 30000000 /dev/zero\n")
    (row,) = ask(phone.serial)
    assert row.state == "offline"
    assert "more than is allowed" in row.hint


def test_a_locked_phone_is_not_asked(phone: NativeAdbd) -> None:
    with locks.held(phone.serial):
        phone.kill()  # asking it would now fail
        (row,) = ask(phone.serial)
    assert row.state == "busy"
    assert "in use by process" in row.hint


def test_a_phone_that_is_locked_by_its_own_name_is_busy_by_every_way(phone: NativeAdbd) -> None:
    number = next(
        line.split("[")[2].rstrip("]")
        for line in (phone.commands / "getprop").read_text().splitlines()
        if "serialno" in line
    )
    with locks.held(number):
        (row,) = ask(phone.serial)
    assert (row.state, row.model) == ("busy", "native adbd")
    (row,) = ask(phone.serial)
    assert row.state == "device"


def test_states(phone: NativeAdbd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"127.0.0.1:{unused.getsockname()[1]}"
        stranger, absent = ask(phone.serial, refused)
    assert stranger.state == "unauthorised"
    assert "adb keygen" in stranger.hint
    assert absent.state == "offline"
    assert "refused" in absent.hint


def test_one_that_hangs_holds_nobody_up() -> None:
    release, answered = threading.Event(), threading.Event()

    def hang(one: Sighting) -> Found:
        release.wait(60)
        raise DeviceError("too late")

    def answer(one: Sighting) -> Found:
        answered.set()
        return Found(serial=one.serial, transport=one.transport, state="device")

    seen = [Sighting("stuck", "simctl", ask=hang), Sighting("there", "simctl", ask=answer)]
    # Both are asked at the same time, and the bound is the whole call's.
    stuck, there = discovery.ask_all(seen, timeout_s=1)
    assert answered.is_set()
    assert not release.is_set()
    release.set()
    assert (stuck.serial, stuck.state) == ("stuck", "offline")
    assert "no answer within 1 s" in stuck.hint
    assert there.state == "device"


def test_sources_add_up_and_one_that_fails_hides_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[Sighting]:
        raise DeviceError("xcrun is broken")

    sources = {
        "first": lambda: [Sighting("A", "adb-server", "offline", "plug it in")],
        "broken": broken,
        "second": lambda: [Sighting("A", "usb"), Sighting("B", "usb", "no permissions")],
    }
    troubles: list[str] = []
    seen = discovery.sightings(["1.2.3.4:5", "B"], sources=sources, troubles=troubles)
    assert [(one.serial, one.transport) for one in seen] == [
        ("A", "adb-server"),
        ("B", "usb"),
        ("1.2.3.4:5", "tcp"),
    ]
    assert troubles == ["broken: xcrun is broken"]
    rows = discovery.ask_all(seen[:2])
    assert [(row.state, row.hint) for row in rows] == [
        ("offline", "plug it in"),
        ("no permissions", ""),
    ]
    assert set(discovery.STATES) >= {row.state for row in rows}
    assert all(row.unknown["battery_c"] for row in rows)
    monkeypatch.setattr(adb_usb, "listed", lambda: {"usb device 1": "no permissions"})
    (row,) = discovery.sightings()
    assert row.hint == PERMISSIONS_HINT
    with pytest.raises(DeviceError, match="is no serial"):
        discovery.sightings(["$(id)"])
