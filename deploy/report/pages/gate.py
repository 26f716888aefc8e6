"""The site of one gate: what was decided of head against base, on which evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.report import conditions, devices, figures
from deploy.report.pages import gate_plots, gate_tables, site
from deploy.report.pages.gate_words import sentence, tier_of
from deploy.report.pages.site import INDEX, Link
from deploy.report.tables import TIERS, plain
from deploy.types import GateReport, Outcome, Tier

SESSIONS = "sessions.html"

_WORDS = {
    Outcome.PASS: "nothing got worse by as much as counts",
    Outcome.IMPROVED: "head is better, and nothing got worse",
    Outcome.REGRESSED: "head is worse",
    Outcome.INCONCLUSIVE: "the sessions do not decide",
    Outcome.INVALID: "something that was asked for could not be measured, so nothing is decided",
}


def write(gate: GateReport, folder: Path) -> Path:
    """Write the site of ``gate`` into ``folder``; return the path of its ``index.html``."""
    return site.write(build(gate), folder)


def build(gate: GateReport) -> dict[str, str]:
    """Every page of the site by its file name."""
    links = [Link(INDEX, "Verdict"), Link(SESSIONS, "Sessions and device")]
    title = f"{gate.outcome}: {gate.head.label} against {gate.base.label}"
    common: dict[str, Any] = {
        "run": plain(gate.run_id),
        "created": plain(gate.created_utc),
        "base": plain(gate.base.label),
        "head": plain(gate.head.label),
        "outcome": str(gate.outcome),
        "tone": site.tone(gate.outcome),
    }
    order = [Outcome.REGRESSED, Outcome.INVALID, Outcome.INCONCLUSIVE, Outcome.IMPROVED]
    told = [v for v in gate.verdicts if v.outcome in order or v.accepted]
    told.sort(key=lambda v: order.index(v.outcome) if v.outcome in order else len(order))
    device = _device(gate)
    return {
        INDEX: site.render(
            "gate.html.j2",
            page=INDEX,
            title=title,
            links=links,
            headline=f"{gate.outcome}: {_WORDS[gate.outcome]}. Exit code {gate.exit_code}.",
            told=[
                {
                    "outcome": str(v.outcome),
                    "subject": plain(v.subject),
                    "metric": plain(figures.TITLES.get(v.metric, v.metric)),
                    "reason": sentence(v),
                }
                for v in told
            ],
            place=f"On {device.name} ({device.tier})" if device else "On no device",
            forest=gate_plots.forest(gate),
            verdicts=gate_tables.verdicts(gate),
            accepted=gate_tables.accepted(gate),
            tiers=_tiers(gate),
            **common,
        ),
        SESSIONS: site.render(
            "sessions.html.j2",
            page=SESSIONS,
            title=f"Sessions: {title}",
            links=links,
            device=device,
            sessions=gate_plots.sessions(gate),
            table=gate_tables.sessions(gate),
            surroundings=conditions.table([session.case for session in gate.sessions]),
            certificates=gate_tables.certificates(gate),
            provenance=gate_tables.provenance(gate),
            **common,
        ),
    }


def _device(gate: GateReport) -> devices.DeviceSection | None:
    return devices.section(gate.device, ()) if gate.device else None


def _tiers(gate: GateReport) -> tuple[Tier, ...]:
    seen = {tier_of(gate, verdict) for verdict in gate.verdicts}
    return tuple(tier for tier in TIERS if tier in seen)
