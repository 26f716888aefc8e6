"""JUnit XML, as Jenkins and GitLab read it: a test suite a device, a test case a verdict.

``REGRESSED`` is a failure and ``INVALID`` an error (nothing was found out, through no fault of the
model). ``INCONCLUSIVE`` is skipped: it is neither right nor wrong, and calling it a failure would
tell a team of a regression that nobody measured. What stops such a build is the exit code of the
command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from deploy.report.formats.judged import (
    FILES,
    Judged,
    Line,
    change,
    figure,
    judged,
    sentence,
)
from deploy.report.tables import plain
from deploy.types import DeviceRun, GateReport, Outcome, Report

_TAG = {
    Outcome.REGRESSED: "failure",
    Outcome.INVALID: "error",
    Outcome.INCONCLUSIVE: "skipped",
}


def junit(report: Report | GateReport) -> str:
    """The XML document. Attributes are those of the schema of Jenkins' xUnit plugin (junit-10)."""
    shown = judged(report)
    root = ElementTree.Element("testsuites", name=f"pocketship {shown.kind}: {shown.name}")
    devices = {run.profile.name: run for run in shown.devices}
    suites = dict.fromkeys([*devices, *sorted({line.device for line in shown.lines})])
    for device in suites:
        lines = [line for line in shown.lines if line.device == device]
        if lines or device in devices:
            root.append(_suite(shown, device, devices.get(device), lines))
    _count(root, shown.lines)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, "unicode")}\n'


def _suite(
    shown: Judged, device: str, run: DeviceRun | None, lines: Sequence[Line]
) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=plain(device))
    _count(suite, lines)
    suite.set("skipped", str(sum(_TAG.get(o.verdict.outcome) == "skipped" for o in lines)))
    # The schema of Ant's reports takes no time zone here.
    if stamp := re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", shown.created_utc):
        suite.set("timestamp", stamp[0])
    facts = [*shown.facts, ("Outcome", str(shown.outcome)), ("Exit code", str(shown.exit_code))]
    if run:
        facts += _about(run)
    elif device == FILES:
        facts.append(("Device", "none: exported files"))
    properties = ElementTree.SubElement(suite, "properties")
    for label, value in facts:
        ElementTree.SubElement(properties, "property", name=label, value=plain(value))
    for one, title in zip(lines, _titles(lines), strict=True):
        suite.append(_case(one, title))
    return suite


def _count(element: ElementTree.Element, lines: Sequence[Line]) -> None:
    kinds = [_TAG.get(line.verdict.outcome) for line in lines]
    element.set("tests", str(len(lines)))
    element.set("failures", str(kinds.count("failure")))
    element.set("errors", str(kinds.count("error")))


def _about(run: DeviceRun) -> list[tuple[str, str]]:
    info = run.info
    rows = [
        ("Device", run.profile.description),
        ("Tier", str(info.tier if info else run.profile.tier)),
        ("Status", f"{run.status}: {run.reason}" if run.reason else str(run.status)),
    ]
    if info:
        rows += [
            ("Model", info.model or f"unknown: {info.unknown.get('model', 'not said')}"),
            ("OS build", info.os_build or f"unknown: {info.unknown.get('os_build', 'not said')}"),
        ]
    return rows


def _titles(lines: Sequence[Line]) -> list[str]:
    """The metric; where two verdicts share subject and metric, also who set the limit.

    GitLab takes a test case by its class and name, so no two may have the same.
    """
    seen: set[tuple[str, str]] = set()
    titles = []
    for line in lines:
        v = line.verdict
        options = [v.metric, f"{v.metric} ({v.source or 'limit'})"]
        options += [f"{options[1]} #{number}" for number in range(2, len(lines) + 2)]
        title = next(one for one in map(plain, options) if (v.subject, one) not in seen)
        seen.add((v.subject, title))
        titles.append(title)
    return titles


def _case(line: Line, title: str) -> ElementTree.Element:
    verdict = line.verdict
    case = ElementTree.Element("testcase", classname=plain(verdict.subject), name=title)
    told = sentence(line)
    if tag := _TAG.get(verdict.outcome):
        kind = str(verdict.outcome)
        found = ElementTree.SubElement(case, tag, type=kind, message=f"{kind}: {told}")
        found.text = "\n".join(["", *_evidence(line), ""])
    else:
        ElementTree.SubElement(case, "system-out").text = f"{verdict.outcome}: {told}"
    return case


def _evidence(line: Line) -> list[str]:
    verdict = line.verdict
    rows = [
        ("subject", plain(verdict.subject)),
        ("metric", plain(verdict.metric)),
        ("figure", figure(verdict) or "none"),
        ("change", change(verdict)),
        ("limit", "" if verdict.limit is None else repr(verdict.limit)),
        ("set by", plain(verdict.source)),
        ("tier", f"{line.tier}"),
        ("why", plain(verdict.reason)),
    ]
    if paired := verdict.paired:
        rows += [
            ("ratios, pair by pair", " ".join(f"{ratio:.6g}" for ratio in paired.ratios)),
            ("p (worse)", f"{paired.p_worse:.6g}, held to {paired.alpha:.6g}"),
            ("margin", f"{paired.margin:.6g}"),
        ]
    return [f"{label}: {value}" for label, value in rows if value]
