"""What simctl prints, in its documented forms and in broken ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.devices.simctl_text import Runtime, created_udid, is_udid, newest_ios, parse_list
from tests.deploy.fake_mac import IOS_17, IOS_18, IPHONE, WATCH, device, runtime, usual

UDID = "235EF288-A327-4CDB-A21E-AC4C45D99913"


def listing(**changes: Any) -> str:
    return json.dumps({**usual(), **changes})


def test_a_whole_answer_is_read() -> None:
    booted = device(UDID, "iPhone 15", "Booted")
    found = parse_list(listing(devices={IOS_18: [booted], WATCH: []}))
    (seen,) = found.devices
    assert (seen.udid, seen.name, seen.runtime, seen.booted) == (UDID, "iPhone 15", IOS_18, True)
    assert found.device(UDID.lower()) == seen
    system = found.runtime(IOS_17)
    assert system is not None
    assert (system.name, system.build, system.device_types) == ("iOS 17.5", "21F79", (IPHONE,))
    assert found.type_name(IPHONE) == "iPhone 15"
    assert found.type_name("com.apple.CoreSimulator.SimDeviceType.iPhone-99") == "iPhone-99"


def test_what_is_not_available_is_known_as_such() -> None:
    lost = device(UDID, "old", isAvailable=False, availabilityError="runtime profile not found")
    gone = runtime(IOS_18, "18.0", "22A3351") | {"isAvailable": False}
    found = parse_list(listing(devices={IOS_18: [lost]}, runtimes=[gone]))
    assert found.devices[0].unavailable == "runtime profile not found"
    assert found.runtimes == ()


def test_xcode_11_says_less_of_a_runtime() -> None:
    row = runtime(IOS_17, "17.5", "21F79")
    del row["platform"], row["supportedDeviceTypes"]
    assert parse_list(listing(runtimes=[row])).runtimes == (
        Runtime(IOS_17, "iOS", (17, 5), "21F79", ()),
    )


def test_the_newest_ios_is_by_number_and_no_watch() -> None:
    rows = [
        runtime("com.apple.CoreSimulator.SimRuntime.iOS-9-3", "9.3", "a"),
        runtime("com.apple.CoreSimulator.SimRuntime.iOS-18-10", "18.10", "b"),
        runtime("com.apple.CoreSimulator.SimRuntime.iOS-18-9", "18.9", "c"),
        runtime("com.apple.CoreSimulator.SimRuntime.watchOS-99-0", "99.0", "d"),
    ]
    found = parse_list(listing(runtimes=rows)).runtimes
    newest = newest_ios(found, (17,))
    assert newest is not None
    assert newest.version == (18, 10)
    assert newest_ios(found, (19,)) is None


def test_hostile_entries_hide_no_others() -> None:
    hostile = [
        None,
        7,
        [],
        {},
        device("../../etc", "path"),
        device(f"{UDID}; touch pwned", "shell"),
        device(UDID.replace("2", "3"), "\x1b[31m\n\u202eevil", state=["Booted"]),
        device(UDID, "good", "Booted"),
    ]
    found = parse_list(listing(devices={IOS_18: hostile, "x": None, "$(id)": [device(UDID, "y")]}))
    assert [one.udid for one in found.devices] == [UDID.replace("2", "3"), UDID, UDID]
    evil, _, unknown = found.devices
    assert evil.name.isprintable()
    assert evil.state == ""
    assert unknown.runtime == ""


@pytest.mark.parametrize(
    "text", ["", "garbage", "[]", "{}", '{"devices": 3}', "[" * 100_000, "1e999"]
)
def test_what_is_no_answer_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|no 'devices'"):
        parse_list(text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {
            "devices": st.dictionaries(
                st.sampled_from([IOS_18, "?"]),
                st.lists(
                    st.fixed_dictionaries(
                        {
                            "udid": st.just(UDID) | json_values,
                            "name": json_values,
                            "isAvailable": json_values,
                        }
                    )
                    | json_values
                ),
            )
            | json_values,
            "runtimes": st.lists(
                st.fixed_dictionaries(
                    {
                        "identifier": st.just(IOS_18) | json_values,
                        "version": st.just("18.0") | json_values,
                        "isAvailable": st.just(True) | json_values,
                    }
                )
            )
            | json_values,
        }
    )
)
def test_no_json_breaks_the_parser(data: Any) -> None:
    try:
        found = parse_list(json.dumps(data))
    except ValueError:
        return
    assert all(is_udid(one.udid) and one.name.isprintable() for one in found.devices)
    assert all(one.identifier == IOS_18 for one in found.runtimes)


def test_created_udid_is_the_last_line() -> None:
    assert created_udid(f"No runtime specified, using 'iOS 18.0'\n{UDID}\n") == UDID
    assert created_udid("") is None
    assert created_udid(f"{UDID} and more") is None
