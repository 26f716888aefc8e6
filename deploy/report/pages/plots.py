"""Plots as data: what Plotly draws, what a reader without the picture gets, which tier it is of.

A plot's JSON says what is drawn and where; colours and fonts come from the page's theme, in
``assets/plots.js``. Text in it is escaped for Plotly, which would obey tags in labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from deploy.report.tables import Table, plain
from deploy.types import Tier

AT_ONCE = 25
"""Cases in one picture; more are pages of it, chosen above it."""

Trace = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """One picture: Plotly's traces and layout. ``label`` names it where a plot has several."""

    label: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 320


@dataclass(frozen=True)
class Plot:
    """A figure of a page. Without frames, ``reason`` says why there is nothing to draw.

    ``described`` is read in place of the picture; ``table`` holds its figures, or ``see`` says
    where they stand. All values on one axis are of one tier, and ``tiers`` names those of the plot.
    """

    id: str
    title: str
    tiers: tuple[Tier, ...] = ()
    frames: tuple[Frame, ...] = ()
    described: str = ""
    table: Table | None = None
    see: str = ""
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def data(self) -> Markup:
        """The frames for a ``<script type="application/json">``."""
        return embedded(
            [
                {"label": f.label, "data": f.traces, "layout": f.layout, "height": f.height}
                for f in self.frames
            ]
        )


def embedded(value: object) -> Markup:
    """``value`` as JSON that no HTML or JavaScript parser can take for the end of a script.

    Raises ``ValueError`` for a number that is not finite: JSON has none.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # nosec: everything that could be markup was just taken out


# Plotly obeys tags and links in labels, and takes what stands between dollars for TeX.
_ENTITIES = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("$", "&#36;"))


def label(text: object, most: int = 34) -> str:
    """``text`` for a label: cut, and escaped so that Plotly shows it as it is."""
    shown = plain(text)
    if len(shown) > most:
        shown = f"{shown[: most - 1]}…"
    for character, entity in _ENTITIES:
        shown = shown.replace(character, entity)
    return shown


def in_pages(count: int, most: int = AT_ONCE) -> list[tuple[str, range]]:
    """``range(count)`` cut into pages with their labels: ``1 to 25 of 60``."""
    starts = range(0, count, most)
    pages = [range(start, min(start + most, count)) for start in starts]
    return [(f"{page.start + 1} to {page.stop} of {count}", page) for page in pages]


def rows_axis(labels: Sequence[str]) -> dict[str, Any]:
    """An axis with one named row a number from 0 on, the first on top."""
    return {
        "tickmode": "array",
        "tickvals": list(range(len(labels))),
        "ticktext": list(labels),
        "range": [len(labels) - 0.4, -0.6],
        "zeroline": False,
    }


def row_height(rows: int) -> int:
    """Height in pixels of a picture with so many rows."""
    return 96 + 26 * rows
