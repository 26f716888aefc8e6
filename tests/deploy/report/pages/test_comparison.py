"""Two runs side by side: what is drawn of them, and what a gate of the same files adds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest

from deploy.report.pages import comparison, comparison_plots, paired_cases
from deploy.report.pages.plots import Plot
from deploy.types import Case, DeviceRun, GateReport, Metric, Report, Status, Tier
from tests.deploy.report import factory
from tests.deploy.report.pages import examples

NAMES = ("one", "two")


def runs(first: Sequence[Case], second: Sequence[Case]) -> tuple[Report, Report]:
    left, right = (
        factory.report(cases=tuple(cases), run_id=run_id)
        for cases, run_id in ((first, "a"), (second, "b"))
    )
    return left, right


def case(variant: str, *latency: float, device: str = "host", **changes: Any) -> Case:
    row = factory.measured(Metric.LATENCY_MS, *latency, tier=changes.pop("tier", Tier.HOST))
    return factory.case(factory.artifact(variant), device, row, **changes)


def frames(plot: Plot) -> Any:
    return json.loads(str(plot.data))


def ratios(first: Sequence[Case], second: Sequence[Case]) -> list[Plot]:
    return comparison_plots.ratios(paired_cases.pairs(*runs(first, second)), {}, NAMES)


def samples(first: Sequence[Case], second: Sequence[Case]) -> list[Plot]:
    return comparison_plots.distributions(paired_cases.pairs(*runs(first, second)), NAMES)


def test_ratios_are_drawn_with_what_differs_most_on_top() -> None:
    first = [case("a", 10.0, 11.0, 12.0), case("b", 10.0), case("c", 10.0)]
    second = [case("a", 11.0, 12.1, 13.2), case("b", 4.0), case("c", 20.0)]
    (plot,) = ratios(first, second)
    (frame,) = frames(plot)
    (dots,) = frame["data"]
    names = [text.partition(".")[0] for text in frame["layout"]["yaxis"]["ticktext"]]
    assert dict(zip(names, dots["x"], strict=True)) == pytest.approx({"b": 0.4, "c": 2, "a": 1.1})
    assert names == ["b", "c", "a"]
    assert frame["layout"]["xaxis"]["type"] == "log"
    assert "0.40x" in plot.described
    assert "without an interval nobody knows what is noise" in plot.notes[0]


def test_what_may_not_be_compared_is_not_drawn() -> None:
    """Neither on one axis nor as a ratio: tiers, runtimes, and what is 0 or missing."""
    first = [case("a", 1.0, 2.0), case("b", 1.0, 2.0), case("c", 0.0, 0.0)]
    second = [
        case("a", 1.0, 2.0, tier=Tier.DEVICE),
        case("b", 1.0, 2.0, runtime_version="9"),
        case("c", 1.0, 2.0),
    ]
    (none,) = ratios(first, second)
    assert "may be compared" in none.reason
    # A median of 0 is still a distribution.
    (lonely,) = samples(first, second)
    assert frames(lonely)[0]["layout"]["yaxis"]["ticktext"] == ["c.executorch@host/t1"]
    failed = factory.case(factory.artifact("a"), "host", status=Status.FAILED, reason="lost")
    (nothing,) = samples([case("a", 1.0, 2.0)], [failed])
    assert "several samples" in nothing.reason


def test_no_two_tiers_share_an_axis() -> None:
    both = [case("a", 1.0, 2.0), case("a", 5.0, 6.0, device="phone", tier=Tier.DEVICE)]
    for plots in (ratios(both, both), samples(both, both)):
        assert [plot.tiers for plot in plots] == [(Tier.HOST,), (Tier.DEVICE,)]
        assert len({plot.id for plot in plots}) == 2


def test_boxes_stand_side_by_side_and_few_samples_one_by_one() -> None:
    many = [float(i) for i in range(1, 102)]
    first = [case("a", *many), case("b", 1.0, 2.0, 3.0)]
    second = [case("a", *(2 * x for x in many)), case("b", 1.5, 2.5, 3.5, 4.5)]
    (plot,) = samples(first, second)
    boxes = {t["name"]: t for t in frames(plot)[0]["data"] if t["type"] == "box"}
    assert [(b["q1"], b["median"], b["q3"]) for b in boxes.values()] == [
        ([26], [51], [76]),
        ([52], [102], [152]),
    ]
    assert boxes["one"]["y"][0] < 0 < boxes["two"]["y"][0]
    dots = {t["name"]: t for t in frames(plot)[0]["data"] if t["type"] == "scatter"}
    assert (dots["one"]["x"], dots["two"]["x"]) == ([1, 2, 3], [1.5, 2.5, 3.5, 4.5])
    assert dots["one"]["y"] == [0.8] * 3
    # The legend names each run once, whatever stands for it.
    shown = [t["name"] for t in frames(plot)[0]["data"] if t.get("showlegend", True)]
    assert shown == ["one", "two"]
    assert plot.table is not None
    assert [row[2].text for row in plot.table.rows] == ["101", "101", "3", "4"]
    assert "In 0 of them the middle halves" in plot.described


def test_apart_is_said_of_cases_whose_middle_halves_do_not_overlap() -> None:
    low, high = (1.0, 1.1, 1.2, 1.3), (2.0, 2.1, 2.2, 2.3)
    (plot,) = samples([case("a", *low), case("b", *low)], [case("a", *high), case("b", *low)])
    assert "for 2 cases. In 1 of them the middle halves" in plot.described


def test_many_cases_are_pages_of_one_picture() -> None:
    cases = [case(f"v{number}", 1.0, 2.0) for number in range(30)]
    for (plot,) in (ratios(cases, cases), samples(cases, cases)):
        assert [frame["label"] for frame in frames(plot)] == ["1 to 25 of 30", "26 to 30 of 30"]


# --- a gate of the same files ---------------------------------------------------------------------


def gated(**changes: Any) -> tuple[Report, Report, GateReport]:
    """The example's gate over the files of two runs on its phone."""
    base, head = factory.artifact("int8"), factory.artifact("int8", sha256=factory.digest("new"))
    phone = examples.phone()
    left, right = (
        factory.report(
            artifacts=(of,),
            devices=(phone,),
            cases=(case("int8", *latency, device="test-phone", tier=Tier.DEVICE),),
            parity=(),
            comparisons=(),
            run_id=run_id,
        )
        for of, latency, run_id in ((base, (9.0, 9.5), "a"), (head, (10.0, 10.4), "b"))
    )
    gate = examples.gate()
    sides = {
        "base": gate.base.model_copy(update={"artifacts": (base,)}),
        "head": gate.head.model_copy(update={"artifacts": (head,)}),
    }
    return left, right, gate.model_copy(update=sides | changes)


def drawn_intervals(left: Report, right: Report, gate: GateReport) -> list[Any]:
    page = comparison.build(left, right, gate=gate)["compare.html"]
    scripts = re.findall(r'<script type="application/json">(.*?)</script>', page)
    traces = [trace for text in scripts for frame in json.loads(text) for trace in frame["data"]]
    found = [trace for trace in traces if "error_x" in trace]
    assert ("its intervals are drawn" in page) is bool(found)
    assert ("Nothing is drawn of the gate" in page) is not bool(found)
    return found


def test_a_gate_of_the_same_files_gives_its_interval() -> None:
    (trace,) = drawn_intervals(*gated())
    assert trace["name"] == "Steady inference, gate"
    assert trace["x"] == [1.0895]
    assert trace["error_x"]["arrayminus"] == [pytest.approx(1.0895 - 1.081)]
    assert trace["error_x"]["array"] == [pytest.approx(1.0955 - 1.0895)]


def elsewhere() -> DeviceRun:
    phone = examples.phone()
    assert phone.info is not None
    return phone.model_copy(update={"info": phone.info.model_copy(update={"os_build": "other"})})


def test_a_gate_of_anything_else_gives_none() -> None:
    left, right, gate = gated()
    assert drawn_intervals(right, left, gate) == []
    for changes in (
        {"head": gate.head.model_copy(update={"artifacts": (factory.artifact("int8"),)})},
        {"device": elsewhere()},
        {"device": None},
        {
            "verdicts": tuple(
                v.model_copy(update={"paired": v.paired.model_copy(update={"design": "stored"})})
                for v in gate.verdicts
                if v.paired
            )
        },
    ):
        assert drawn_intervals(*gated(**changes)) == []


def test_an_interval_that_reaches_0_or_beyond_is_not_drawn() -> None:
    left, right, gate = gated()
    verdict = gate.verdicts[0]
    assert verdict.paired is not None
    wide = verdict.paired.model_copy(update={"interval": (0.0, math.inf)})
    found = gate.model_copy(update={"verdicts": (verdict.model_copy(update={"paired": wide}),)})
    page = comparison.build(left, right, gate=found)["compare.html"]
    assert "error_x" not in page


def test_hostile_names_of_a_gate_are_text() -> None:
    left, right, gate = gated()
    side = gate.base.model_copy(update={"label": examples.HOSTILE[0]})
    page = comparison.build(left, right, gate=gate.model_copy(update={"base": side}))
    assert "<script>document" not in page["compare.html"]
    assert "&lt;script&gt;document" in page["compare.html"]


@pytest.mark.parametrize(("cases", "folded"), [(500, False), (501, True)])
def test_a_long_table_is_folded(cases: int, folded: bool) -> None:
    some = [case(f"v{number}", 1.0) for number in range(cases)]
    page = comparison.build(*runs(some, some))["compare.html"]
    section = page[page.index('<section id="figures">') :]
    assert section.count('<th role="rowheader"') >= cases
    assert ("<details>" in section[: section.index("<table")]) is folded
