"""A recording says again what a device said, tells no secrets, and is not trusted itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy import connect
from deploy.bench.conditions import ask_state
from deploy.config import DeviceConfig
from deploy.devices import profiles, replay
from deploy.devices.base import ShellResult
from deploy.devices.recording import RecordingDevice
from deploy.devices.replay import ReplayDevice
from deploy.errors import ConfigError, DeviceError
from deploy.types import Tier, silent
from tests.deploy.scripted_phone import ScriptedPhone

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "android"


def of_fixture(name: str) -> ReplayDevice:
    profile = profiles.load("pixel-8").model_copy(update={"transport": "replay"})
    return ReplayDevice(FIXTURES / name, profile)


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
def test_every_fixture_is_a_replay_device(name: str) -> None:
    device = of_fixture(name)
    info = device.info()
    assert info.serial == f"replay:{name}"
    assert info.cpu_count
    assert info.kernel
    assert ask_state(device).state.uptime_s


def test_state_of_a_replayed_phone() -> None:
    assert of_fixture("pixel-8").info().big_core_mask == "0x100"
    assert ask_state(of_fixture("oneplus-11")).state.thermal_status == 2


def test_what_was_not_recorded_is_an_error_and_no_answer() -> None:
    device = of_fixture("pixel-8")
    with pytest.raises(DeviceError, match="no answer to the command 'uptime -p'"):
        device.shell(["uptime", "-p"])
    with pytest.raises(DeviceError, match="no answer to the file /data/x"):
        device.pull("/data/x", Path("unused"), max_bytes=9)


def recorded(phone: ScriptedPhone, folder: Path) -> RecordingDevice:
    return RecordingDevice(phone, folder)


def load(folder: Path) -> ReplayDevice:
    return ReplayDevice(folder, profiles.load(folder / "profile.yaml"))


def test_random_names_differ_and_the_answers_are_found(tmp_path: Path) -> None:
    first = "/w/cases/0123456789abcdef"
    phone = ScriptedPhone(
        answers={"ls": ShellResult(0, f"{first}/pid\n")}, files={"result": lambda: b"{1}"}
    )
    recording = recorded(phone, tmp_path / "r")
    model = "/w/store/" + "a" * 64
    recording.shell(["sh", "-c", "link", "sh", first, model])
    recording.shell(["ls", first])
    recording.pull(f"{first}/result", tmp_path / "out", max_bytes=99)
    recording.finish()

    device = load(tmp_path / "r")
    now = "/w/cases/fedcba9876543210"
    device.shell(["sh", "-c", "link", "sh", now, model])
    assert device.shell(["ls", now]).stdout == f"{now}/pid\n"
    device.pull(f"{now}/result", tmp_path / "again", max_bytes=99)
    assert (tmp_path / "again").read_bytes() == b"{1}"
    # Another model's case folder is another case, which was not recorded.
    other = load(tmp_path / "r")
    with pytest.raises(DeviceError, match="no answer"):
        other.shell(["sh", "-c", "link", "sh", now, "/w/store/" + "b" * 64])


def test_answers_come_in_their_order_and_errors_come_again(tmp_path: Path) -> None:
    phone = ScriptedPhone()
    recording = recorded(phone, tmp_path / "r")
    for text in ("one", "two"):
        phone.answers = {"get": ShellResult(0, text)}
        recording.shell(["get"])
    with pytest.raises(DeviceError):
        recording.pull("/gone", tmp_path / "x", max_bytes=1)
    recording.finish()
    device = load(tmp_path / "r")
    assert [device.shell(["get"]).stdout for _ in range(3)] == ["one", "two", "two"]
    with pytest.raises(DeviceError, match=r"recorded: .*no such file"):
        device.pull("/gone", tmp_path / "x", max_bytes=1)


def test_pushed_files_are_known_by_their_hash(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"content")
    recording = recorded(ScriptedPhone(), tmp_path / "r")
    recording.finish()
    device = load(tmp_path / "r")
    assert device.shell(["sha256sum", "--", "f"], cwd="/w").stdout == ""
    device.push(file, "/w/f")
    assert device.shell(["sha256sum", "--", "f"], cwd="/w").stdout.startswith("ed7002b439e9ac84")


def test_nothing_personal_is_recorded(tmp_path: Path) -> None:
    serial = "R5CT1234ABC"
    getprop = (
        f"[ro.serialno]: [{serial}]\n[ro.product.model]: [Pixel 8]\n[gsm.sim.operator]: [Tele]\n"
        "[persist.sys.account]: [me@example.org]\n"
    )
    answers = {
        "getprop": ShellResult(0, getprop),
        "tell": ShellResult(0, f"{serial} at 192.168.1.23:5555, 00:11:22:aa:bb:cc, me@example.org"),
    }
    recording = recorded(ScriptedPhone(answers=answers), tmp_path / "r")
    recording.ask_questions()
    recording.shell(["tell"])
    recording.finish()
    everything = "\n".join(p.read_text() for p in (tmp_path / "r").rglob("*") if p.is_file())
    for secret in (serial, "192.168.1.23", "00:11:22", "example.org", "Tele"):
        assert secret not in everything
    assert "Pixel 8" in everything
    told = json.loads((tmp_path / "r" / "recording.json").read_text())
    assert any("serial" in line for line in told["redacted"])


def test_a_recording_is_not_trusted(tmp_path: Path) -> None:
    recording = recorded(ScriptedPhone(files={"out": lambda: b"x"}), tmp_path / "r")
    recording.pull("/out", tmp_path / "x", max_bytes=9)
    recording.finish()
    (content,) = (tmp_path / "r" / "pulled").iterdir()
    content.write_bytes(b"changed")
    with pytest.raises(DeviceError, match="damaged"):
        load(tmp_path / "r").pull("/out", tmp_path / "y", max_bytes=9)
    content.unlink()
    (tmp_path / "secret").write_bytes(b"x")
    content.symlink_to(tmp_path / "secret")
    with pytest.raises(DeviceError, match="no plain file"):
        load(tmp_path / "r").pull("/out", tmp_path / "y", max_bytes=9)
    calls = tmp_path / "r" / "calls.jsonl"
    for line in ('{"kind": "pull", "remote": "/out", "pulled": "../../secret"}', "[]", "\0"):
        calls.write_text(line + "\n")
        with pytest.raises(DeviceError, match="no part of a recording"):
            load(tmp_path / "r")


def test_the_command_records_a_device(call: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "host recording"
    answer = call("record", "host", folder)
    assert answer.code == 0, answer.err
    assert "serial" in answer.out
    device = load(folder)
    assert device.profile.transport == "replay"
    assert device.info().cpu_count
    # This machine has no getprop: its refusal is recorded too.
    assert "127" in device.info().unknown["model"]
    assert call("record", "host", folder).code == 2
    assert call("record", "host", tmp_path / "other", "--run", tmp_path / "no run").code == 2


def test_a_recording_is_connected_by_its_folder(tmp_path: Path) -> None:
    phone = ScriptedPhone()
    recording = recorded(phone, tmp_path / "r")
    recording.ask_questions()
    recording.finish()
    profile = str(tmp_path / "r" / "profile.yaml")
    wanted = DeviceConfig(profile=profile, serial=str(tmp_path / "r"))
    with connect.connected(wanted, silent) as device:
        assert device.profile.name == "pixel-8"
        assert device.profile.tier is Tier.DEVICE
        assert ask_state(device).state.boot_id == phone.boot_id
    for serial in (None, str(tmp_path)):
        with pytest.raises(ConfigError, match="recording"):
            connect.check(DeviceConfig(profile=profile, serial=serial))
    with pytest.raises(DeviceError):
        replay.check(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="exists already"):
        recorded(phone, tmp_path / "r")
