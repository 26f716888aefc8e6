"""What surrounded a case, as the page shows it."""

from __future__ import annotations

from deploy.android_text import STATUSES
from deploy.metrics import thermal
from deploy.report.conditions import table
from deploy.report.devices import sections
from deploy.types import DeviceState, Format, Metric, Tier
from tests.deploy.report import factory

OF = factory.artifact("int8", Format.EXECUTORCH)
ROW = factory.measured(Metric.LATENCY_MS, 1.0, tier=Tier.HOST)


def test_before_and_after_stand_beside_each_other() -> None:
    before = DeviceState(battery_percent=81, battery_c=30.5, thermal_status=0, temperatures_c={})
    after = before.model_copy(
        update={"battery_c": 36.25, "thermal_status": 2, "temperatures_c": {"<skin>": 44.0, "x": 9}}
    )
    case = factory.case(OF, "host", ROW, before=before, after=after, attempts=2)
    found = table([case])
    assert found is not None
    assert [cell.text for cell in found.rows[0][1:6]] == [
        "81.0",
        "30.5 → 36.2",
        "none → moderate",
        "unknown → 44.0 (<skin>)",
        "2",
    ]
    host = next(run for run in factory.devices() if run.profile.name == "host")
    report = factory.report().model_copy(update={"devices": (host,), "cases": (case,)})
    assert any(one.caption == "Conditions" for one in sections(report)[0].tables)
    assert "&lt;skin&gt;" in factory.pages_text(report)


def test_warnings_are_shown_and_silence_takes_no_room() -> None:
    quiet = factory.case(OF, "host", ROW, before=DeviceState(uptime_s=1.0), after=None)
    assert table([quiet]) is None
    warned = factory.case(OF, "host", ROW, warnings=("clocks vary more", "b"))
    found = table([quiet, warned])
    assert found is not None
    assert [row[-1].text for row in found.rows] == ["clocks vary more; b"]


def test_words_are_those_of_the_gate() -> None:
    for status, word in enumerate(STATUSES):
        state = DeviceState(thermal_status=status)
        found = table([factory.case(OF, "host", ROW, before=state, after=state)])
        assert found is not None
        assert found.rows[0][3].text == word
        hot = thermal.too_warm(state)
        assert hot == ("" if status == 0 else f"the thermal status is {word}")
