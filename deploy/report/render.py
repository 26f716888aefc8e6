"""A report for people: Markdown for a pull request, and an offline site of pages."""

from __future__ import annotations

from pathlib import Path

from deploy.files import write_text
from deploy.report import devices, ledger, sections, waterfall, words
from deploy.report.devices import DeviceSection
from deploy.report.markdown import code, escape, table
from deploy.report.pages import run as pages
from deploy.report.tables import TIERS, Table, summary, words_of
from deploy.types import Report, Status

MARKDOWN_NAME = "report.md"

_LISTED = 12  # Lines above the main table, which a reader of a comment should reach at a glance.


def write(report: Report, run_folder: Path) -> tuple[Path, Path]:
    """Write ``report.md`` and the pages into ``run_folder``; return it and their ``index.html``.

    ``ledger.svg``, which ``report.md`` shows, is written beside them where there is a step to show.
    """
    markdown_file = run_folder / MARKDOWN_NAME
    write_text(markdown_file, markdown(report))
    if picture := waterfall.waterfall(report, standalone=True):
        write_text(run_folder / waterfall.FILE_NAME, picture + "\n")
    return markdown_file, pages.write(report, run_folder)


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
    parts.append("\n".join(f"- *{tier}*: {escape(TIERS[tier])}" for tier in sections.tiers(report)))
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
