"""A report in the formats that a team's tools read, from a run's report and a gate's alike.

What makes one is a function ``Report | GateReport -> str``, registered in :data:`FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import ConfigError
from deploy.files import write_text
from deploy.report.formats import comment, github, junit, rows
from deploy.types import GateReport, Report

COMMENT_NAME = "comment.md"
JUNIT_NAME = "junit.xml"


@dataclass(frozen=True)
class Options:
    """What a format may be told: where the whole report is, and what a comment is known by."""

    link: str = ""
    key: str = ""

    def __post_init__(self) -> None:
        # Brackets and white space would end a Markdown link early.
        if self.link and not re.fullmatch(r"https?://[^\s<>()\[\]\"'`\\]+", self.link):
            raise ConfigError(
                f"{self.link!r} cannot stand in a link",
                where="--link",
                hint="Give an address that begins with https:// and has no spaces or brackets.",
            )


Format = Callable[[Report | GateReport, Options], str]

FORMATS: dict[str, Format] = {
    "comment": lambda report, options: comment.comment(report, link=options.link, key=options.key),
    "csv": lambda report, _: rows.csv_rows(report),
    "github": lambda report, _: github.workflow_commands(report),
    "junit": lambda report, _: junit.junit(report),
    "markdown": lambda report, options: github.markdown(report, link=options.link),
    "summary": lambda report, options: github.summary(report, link=options.link),
}
"""By name: ``github`` is annotations, ``summary`` is for ``$GITHUB_STEP_SUMMARY``."""


def formatted(report: Report | GateReport, name: str, options: Options | None = None) -> str:
    """``report`` in one format; ``ConfigError`` where there is none of this name."""
    if name not in FORMATS:
        choices = ", ".join(FORMATS)
        raise ConfigError(f"no format '{name}'", hint=f"Choose one of: {choices}.")
    return FORMATS[name](report, options or Options())


def write(report: Report | GateReport, folder: Path) -> tuple[Path, Path]:
    """Write ``comment.md`` and ``junit.xml`` into a report's folder; return their paths."""
    paths = (folder / COMMENT_NAME, folder / JUNIT_NAME)
    write_text(paths[0], formatted(report, "comment"))
    write_text(paths[1], formatted(report, "junit"))
    return paths
