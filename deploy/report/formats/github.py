"""GitHub Actions: annotations as workflow commands, and the summary of a step."""

from __future__ import annotations

import re

from deploy.report import render
from deploy.report.formats import comment
from deploy.report.formats.judged import Line, judged, sentence
from deploy.report.tables import plain
from deploy.types import GateReport, Outcome, Report

SUMMARY_MAX_BYTES = 1 << 20
"""GitHub shows no summary of a step that is larger than 1 MiB."""

_PER_KIND = 10
"""GitHub shows ten annotations of a kind for each step; more are dropped without a word."""

_LONGEST = 2000
_KINDS = {
    Outcome.REGRESSED: "error",
    Outcome.INVALID: "error",
    Outcome.INCONCLUSIVE: "warning",
    Outcome.IMPROVED: "notice",
    Outcome.PASS: "notice",
}


def workflow_commands(report: Report | GateReport) -> str:
    """``::error title=...::...``, a line a verdict that a reviewer should see.

    Errors are what regressed or could not be judged, warnings what is undecided, notices what
    improved or was accepted on purpose. At most ten of a kind; the last then says how many are left
    out. Empty where there is nothing to say.
    """
    shown = judged(report)
    kinds: dict[str, list[str]] = {}
    for line in shown.lines:
        if line.verdict.outcome is not Outcome.PASS or line.verdict.accepted:
            kind = _KINDS[line.verdict.outcome]
            kinds.setdefault(kind, []).append(_annotation(kind, _title(line), sentence(line)))
    commands = []
    for kind, lines in kinds.items():
        if len(lines) > _PER_KIND:
            left = len(lines) - _PER_KIND + 1
            more = f"{left} more are in the report; GitHub shows {_PER_KIND} of a kind."
            lines[_PER_KIND - 1 :] = [_annotation(kind, f"{left} more", more)]
        commands += lines
    return "".join(f"{command}\n" for command in commands)


def summary(report: Report | GateReport, *, link: str = "") -> str:
    """Markdown for ``$GITHUB_STEP_SUMMARY``: the whole report where it fits, else what is below."""
    # A picture beside report.md cannot be seen from there. No text of a model or device can look
    # like one: its brackets are escaped.
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)\n+", "", markdown(report, link=link))
    if len(text.encode("utf-8")) < SUMMARY_MAX_BYTES:
        return text
    return comment.document(report, link=link, most=SUMMARY_MAX_BYTES)


def markdown(report: Report | GateReport, *, link: str = "") -> str:
    """Everything as Markdown: ``report.md`` of a run, every row of a gate."""
    if isinstance(report, Report):
        return render.markdown(report)
    return comment.document(report, link=link, most=1 << 40)


def _title(line: Line) -> str:
    return f"{line.verdict.outcome}: {plain(line.verdict.subject)}: {plain(line.verdict.metric)}"


def _annotation(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={_property(_cut(title))}::{_data(_cut(message))}"


def _data(text: str) -> str:
    # In this order, as GitHub's own toolkit does (actions/toolkit, packages/core/src/command.ts).
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
