"""CSV: a row for each case and metric, in a gate's report for each session's, with all keys.

Files come first, a row for each of their metrics. Where a metric was judged its rows also have the
verdict; in a gate's report every session's row has the verdict on all of them.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from deploy.report.figures import UNITS
from deploy.report.formats.judged import FILES, Line, Shown, judged
from deploy.report.tables import plain
from deploy.types import (
    ARTIFACT_METRICS,
    Artifact,
    DeviceRun,
    GateReport,
    Measurement,
    Report,
    Status,
    Tier,
)

COLUMNS = (
    *("kind", "name", "run_id", "created_utc", "base", "head", "base_commit", "commit"),
    *("side", "pair", "order", "case", "artifact", "artifact_sha256", "variant", "format"),
    *("device", "tier", "device_model", "os_build", "runtime_version", "threads"),
    *("metric", "unit", "status", "reason", "samples", "median", "minimum", "maximum"),
    *("interval_low", "interval_high", "source"),
    *("outcome", "value", "base_value", "ratio", "ratio_low", "ratio_high", "limit"),
    *("verdict_source", "verdict_reason", "accepted"),
)

_FORMULA = re.compile(r"[=+\-@|＝＋－＠]")

Value = str | int | float | None
Row = dict[str, Value]


def csv_rows(report: Report | GateReport) -> str:
    """The table as CSV (RFC 4180, but with line feeds), a header first.

    A text that a spreadsheet would take for a formula has an apostrophe before it, as OWASP
    recommends; figures are written in full.
    """
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in _rows(report):
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return stream.getvalue()


def _rows(report: Report | GateReport) -> Iterator[Row]:
    shown = judged(report)
    common: Row = {
        "kind": shown.kind,
        "name": shown.name,
        "run_id": shown.run_id,
        "created_utc": shown.created_utc,
    }
    if isinstance(report, GateReport):
        common |= {
            "base": report.base.label,
            "head": report.head.label,
            "base_commit": report.base.commit,
            "commit": report.head.commit,
        }
        files = [("base", a) for a in report.base.artifacts]
        files += [("head", a) for a in report.head.artifacts]
    else:
        common["commit"] = report.commit
        files = [("", a) for a in report.artifacts]
    lines = {(line.verdict.subject, line.verdict.metric): line for line in reversed(shown.lines)}
    by_content = {(artifact.name, artifact.sha256): artifact for _, artifact in files}
    runs = {run.profile.name: run for run in shown.devices}
    for side, artifact in files:
        yield from _of_file(common | {"side": side}, artifact, lines)
    used: set[tuple[str, str]] = {(a.name, m) for _, a in files for m in ARTIFACT_METRICS}
    for one in shown.cases:
        case = one.case
        about = _about_case(one, by_content.get((case.artifact, case.artifact_sha256)), runs)
        used |= {(case.id, str(m.metric)) for m in case.measurements}
        if not case.measurements:
            yield common | about | {"status": str(case.status), "reason": case.reason}
        for measurement in case.measurements:
            verdict = _verdict(lines.get((case.id, str(measurement.metric))))
            yield common | about | _of_measurement(measurement) | verdict
    # What was judged and is no figure of a case: parity, a device, a case as a whole.
    for key, line in lines.items():
        if key not in used:
            subject, metric = key
            place: Row = {"case": subject, "device": line.device, "tier": str(line.tier)}
            if line.device == FILES:
                place = {"artifact": subject, "tier": str(line.tier)}
            yield common | place | {"metric": metric} | _verdict(line)


def _of_file(
    common: Row, artifact: Artifact, lines: Mapping[tuple[str, str], Line]
) -> Iterator[Row]:
    for metric in ARTIFACT_METRICS:
        known, why = artifact.figure(metric)
        value = None if known is None else int(known)
        yield (
            common
            | _about_file(artifact)
            | {"tier": str(Tier.HOST), "metric": metric, "unit": UNITS.get(metric, metric)}
            | {"status": str(Status.UNAVAILABLE), "reason": why, "samples": 0}
            | ({"status": str(Status.OK), "reason": ""} if value is not None else {})
            | ({"samples": 1, "median": value} if value is not None else {})
            | ({"minimum": value, "maximum": value} if value is not None else {})
            | _verdict(lines.get((artifact.name, metric)))
        )


def _about_file(artifact: Artifact) -> Row:
    return {
        "artifact": artifact.name,
        "artifact_sha256": artifact.sha256,
        "variant": artifact.variant,
        "format": str(artifact.format),
    }


def _about_case(shown: Shown, artifact: Artifact | None, runs: Mapping[str, DeviceRun]) -> Row:
    case = shown.case
    run = runs.get(case.device)
    info = run.info if run else None
    own: Row = {
        "side": shown.side,
        "pair": shown.pair,
        "order": shown.order,
        "case": case.id,
        "artifact": case.artifact,
        "artifact_sha256": case.artifact_sha256,
        "device": case.device,
        "device_model": info.model if info else None,
        "os_build": info.os_build if info else None,
        "runtime_version": case.runtime_version,
        "threads": case.threads,
    }
    return (_about_file(artifact) if artifact else {}) | own


def _of_measurement(measurement: Measurement) -> Row:
    samples = measurement.samples
    row: Row = {
        "tier": str(measurement.tier),
        "metric": str(measurement.metric),
        "unit": measurement.unit,
        "status": str(measurement.status),
        "reason": measurement.reason,
        "samples": len(samples),
        "source": measurement.source,
    }
    if samples:
        row |= {"median": measurement.median, "minimum": min(samples), "maximum": max(samples)}
    if measurement.interval:
        row |= dict(zip(("interval_low", "interval_high"), measurement.interval, strict=True))
    return row


def _verdict(line: Line | None) -> Row:
    if line is None:
        return {}
    verdict = line.verdict
    row: Row = {
        "outcome": str(verdict.outcome),
        "value": verdict.value,
        "base_value": verdict.base_value,
        "limit": verdict.limit,
        "verdict_source": verdict.source,
        "verdict_reason": verdict.reason,
        "accepted": verdict.accepted,
    }
    if paired := verdict.paired:
        row["ratio"] = paired.ratio
        row |= dict(zip(("ratio_low", "ratio_high"), paired.interval, strict=True))
    elif verdict.value is not None and verdict.base_value:
        row["ratio"] = verdict.value / verdict.base_value
    return row


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = plain(value)
    return f"'{text}" if _FORMULA.match(text) else text
