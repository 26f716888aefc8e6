"""A gate's verdicts in words and figures: what each page of it says in the same way."""

from __future__ import annotations

from deploy.report import figures
from deploy.report.tables import plain
from deploy.types import GateReport, Tier, Verdict


def tier_of(gate: GateReport, verdict: Verdict) -> Tier:
    """Where the figure of a verdict comes from."""
    if verdict.tier is not None:
        return verdict.tier
    for session in gate.sessions:
        for m in session.case.measurements:
            if session.case.id == verdict.subject and m.metric == verdict.metric:
                return m.tier
    return Tier.HOST  # A file: weighed and checked here.


def percent(ratio: float) -> str:
    """``+3.10 %``: how much more head is than base."""
    return f"{100 * (ratio - 1):+.2f} %".replace("-", "−")


def sentence(verdict: Verdict) -> str:
    """What changed, by how much, how sure: one line."""
    unit = figures.UNITS.get(verdict.metric, "")
    parts = []
    if verdict.base_value is not None and verdict.value is not None:
        before, after = (
            figures.figure(verdict.metric, v) for v in (verdict.base_value, verdict.value)
        )
        parts.append(f"{before} → {after} {unit}".rstrip())
    elif verdict.value is not None:
        parts.append(f"{figures.figure(verdict.metric, verdict.value)} {unit}".rstrip())
    if (paired := verdict.paired) is not None:
        low, high = (percent(edge) for edge in paired.interval)
        parts.append(f"{percent(paired.ratio)} ({low} to {high}, {len(paired.ratios)} pairs)")
    elif verdict.limit is not None:
        parts.append(f"limit {figures.limit(verdict.limit)} {unit}".rstrip())
    reason = plain(verdict.reason) or "no reason given"
    accepted = f"; signed off {plain(verdict.accepted)}" if verdict.accepted else ""
    return f"{', '.join(parts)}: {reason}{accepted}" if parts else f"{reason}{accepted}"
