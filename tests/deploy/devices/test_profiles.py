"""Device profiles: those that come with pocketship, and files that are wrong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from deploy.devices import profiles
from deploy.errors import ConfigError
from deploy.types import DeviceProfile, Tier

PHONES = {
    "pixel-8": {
        "ro.product.manufacturer": "Google",
        "ro.product.model": "Pixel 8",
        "ro.product.device": "shiba",
    },
    "galaxy-s23": {"ro.product.manufacturer": "samsung", "ro.product.model": "SM-S911B"},
    "galaxy-a14": {"ro.product.manufacturer": "samsung", "ro.product.model": "SM-A145F"},
    "xiaomi-13": {"ro.product.manufacturer": "Xiaomi", "ro.product.model": "2211133G"},
}

MINIMAL = """\
name: mine
description: a phone
transport: adb
tier: device
abi: arm64-v8a
work_dir: /data/local/tmp/ps
energy: {source: none, reason: not known}
"""


def with_rails(rails: str) -> str:
    return MINIMAL.replace(
        "source: none, reason: not known", f"source: power_rails, rails: {rails}"
    )


@pytest.mark.parametrize("name", PHONES)
def test_real_phones_are_recognised(name: str) -> None:
    found = profiles.match({"ro.product.cpu.abi": "arm64-v8a", **PHONES[name]})
    assert found is not None
    assert found.name == name


def test_a_sibling_with_another_chip_is_not_taken_for_the_phone() -> None:
    other = {
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.product.manufacturer": "samsung",
        "ro.product.model": "SM-A146P",
    }
    found = profiles.match(other)
    assert found is not None
    assert found.name == "generic-arm64"


def test_other_processors_have_no_profile() -> None:
    assert profiles.match({"ro.product.cpu.abi": "armeabi-v7a"}) is None
    assert profiles.match({}) is None


def test_no_two_profiles_fit_the_same_phone_equally_well() -> None:
    """Each profile's own example must be its own, whatever profiles are added later."""
    for properties in PHONES.values():
        assert profiles.match({"ro.product.cpu.abi": "arm64-v8a", **properties}) is not None
    # An emulator's profile and a phone's are never asked about the same device.
    rules = [
        (p.tier is Tier.EMULATOR, *sorted(p.match.items()))
        for p in profiles.all_profiles()
        if p.match
    ]
    assert len(rules) == len(set(rules))


def test_what_comes_along_is_honest() -> None:
    for profile in profiles.all_profiles():
        assert profile.tested_on, profile.name
        if profile.tier is Tier.DEVICE:
            assert profile.tested_on.startswith("never run on"), profile.name
            if profile.energy.source in {"current_voltage", "charge_counter"}:
                assert profile.energy.current_sign is not None or profile.energy.reason


def test_a_tie_is_an_error_that_names_both(tmp_path: Path) -> None:
    pair: list[DeviceProfile] = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.yaml"
        path.write_text(MINIMAL.replace("mine", name) + "match: {ro.product.model: P.*}\n")
        pair.append(profiles.load(path))
    for order in itertools.permutations(pair):
        with pytest.raises(ConfigError, match=r"one.*two|two.*one"):
            profiles.match({"ro.product.model": "Px"}, list(order))


def test_rules_match_whole_values(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(MINIMAL + "match: {ro.product.model: Pixel 8}\n")
    profile = profiles.load(path)
    assert profiles.match({"ro.product.model": "Pixel 8 Pro"}, [profile]) is None
    assert profiles.match({"ro.product.model": "Pixel 8"}, [profile]) is profile


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MINIMAL + "energie: 1\n", "unknown key 'energie'"),
        (MINIMAL.replace("reason: not known", "raeson: x"), "energy.raeson"),
        (MINIMAL.replace(", reason: not known", ""), "needs a reason"),
        (MINIMAL + "match: {ro.product.model: '('}\n", "match.ro.product.model"),
        (MINIMAL + "cores: [{name: A55, count: 0}]\n", "cores.0.count"),
        (MINIMAL + "cores: [\n", "not a YAML file"),
        (MINIMAL.replace("/data/local/tmp/ps", "here"), "work_dir"),
        (MINIMAL.replace("name: mine", "name: ../../etc"), "name"),
        (MINIMAL.replace("transport: adb", "transport: emulator"), "emulator"),
        (MINIMAL + "shell_timeout_s: 0\n", "time-outs"),
        (MINIMAL.replace("reason:", "rails: [A], reason:"), "for source 'power_rails' only"),
        (with_rails("[CPU, DDR, CPU]"), "energy.rails: 'CPU' appears twice"),
        (with_rails("['']"), "'' is no name of a power rail"),
        (with_rails(r'["C\tPU"]'), "'C PU' is no name of a power rail"),
        (with_rails("CPU"), "energy.rails"),
        (with_rails("[4]"), "energy.rails.0"),
        ("- a\n- b\n", "mapping"),
        ("!!python/object/apply:os.system ['true']\n", "not a YAML file"),
        ("[" * 5000, "not a YAML file"),
    ],
)
def test_a_wrong_file_is_one_line_with_file_and_key(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        profiles.load(path)
    message = str(caught.value)
    assert says in message
    assert str(path) in message
    assert "\n" not in message


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"pixel-9.*pixel-8"):
        profiles.load("pixel-9")


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_a_path_without_a_file(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError):
        profiles.load(tmp_path / path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConfigError, match=r"cannot be read|not a YAML"):
        profiles.load(path)


EMULATORS = [
    {"ro.hardware": "ranchu"},
    {"ro.hardware": "goldfish"},
    {"ro.kernel.qemu": "1"},
    {"ro.boot.qemu": "1"},
    {"ro.hardware": "cutf_cvd"},
    {"ro.hardware": "vbox86"},
    {"ro.hardware": "qemu-virt"},
]


@pytest.mark.parametrize("emulator", EMULATORS, ids=str)
@pytest.mark.parametrize("abi", ["arm64-v8a", "x86_64"])
@pytest.mark.parametrize("phone", PHONES)
def test_an_emulator_is_no_phone_whatever_it_calls_itself(
    emulator: dict[str, str], abi: str, phone: str
) -> None:
    found = profiles.match({"ro.product.cpu.abi": abi, **PHONES[phone], **emulator})
    assert found is not None
    assert (found.tier, found.abi) == (Tier.EMULATOR, abi)
    assert found.name == ("avd-arm64" if abi == "arm64-v8a" else "avd-x86_64")
    assert found.energy.source == "none"
    assert found.cores == ()


@pytest.mark.parametrize("hardware", ["", "shiba", "qcom", "ranchu2", "mt6789", "s5e3830"])
def test_a_phone_is_no_emulator(hardware: str) -> None:
    properties = {
        "ro.product.cpu.abi": "arm64-v8a",
        "ro.hardware": hardware,
        "ro.kernel.qemu": "0",
        "ro.boot.qemu": "",
    }
    found = profiles.match(properties)
    assert found is not None
    assert (found.name, found.tier) == ("generic-arm64", Tier.DEVICE)
    assert "no profile knows this phone" in profiles.doubts(found, properties)


def test_our_emulated_phones_keep_their_own_profiles() -> None:
    for profile in profiles.all_profiles():
        if profile.emulator is not None:
            properties = {"ro.product.cpu.abi": profile.abi, **profile.emulator.properties}
            device = profile.match["ro.product.device"]
            found = profiles.match({**properties, "ro.product.device": device})
            assert found == profile
            assert profiles.doubts(profile, {**properties, "ro.product.device": device}) == ""


def test_a_tablet_with_an_intel_processor_works_with_a_generic_profile() -> None:
    found = profiles.match({"ro.product.cpu.abi": "x86_64", "ro.hardware": "cheets"})
    assert found is not None
    assert found.name == "generic-x86_64"


def test_doubts_are_about_rules_and_properties_that_are_there() -> None:
    pixel = profiles.load("pixel-8")
    there = {"ro.product.cpu.abi": "arm64-v8a", **PHONES["pixel-8"]}
    assert profiles.doubts(pixel, there) == ""
    assert profiles.doubts(pixel, {}) == ""
    assert profiles.doubts(profiles.load("host"), there) == ""
    doubt = profiles.doubts(pixel, {**there, "ro.product.device": "husky\x1b[31m"})
    assert doubt == (
        "the profile pixel-8 was named, but this device has ro.product.device 'husky?[31m'"
    )
