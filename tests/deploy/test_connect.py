"""From a pipeline's words to a device: locks, ``auto``, and emulators that are no phones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import commands, connect, nearby
from deploy.config import DeviceConfig
from deploy.devices import adb_usb, profiles
from deploy.devices.adb_link import NotReady
from deploy.errors import ConfigError, DeviceError
from deploy.types import Tier, silent
from deploy.workspace import RunFolder
from tests.deploy.conftest import Answer, write_pipeline
from tests.deploy.native_adbd import NativeAdbd, hide_others, trusting
from tests.deploy.test_cli import Call


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No phone of this machine's is there."""
    hide_others(tmp_path, monkeypatch)


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NativeAdbd]:
    """A daemon that trusts this user's key."""
    with trusting(tmp_path, monkeypatch) as daemon:
        yield daemon


def wanted(phone: NativeAdbd, profile: str = "generic-x86_64", **more: object) -> DeviceConfig:
    return DeviceConfig.model_validate({"profile": profile, "serial": phone.serial, **more})


def connecting(to: DeviceConfig) -> None:
    with connect.connected(to, silent):
        pass


def test_a_connected_phone_is_locked_by_every_way_to_it(phone: NativeAdbd) -> None:
    other_way = wanted(phone).model_copy(
        update={"serial": phone.serial.replace("127.0.0.1", "localhost")}
    )
    with connect.connected(wanted(phone), silent) as device:
        assert device.shell(["echo", "hello"]).stdout == "hello\n"
        for same in (wanted(phone), other_way):
            with pytest.raises(NotReady, match="in use by process") as busy:
                connecting(same)
            assert busy.value.where == same.serial
        # The refused ones have not taken the lock away from the first.
        assert device.shell(["true"]).exit_code == 0
    with connect.connected(other_way, silent):
        pass


def test_the_second_one_waits_as_long_as_it_is_told(phone: NativeAdbd) -> None:
    told: list[str] = []
    holder = connect.connected(wanted(phone), silent)
    holder.__enter__()

    def progress(line: str) -> None:
        if "waiting" in line:
            told.append(line)
            holder.__exit__(None, None, None)

    with connect.connected(wanted(phone, wait_s=60), progress) as device:
        assert device.shell(["true"]).exit_code == 0
    (line,) = told
    assert line.startswith(f"{phone.serial}: waiting up to 60 s for process ")


def test_an_emulator_is_never_measured_as_a_phone(phone: NativeAdbd) -> None:
    with (phone.commands / "getprop").open("a") as script:
        script.write("echo '[ro.hardware]: [ranchu]'\n")
    for name in ("generic-x86_64", "pixel-8"):
        with pytest.raises(DeviceError, match=r"is an emulator \(ro.hardware=ranchu\)"):
            connecting(wanted(phone, name))
    with connect.connected(wanted(phone, "avd-x86_64"), silent) as device:
        info = device.info()
    assert (info.tier, info.profile) == (Tier.EMULATOR, "avd-x86_64")
    assert "profile" not in info.unknown


def test_what_a_profile_does_not_know_is_said(phone: NativeAdbd) -> None:
    with connect.connected(wanted(phone), silent) as device:
        assert "no profile knows this phone" in device.info().unknown["profile"]
    with connect.connected(wanted(phone, "xiaomi-13"), silent) as device:
        doubt = device.info().unknown["profile"]
    assert "the profile xiaomi-13 was named, but this device has" in doubt
    assert "ro.product.model 'native adbd'" in doubt


def test_auto_asks_the_phone(phone: NativeAdbd, monkeypatch: pytest.MonkeyPatch) -> None:
    found = connect.resolved(wanted(phone, "auto", optional=True), silent)
    assert found == wanted(phone, optional=True)
    monkeypatch.setattr(adb_usb, "listed", lambda: {"R58M12ABCDE": "no permissions"})
    nobody = DeviceConfig(profile="auto")
    with pytest.raises(DeviceError, match=r"there are: R58M12ABCDE \(no permissions\)"):
        connect.resolved(nobody, silent)
    optional = nobody.model_copy(update={"optional": True})
    assert connect.resolved(optional, silent) == optional
    with pytest.raises(DeviceError, match="was not there when its profile was to be chosen"):
        connecting(optional)


def test_auto_without_a_serial_is_the_only_phone(
    phone: NativeAdbd, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = [connect.discovery.Sighting(phone.serial, "tcp")]
    monkeypatch.setattr(nearby, "_emulated_phones", lambda: seen)
    auto = DeviceConfig(profile="auto")
    assert connect.resolved(auto, silent) == wanted(phone)
    seen.append(connect.discovery.Sighting("1.2.3.4:5", "tcp"))
    with pytest.raises(DeviceError, match="exactly one phone"):
        connect.resolved(auto, silent)


def test_auto_in_a_pipeline_becomes_a_profile_before_the_run(
    phone: NativeAdbd, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[RunFolder] = []
    monkeypatch.setattr(
        commands.pipeline, "run_compress", lambda folder, progress: begun.append(folder)
    )
    auto = {"profile": "auto", "serial": phone.serial}
    file = write_pipeline(tmp_path / "p", devices=[auto])
    answer = call("compress", file, "--transport", "tcp", "--wait", "3")
    assert answer.code == 0, answer.err
    (folder,) = begun
    assert folder.config.devices == (wanted(phone, transport="tcp", wait_s=3),)
    # How this one command reached it is not what was asked.
    asked = json.loads((folder.root / "run.json").read_text())["config"]
    assert asked["devices"] == [wanted(phone).model_dump(mode="json")]
    twice = write_pipeline(tmp_path / "q", devices=[auto, dict(auto)])
    assert "'generic-x86_64' appears twice" in call("compress", twice).last
    phone.kill()
    gone = call("run", file, "--wait", "0")
    assert gone.code == 6
    assert "refused" in gone.last
    assert call("check", twice).code == 0, "a check connects to nothing"
    assert call("run", file, "--transport", "smoke").code == 2
    assert len(begun) == 1


def test_how_a_command_reaches_devices() -> None:
    how = commands.reach("usb", 5)
    loaded = commands.config.PipelineConfig.model_validate(
        {
            "version": 1,
            "name": "p",
            "task": {"callable": "a:b"},
            "targets": [{"format": "onnx"}],
            "devices": ["host", "auto", {"profile": "pixel-8", "serial": "A", "wait_s": 9}],
            "recipe": {
                "steps": [{"kind": "quantize"}],
                "cost": {"device": "pixel-8", "serial": "A"},
            },
        }
    )
    reached = how.of(loaded)
    assert [(d.transport, d.wait_s) for d in reached.devices] == [
        (None, 5),
        ("usb", 5),
        ("usb", 5),
    ]
    assert reached.recipe is not None
    assert reached.recipe.cost is not None
    assert reached.recipe.cost.wanted == reached.devices[2]
    assert commands.AS_SAID.of(loaded) == loaded


@pytest.mark.parametrize("transport", ["smoke", "TCP", ""])
def test_a_transport_that_does_not_exist(transport: str) -> None:
    with pytest.raises(ConfigError, match="tcp, usb, adb-server"):
        commands.reach(transport, None)


def test_devices_as_json_and_as_a_table(phone: NativeAdbd, call: Call) -> None:
    listed = json.loads(call("devices", "--json", "--serial", phone.serial).out)
    (row,) = listed["devices"]
    assert (row["serial"], row["state"], row["profile"]) == (
        phone.serial,
        "device",
        "generic-x86_64",
    )
    assert {one["name"] for one in listed["profiles"]} == {
        profile.name for profile in profiles.all_profiles()
    }
    table: Answer = call("devices", "--serial", phone.serial)
    assert table.code == 0
    assert "native adbd" in table.out
    assert call("devices", "--serial", "$(id)").code == 6


# --- devices that are not there yet ---------------------------------------------------------------


@pytest.mark.parametrize("profile", ["generic-x86_64", "auto"])
def test_a_phone_that_comes_late_is_waited_for(phone: NativeAdbd, profile: str) -> None:
    port, told = phone.port, list[str]()
    phone.kill()

    def progress(line: str) -> None:
        told.append(line)
        if "waiting for it" in line:
            phone.start(port)

    late = wanted(phone, profile)
    if profile == "auto":
        assert connect.resolved(late, progress) == wanted(phone)
    else:
        with connect.connected(late, progress) as device:
            assert device.shell(["echo", "hello"]).stdout == "hello\n"
    assert len(told) == len(set(told)), "each attempt says alike things, which is told once"
    said = [line for line in told if "is there" in line or "waiting" in line]
    assert said[0].startswith(f"{phone.serial}: connection refused")
    assert said[0].endswith("waiting for it for 120 s")
    assert said[1].startswith(f"{phone.serial}: is there, after ")
    assert len(said) == 2
    # The lock of the failed attempts is not held on.
    connecting(wanted(phone))


def test_a_phone_that_does_not_come_is_given_up_with_one_line(phone: NativeAdbd) -> None:
    phone.kill()
    with pytest.raises(DeviceError, match=r"connection refused.*; waited 0 s") as gone:
        connecting(wanted(phone, wait_s=0.05))
    assert "\n" not in str(gone.value)
    told: list[str] = []
    with (
        pytest.raises(DeviceError, match="connection refused"),
        connect.connected(wanted(phone, wait_s=0), told.append),
    ):
        pass
    assert not any("waiting" in line for line in told)


def test_how_long_a_device_is_waited_for() -> None:
    def bounds(**more: object) -> tuple[float, float]:
        one = DeviceConfig.model_validate({"profile": "pixel-8", "serial": "A", **more})
        return one.busy_s, one.reach_s

    assert bounds() == (0, 120)
    assert bounds(optional=True) == (0, 0)
    assert bounds(wait_s=0) == (0, 0)
    assert bounds(wait_s=7, optional=True) == (7, 7)
