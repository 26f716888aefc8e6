"""Figures of two places are not compared; hypothesis looks for circumstances where that fails."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.report import comparable
from deploy.report.comparable import ALWAYS, KINDS, Circumstances
from deploy.types import DeviceInfo, DeviceRun, Metric, Status, Tier
from tests.deploy.report import factory

NAMES = st.none() | st.sampled_from(["a", "b", "c"])
ANY = st.builds(
    Circumstances,
    tier=st.none() | st.sampled_from(Tier),
    profile=NAMES,
    device_sha256=NAMES,
    runtime=NAMES,
    runtime_version=NAMES,
    os_build=NAMES,
    threads=st.none() | st.integers(1, 3),
    preset=NAMES,
    unit=NAMES,
    artifact=NAMES,
)
ASKED = st.sets(st.sampled_from(KINDS))


@settings(deadline=None)
@given(ANY, ASKED)
def test_a_place_may_be_compared_with_itself(at: Circumstances, asked: set[str]) -> None:
    assert comparable.reasons(at, dataclasses.replace(at), asked=asked) == ()


@settings(deadline=None)
@given(ANY, ANY, ASKED)
def test_it_does_not_matter_which_side_is_which(
    one: Circumstances, other: Circumstances, asked: set[str]
) -> None:
    there = comparable.reasons(one, other, asked=asked)
    back = comparable.reasons(other, one, asked=asked)
    assert [reason.kind for reason in there] == [reason.kind for reason in back]


@settings(deadline=None)
@given(ANY, ANY, ASKED)
def test_asking_lets_pass_exactly_these_kinds(
    one: Circumstances, other: Circumstances, asked: set[str]
) -> None:
    every = comparable.reasons(one, other)
    left = comparable.reasons(one, other, asked=asked)
    assert list(left) == [r for r in every if r.kind not in asked or r.kind in ALWAYS]


@settings(deadline=None)
@given(ANY, st.sampled_from([f.name for f in dataclasses.fields(Circumstances)]), st.data())
def test_each_difference_is_found_and_told(
    at: Circumstances, field: str, data: st.DataObject
) -> None:
    values: dict[str, Any] = {"tier": Tier.DEVICE, "threads": 64}
    value = values.get(field, "another")
    if getattr(at, field) == value:
        value = None
    other = dataclasses.replace(at, **{field: value})
    (reason,) = comparable.reasons(at, other)
    assert "\n" not in reason.text
    if field != "device_sha256" and value is not None:
        assert str(value) in reason.text


def test_a_serial_number_is_never_shown() -> None:
    one, other = (comparable.device_hash(serial) for serial in ("R5CT1234", "R5CT9999"))
    assert one != other
    at = Circumstances(device_sha256=one)
    (reason,) = comparable.reasons(at, Circumstances(device_sha256=other))
    assert reason.text == "device: differs"
    (unknown,) = comparable.reasons(at, Circumstances())
    assert one not in unknown.text


# --- rows and cases -------------------------------------------------------------------------------


def test_figures_of_two_tiers_or_metrics_are_not_compared() -> None:
    here = factory.measured(Metric.LATENCY_MS, 1.0)
    there = factory.measured(Metric.LATENCY_MS, 1.0, tier=Tier.DEVICE)
    assert comparable.figures(here, here) == ()
    assert [r.kind for r in comparable.figures(here, there)] == ["tier"]
    assert comparable.figures(here, there, asked={"tier"}) == ()
    load = factory.measured(Metric.LOAD_MS, 1.0)
    assert [r.kind for r in comparable.figures(here, load, asked=set(KINDS))] == ["metric"]
    none = factory.unmeasured(Metric.LATENCY_MS, "no clock")
    (reason,) = comparable.figures(here, none, asked=set(KINDS))
    assert reason.text == "latency_ms of head is unavailable: no clock"


def test_cases_differ_by_runtime_threads_and_what_they_lack() -> None:
    fp32 = factory.artifact("fp32")
    row = factory.measured(Metric.LATENCY_MS, 1.0)
    base = factory.case(fp32, "host", row)
    assert comparable.cases(base, base, Metric.LATENCY_MS) == ()
    head = factory.case(fp32, "host", row, runtime_version="1.6.0", threads=4)
    found = comparable.cases(base, head, Metric.LATENCY_MS)
    assert [reason.kind for reason in found] == ["runtime", "threads"]
    assert "1.5.1 of base, 1.6.0 of head" in found[0].text
    assert comparable.cases(base, head, Metric.LATENCY_MS, asked=["runtime", "threads"]) == ()
    broken = factory.case(fp32, "host", status=Status.FAILED, reason="SIGSEGV")
    texts = [r.text for r in comparable.cases(base, broken, Metric.LATENCY_MS)]
    assert "head has no latency_ms: SIGSEGV" in texts


# --- devices and reports --------------------------------------------------------------------------


def run(serial: str, **info: Any) -> DeviceRun:
    values: dict[str, Any] = {
        "serial": serial,
        "profile": "host",
        "tier": Tier.DEVICE,
        "model": "Pixel 8",
        "os_build": "build 1",
    }
    profile = factory.profile("host", Tier.DEVICE, transport="adb")
    return DeviceRun(profile=profile, status=Status.OK, info=DeviceInfo(**(values | info)))


@pytest.mark.parametrize(
    ("base", "head", "kinds"),
    [
        (run("R5CT1"), run("R5CT1"), []),
        (run("R5CT1"), run("R5CT2"), ["device"]),
        (run("10.0.0.1:5555"), run("10.0.0.2:5555"), []),
        (run("10.0.0.1:5555"), run("10.0.0.1:5555", model="Pixel 9"), ["device"]),
        (run("R5CT1"), run("R5CT1", os_build="build 2"), ["os-build"]),
        (run("R5CT1"), run("R5CT1", os_build=None), ["os-build"]),
        (run("R5CT1"), run("R5CT1", tier=Tier.EMULATOR), ["tier"]),
    ],
)
def test_devices(base: DeviceRun, head: DeviceRun, kinds: list[str]) -> None:
    assert [reason.kind for reason in comparable.device_runs(base, head)] == kinds
    assert comparable.device_runs(base, head, asked=kinds) == ()


def test_two_reports_with_nothing_in_common_say_so() -> None:
    full = factory.report()
    assert comparable.reports(full, full) == ()
    other = factory.artifact("other")
    row = factory.measured(Metric.LATENCY_MS, 1.0)
    strange = full.model_copy(
        update={"artifacts": (other,), "cases": (factory.case(other, "elsewhere", row),)}
    )
    (line,) = comparable.reports(full, strange)
    assert line.startswith("the two reports have nothing in common: base has ")
    assert "other.executorch@elsewhere/t1" in line
    empty = full.model_copy(update={"artifacts": (), "cases": ()})
    (line,) = comparable.reports(empty, full)
    assert "base has neither cases nor artifacts" in line
    # Files can be compared where no case can.
    assert comparable.reports(full.model_copy(update={"cases": ()}), full) == ()


def test_a_report_of_another_runtime_is_refused_unless_asked() -> None:
    base = factory.report()
    moved = tuple(case.model_copy(update={"runtime_version": "9.9"}) for case in base.cases)
    head = base.model_copy(update={"cases": moved})
    lines = comparable.reports(base, head)
    assert lines
    assert all("runtime version: " in line for line in lines)
    assert comparable.reports(base, head, asked=["runtime"]) == ()
