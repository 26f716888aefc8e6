import csv
import io

import pytest

from deploy.report.formats.rows import COLUMNS, csv_rows
from tests.deploy.report import factory, gate_factory
from tests.deploy.report.formats import hostile


def read(report) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(csv_rows(report)), strict=True)
    rows = list(reader)
    assert tuple(reader.fieldnames) == COLUMNS
    assert all(None not in row and None not in row.values() for row in rows)
    return rows


def test_every_measurement_of_a_run_is_a_row_with_its_keys():
    report = factory.report()
    rows = {(row["case"], row["metric"]): row for row in read(report) if row["case"]}
    for case in report.cases:
        for measurement in case.measurements:
            row = rows[case.id, measurement.metric]
            assert row["device"] == case.device
            assert row["artifact_sha256"] == case.artifact_sha256
            assert row["tier"] == measurement.tier
            assert (row["status"], row["reason"]) == (measurement.status, measurement.reason)
            assert int(row["samples"]) == len(measurement.samples)
            # In full: what is read back is the same number.
            assert (float(row["median"]) if row["median"] else None) == measurement.median
    judged = rows["int8.onnx@host/t1", "latency_ms"]
    assert (judged["outcome"], judged["limit"]) == ("REGRESSED", "15.0")
    assert judged["variant"] == "int8"
    assert judged["commit"] == report.commit
    absent = rows["int8.coreml@host/t1", ""]
    assert (absent["status"], absent["reason"]) == ("not_run", factory.NO_MAC)


def test_files_and_what_was_judged_of_them():
    files = {
        (row["artifact"], row["metric"]): row for row in read(factory.report()) if not row["case"]
    }
    size = files["int8.executorch", "bytes"]
    assert (size["median"], size["outcome"], size["tier"]) == ("4998304", "PASS", "host")
    assert files["fp32.executorch", "parity"]["outcome"] == "PASS"
    unknown = files["int8.coreml", "partitions"]
    assert unknown["status"] == "unavailable"
    assert unknown["reason"].startswith("Core ML places operators")
    assert unknown["median"] == ""


def test_macs_and_planned_memory_stand_beside_the_bytes_or_say_why_not():
    counted = factory.artifact(
        "int8", macs=387_000_000, unknown={"planned_bytes": "planned at load"}
    )
    rows = {row["metric"]: row for row in read(factory.report(artifacts=(counted,), cases=()))}
    assert (rows["macs"]["median"], rows["macs"]["unit"]) == ("387000000", "MACs")
    plan = rows["planned_bytes"]
    assert (plan["status"], plan["reason"], plan["median"]) == (
        "unavailable",
        "planned at load",
        "",
    )


def test_every_verdict_is_in_some_row():
    for report in (factory.report(), gate_factory.gate_report()):
        rows = read(report)
        for verdict in report.verdicts:
            assert any(
                verdict.subject in (row["case"], row["artifact"])
                and (row["metric"], row["outcome"]) == (verdict.metric, verdict.outcome)
                for row in rows
            ), verdict


def test_a_gates_rows_are_its_sessions():
    report = gate_factory.gate_report()
    rows = [row for row in read(report) if row["order"]]
    assert [(r["pair"], r["order"], r["side"]) for r in rows] == [
        ("0", "0", "base"),
        ("0", "1", "head"),
        ("1", "2", "head"),
        ("1", "3", "base"),
    ]
    assert {row["base"] for row in rows} == {"git:main"}
    assert {row["ratio"] for row in rows} == {repr(155_330_255 / 84_664_336)}
    paired = next(row for row in read(report) if row["metric"] == "latency_ms" and row["value"])
    assert [paired[f"ratio{end}"] for end in ("", "_low", "_high")] == ["1.08", "1.07", "1.09"]


@pytest.mark.parametrize("text", hostile.TEXTS)
def test_no_cell_is_a_formula_and_no_text_breaks_a_row(text):
    rows = read(hostile.gate_report(text))
    plain = read(gate_factory.gate_report())
    sessions = [row for row in rows if row["order"]]
    assert len(sessions) == len([row for row in plain if row["order"]])
    for row in rows:
        for cell in row.values():
            number = cell.replace(".", "", 1).replace("e", "").replace("-", "").isdecimal()
            assert number or not cell.startswith(tuple("=+-@|\t\r＝＋－＠")), cell
            assert cell.isprintable(), cell
