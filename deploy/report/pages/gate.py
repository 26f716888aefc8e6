"""The site of one gate: what was decided of head against base, on which evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deploy.report import conditions, devices, figures
from deploy.report.formats import judged
from deploy.report.pages import gate_plots, gate_tables, site
from deploy.report.pages.site import INDEX, Link
from deploy.report.tables import plain
from deploy.types import GateReport, Outcome, Verdict

SESSIONS = "sessions.html"


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
    shown = judged.judged(gate)
    told = [one for one in shown.lines if one in shown.troubles or _notable(one.verdict)]
    device = _device(gate)
    return {
        INDEX: site.render(
            "gate.html.j2",
            page=INDEX,
            title=title,
            links=links,
            headline=shown.headline,
            told=[
                {
                    "outcome": str(one.verdict.outcome),
                    "subject": plain(one.verdict.subject),
                    "metric": plain(figures.TITLES.get(one.verdict.metric, one.verdict.metric)),
                    "reason": judged.sentence(one),
                }
                for one in told
            ],
            place=f"On {device.name} ({device.tier})" if device else "On no device",
            forest=gate_plots.forest(shown.lines),
            verdicts=gate_tables.verdicts(shown.lines),
            accepted=gate_tables.accepted(gate),
            tiers=shown.tiers(),
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


def _notable(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.IMPROVED or bool(verdict.accepted)
