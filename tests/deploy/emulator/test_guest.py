from __future__ import annotations

import gzip
from typing import Any

import pytest

from deploy.emulator import guest
from deploy.errors import ConfigError
from deploy.types import DeviceProfile


def profile(**emulator: Any) -> DeviceProfile:
    return DeviceProfile.model_validate(
        {
            "name": "test-phone",
            "description": "",
            "transport": "emulator",
            "tier": "emulator",
            "abi": "arm64-v8a",
            "work_dir": "/data/local/tmp",
            "energy": {"source": "none", "reason": "test"},
            "emulator": {"memory_mib": 256, "disk_mib": 64, **emulator},
        }
    )


def test_the_clock_is_called_exact_only_when_it_is() -> None:
    for icount in (True, False):
        told = guest.properties(profile(), serial="S", icount=icount)
        assert (told.get("ro.boot.pocketship.icount") == "1") is icount


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"ro.boot.pocketship.icount": "1"}, "leave it out"),
        ({"bad key": "x"}, "no property name"),
        ({"ro.x\nro.y": "x"}, "no property name"),
        ({"ro.x": "a\nro.boot.pocketship.icount=1"}, "control characters"),
    ],
)
def test_a_profile_cannot_forge_properties(properties: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        guest.properties(profile(properties=properties), serial="S", icount=False)
    assert "device profile test-phone" in str(error.value)


def test_battery_values_replace_constants_and_unknown_ones_are_named() -> None:
    assert guest.battery(profile(battery={"level": "42"}))["level"] == "42"
    assert guest.battery(profile())["temperature"] == "250"
    with pytest.raises(ConfigError, match="'Level' is not one of"):
        guest.battery(profile(battery={"Level": "42"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transport": "adb"}, "not an emulated phone"),
        ({"emulator": None}, "not an emulated phone"),
        ({"abi": "x86_64"}, "arm64-v8a, not x86_64"),
    ],
)
def test_profiles_that_cannot_be_emulated(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        guest.emulator_of(profile().model_copy(update=change))


def test_a_cpu_model_is_no_way_into_qemus_options() -> None:
    with pytest.raises(ConfigError, match="no CPU model"):
        guest.emulator_of(profile(cpu="cortex-a76,aarch64=off"))


def test_keys_and_properties_are_in_the_archive() -> None:
    packed = guest.archive(profile(), serial="SN1", keys=["AAAA me@here"], icount=True)
    content = gzip.decompress(packed.rstrip(b"\0") + b"\0" * 4)
    assert b"AAAA me@here\n" in content
    assert b"ro.serialno=SN1\n" in content
