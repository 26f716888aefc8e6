"""Latency over minutes: what is drawn where, and why nothing is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deploy.report.pages import minutes, run
from deploy.types import BenchOverride, Case, DeviceState, Measurement, Metric, Status, Tier
from tests.deploy.report import factory
from tests.deploy.report.pages import examples


def traces(cases: tuple[Case, ...]) -> list[dict[str, Any]]:
    plot = minutes.plot(examples.phone(), cases)
    (frame,) = json.loads(str(plot.data))
    found: list[dict[str, Any]] = frame["data"]
    return found


def test_each_minute_is_drawn_where_it_was() -> None:
    """A minute in which no inference began is a gap in time, not a shorter line."""
    first, second = examples.sustained(minutes=4).cases
    row = second.measurements[0].model_copy(update={"minutes": (0, 1, 3, 7)})
    drawn = traces((first, second.model_copy(update={"measurements": (row,)})))
    lines = [trace for trace in drawn if trace.get("yaxis") != "y2"]
    assert [line["x"] for line in lines] == [[0.5, 1.5, 2.5, 3.5], [0.5, 1.5, 3.5, 7.5]]
    assert lines[1]["y"] == pytest.approx([9.4, 9.4, 9.4, 9.4 * 1.35])
    assert lines[1]["text"][-1] == "minute 8"


def test_temperatures_are_of_the_case_that_they_surround() -> None:
    cases = examples.sustained().cases
    warm = [trace for trace in traces(cases) if trace.get("yaxis") == "y2"]
    # The warmest sensor and the battery of each case, from its own beginning.
    assert [(t["x"], t["y"], t["line"]["dash"], t["meta"]["colour"]) for t in warm] == [
        ([0, 12.2], [42.0, 50.5], "solid", 0),
        ([0, 12.2], [28.0, 36.5], "dot", 0),
        ([0, 12.2], [43.0, 51.5], "solid", 1),
        ([0, 12.2], [29.0, 37.5], "dot", 1),
    ]


@pytest.mark.parametrize(
    "after",
    [
        None,
        examples.state(5.0, 30.0, boot="another"),
        examples.state(5.0, 30.0),
        DeviceState(unknown={"uptime_s": "asleep"}),
    ],
)
def test_without_two_readings_of_one_start_no_temperature_is_drawn(
    after: DeviceState | None,
) -> None:
    cases = tuple(c.model_copy(update={"after": after}) for c in examples.sustained().cases)
    plot = minutes.plot(examples.phone(), cases)
    assert not [trace for trace in traces(cases) if trace.get("yaxis") == "y2"]
    assert "No temperature was read on both sides" in plot.notes[1]


def test_what_slowed_down_most_is_said_and_every_minute_is_in_the_table() -> None:
    plot = minutes.plot(examples.phone(), examples.sustained().cases)
    assert plot.described == (
        "Latency of 2 cases over 12 minutes. The one that slowed down most is int8.executorch, 1 "
        "thread: its last minute is 1.35x its first."
    )
    assert plot.table is not None
    assert len(plot.table.rows) == 24
    assert [cell.text for cell in plot.table.rows[-1][1:]] == ["12", "12.69", "1.35x"]


def test_more_cases_than_colours_are_pages() -> None:
    one = examples.sustained().cases[0]
    plot = minutes.plot(examples.phone(), tuple([one] * 8))
    assert [f["label"] for f in json.loads(str(plot.data))] == ["1 to 6 of 8", "7 to 8 of 8"]


def test_where_nothing_is_drawn_the_reason_stands() -> None:
    phone = examples.phone()
    assert "bench.preset: sustained" in minutes.plot(phone, examples.phone_cases()).reason
    counted = phone.profile.model_copy(
        update={"bench": BenchOverride(warmup_iterations=1, iterations=3)}
    )
    own = phone.model_copy(update={"profile": counted})
    assert "profile sets how many" in minutes.plot(own, examples.phone_cases()).reason
    emulated = factory.devices()[0]
    assert "counts instructions" in minutes.plot(emulated, ()).reason
    row = factory.unmeasured(Metric.LATENCY_MS, "too <hot>", Tier.DEVICE)
    case = factory.case(factory.artifact("fp32"), "test-phone", row)
    assert minutes.plot(phone, (case,)).reason == "too <hot>"
    lost = factory.case(
        factory.artifact("fp32"), "test-phone", status=Status.INVALID, reason="device lost"
    )
    assert minutes.plot(phone, (lost,)).reason == "device lost"
    assert minutes.plot(phone, ()).reason == "no case was measured here"


def test_hostile_names_are_text() -> None:
    pages = run.build(examples.sustained(examples.HOSTILE[0]))
    text = pages["device-test-phone.html"]
    assert "<script>document" not in text
    assert "The one that slowed down most is &lt;/script&gt;&lt;script&gt;document" in text


@pytest.mark.parametrize("minutes", [(0,), (1, 0), (0, 0), (-1, 0), (0, 1, 2)])
def test_minutes_that_do_not_fit_the_samples_are_refused(minutes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="minutes are one a sample"):
        Measurement(
            metric=Metric.LATENCY_MS,
            unit="ms",
            tier=Tier.HOST,
            source="s",
            status=Status.OK,
            samples=(1.0, 2.0),
            minutes=minutes,
        )
