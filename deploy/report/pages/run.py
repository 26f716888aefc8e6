"""The site of one run, in its folder: the verdict first, then a page for each question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.files import write_text
from deploy.report import changes, devices, ledger, sections, waterfall, words
from deploy.report.pages import device as device_page
from deploy.report.pages import pareto, site, trends
from deploy.report.pages.site import INDEX, Link
from deploy.report.series import Series
from deploy.report.tables import plain, summary, words_of
from deploy.types import Report, Status

COMPRESSION = "compression.html"
TRENDS = "trends.html"
CHECKS = "checks.html"
NO_HISTORY = "This run was made without a history of earlier ones, so there is nothing to compare."

_SENTENCES = 12  # What a reader still reads above the tables.
_TABLES = 6  # Variants whose tables are open; those of the others are folded.


def write(
    report: Report,
    folder: Path,
    *,
    series: Sequence[Series] = (),
    without_series: str = NO_HISTORY,
) -> Path:
    """Write the site of ``report`` into ``folder``; return the path of its ``index.html``."""
    pages = build(report, series=series, without_series=without_series)
    return site.write(pages, folder, stale="device-*.html")


def write_trends(
    report: Report,
    folder: Path,
    *,
    series: Sequence[Series] = (),
    without_series: str = NO_HISTORY,
) -> Path:
    """Write the page of trends alone, once the history has the run; return its path."""
    path = folder / TRENDS
    write_text(path, _trends(_Site(report), series, without_series))
    return path


class _Site:
    """What all pages of a run have in common."""

    def __init__(self, report: Report) -> None:
        names = [run.profile.name for run in report.devices]
        slugs = site.slugs(names)
        self.files = [f"device-{slugs[name]}.html" for name in names]
        self._report = report
        self._links = [
            Link(INDEX, "Overview"),
            *(Link(file, plain(name)) for file, name in zip(self.files, names, strict=True)),
            Link(COMPRESSION, "Compression"),
            Link(TRENDS, "Trends"),
            Link(CHECKS, "Checks"),
        ]

    def page(self, file: str, template: str, what: str, **content: object) -> str:
        """One page; ``what`` is its part of the title, empty for the overview."""
        report = self._report
        title = f"{what}: {report.pipeline}" if what else f"{report.pipeline}: {report.outcome}"
        return site.render(
            template,
            page=file,
            title=title,
            links=self._links,
            run=plain(report.run_id),
            created=plain(report.created_utc),
            pipeline=plain(report.pipeline),
            tone=site.tone(report.outcome),
            **content,
        )


def build(
    report: Report, *, series: Sequence[Series] = (), without_series: str = NO_HISTORY
) -> dict[str, str]:
    """Every page of the site by its file name; ``without_series`` says why there is no trend."""
    found = devices.sections(report)
    made = _Site(report)
    page, named = made.page, made.files
    bought = summary(report)
    pages = {
        INDEX: page(
            INDEX,
            "overview.html.j2",
            "",
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
            changes=_few(changes.sentences(report)),
            summary=bought[:_TABLES],
            more=bought[_TABLES:],
            unpaired=sections.unpaired(report),
            devices=[
                {
                    "href": file,
                    "name": section.name,
                    "tier": section.tier,
                    "description": section.description,
                    "state": _state(report, run.profile.name, section.status),
                    "reason": section.reason,
                }
                for file, section, run in zip(named, found, report.devices, strict=True)
            ],
            tiers=sections.tiers(report),
        )
    }
    for file, section, run in zip(named, found, report.devices, strict=True):
        content = device_page.content(report, run)
        pages[file] = page(file, "device.html.j2", section.name, device=section, **content)
    pages[COMPRESSION] = page(
        COMPRESSION,
        "compression.html.j2",
        "Compression",
        waterfall=waterfall.waterfall(report),
        ledger=[table for table in (ledger.bought(report), ledger.judged(report)) if table],
        warnings=ledger.warnings(report),
        pareto=pareto.plots(report),
    )
    pages[TRENDS] = _trends(made, series, without_series)
    pages[CHECKS] = page(
        CHECKS,
        "checks.html.j2",
        "Checks",
        verdicts=sections.verdicts(report),
        artifacts=sections.artifacts(report),
        parity=sections.parity(report),
        provenance=sections.provenance(report),
    )
    return pages


def _trends(made: _Site, series: Sequence[Series], without_series: str) -> str:
    # What changed is what somebody looks for.
    ordered = sorted(series, key=lambda one: not one.changes)
    return made.page(
        TRENDS,
        "trends.html.j2",
        "Trends",
        trends=[trends.trend(number, one) for number, one in enumerate(ordered)],
        reason="" if series else plain(without_series),
    )


def _few(lines: Sequence[str]) -> list[str]:
    left = len(lines) - _SENTENCES
    return [*lines[:_SENTENCES], *([f"And {left:,} more like these, in the tables."] * (left > 0))]


def _state(report: Report, device: str, status: Status) -> str:
    if status is not Status.OK:
        return words_of(status)
    here = [case for case in report.cases if case.device == device]
    ran = sum(case.status is Status.OK for case in here)
    return f"{ran} of {len(here)} cases measured" if here else "no case"
