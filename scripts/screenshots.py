"""The pictures of docs/reports.md: pages of a report in the installed browser, cut to what matters.

Without --run and --gate they show the tests' example, whose figures are made up.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.report.pages import gate, run
from tests.deploy.report.pages import browser, examples

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 200_000
"""Bytes of a picture, so that the repository stays small."""


@dataclass(frozen=True)
class Shot:
    """A picture of one page: from the top of ``start`` (a selector, else the page's), so high."""

    name: str
    page: str
    width: int = 1100
    height: int = 900
    scheme: str = "light"
    start: str = ""


def shots(run_folder: Path, gate_folder: Path) -> list[Shot]:
    """What is shown, of the folders of a run and of a gate."""
    device = max(run_folder.glob("device-*.html"), key=lambda file: file.stat().st_size)
    return [
        Shot("overview", str(run_folder / "index.html"), height=1000),
        Shot("device", str(device), height=980, start="#distributions"),
        Shot("compression", str(run_folder / "compression.html"), height=900, scheme="dark"),
        Shot("phone", str(run_folder / "index.html"), width=360, height=800),
        Shot("gate", str(gate_folder / "index.html"), height=900),
    ]


def take(shot: Shot, chromium: Any, folder: Path) -> Path:
    """Write one picture; ``SystemExit`` where the page complains or the picture is too large."""
    watched = browser.Watched(chromium, width=shot.width, scheme=shot.scheme)
    page = watched.open(Path(shot.page).resolve())
    watched.draw_all()
    top = 0
    if shot.start:
        top = page.evaluate(
            f"document.querySelector('{shot.start}').getBoundingClientRect().top + scrollY"
        )
    path = folder / f"{shot.name}.png"
    page.screenshot(
        path=path,
        full_page=True,
        clip={"x": 0, "y": top, "width": shot.width, "height": shot.height},
    )
    watched.close()
    if watched.troubles:
        sys.exit(f"{shot.page}: {'; '.join(watched.troubles)}")
    if (size := path.stat().st_size) > LARGEST:
        sys.exit(f"{path} has {size:,} bytes, more than {LARGEST:,}")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the pictures and print their paths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder with its pages")
    parser.add_argument("--gate", type=Path, help="a gate's folder with its pages")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    chosen = parser.parse_args(arguments)
    path = browser.executable()
    if path is None:
        sys.exit(f"no browser: none of {', '.join(browser.NAMES)}")
    chosen.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        if chosen.run is None:
            run.write(examples.report(), made / "run", series=examples.series())
        if chosen.gate is None:
            gate.write(examples.gate(), made / "gate")
        with browser.started(path) as chromium:
            for shot in shots(chosen.run or made / "run", chosen.gate or made / "gate"):
                print(take(shot, chromium, chosen.output))


if __name__ == "__main__":
    main()
