"""A report for people: Markdown for a pull request, and one offline page."""

from __future__ import annotations

from pathlib import Path

import jinja2

from deploy.files import write_text
from deploy.report import devices, ledger, sections, waterfall, words
from deploy.report.devices import DeviceSection
from deploy.report.markdown import code, escape, table
from deploy.report.tables import TIERS, Table, plain, summary, words_of
from deploy.types import Outcome, Report, Status, Tier

MARKDOWN_NAME = "report.md"
HTML_NAME = "index.html"

_LISTED = 12  # Lines above the main table, which a reader of a comment should reach at a glance.
_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write(report: Report, run_folder: Path) -> tuple[Path, Path]:
    """Write ``report.md`` and ``index.html`` into ``run_folder``; return their paths.

    ``ledger.svg``, which ``report.md`` shows, is written beside them where there is a step to show.
    """
    paths = (run_folder / MARKDOWN_NAME, run_folder / HTML_NAME)
    write_text(paths[0], markdown(report))
    write_text(paths[1], html(report))
    if picture := waterfall.waterfall(report, standalone=True):
        write_text(run_folder / waterfall.FILE_NAME, picture + "\n")
    return paths


def html(report: Report) -> str:
    """One page that needs no other file, no network and no script."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=f"{plain(report.pipeline)}: {report.outcome}",
        pipeline=plain(report.pipeline),
        run=plain(report.run_id),
        created=plain(report.created_utc),
        tone=_tone(report.outcome),
        headline=words.headline(report),
        troubles=[
            {
                "outcome": str(v.outcome),
                "subject": plain(v.subject),
                "metric": plain(v.metric),
                "reason": words.evidence(v),
            }
            for v in words.troubles(report)
        ],
        absences=words.absences(report),
        summary=summary(report),
        unpaired=sections.unpaired(report),
        waterfall=waterfall.waterfall(report),
        ledger=[found for found in (ledger.bought(report), ledger.judged(report)) if found],
        warnings=ledger.warnings(report),
        artifacts=sections.artifacts(report),
        parity=sections.parity(report),
        verdicts=sections.verdicts(report),
        devices=devices.sections(report),
        provenance=sections.provenance(report),
        tiers=_tiers(report),
        tier_words={str(tier): text for tier, text in TIERS.items()},
    )


def markdown(report: Report) -> str:
    """Verdict and main table first, short enough for a comment; the rest folded below."""
    parts = [
        f"## {code(report.pipeline)}: {report.outcome}",
        f"**{escape(words.headline(report))}**",
    ]
    listed = [
        f"- {v.outcome}: {code(v.subject)}, {code(v.metric)}: {escape(words.evidence(v))}"
        for v in words.troubles(report)
    ]
    listed += [f"- {escape(line)}" for line in words.absences(report)]
    if listed:
        left = len(listed) - _LISTED
        more = [f"- and {left} more below"] if left > 0 else []
        parts.append("\n".join(listed[:_LISTED] + more))
    for content in summary(report):
        parts.append(table(content, heading=f"### {escape(content.caption)}"))
    if unpaired := sections.unpaired(report):
        parts.append(escape(unpaired))
    parts.append("\n".join(f"- *{tier}*: {escape(TIERS[tier])}" for tier in _tiers(report)))
    parts.append(_compression(report))
    made = [sections.artifacts(report), sections.parity(report)]
    parts.append(_folded("Artifacts, parity", *made))
    parts += [_device(device) for device in devices.sections(report)]
    parts.append(_folded("Checks and budgets", sections.verdicts(report)))
    parts.append(_folded("How this run was made", sections.provenance(report)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _compression(report: Report) -> str:
    tables = [found for found in (ledger.bought(report), ledger.judged(report)) if found]
    if not tables:
        return ""
    picture = f"![What each step bought]({waterfall.FILE_NAME})"
    said = "\n".join(f"- {escape(line)}" for line in ledger.warnings(report))
    blocks = [picture if waterfall.waterfall(report) else "", table(tables[0])]
    blocks += [f"Warnings:\n\n{said}" if said else "", *map(table, tables[1:])]
    return _details("Compression, step by step", "\n\n".join(block for block in blocks if block))


def _device(device: DeviceSection) -> str:
    intro = []
    if device.description:
        intro.append(escape(device.description))
    if device.status is not Status.OK:
        intro.append(f"**{words_of(device.status)}**: {escape(device.reason)}")
    absent = "\n".join(f"- {escape(line)}" for line in device.absent)
    if absent:
        absent = f"Not measured here:\n\n{absent}"
    raw = "Every raw sample is in `report.json`." if device.samples else ""
    blocks = [*intro, *map(table, device.tables), absent, raw, table(device.facts)]
    label = f"Device {escape(device.name)} ({device.tier})"
    return _details(label, "\n\n".join(block for block in blocks if block))


def _folded(label: str, *tables: Table | None) -> str:
    blocks = [table(content) for content in tables if content is not None]
    return _details(escape(label), "\n\n".join(blocks)) if blocks else ""


def _details(label: str, body: str) -> str:
    return f"<details><summary>{label}</summary>\n\n{body}\n\n</details>"


def _tiers(report: Report) -> tuple[Tier, ...]:
    """The tiers that occur in this report, for the legend; files and parity are of the host."""
    seen = {m.tier for case in report.cases for m in case.measurements}
    seen |= {run.info.tier if run.info else run.profile.tier for run in report.devices}
    if report.artifacts or report.parity or report.ledger:
        seen.add(Tier.HOST)
    return tuple(tier for tier in Tier if tier in seen)


def _tone(outcome: Outcome) -> str:
    if outcome in (Outcome.PASS, Outcome.IMPROVED):
        return "good"
    return "bad" if outcome in (Outcome.REGRESSED, Outcome.INVALID) else "open"
