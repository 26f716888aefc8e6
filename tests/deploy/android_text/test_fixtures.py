"""What the parsers make of nine devices, vendors' oddities included, and of any damage to them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy import android_text as at

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "android"
DEVICES = sorted(path.name for path in FOLDER.iterdir())


def read(device: str, name: str) -> str:
    return (FOLDER / device / f"{name}.txt").read_bytes().decode()


def test_every_fixture_says_where_it_comes_from() -> None:
    assert len(DEVICES) >= 8
    for device in DEVICES:
        origin = (FOLDER / device / "ORIGIN").read_text()
        assert "written from documentation, not recorded from a device" in origin


@pytest.mark.parametrize(
    ("device", "percent", "celsius", "charging", "counter"),
    [
        ("pixel-8", 80.0, 28.4, True, 3376000),
        # The level 72 and 34.5 °C of its event log are old.
        ("galaxy-s23", 75.0, 35.7, False, 2967000),
        ("galaxy-a14", 84.0, 32.6, True, 0),
        # 188 of 255, with CRLF.
        ("xiaomi-13", 100 * 188 / 255, 33.0, False, 3120000),
        ("oneplus-11", 87.0, 32.5, True, 4864000),
        ("android-10-phone", 100.0, 27.4, True, 2550000),
        ("avd-arm64", 100.0, 25.0, True, 10000),
        ("avd-x86-64", 100.0, 25.0, True, 10000),
        # 26 is whole degrees there: taken for tenths it would be 2.6 °C, so it is not believed.
        ("tv-board", 90.0, None, False, 1000),
    ],
)
def test_battery(
    device: str, percent: float, celsius: float | None, charging: bool, counter: int
) -> None:
    battery = at.parse_dumpsys_battery(read(device, "dumpsys_battery"))
    assert (battery.percent, battery.celsius, battery.charging) == (percent, celsius, charging)
    assert battery.charge_counter_uah == counter
    assert not battery.frozen


def test_only_androids_own_block_counts() -> None:
    vendor = "Current OPLUS Battery Service state:\n  level: 1\n  temperature: 999\n"
    title = "Current Battery Service state:\n"
    own = f"{title}  (UPDATES STOPPED -- use 'reset' to restart)\n  level: 50\n"
    later = f"[EventLogBuffer]\n  temperature: 300\n{title}  scale: 7\n"
    found = at.parse_dumpsys_battery(vendor + own + later)
    assert (found.level, found.temperature_dc, found.scale, found.frozen) == (50, None, None, True)
    assert found.charging is None
    assert found.percent is None


@pytest.mark.parametrize(
    ("device", "status", "battery_c", "sensors"),
    [
        (
            "pixel-8",
            0,
            28.4,
            {"BIG": 58.000004, "VIRTUAL-SKIN": 30.65, "TPU": 37.0, "USB2-MINUS-QI": -1.8060001},
        ),
        ("galaxy-s23", 0, 33.8, {"AP": 35.6, "SKIN": 34.7}),
        ("galaxy-a14", 0, 28.0, {"CPU": 29.1}),
        ("xiaomi-13", 1, None, {}),
        ("oneplus-11", 2, 32.5, {"CPU0": 62.5}),
        ("android-10-phone", 0, 24.4, {"TYPE_SKIN": 25.3}),
        ("tv-board", None, None, {}),
    ],
)
def test_thermal_service(
    device: str, status: int | None, battery_c: float | None, sensors: dict[str, float]
) -> None:
    found = at.parse_thermalservice(read(device, "dumpsys_thermalservice"))
    assert (found.status, found.battery_c, found.overridden) == (status, battery_c, False)
    assert sensors.items() <= found.temperatures_c.items()
    absent = {"soc_ocp_cpu1", "soc", "vdroop1", "battery_cycle", "SUBBAT", "TYPE_POWER_AMPLIFIER"}
    assert not absent & found.temperatures_c.keys()


def test_cached_temperatures_do_not_count() -> None:
    text = read("pixel-8", "dumpsys_thermalservice")
    assert "mValue=84.0" in text
    assert 84.0 not in at.parse_thermalservice(text).temperatures_c.values()


def test_thermal_zones_in_three_units() -> None:
    assert at.parse_thermal_zones(read("xiaomi-13", "thermal_zones")) == {
        "cpu-0-0": 41.2,
        "cpu-0-0#1": 42.1,
        "battery": 33.0,
        "quiet_therm": 33.0,
    }


def test_power_supplies() -> None:
    refused = at.battery_of(at.parse_power_supplies(read("pixel-8", "power_supply")))
    assert refused is not None
    assert refused.values == {}
    assert "Permission denied" in refused.refused["current_now"]
    samsung = at.battery_of(at.parse_power_supplies(read("galaxy-a14", "power_supply")))
    assert samsung is not None
    assert samsung.values == {"current_now": -412, "voltage_now": 4063000}
    assert samsung.refused == {"charge_counter": "the answer is empty"}
    assert at.battery_of(at.parse_power_supplies("")) is None
    other = at.parse_power_supplies("/sys/class/power_supply/bms/type=Battery\n")
    assert at.battery_of(other) == other[0]


def test_time_in_state() -> None:
    assert at.parse_time_in_state(read("galaxy-a14", "time_in_state")) == {
        "policy0": {130000: 4023110, 2002000: 120340}
    }
    assert at.parse_time_in_state(read("galaxy-s23", "time_in_state")) == {}


def test_governors() -> None:
    assert at.parse_governors(read("pixel-8", "governors")) == dict.fromkeys(
        ("policy0", "policy4", "policy8"), "sched_pixel"
    )
    assert at.parse_governors(read("galaxy-s23", "governors")) == {}


def test_memory_of_a_process() -> None:
    new = at.parse_smaps_rollup(read("pixel-8", "smaps_rollup"))
    assert (new.pss_kib, new.private_dirty_kib, new.swap_pss_kib) == (48710, 21004, 12)
    old = at.parse_smaps_rollup(read("android-10-phone", "smaps_rollup"))
    assert (old.rss_kib, old.pss_kib) == (30012, 21002)
    text = read("android-10-phone", "dumpsys_meminfo_pid")
    assert at.parse_dumpsys_meminfo(text) == at.ProcessMemory(12345, 21002, 12002)
    native = text[text.index("                   Pss") :]
    assert at.parse_dumpsys_meminfo(native) == at.ProcessMemory(None, 21002, 12002)
    missing = at.parse_dumpsys_meminfo("No process found for: 7\n")
    assert missing == at.ProcessMemory(None, None, None)


@pytest.mark.parametrize("device", DEVICES)
def test_what_a_device_is(device: str) -> None:
    properties = at.parse_getprop(read(device, "getprop"))
    assert properties["ro.product.cpu.abi"] in {"arm64-v8a", "x86_64"}
    assert at.parse_cpuinfo(read(device, "cpuinfo")).count in {4, 8, 9}
    assert at.parse_meminfo(read(device, "meminfo")).total_kib
    assert at.parse_uptime_s(read(device, "uptime"))
    assert at.parse_boot_id(read(device, "boot_id"))


def test_samples_of_a_gauge_keep_rising_times_only() -> None:
    text = "10.00 -5 4000000\n11.01 - 4000000\n11.00 -7 1\n12.02 -6 400\nsh: x\n13.0"
    assert at.parse_gauge_samples(text) == [
        at.GaugeSample(10.0, -5, 4000000),
        at.GaugeSample(11.01, None, 4000000),
        at.GaugeSample(12.02, -6, 400),
    ]


def test_sections_are_told_by_their_token() -> None:
    token = "0123456789abcdef"
    parts = {"one": "a\nb\n", "two": "@@fedcba9876543210 three\n", "empty": ""}
    assert at.split_sections("noise\n" + at.join_sections(parts, token), token) == parts
    with pytest.raises(ValueError, match="16"):
        at.split_sections("", "(")


# --- Any damage: no crash, no invented number ----------------------------------------------------

Numbers = Callable[[str], Iterator[float]]


def of_battery(text: str) -> Iterator[float]:
    b = at.parse_dumpsys_battery(text)
    raw = (b.level, b.scale, b.status, b.health, b.voltage_mv, b.temperature_dc)
    yield from (float(n) for n in (*raw, b.charge_counter_uah) if n is not None)
    assert b.percent is None or 0 <= b.percent <= 100
    assert b.celsius is None or 10 <= b.celsius <= 100


def of_thermal(text: str) -> Iterator[float]:
    found = at.parse_thermalservice(text)
    yield from found.temperatures_c.values()
    if found.status is not None:
        yield float(found.status)
    assert found.battery_c is None or found.battery_c in found.temperatures_c.values()


def of_zones(text: str) -> Iterator[float]:
    standing = set(numbers_in(text))
    for celsius in at.parse_thermal_zones(text).values():
        forms = [celsius, celsius * 10, celsius * 1000]
        yield next((n for n in standing for f in forms if math.isclose(n, f)), math.inf)


def of_supplies(text: str) -> Iterator[float]:
    for one in at.parse_power_supplies(text):
        yield from map(float, one.values.values())


def of_times(text: str) -> Iterator[float]:
    for states in at.parse_time_in_state(text).values():
        yield from (float(khz) for khz in states)
        yield from (ms / 10 for ms in states.values())


def of_process(text: str) -> Iterator[float]:
    rollup, dump = at.parse_smaps_rollup(text), at.parse_dumpsys_meminfo(text)
    found = (rollup.rss_kib, rollup.pss_kib, rollup.private_dirty_kib, rollup.swap_pss_kib)
    for number in (*found, dump.pid, dump.pss_kib, dump.private_dirty_kib):
        if number is not None:
            yield float(number)


def of_clocks(text: str) -> Iterator[float]:
    uptime = at.parse_uptime_s(text)
    if uptime is not None:
        yield uptime
    assert (boot := at.parse_boot_id(text)) is None or boot in text


PARSERS: dict[str, Numbers] = {
    "dumpsys_battery": of_battery,
    "dumpsys_thermalservice": of_thermal,
    "thermal_zones": of_zones,
    "power_supply": of_supplies,
    "time_in_state": of_times,
    "smaps_rollup": of_process,
    "dumpsys_meminfo_pid": of_process,
    "uptime": of_clocks,
    "boot_id": of_clocks,
}
TEXTS = [
    (name, read(device, name))
    for device in DEVICES
    for name in PARSERS
    if (FOLDER / device / f"{name}.txt").is_file()
]


def numbers_in(text: str) -> Iterator[float]:
    # A minus between words is one, too: `a-5` can be read as -5 or 5.
    for word in re.findall(r"\d+(?:\.\d+)?", text):
        yield from (float(word), -float(word))


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """A fixture with pieces cut out, doubled, swapped or replaced by anything."""
    name, text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        with_what = draw(
            st.one_of(
                st.sampled_from(["", "\n", "-", ".", ":", "9" * 30, "\0", text[start:end] * 2]),
                st.text(max_size=8),
            )
        )
        text = text[:start] + with_what + text[end:]
    if draw(st.booleans()):
        text = "\n".join(draw(st.permutations(text.split("\n")[:12])))
    return name, text


@settings(max_examples=200, deadline=None)
@given(damaged())
def test_damage_makes_no_parser_crash_or_invent_a_number(case: tuple[str, str]) -> None:
    name, text = case
    standing = set(numbers_in(text))
    for number in PARSERS[name](text):
        assert number in standing, (number, text)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_any_text_at_all(text: str) -> None:
    for parser in set(PARSERS.values()):
        standing = set(numbers_in(text))
        assert all(number in standing for number in parser(text))
    at.parse_gauge_samples(text)
    at.split_sections(text, "0" * 16)
