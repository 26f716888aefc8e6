"""The parsers of what phones print: real forms, vendors' oddities, and any text at all."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy import android_text as at

GETPROP = """[dalvik.vm.heapsize]: [512m]
[ro.product.model]: [Pixel 8]\r
[ro.empty]: []
[ro.list]: [a,b,[c]]
[persist.two.lines]: [first
second]
garbage that is no property
[ro.soc.model]: [Tensor G3]
"""


def test_getprop_values_can_be_empty_bracketed_and_of_several_lines() -> None:
    assert at.parse_getprop(GETPROP) == {
        "dalvik.vm.heapsize": "512m",
        "ro.product.model": "Pixel 8",
        "ro.empty": "",
        "ro.list": "a,b,[c]",
        "persist.two.lines": "first\nsecond",
        "ro.soc.model": "Tensor G3",
    }


def test_getprop_not_found_gives_nothing() -> None:
    assert at.parse_getprop("/bin/sh: 1: getprop: not found\n") == {}


def test_cpuinfo_of_a_phone() -> None:
    text = "".join(
        f"processor\t: {n}\nBogoMIPS\t: 49.15\nFeatures\t: fp asimd dotprod\nCPU part\t: 0xd41\n\n"
        for n in range(9)
    )
    found = at.parse_cpuinfo(text + "Hardware\t: Qualcomm Technologies, Inc SM8550\n")
    assert found.count == 9
    assert found.hardware == "Qualcomm Technologies, Inc SM8550"
    assert "dotprod" in found.features


def test_cpuinfo_without_processors_is_unknown_not_zero() -> None:
    assert at.parse_cpuinfo("Permission denied").count is None


def test_meminfo() -> None:
    text = "MemTotal:        7767104 kB\nMemFree:  1 kB\nMemAvailable:    3301234 kB\n"
    assert at.parse_meminfo(text) == at.MemInfo(total_kib=7767104, available_kib=3301234)
    assert at.parse_meminfo("cat: Permission denied") == at.MemInfo(None, None)
    assert at.parse_meminfo("MemTotal: 0 kB").total_kib is None


def test_big_cores_are_the_fastest_cluster() -> None:
    text = "".join(
        f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq {khz}\n"
        for n, khz in enumerate([1704000] * 4 + [2367000] * 4 + [2914000])
    )
    frequencies = at.parse_cpu_max_frequencies(text)
    assert at.big_core_mask(frequencies) == "0x100"


@pytest.mark.parametrize("text", ["", "cpu0/cpufreq/cpuinfo_max_freq Permission denied"])
def test_no_frequency_means_no_mask(text: str) -> None:
    assert at.big_core_mask(at.parse_cpu_max_frequencies(text)) is None


def test_equal_cores_have_no_big_ones() -> None:
    assert at.big_core_mask({0: 2000000, 1: 2000000}) is None


@pytest.mark.parametrize(
    ("text", "kib"),
    [
        (
            "Filesystem 1024-blocks Used Available Capacity Mounted on\n"
            "/dev/block/dm-48 114835436 20161432 94526868 18% /data/user/0\n",
            94526868,
        ),
        (
            "Filesystem           1024-blocks    Used Available Capacity Mounted on\n"
            "tmpfs                   498664         0    498664   0% /data\n",
            498664,
        ),
        ("df: /data: Permission denied\n", None),
    ],
)
def test_df(text: str, kib: int | None) -> None:
    assert at.parse_df_available_kib(text) == kib


def test_sha256sum_of_what_is_there() -> None:
    digest = "a" * 64
    text = f"{digest}  model\nsha256sum: b: No such file or directory\n\\{digest}  bad\\\\name\n"
    assert at.parse_sha256sum(text) == {"model": digest}


@given(st.text(max_size=400))
def test_no_text_makes_a_parser_raise(text: str) -> None:
    at.parse_getprop(text)
    at.parse_sha256sum(text)
    assert at.parse_cpuinfo(text).count != 0
    assert at.parse_meminfo(text).total_kib != 0
    assert at.big_core_mask(at.parse_cpu_max_frequencies(text)) is None or "cpuinfo" in text
    at.parse_df_available_kib(text)
    assert "\n" not in at.printable(text)


KEYS = ["processor\t: ", "MemTotal: ", "cpu1/cpufreq/cpuinfo_max_freq ", "x 1 2 ", "[a.b]: ["]


@given(st.lists(st.tuples(st.sampled_from(KEYS), st.text(max_size=30)), max_size=20))
def test_a_number_is_only_what_stands_in_the_text(lines: list[tuple[str, str]]) -> None:
    text = "\n".join(key + value for key, value in lines)
    numbers = [
        *dataclasses.astuple(at.parse_meminfo(text)),
        at.parse_df_available_kib(text),
        *at.parse_cpu_max_frequencies(text).values(),
    ]
    for number in numbers:
        assert number is None or _stands_in(number, text)


def _stands_in(number: int, text: str) -> bool:
    return any(word.isdigit() and int(word) == number for word in text.replace("%", " ").split())


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True),
        # A value that ends a line with a bracket cannot be told from the end of the value.
        st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40),
        max_size=20,
    )
)
def test_getprop_round_trip(properties: dict[str, str]) -> None:
    text = "".join(f"[{name}]: [{value}]\n" for name, value in properties.items())
    assert at.parse_getprop(text) == properties
