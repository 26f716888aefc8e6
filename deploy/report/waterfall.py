"""The ledger as a waterfall picture: how bytes and cost fell from step to step, as SVG.

Each row is a step. A pale bar is what is left after it; the dark piece at its end is what the step
took away, or, in orange, what it added. A step that was dropped is hatched in grey and changes
nothing below it. The colours are those of Okabe and Ito, which colour-blind readers tell apart, and
each bar also has its figure and its signed change beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from deploy.report import figures
from deploy.report.ledger import Step, change, steps
from deploy.report.tables import plain
from deploy.types import LedgerRow, Report

FILE_NAME = "ledger.svg"

_WIDTH, _LABELS, _FIGURES = 760, 190, 200
_ROW, _BAR, _HEAD = 26, 15, 34
_BARS = _WIDTH - _LABELS - _FIGURES

# Variables of the page are not used: the picture also stands alone, beside report.md.
_STYLE = """
.wf text{font:12px system-ui,sans-serif;fill:#1d1f21}
.wf .wf-title{font-weight:600}
.wf .wf-soft{fill:#5f6468}
.wf .wf-left{fill:#56b4e9}
.wf .wf-won{fill:#0072b2}
.wf .wf-lost{fill:#d55e00}
.wf .wf-line{stroke:#8a8f93;stroke-width:1}
.wf .wf-dropped{fill:none;stroke:#8a8f93}
@media (prefers-color-scheme:dark){
.wf text{fill:#e3e5e6}
.wf .wf-soft{fill:#a0a6aa}
.wf .wf-lost{fill:#f0803c}
}
"""


@dataclass(frozen=True)
class _Bar:
    label: str
    kept: bool
    value: float
    before: float | None


@dataclass(frozen=True)
class _Panel:
    title: str
    bars: tuple[_Bar, ...]


def waterfall(report: Report, *, standalone: bool = False) -> str:
    """An ``<svg>`` element for a page, or a whole SVG file; empty where there is no step to show.

    It names no other file: no script, no font, no reference, so that a page with a strict
    Content-Security-Policy can hold it.
    """
    panels = _panels(report)
    if not panels:
        return ""
    height = sum(_HEAD + _ROW * len(panel.bars) for panel in panels) + 24
    parts = []
    top = 0
    for panel in panels:
        parts.append(_drawn(panel, top))
        top += _HEAD + _ROW * len(panel.bars)
    namespace = ' xmlns="http://www.w3.org/2000/svg"' if standalone else ""
    title = f"What each compression step of {plain(report.pipeline)} bought"
    return (
        f'<svg{namespace} class="wf" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="wf-title wf-desc">'
        f'<title id="wf-title">{escape(title)}</title>'
        f'<desc id="wf-desc">{escape(_described(panels))}</desc>'
        f"<style>{_STYLE}</style>"
        f"{''.join(parts)}"
        f'<text class="wf-soft" x="0" y="{height - 6}">'
        "Pale: left after the step. Dark blue: taken away. Orange: added. Hatched: dropped."
        "</text></svg>"
    )


def _panels(report: Report) -> list[_Panel]:
    rows = steps(report)
    if len(rows) < 2:
        return []
    kinds: list[tuple[str, Callable[[LedgerRow], float | None]]] = [
        ("Bytes to download, packed", _packed),
        ("Bytes of weights on disk", lambda row: row.program_bytes),
    ]
    costs = {(c.device, c.format, c.metric, c.tier) for s in rows if (c := s.row.cost) is not None}
    if len(costs) == 1:
        device, form, metric, tier = (plain(part) for part in next(iter(costs)))
        unit = figures.UNITS.get(metric, metric)
        kinds.append((f"{unit} an inference on {device}, {form} ({tier})", _cost))
    panels = []
    for title, value_of in kinds:
        bars = [bar for step in rows if (bar := _bar(step, value_of)) is not None]
        # A picture with a row missing would show a fall that no step made.
        if len(bars) == len(rows) and any(bar.value for bar in bars):
            panels.append(_Panel(title, tuple(bars)))
    return panels


def _packed(row: LedgerRow) -> float | None:
    return row.footprint.packed_bytes if row.footprint else None


def _cost(row: LedgerRow) -> float | None:
    return row.cost.value if row.cost else None


def _bar(step: Step, value_of: Callable[[LedgerRow], float | None]) -> _Bar | None:
    value = value_of(step.row)
    if value is None:
        return None
    before = value_of(step.before) if step.before else None
    return _Bar(step.label, step.row.kept, value, before)


def _drawn(panel: _Panel, top: int) -> str:
    largest = max(max(bar.value, bar.before or 0) for bar in panel.bars)
    parts = [f'<text class="wf-title" x="0" y="{top + 20}">{escape(panel.title)}</text>']
    for number, bar in enumerate(panel.bars):
        y = top + _HEAD + number * _ROW
        parts += [
            f"<g><title>{escape(_sentence(bar))}</title>",
            f'<text x="{_LABELS - 8}" y="{y + 12}" text-anchor="end">',
            f"{escape(_cut(bar.label))}</text>",
            *_pieces(bar, y, _BARS / largest),
            f'<text x="{_LABELS + _BARS + 8}" y="{y + 12}">{escape(_figure(bar))}</text></g>',
        ]
    bottom = top + _HEAD + len(panel.bars) * _ROW - 6
    parts.append(f'<path class="wf-line" d="M{_LABELS} {top + _HEAD - 4}V{bottom}"/>')
    return "".join(parts)


def _pieces(bar: _Bar, y: int, scale: float) -> list[str]:
    if not bar.kept:
        return [_rect("wf-dropped", 0, bar.value, y, scale), _hatch(bar.value * scale, y)]
    before = bar.value if bar.before is None else bar.before
    pieces = [_rect("wf-left", 0, min(bar.value, before), y, scale)]
    if bar.value < before:
        pieces.append(_rect("wf-won", bar.value, before, y, scale))
    elif bar.value > before:
        pieces.append(_rect("wf-lost", before, bar.value, y, scale))
    return pieces


def _rect(kind: str, start: float, end: float, y: int, scale: float) -> str:
    x, width = _LABELS + start * scale, max((end - start) * scale, 0.5)
    return (
        f'<rect class={quoteattr(kind)} x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}"/>'
    )


def _hatch(width: float, y: int) -> str:
    strokes = []
    for start in range(0, int(width), 6):
        reach = min(_BAR, width - start)
        strokes.append(f"M{_LABELS + start} {y + _BAR}l{reach:.1f} {-reach:.1f}")
    return f'<path class="wf-dropped" d="{"".join(strokes)}"/>' if strokes else ""


def _figure(bar: _Bar) -> str:
    words = _value(bar.value)
    if share := change(bar.value, bar.before):
        words = f"{words} ({share})"
    return words if bar.kept else f"{words}, dropped"


def _value(value: float) -> str:
    return figures.count(value) if value == round(value) else figures.significant(value)


def _sentence(bar: _Bar) -> str:
    return f"{bar.label}: {_figure(bar)}"


def _described(panels: list[_Panel]) -> str:
    return " ".join(
        f"{panel.title}: {'; '.join(_sentence(bar) for bar in panel.bars)}." for panel in panels
    )


def _cut(text: str, most: int = 26) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
