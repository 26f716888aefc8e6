"""The verdict in words: what a reader who reads one line should know."""

from __future__ import annotations

from deploy.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    EXIT_REGRESSED,
    MeasurementError,
    ParityError,
)
from deploy.report import figures, ledger
from deploy.report.tables import Table, plain, summary, why, words_of
from deploy.types import Outcome, Report, Status, Verdict

_MEANING = {
    EXIT_OK: "every check holds",
    ParityError.exit_code: "an artifact does not compute what its program computes",
    MeasurementError.exit_code: "a case or a figure that was asked for is missing",
    EXIT_REGRESSED: "a figure is over its limit",
    EXIT_INCONCLUSIVE: "the figures do not decide",
}


def headline(report: Report) -> str:
    """Outcome, what it means, how much was judged, and the exit code: one line."""
    meaning = _MEANING.get(report.exit_code, "see the run's log")
    judged = len(report.verdicts)
    if not judged and report.exit_code == EXIT_OK:
        meaning = "nothing was judged: no budget, no parity check"
    held = sum(v.outcome in (Outcome.PASS, Outcome.IMPROVED) for v in report.verdicts)
    checks = f"; {held} of {judged} checks hold" if judged and held < judged else ""
    if judged and held == judged:
        meaning = f"{'the one check holds' if judged == 1 else f'all {judged} checks hold'}"
    return f"{report.outcome}: {meaning}{checks}. Exit code {report.exit_code}."


def troubles(report: Report) -> tuple[Verdict, ...]:
    """The verdicts that do not hold, worst first."""
    order = [Outcome.REGRESSED, Outcome.INVALID, Outcome.INCONCLUSIVE]
    wrong = [v for v in report.verdicts if v.outcome in order]
    return tuple(sorted(wrong, key=lambda v: order.index(v.outcome)))


def evidence(verdict: Verdict) -> str:
    """A verdict's figure beside its limit, and its reason: ``18.76 ms, limit 15 ms: ...``."""
    unit = figures.UNITS.get(verdict.metric, "")
    parts = []
    if verdict.value is not None:
        parts.append(f"{figures.figure(verdict.metric, verdict.value)} {unit}".rstrip())
    if verdict.limit is not None:
        parts.append(f"limit {figures.limit(verdict.limit)} {unit}".rstrip())
    return ": ".join(part for part in (", ".join(parts), why(verdict.reason)) if part)


def absences(report: Report) -> tuple[str, ...]:
    """What did not take part, device by device and artifact by artifact, with the reason."""
    lines = [
        f"{plain(run.profile.name)}: {words_of(run.status)}: {why(run.reason)}"
        for run in report.devices
        if run.status is not Status.OK
    ]
    lines += [
        f"parity of {plain(p.artifact)}: {words_of(p.status)}: {why(p.reason)}"
        for p in report.parity
        if p.status in (Status.NOT_RUN, Status.UNAVAILABLE)
    ]
    return tuple(lines)


def summary_lines(report: Report) -> tuple[str, ...]:
    """The verdict and the main tables as aligned plain text, ready to print (no markup in it)."""
    lines = [headline(report)]
    lines += [
        f"  {v.outcome}: {plain(v.subject)}: {plain(v.metric)}: {evidence(v)}"
        for v in troubles(report)
    ]
    lines += [f"  {line}" for line in absences(report)]
    for table in summary(report):
        lines += ["", table.caption, *_aligned(table)]
    if told := list(ledger.lines(report)):
        lines += ["", *told]
    return tuple(lines)


def _aligned(table: Table) -> list[str]:
    body, reasons = table.plain_rows()
    rows = [tuple(f"{c.title} ({c.tier})" if c.tier else c.title for c in table.columns), *body]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.columns))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines += [f"({number}) {reason}" for number, reason in enumerate(reasons, 1)]
    return [*lines, *table.notes]
