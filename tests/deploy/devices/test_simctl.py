"""Simulators through a stand-in for xcrun: created, booted, put back, and every way to fail."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from deploy import connect
from deploy.config import DeviceConfig
from deploy.devices import profiles, simctl
from deploy.devices.simctl_text import is_udid
from deploy.errors import ConfigError, DeviceError
from deploy.types import SimulatorSpec, Tier
from tests.deploy.fake_mac import IOS_18, WATCH, FakeXcrun, device, install, usual

UDID = "235EF288-A327-4CDB-A21E-AC4C45D99913"
PROFILE = profiles.load("ios-simulator")


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeXcrun:
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "cache"))
    return install(tmp_path / "mac", monkeypatch)


def test_a_created_one_is_deleted_at_the_end(mac: FakeXcrun) -> None:
    wanted = DeviceConfig(profile="ios-simulator")
    with connect.connected(wanted, lambda line: None) as phone:
        (row,) = mac.devices
        assert row["state"] == "Booted"
        assert (phone.serial, row["deviceTypeIdentifier"]) == (
            row["udid"],
            (PROFILE.simulator or SimulatorSpec()).device_type,
        )
        info = phone.info()
        assert info.tier is Tier.SIMULATOR
        assert info.model == "iPhone 15 (simulated)"
        assert info.os_build == "iOS 18.0 (22A3351)"
        assert {"soc", "memory_total_kib", "big_core_mask"} <= set(info.unknown)
        assert Path(phone.profile.work_dir).is_absolute()
    assert mac.devices == []
    assert mac.verbs() == ["list", "create", "bootstatus", "list", "shutdown", "delete"]


@pytest.mark.parametrize("state", ["Shutdown", "Booted"])
def test_one_that_was_there_is_left_as_it_was(mac: FakeXcrun, state: str) -> None:
    mac.add(IOS_18, device(UDID, "mine", state))
    before = mac.state
    phone = simctl.connect(PROFILE, UDID.lower())
    assert phone.serial == UDID
    assert mac.devices[0]["state"] == "Booted"
    phone.close()
    phone.close()
    assert mac.state == before
    assert "delete" not in mac.verbs()
    assert ("bootstatus" in mac.verbs()) == (state == "Shutdown")


def test_what_a_killed_run_left_is_deleted_and_nothing_else(mac: FakeXcrun) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    keep = [
        f"pocketship-{os.getpid()}-0123abcd",
        "my pocketship-1-0123abcd",
        "pocketship-0123abcd",
        "iPhone 15",
    ]
    for number, name in enumerate([f"pocketship-{ended.pid}-0123abcd", *keep]):
        mac.add(IOS_18, device(f"{number}{UDID[1:]}", name, "Booted"))
    simctl.connect(PROFILE).close()
    assert [row["name"] for row in mac.devices] == keep


def test_without_xcrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert simctl.listed() == []
    with pytest.raises(DeviceError, match="needs a Mac with Xcode"):
        simctl.connect(PROFILE)


def test_without_a_fitting_runtime(mac: FakeXcrun) -> None:
    spec = SimulatorSpec(minimum_ios="19.0")
    with pytest.raises(
        DeviceError, match=r"no runtime of iOS 19\.0 .* iOS 17\.5, iOS 18\.0, watch"
    ):
        simctl.connect(PROFILE.model_copy(update={"simulator": spec}))
    mac.set({**usual(), "runtimes": []})
    with pytest.raises(DeviceError, match="there are: none"):
        simctl.connect(PROFILE)
    assert "create" not in mac.verbs()


def test_without_the_device_type(mac: FakeXcrun) -> None:
    spec = SimulatorSpec(device_type="com.apple.CoreSimulator.SimDeviceType.iPhone-99")
    with pytest.raises(DeviceError, match=r"no device type .*iPhone-99; it has: iPhone 15"):
        simctl.connect(PROFILE.model_copy(update={"simulator": spec}))


def test_a_boot_that_hangs_leaves_nothing(mac: FakeXcrun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simctl, "BOOT_TIMEOUT_S", 0.3)
    mac.fault(boot="hangs")
    with pytest.raises(DeviceError, match=r"did not end within 0\.3 s"):
        simctl.connect(PROFILE)
    assert mac.devices == []


def test_a_boot_that_fails_leaves_nothing(mac: FakeXcrun) -> None:
    mac.fault(boot="Unable to boot device because it cannot be located on disk.")
    with pytest.raises(DeviceError, match=r"cannot boot the simulator: .*located on disk"):
        simctl.connect(PROFILE)
    assert mac.devices == []


@pytest.mark.parametrize("answer", ["", "<html>", '{"devices": 1}'])
def test_a_wrong_answer_is_said(mac: FakeXcrun, answer: str) -> None:
    mac.fault(list=answer)
    for look in (lambda: simctl.connect(PROFILE), simctl.listed):
        with pytest.raises(DeviceError, match=r"the answer of simctl list -j (is not|has no)"):
            look()


def test_a_create_without_an_identifier_is_said(mac: FakeXcrun) -> None:
    mac.fault(created="$(touch pwned)")
    with pytest.raises(DeviceError, match="answers no identifier"):
        simctl.connect(PROFILE)


def test_an_unknown_or_foreign_device_is_refused(mac: FakeXcrun) -> None:
    mac.add(WATCH, device(UDID, "my watch"))
    with pytest.raises(DeviceError, match="no simulator of this identifier"):
        simctl.connect(PROFILE, f"0{UDID[1:]}")
    with pytest.raises(DeviceError, match="no iOS device"):
        simctl.connect(PROFILE, UDID)
    with pytest.raises(ConfigError, match="no identifier of a simulator"):
        connect.check(DeviceConfig(profile="ios-simulator", serial="127.0.0.1:5555"))


def test_one_that_is_shut_down_by_others_is_lost(mac: FakeXcrun) -> None:
    phone = simctl.connect(PROFILE)
    state = mac.state
    state["devices"][IOS_18][0]["state"] = "Shutdown"
    mac.set(state)
    with pytest.raises(DeviceError, match="in the state 'Shutdown'"):
        phone.info()
    # Its exit code is 149: simctl's own failure must not pass for a signal of the program.
    with pytest.raises(DeviceError, match="Unable to lookup in current state: Shutdown"):
        phone.spawn(["/bin/true"], timeout_s=10)
    phone.close()
    assert mac.devices == []


def test_spawn_gives_codes_signals_and_words(mac: FakeXcrun) -> None:
    phone = simctl.connect(PROFILE)
    done = phone.spawn(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=10)
    assert (done.exit_code, done.stdout, done.stderr) == (7, "out\n", "err\n")
    done = phone.spawn(["/bin/sh", "-c", "kill -SEGV $$"], timeout_s=10)
    assert done.exit_code == 139
    assert "signal 11" in done.stderr
    hostile = "$(touch pwned) `id` ;'\"\n"
    assert phone.spawn(["/bin/echo", hostile], timeout_s=10).stdout == f"{hostile}\n"
    phone.close()


def test_listed_shows_ios_devices_and_what_to_do(mac: FakeXcrun) -> None:
    other = UDID.replace("9", "8")
    mac.add(IOS_18, device(UDID, "a\x1b[31m", "Booted"))
    mac.add(WATCH, device(f"1{UDID[1:]}", "my watch"))
    lost = device(other, "old", isAvailable=False, availabilityError="runtime profile not found")
    mac.add("com.apple.CoreSimulator.SimRuntime.iOS-15-0", lost)
    good, bad = simctl.listed()
    assert (good.udid, good.state, good.os_build, good.hint) == (
        UDID,
        "Booted",
        "iOS 18.0 (22A3351)",
        "",
    )
    assert good.usable
    assert good.name.isprintable()
    assert (bad.udid, bad.state, bad.usable) == (other, "offline", False)
    assert "install its runtime" in bad.hint
    assert is_udid(good.udid)
