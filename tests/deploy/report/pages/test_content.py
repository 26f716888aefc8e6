"""What the pages hold, before any browser."""

from __future__ import annotations

import dataclasses
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pages import MOST_BYTES, large_report
from deploy.report.pages import comparison, gate, heat, pareto, plots, profiler, run, site, trends
from deploy.report.pages.device import boxes, dots, energy_absent, summaries
from deploy.report.pages.pareto import Option
from deploy.types import DeviceState, Format, Metric, Status, Tier
from tests.deploy.report import factory
from tests.deploy.report.pages import examples

REPORT = examples.report()


# --- data in pages --------------------------------------------------------------------------------


TEXT = st.text(st.sampled_from("<>&/!-'\"\u2028\u2029\\scriptaé\x00"), max_size=12)


@given(st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3))
def test_embedded_data_is_json_that_no_parser_takes_for_markup(value: object) -> None:
    text = str(plots.embedded(value))
    assert json.loads(text) == value
    assert not set("<>&\u2028\u2029") & set(text)


def test_a_number_that_is_not_finite_is_not_embedded() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        plots.embedded([float("nan")])


def test_labels_are_text_to_plotly() -> None:
    assert plots.label("<b>$x$</b> & \u202e", 60) == (
        "&lt;b&gt;&#36;x&#36;&lt;/b&gt; &amp; ⟨U+202E⟩"
    )
    # It is cut before it is escaped: half an entity would show.
    assert plots.label("&" * 40, 5) == "&amp;" * 4 + "…"


def test_files_have_names_of_their_own() -> None:
    found = site.slugs(["Pixel 8", "pixel-8", "../../etc", "שלום", "", "x" * 300, "Pixel 8"])
    assert found["Pixel 8"] == "pixel-8"
    assert found["pixel-8"] == "pixel-8-2"
    assert len(set(found.values())) == len(found) == 6
    assert all(re.fullmatch(r"[a-z0-9-]{1,44}", slug) for slug in found.values())


# --- the site of a run ----------------------------------------------------------------------------


def frames(plot: plots.Plot) -> Any:
    return json.loads(str(plot.data))


def test_an_earlier_run_leaves_no_page_of_a_device_behind(tmp_path: Path) -> None:
    run.write(REPORT, tmp_path)
    assert (tmp_path / "device-test-phone.html").is_file()
    index = run.write(factory.report(), tmp_path)
    assert index == tmp_path / "index.html"
    assert not (tmp_path / "device-test-phone.html").exists()
    assert (tmp_path / "device-host.html").is_file()
    assert {file.name for file in (tmp_path / "assets").iterdir()} == {
        "site.css", "site.js", "plots.js", "plotly.min.js"
    }  # fmt: skip


def test_the_verdict_comes_first_and_every_page_links_to_every_other() -> None:
    pages = run.build(REPORT)
    index = pages["index.html"]
    assert index.index("REGRESSED: a figure is over its limit") < index.index("45 % fewer")
    assert index.index("45 % fewer") < index.index("<table")
    for text in pages.values():
        assert set(re.findall(r'<a href="([^"#]+\.html)"', text)) >= set(pages)


def test_no_two_tiers_share_an_axis() -> None:
    host, emulated = factory.artifact("fp32"), factory.artifact("int8")
    latency = factory.measured(Metric.LATENCY_MS, 1.0, 2.0)
    other = factory.measured(Metric.LATENCY_MS, 50.0, 51.0, tier=Tier.SIMULATOR)
    cases = [factory.case(host, "host", latency), factory.case(emulated, "host", other)]
    for found in (
        boxes(summaries(cases), Metric.LATENCY_MS),
        dots(cases, (Metric.LOAD_MS, Metric.LATENCY_MS), "stages"),
    ):
        assert sorted(plot.tiers for plot in found) == [(Tier.HOST,), (Tier.SIMULATOR,)]
        assert len({plot.id for plot in found}) == 2
        for plot in found:
            (frame,) = frames(plot)
            assert frame["layout"]["yaxis"]["ticktext"] in (
                ["fp32.executorch"],
                ["int8.executorch"],
            )


def test_many_cases_are_pages_of_one_picture() -> None:
    one = factory.measured(Metric.LATENCY_MS, 1.0, 2.0)
    cases = [factory.case(factory.artifact(f"v{i}"), "host", one) for i in range(60)]
    (plot,) = boxes(summaries(cases), Metric.LATENCY_MS)
    found = frames(plot)
    assert [f["label"] for f in found] == ["1 to 25 of 60", "26 to 50 of 60", "51 to 60 of 60"]
    labels = [text for f in found for text in f["layout"]["yaxis"]["ticktext"]]
    assert labels == [f"v{i}.executorch" for i in range(60)]


def test_boxes_are_drawn_from_the_summaries() -> None:
    samples = [float(i) for i in range(101)] + [1000.0]
    case = factory.case(
        factory.artifact("fp32"), "host", factory.measured(Metric.LATENCY_MS, *samples)
    )
    (plot,) = boxes(summaries([case]), Metric.LATENCY_MS)
    (box,) = frames(plot)[0]["data"]
    assert (box["q1"], box["median"], box["q3"]) == ([25.25], [50.5], [75.75])
    assert (box["lowerfence"], box["upperfence"]) == ([0.0], [100.0])


def test_energy_has_its_interval_or_its_reason() -> None:
    (plot,) = dots(examples.phone_cases(), (Metric.ENERGY_MJ,), "energy")
    (dot,) = frames(plot)[0]["data"]
    assert dot["x"][0] == pytest.approx(21 * 2.1)
    assert dot["error_x"]["array"][0] == pytest.approx(21 * 0.2)
    emulated = factory.devices()[0]
    cases = [case for case in factory.report().cases if case.device == "emulated-arm64"]
    assert energy_absent(emulated, cases) == (f"unavailable: {factory.NO_ENERGY}",)
    phone = examples.phone()
    measured = phone.profile.model_copy(
        update={"energy": phone.profile.energy.model_copy(update={"source": "power_rails"})}
    )
    assert (
        energy_absent(phone.model_copy(update={"profile": measured}), examples.phone_cases()) == ()
    )


# --- heat and operators ---------------------------------------------------------------------------


def test_a_restart_begins_a_new_line() -> None:
    of, row = factory.artifact("fp32"), factory.measured(Metric.LATENCY_MS, 1.0)
    cases = [
        factory.case(of, "p", row, before=examples.state(600, 30), after=examples.state(660, 33)),
        factory.case(
            of, "p", row, before=examples.state(20, 29, "b"), after=examples.state(80, 31, "b")
        ),
    ]
    plot = heat.plot(examples.phone(), cases)
    lines = frames(plot)[0]["data"]
    battery = [line for line in lines if line["name"] == "battery"]
    assert [line["y"] for line in battery] == [[30, 33], [29, 31]]
    assert sum(line["showlegend"] for line in battery) == 1
    assert plot.table is not None
    assert len(plot.table.rows) == 4


def test_without_temperatures_the_reason_stands_there() -> None:
    unknown = DeviceState(uptime_s=1.0, unknown={"temperatures_c": "<b>no sensor</b>"})
    case = factory.case(
        factory.artifact("fp32"), "p", factory.measured(Metric.LATENCY_MS, 1.0), before=unknown
    )
    assert heat.plot(examples.phone(), [case]).reason == "<b>no sensor</b>"
    assert heat.plot(examples.phone(), []).reason == "no case recorded the state of the device"
    assert profiler.plot([case]).reason == "the operators pass was not asked for"
    text = factory.pages_text(
        factory.report(devices=(examples.phone(),), cases=(case.model_copy(
            update={"device": "test-phone"}),))
    )  # fmt: skip
    assert "Nothing to draw: &lt;b&gt;no sensor&lt;/b&gt;" in text


# --- size, accuracy, cost -------------------------------------------------------------------------

OPTIONS = st.lists(
    st.builds(
        Option,
        name=st.just("o"),
        bytes=st.integers(0, 4),
        metric=st.integers(0, 4),
        cost=st.none() | st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@given(OPTIONS)
def test_an_option_is_on_the_front_unless_another_beats_it(options: list[Option]) -> None:
    found = pareto.front(options)
    for one, on_front in zip(options, found, strict=True):
        beaten = [
            other
            for other in options
            if (other.cost is None) == (one.cost is None)
            and other.bytes <= one.bytes
            and other.metric >= one.metric
            and (other.cost is None or other.cost <= one.cost)
            and (other.bytes, other.metric, other.cost) != (one.bytes, one.metric, one.cost)
        ]
        assert on_front is not bool(beaten)
    assert any(found)


def test_costs_of_two_devices_are_no_scale() -> None:
    first, second, third = examples.ledger()
    assert third.cost is not None
    elsewhere = third.cost.model_copy(update={"device": "other"})
    report = REPORT.model_copy(
        update={"ledger": (first, second, third.model_copy(update={"cost": elsewhere}))}
    )
    plot = next(one for one in pareto.plots(report) if one.id == "pareto-steps")
    assert plot.tiers == (Tier.HOST,)
    assert plot.table is not None
    assert [column.title for column in plot.table.columns][-2:] == ["top1", "Pareto front"]
    same = next(one for one in pareto.plots(REPORT) if one.id == "pareto-steps")
    assert same.tiers == (Tier.HOST, Tier.DEVICE)


def test_nothing_to_choose_from_says_so() -> None:
    (plot,) = pareto.plots(factory.report(ledger=(), parity=()))
    assert plot.reason
    assert not plot.frames


# --- trends, gates, comparisons -------------------------------------------------------------------


def test_a_change_point_is_told_and_drawn_where_it_is() -> None:
    full, lonely = (trends.trend(i, one) for i, one in enumerate(examples.series()))
    assert full.told == (
        "From 20234567 on (after 19234567): 21.20 → 19.70 (−7.1 %), p = 0.0020; "
        "the recipe changed there too.",
    )
    (frame,) = frames(full.plot)
    assert [shape["x0"] for shape in frame["layout"]["shapes"]] == [18.5]
    levels = [trace["y"][0] for trace in frame["data"] if trace["name"] == "level"]
    assert levels == [21.2, 19.7]
    assert not lonely.plot.frames
    assert "a line needs two runs" in lonely.plot.reason
    assert "2 runs between have no figure." in lonely.plot.notes


def of_a_file(*sizes: float) -> examples.Series:
    """The bytes of a file, with a change wherever they differ."""
    points = tuple(
        dataclasses.replace(point, median=size, interval=None, n=1)
        for point, size in zip(examples.series()[0].points, sizes, strict=False)
    )
    changes = tuple(
        examples.Change(index, points[index - 1].commit, before, after, None)
        for index, (before, after) in enumerate(pairwise(sizes), 1)
        if before != after
    )
    place = {"device": "", "os_build": "", "tier": "host", "threads": 0, "metric": "bytes"}
    return dataclasses.replace(examples.Series(points, changes), **place)


def test_exact_figures_of_a_file_are_told_without_a_test() -> None:
    found = trends.trend(0, of_a_file(100, 100, 90))
    assert found.heading == "fp32.executorch, the file"
    assert found.told == ("From 03234567 on (after 02234567): 100 → 90 (−10.0 %).",)
    (frame,) = frames(found.plot)
    assert frame["data"][0]["y"] == [100, 100, 90]
    assert not any("OS build" in note for note in found.plot.notes)
    assert found.plot.tiers == (Tier.HOST,)


def test_a_file_that_never_changed_has_no_picture() -> None:
    found = trends.trend(0, of_a_file(1234, 1234, 1234))
    assert found.plot.reason == "it is 1,234 in all 3 runs"
    assert not found.plot.frames
    assert found.told == ()
    assert found.plot.table is not None


def test_of_many_exact_changes_the_newest_are_told() -> None:
    found = trends.trend(0, of_a_file(*range(100, 130)))
    assert len(found.told) == 9
    assert "128 → 129" in found.told[-2]
    assert found.told[-1] == "And 21 earlier ones, in the table."
    assert found.plot.table is not None
    assert sum(row[-1].text != "–" for row in found.plot.table.rows) == 29


def test_without_a_history_the_page_of_trends_says_why() -> None:
    assert "made without a history" in run.build(REPORT)["trends.html"]
    text = run.build(REPORT, without_series="the database is <locked>")["trends.html"]
    assert "No trend: the database is &lt;locked&gt;" in text


def test_trends_can_be_written_once_the_history_has_the_run(tmp_path: Path) -> None:
    run.write(REPORT, tmp_path)
    before = {file.name: file.read_text() for file in tmp_path.glob("*.html")}
    path = run.write_trends(REPORT, tmp_path, series=examples.series())
    assert path.read_text() == run.build(REPORT, series=examples.series())["trends.html"]
    changed = {f.name for f in tmp_path.glob("*.html") if f.read_text() != before[f.name]}
    assert changed == {"trends.html"}


def test_a_gate_shows_each_interval_against_its_margin() -> None:
    made = examples.gate()
    pages = gate.build(made)
    assert set(pages) == {"index.html", "sessions.html"}
    data = re.search(r'<script type="application/json">(.*?)</script>', pages["index.html"])
    assert data is not None
    (frame,) = json.loads(data[1])
    squares = {t["name"]: t for t in frame["data"] if t["name"] != "one pair"}
    worse = squares["worse or invalid"]
    assert worse["x"] == [pytest.approx(8.95)]
    assert worse["error_x"]["array"] == [pytest.approx(0.6)]
    assert worse["error_x"]["arrayminus"] == [pytest.approx(0.85)]
    assert set(squares) == {"worse or invalid", "undecided"}
    assert [(s["x0"], s["x1"]) for s in frame["layout"]["shapes"]] == [(-3.0, 3.0)] * 2
    index = pages["index.html"]
    assert index.index("<strong>REGRESSED</strong>") < index.index("<strong>INCONCLUSIVE</strong>")
    assert "A. Person" in index
    sessions = json.loads(
        re.findall(r'<script type="application/json">(.*?)</script>', pages["sessions.html"])[0]
    )
    orders = {trace["name"]: trace["x"] for trace in sessions[0]["data"]}
    assert orders == {"base": [0, 3, 4, 7, 8, 11], "head": [1, 2, 5, 6, 9, 10]}


def test_hostile_sides_of_a_gate_are_text() -> None:
    text = "".join(gate.build(examples.gate(examples.HOSTILE[0])).values())
    assert "<script>document" not in text
    assert "&lt;script&gt;document" in text


def ratios(page: str) -> list[list[str]]:
    rows = re.findall(r'<tr role="row">(.*?)</tr>', page, re.DOTALL)
    return [re.findall(r'<span class="main[^"]*">(.*?)</span>', row) for row in rows]


def test_two_runs_are_compared_where_they_may_be() -> None:
    left = factory.report()
    slower = [
        case.model_copy(
            update={
                "measurements": tuple(
                    m.model_copy(update={"samples": tuple(2 * s for s in m.samples)})
                    for m in case.measurements
                )
            }
        )
        for case in left.cases
    ]
    slower[0] = slower[0].model_copy(update={"runtime_version": "9.9"})
    right = left.model_copy(update={"run_id": "other", "cases": tuple(slower[:-1])})
    page = comparison.build(left, right)["compare.html"]
    found = {(row[0], row[1]): row[-1] for row in ratios(page) if len(row) == 5}
    assert found["fp32.executorch@host/t1", "Steady inference, ms"] == "2.00x"
    first = left.cases[0].id
    assert found[first, "Steady inference, instructions"] == "not compared"
    assert "runtime version: 1.5.1 of base, 9.9 of head" in page
    assert f"only efficientnet-lite0 20300101-120000: {left.cases[-1].id}" in page


def test_two_runs_with_nothing_in_common_say_so() -> None:
    other = factory.report(cases=(), artifacts=())
    page = comparison.build(factory.report(), other)["compare.html"]
    assert "no case and no file in common" in page
    empty = factory.report(cases=(), artifacts=(), comparisons=(), devices=(), ledger=())
    assert "no case and no file in common" in comparison.build(empty, empty)["compare.html"]


def test_another_tier_is_never_compared() -> None:
    of = factory.artifact("fp32")
    host = factory.case(of, "p", factory.measured(Metric.LATENCY_MS, 1.0))
    phone = factory.case(of, "p", factory.measured(Metric.LATENCY_MS, 2.0, tier=Tier.DEVICE))
    page = comparison.build(
        factory.report(cases=(host,)), factory.report(cases=(phone,), run_id="b")
    )["compare.html"]
    assert "2.00x" not in page
    assert "tier: host of base, device of head" in page


# --- size -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_large_report_stays_small(tmp_path: Path) -> None:
    """A tenth of 1,000 cases with 1,000 samples each takes less than a tenth of the room left."""
    report = large_report(cases=100)
    assert sum(case.status is Status.OK for case in report.cases) == 100
    assert {artifact.format for artifact in report.artifacts} == {Format.EXECUTORCH}
    run.write(report, tmp_path)
    assets = sum(file.stat().st_size for file in (tmp_path / "assets").iterdir())
    pages = sum(file.stat().st_size for file in tmp_path.glob("*.html"))
    assert assets + 10 * pages < MOST_BYTES
    assert (tmp_path / "index.html").stat().st_size < 400_000
