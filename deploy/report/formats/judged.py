"""What the report of a run and that of a gate have in common, as every format shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.report import figures, words
from deploy.report.tables import Table, plain, summary, why
from deploy.types import Acceptance, Case, DeviceRun, GateReport, Outcome, Report, Tier, Verdict

FILES = "files"
"""Where verdicts on exported files stand: they belong to no device."""

WORST_FIRST = (
    Outcome.REGRESSED,
    Outcome.INVALID,
    Outcome.INCONCLUSIVE,
    Outcome.IMPROVED,
    Outcome.PASS,
)

_SAID = {
    Outcome.REGRESSED: "got worse",
    Outcome.INVALID: "could not be judged",
    Outcome.INCONCLUSIVE: "undecided",
    Outcome.IMPROVED: "got better",
    Outcome.PASS: "without a change that counts",
}


@dataclass(frozen=True)
class Line:
    """One verdict with where it belongs. ``device`` is a profile's name, or :data:`FILES`."""

    verdict: Verdict
    device: str
    tier: Tier


@dataclass(frozen=True)
class Shown:
    """One case as it was measured; in a gate's report with its place among the sessions."""

    case: Case
    side: Literal["", "base", "head"] = ""
    pair: int | None = None
    order: int | None = None


@dataclass(frozen=True)
class Judged:
    """A report of either kind. ``lines`` are its verdicts, worst first, else in its order.

    ``name`` is a run's pipeline, or of a gate what was compared; ``place`` tells several reports of
    one change apart; ``facts`` say how it was made. All texts but those in ``lines``, ``devices``
    and ``cases`` are plain already.
    """

    kind: Literal["run", "gate"]
    name: str
    place: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    lines: tuple[Line, ...]
    devices: tuple[DeviceRun, ...]
    cases: tuple[Shown, ...]
    accepted: tuple[Acceptance, ...]
    tables: tuple[Table, ...]
    outcome: Outcome
    exit_code: int
    run_id: str
    created_utc: str

    @property
    def troubles(self) -> tuple[Line, ...]:
        """The verdicts that do not hold."""
        return tuple(one for one in self.lines if one.verdict.outcome in WORST_FIRST[:3])

    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that occur, for a legend."""
        seen = {one.tier for one in self.lines}
        seen |= {run.info.tier if run.info else run.profile.tier for run in self.devices}
        return tuple(tier for tier in Tier if tier in seen)


def judged(report: Report | GateReport) -> Judged:
    """``report`` as the formats show it."""
    return _of_gate(report) if isinstance(report, GateReport) else _of_run(report)


def _of_run(report: Report) -> Judged:
    facts = [("Commit", report.commit or "unknown")]
    if report.baseline_variant is not None:
        facts.append(("Baseline", report.baseline_variant))
    return Judged(
        kind="run",
        name=plain(report.pipeline),
        place=plain(report.pipeline),
        headline=words.headline(report),
        facts=_facts(report, facts),
        lines=_lines(report.verdicts, {case.id: case for case in report.cases}, report.devices),
        devices=report.devices,
        cases=tuple(Shown(case) for case in report.cases),
        accepted=(),
        tables=summary(report),
        outcome=report.outcome,
        exit_code=report.exit_code,
        run_id=plain(report.run_id),
        created_utc=plain(report.created_utc),
    )


def _of_gate(report: GateReport) -> Judged:
    sides = []
    for label, side in (("Base", report.base), ("Head", report.head)):
        at = f" ({side.commit[:12]})" if side.commit else ""
        sides.append((label, f"{side.label}{at}"))
    pairs = 1 + max((session.pair for session in report.sessions), default=-1)
    if pairs:
        sides.append(("Pairs of sessions", str(pairs)))
    devices = () if report.device is None else (report.device,)
    cases = {session.case.id: session.case for session in report.sessions}
    return Judged(
        kind="gate",
        name=f"{plain(report.base.label)} → {plain(report.head.label)}",
        place=plain(report.device.profile.name) if report.device else FILES,
        headline=_gate_headline(report),
        facts=_facts(report, sides),
        lines=_lines(report.verdicts, cases, devices),
        devices=devices,
        cases=tuple(Shown(s.case, s.side, s.pair, s.order) for s in report.sessions),
        accepted=report.accepted,
        tables=(),
        outcome=report.outcome,
        exit_code=report.exit_code,
        run_id=plain(report.run_id),
        created_utc=plain(report.created_utc),
    )


def _facts(report: Report | GateReport, own: list[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    rows = [
        *own,
        ("Run", report.run_id),
        ("Made, UTC", report.created_utc),
        ("pocketship", report.pocketship_version),
        ("Seed", str(report.seed)),
    ]
    return tuple((label, plain(value)) for label, value in rows)


def _lines(
    verdicts: tuple[Verdict, ...], cases: Mapping[str, Case], devices: tuple[DeviceRun, ...]
) -> tuple[Line, ...]:
    tiers = {run.profile.name: run.info.tier if run.info else run.profile.tier for run in devices}
    measured = {(c.id, str(m.metric)): m.tier for c in cases.values() for m in c.measurements}
    found = []
    for verdict in verdicts:
        device = _device(verdict, cases, tiers)
        # Reports of version 1 have no tier in a verdict.
        tier = verdict.tier or measured.get((verdict.subject, verdict.metric))
        found.append(Line(verdict, device, tier or tiers.get(device, Tier.HOST)))
    return tuple(sorted(found, key=lambda line: WORST_FIRST.index(line.verdict.outcome)))


def _device(verdict: Verdict, cases: Mapping[str, Case], tiers: Mapping[str, Tier]) -> str:
    if case := cases.get(verdict.subject):
        return case.device
    if verdict.subject in tiers:
        return verdict.subject
    # <artifact>@<device>/t<threads>, of a case that left nothing, or with wildcards of a budget.
    _, at, place = verdict.subject.rpartition("@")
    name, slash, _ = place.rpartition("/t")
    return name if at and slash and name else FILES


def _gate_headline(report: GateReport) -> str:
    judged_ = len(report.verdicts)
    if not judged_:
        return f"{report.outcome}: nothing was compared. Exit code {report.exit_code}."
    counts = [(sum(v.outcome is one for v in report.verdicts), one) for one in WORST_FIRST]
    told = [f"{count} {_SAID[one]}" for count, one in counts if count]
    what = f"of {judged_} figure{'' if judged_ == 1 else 's'} {', '.join(told)}"
    accepted = sum(bool(verdict.accepted) for verdict in report.verdicts)
    more = f"; {accepted} accepted on purpose" if accepted else ""
    return f"{report.outcome}: {what}{more}. Exit code {report.exit_code}."


def figure(verdict: Verdict) -> str:
    """``18.76 ms``, or ``14.2 → 18.76 ms`` where there is a base; empty where there is none."""
    if verdict.value is None:
        return ""
    unit = figures.UNITS.get(verdict.metric, "")
    values = [verdict.value] if verdict.base_value is None else [verdict.base_value, verdict.value]
    return f"{' → '.join(figures.figure(verdict.metric, v) for v in values)} {unit}".rstrip()


def change(verdict: Verdict) -> str:
    """How much head differs: ``+8.0 % [+7.0 %, +9.0 %], 6 pairs``; empty where nothing says."""
    if (paired := verdict.paired) is not None:
        low, high = (percent(bound) for bound in paired.interval)
        pairs = len(paired.ratios)
        how = f"{pairs} pair{'' if pairs == 1 else 's'}"
        if paired.design == "stored":
            how += ", base measured at another time"
        return f"{percent(paired.ratio)} [{low}, {high}], {how}"
    if verdict.value is None or verdict.base_value is None:
        return ""
    if verdict.value == verdict.base_value:
        return "equal"
    if verdict.base_value == 0:
        return f"from 0 by {figures.figure(verdict.metric, verdict.value)}"
    return percent(verdict.value / verdict.base_value)


def percent(ratio: float) -> str:
    """A ratio as a signed change: ``+83.5 %``, ``−0.0012 %``, ``±0 %``."""
    share = 100 * abs(ratio - 1)
    if share == 0:
        return "±0 %"
    sign = "+" if ratio > 1 else "−"
    return f"{sign}{f'{share:,.1f}' if share >= 1 else figures.significant(share, 2)} %"


def reason(verdict: Verdict) -> str:
    """Why a verdict is what it is, with who signed off a change that was accepted."""
    said = why(verdict.reason)
    return f"accepted: {plain(verdict.accepted)} ({said})" if verdict.accepted else said


def sentence(line: Line) -> str:
    """A verdict on one line: figures, change, tier, limit, reason."""
    verdict = line.verdict
    parts = []
    if shown := figure(verdict):
        more = ", ".join(part for part in (change(verdict), str(line.tier)) if part)
        parts.append(f"{shown} ({more})")
    if verdict.limit is not None:
        parts.append(f"limit {figures.limit(verdict.limit)}")
    return ": ".join(part for part in (", ".join(parts), reason(verdict)) if part)
