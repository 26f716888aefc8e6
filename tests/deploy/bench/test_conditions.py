"""No hot, restarted or frozen phone gives figures, and what was changed on it is changed back."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.bench.conditions import Conditions, ThermalGate, ask_state
from deploy.bench.passes.base import PassFailed
from deploy.bench.settings import KNOWN, Setting, Settings
from deploy.devices.base import Device, ShellResult
from deploy.devices.host import HostDevice
from deploy.metrics.thermal import device_state
from deploy.types import DeviceInfo, DeviceState, Status, Tier
from tests.deploy.scripted_phone import ScriptedPhone

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "android"


def sections(device: str) -> dict[str, str]:
    return {path.stem: path.read_bytes().decode() for path in (FIXTURES / device).glob("*.txt")}


def conditions(phone: ScriptedPhone, said: list[str] | None = None) -> Conditions:
    progress = said.append if said is not None else lambda _: None
    return Conditions(phone, phone.info(), progress=progress, clock=phone.clock)


# --- The state -----------------------------------------------------------------------------------


def test_state_of_a_phone() -> None:
    state = device_state(sections("pixel-8"), tier=Tier.DEVICE)
    assert (state.uptime_s, state.battery_percent, state.battery_c) == (86412.37, 80.0, 28.4)
    assert (state.charging, state.thermal_status) == (True, 0)
    assert state.temperatures_c["VIRTUAL-SKIN"] == 30.65
    assert state.time_in_state_ms["policy8"] == {500000: 52982110, 2914000: 81230}
    assert state.governors["policy8"] == "sched_pixel"
    assert state.unknown == {}
    refused = device_state(sections("galaxy-s23"), tier=Tier.DEVICE)
    assert "Permission denied" in refused.unknown["governors"]
    assert refused.governors == {}


def test_every_unknown_has_its_reason() -> None:
    state = device_state(sections("tv-board"), tier=Tier.DEVICE)
    assert state.thermal_status is None
    assert state.unknown["thermal_status"] == "Can't find service: thermalservice"
    assert state.battery_c is None
    assert "battery_c" in state.unknown
    # Without a thermal service the kernel's zones tell the temperatures.
    assert state.temperatures_c == {"soc-thermal": 45.555, "gpu-thermal": 45.0}
    nothing = device_state({}, tier=Tier.DEVICE)
    fields = set(DeviceState.model_fields) - {"unknown"}
    assert set(nothing.unknown) == fields


def test_the_thermal_hal_knows_the_battery_where_the_battery_service_does_not() -> None:
    told = sections("galaxy-a14") | {"dumpsys_battery": ""}
    assert device_state(told, tier=Tier.DEVICE).battery_c == 28.0


def test_an_emulators_constants_are_no_data() -> None:
    state = device_state(sections("avd-arm64"), tier=Tier.EMULATOR)
    assert (state.battery_c, state.battery_percent, state.temperatures_c) == (None, None, {})
    assert "constants" in state.unknown["battery_c"]
    assert state.thermal_status == 0
    assert state.uptime_s == 77.01


def test_state_of_a_real_shell_in_one_round_trip(device: Device) -> None:
    asked = ask_state(device)
    assert asked.state.uptime_s is not None
    assert asked.state.uptime_s == pytest.approx(
        float(Path("/proc/uptime").read_text().split()[0]), abs=60
    )
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert asked.state.boot_id == boot
    assert asked.state.thermal_status is None
    assert "dumpsys" in asked.state.unknown["thermal_status"]


# --- The gate ------------------------------------------------------------------------------------


def test_a_cool_phone_does_not_wait() -> None:
    phone = ScriptedPhone()
    asked = ThermalGate(phone, clock=phone.clock).pass_through()
    assert (phone.passed, asked.state.battery_c) == (0.0, 30.0)


@pytest.mark.parametrize(
    "phone",
    [
        ScriptedPhone(celsius=lambda t: 37.1 if t < 100 else 37.0),
        ScriptedPhone(status=lambda t: 1 if t < 100 else 0),
    ],
    ids=["battery", "status"],
)
def test_a_warm_phone_waits_until_it_is_cool(phone: ScriptedPhone) -> None:
    said: list[str] = []
    ThermalGate(phone, clock=phone.clock, progress=said.append).pass_through()
    assert 100 <= phone.passed <= 115
    assert "waiting for it to cool down" in said[0]


@pytest.mark.parametrize(
    ("phone", "says"),
    [
        (ScriptedPhone(celsius=lambda _: 41.25), "41.2 °C"),
        (ScriptedPhone(status=lambda _: 3), "severe"),
    ],
    ids=["battery", "status"],
)
def test_a_phone_that_stays_hot_is_invalid_after_ten_minutes(
    phone: ScriptedPhone, says: str
) -> None:
    with pytest.raises(PassFailed) as failed:
        conditions(phone).before()
    assert failed.value.status is Status.INVALID
    assert re.match(rf"thermal: .*{says}.*600 s", failed.value.reason)
    assert 600 <= phone.passed < 620


def test_an_unknown_temperature_is_a_warning_and_no_refusal() -> None:
    phone = ScriptedPhone(sections={"dumpsys_battery": "", "dumpsys_thermalservice": "Denied\n"})
    watch = conditions(phone)
    _, reason, warnings = watch.after(watch.before())
    assert reason == ""
    assert any("thermal status is not known (Denied)" in word for word in warnings)
    assert any("battery's temperature is not known" in word for word in warnings)


# --- While a case runs ---------------------------------------------------------------------------


def heats_up(phone: ScriptedPhone) -> None:
    phone.status = lambda _: 1


def restarts(phone: ScriptedPhone) -> None:
    phone.boot_id = "00000000-0000-4000-8000-000000000000"


def restarts_unseen(phone: ScriptedPhone) -> None:
    phone.boot_uptime -= 900


def freezes(phone: ScriptedPhone) -> None:
    phone.boot_uptime -= 3


def jumps(phone: ScriptedPhone) -> None:
    phone.boot_uptime += 3


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (heats_up, "thermal: the status changed from none to light"),
        (restarts, "restarted"),
        (restarts_unseen, "uptime went back"),
        (freezes, "clock jumped.* 57.0 s passed on it"),
        (jumps, "clock jumped.* 63.0 s passed on it"),
    ],
)
def test_what_happens_during_a_case_spoils_it(
    what: Callable[[ScriptedPhone], None], says: str
) -> None:
    phone = ScriptedPhone()
    watch = conditions(phone)
    before = watch.before()
    phone.sleep(60)
    assert watch.after(before)[1:] == ("", ())
    what(phone)
    assert re.search(says, watch.after(before)[1])


def test_a_clock_that_counts_instructions_is_not_held_to_this_machines() -> None:
    phone = ScriptedPhone()
    info = DeviceInfo(serial="x", profile="x", tier=Tier.EMULATOR, clock="icount")
    watch = Conditions(phone, info, clock=phone.clock)
    before = watch.before()
    phone.boot_uptime += 500
    assert watch.after(before)[1] == ""


# --- Settings ------------------------------------------------------------------------------------


@pytest.fixture
def own(device: Device, tmp_path: Path) -> tuple[Settings, Path]:
    """A setting that is a file of ours, on a device with a real shell."""
    value = tmp_path / "value"
    value.write_text("old")
    script = 'grep -q . "$2"/changed/mode || exit 9; echo "$1" >"$3"'
    command = ("sh", "-c", script, "sh", "{value}", device.profile.work_dir, str(value))
    return Settings(device, {"mode": Setting("mode", re.compile("old|new"), command)}), value


def test_the_journal_is_there_before_the_change_and_gone_after_the_restoring(
    own: tuple[Settings, Path],
) -> None:
    settings, value = own
    # The command itself fails where the journal is not there yet.
    assert settings.change("mode", former="old", value="new") == ""
    assert value.read_text().strip() == "new"
    journal = Path(settings.folder)
    assert [path.name for path in journal.iterdir()] == ["mode"]
    # A second change must not forget the first value.
    assert settings.change("mode", former="new", value="new") == ""
    assert settings.restore_all() == []
    assert value.read_text().strip() == "old"
    assert list(journal.iterdir()) == []
    assert settings.restore_all() == []


def test_the_journal_is_data_and_never_run(own: tuple[Settings, Path], tmp_path: Path) -> None:
    settings, value = own
    assert settings.change("mode", former="old", value="new") == ""
    journal = Path(settings.folder)
    hostile = {
        "mode": "pocketship-changed 1 new;touch${IFS}pwned",
        "stranger": "pocketship-changed 1 old",
        "$(touch pwned)": "pocketship-changed 1 old",
        "plain": "touch pwned",
    }
    for name, text in hostile.items():
        (journal / name).write_text(text + "\n")
    problems = settings.restore_all()
    assert len(problems) == 4
    assert value.read_text().strip() == "new"
    assert not list(tmp_path.rglob("pwned"))
    assert {path.name for path in journal.iterdir()} == set(hostile)


def test_a_setting_that_cannot_be_made_or_restored_says_so(tmp_path: Path) -> None:
    device = HostDevice(HostDevice().profile.model_copy(update={"work_dir": str(tmp_path)}))
    refuses = Setting("mode", re.compile("a|b"), ("sh", "-c", "echo no {value}; exit 255"))
    settings = Settings(device, {"mode": refuses})
    assert settings.change("mode", former="a", value="b") == "no b"
    assert list((tmp_path / "changed").iterdir()) == []
    (tmp_path / "changed" / "mode").write_text("pocketship-changed 1 a\n")
    assert settings.restore_all() == ["mode could not be restored: no a"]
    assert (tmp_path / "changed" / "mode").exists(), "the next contact tries again"
    with pytest.raises(ValueError, match="cannot be set"):
        settings.change("mode", former="c", value="b")


def test_fixed_performance_is_tried_and_a_refusal_is_a_warning() -> None:
    phone = ScriptedPhone()
    conditions(phone).begin()
    assert any(
        words[-4:] == ["cmd", "power", "set-fixed-performance-mode-enabled", "true"]
        and "pocketship-changed 1 false" in words
        for words in phone.said
    )
    phone = ScriptedPhone(
        answers={"set-fixed": ShellResult(255, "Failed to set FIXED_PERFORMANCE mode")}
    )
    watch = conditions(phone)
    watch.begin()
    # After a restart it is asked for again; the warning stays one.
    watch.begin()
    assert sum("Failed to set" in word for word in watch.after(watch.before())[2]) == 1


def test_fixed_performance_is_restored_at_the_next_contact() -> None:
    listed = ShellResult(0, "fixed-performance-mode pocketship-changed 1 false\n")
    phone = ScriptedPhone(answers={'cd -- "$1"': listed})
    conditions(phone).begin()
    assert ["cmd", "power", "set-fixed-performance-mode-enabled", "false"] in phone.said
    assert set(KNOWN) == {"fixed-performance-mode"}
