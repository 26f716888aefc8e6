"""Operators and the task metric of a device, as the page shows them."""

from __future__ import annotations

from deploy.report.devices import sections
from deploy.report.operators import SHOWN
from deploy.types import Case, Format, Metric, OperatorCost, Report, Status, Tier
from tests.deploy.report import factory


def operator(number: int, *samples: float) -> OperatorCost:
    layers = (f"blocks.{number}.conv",) if number % 2 else ()
    name = f"0: Convolution #{number}"
    return OperatorCost(
        name=name, kind="Convolution", backend="xnnpack", layers=layers, unit="ms", samples=samples
    )


def report_with(case: Case) -> Report:
    host = next(run for run in factory.devices() if run.profile.name == "host")
    return factory.report().model_copy(update={"devices": (host,), "cases": (case,)})


def host_case(**changes: object) -> Case:
    of = factory.artifact("int8", Format.EXECUTORCH)
    rows = [factory.measured(Metric.LATENCY_MS, 1.0, tier=Tier.HOST)]
    return factory.case(of, "host", *rows, **changes)


def test_the_dearest_operators_come_first_with_their_share() -> None:
    """Medians, so that one slow inference does not put a cheap operator on top."""
    costs = tuple(operator(n, n + 1.0, n + 1.0, 500.0 if n == 0 else n + 1.0) for n in range(20))
    report = report_with(host_case(operators=costs))
    (table,) = sections(report)[0].operators
    assert len(table.rows) == SHOWN
    assert [row[0].text for row in table.rows[:2]] == ["0: Convolution #19", "0: Convolution #18"]
    assert [cell.text for cell in table.rows[0][1:4]] == ["blocks.19.conv", "xnnpack", "20.00"]
    assert table.rows[0][4].text == "9.5 %"  # 20 of 1 + 2 + ... + 20
    assert table.rows[1][1].text == "–"
    assert "of 20 rows, medians of 3 inferences" in table.notes[0]
    page = factory.pages_text(report)
    assert "Cost of each operator" in page
    assert "blocks.19.conv" in page
    assert "Convolution #0<" not in page


def test_why_there_are_no_operators_is_said() -> None:
    report = report_with(host_case(operators_reason="the profile <b>cannot</b> be used"))
    (section,) = sections(report)
    assert section.operators == ()
    assert any("the profile <b>cannot</b> be used" in line for line in section.absent)
    assert "&lt;b&gt;cannot" in factory.pages_text(report)


def test_the_task_metric_is_shown_beside_what_it_is_here() -> None:
    source = "top1 of 64 evaluation samples run on the device; 0.89 for the program on this machine"
    rows = [
        factory.measured(Metric.TASK_METRIC, 0.84375, source=source),
        factory.measured(Metric.TASK_METRIC_DROP, 0.046875, source=source),
    ]
    case = host_case()
    case = case.model_copy(update={"measurements": (*case.measurements, *rows)})
    (table,) = [t for t in sections(report_with(case))[0].tables if "Task metric" in t.caption]
    (row,) = table.rows
    assert [cell.text for cell in row[1:]] == ["0.8438", "0.04688", source]
    missing = factory.unmeasured(Metric.TASK_METRIC, "no metric", status=Status.NOT_RUN)
    lacking = host_case().model_copy(update={"measurements": (missing,)})
    (section,) = sections(report_with(lacking))
    assert not [t for t in section.tables if "Task metric" in t.caption]
    assert any("no metric" in line for line in section.absent)
