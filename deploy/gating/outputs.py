"""What a gate leaves for readers: the one place where its files are written."""

from __future__ import annotations

from pathlib import Path

from deploy.report import formats, store
from deploy.report.pages import gate as pages
from deploy.types import GateReport


def write(report: GateReport, root: Path) -> None:
    """Write ``gate.json``, ``comment.md``, ``junit.xml`` and the pages; ``latest`` leads there.

    Raises ``ConfigError`` where the folder cannot be written.
    """
    store.write(report, root)
    formats.write(report, root)
    pages.write(report, root)
    store.point_latest(root)
