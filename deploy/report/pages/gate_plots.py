"""Pictures of a gate: changes against the margin, and sessions in the order of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from deploy.report import figures
from deploy.report.formats.judged import Line, percent
from deploy.report.pages.plots import Frame, Plot, label, row_height, rows_axis
from deploy.report.tables import plain
from deploy.types import GateReport, Metric, Outcome, Paired, Session, Tier, Verdict

_STEADY = (Metric.LATENCY_MS, Metric.INSTRUCTIONS)


def forest(lines: Sequence[Line]) -> list[Plot]:
    """Relative changes with their intervals against the margin; one plot a tier."""
    found = []
    for tier in Tier:
        rows = [
            (one.verdict, one.verdict.paired)
            for one in lines
            if one.tier is tier and one.verdict.paired and _drawable(one.verdict.paired)
        ]
        if rows:
            found.append(_forest_of(tier, rows))
    if not found:
        reason = "every figure here is exact, or none was measured in pairs; see the table"
        found.append(Plot(id="forest", title="Change against the margin", reason=reason))
    return found


def _drawable(paired: Paired) -> bool:
    return all(math.isfinite(value) for value in (paired.ratio, *paired.interval))


def _forest_of(tier: Tier, rows: Sequence[tuple[Verdict, Paired]]) -> Plot:
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [100 * (ratio - 1) for _, paired in rows for ratio in paired.ratios],
            "y": [row + 0.22 for row, (_, paired) in enumerate(rows) for _ in paired.ratios],
            "name": "one pair",
            "marker": {"size": 5, "opacity": 0.55},
            "hovertemplate": "%{x:+.2f} %<extra>one pair</extra>",
            "meta": {"colour": 5},
        }
    ]
    for colour, outcomes, words in (
        (2, (Outcome.PASS, Outcome.IMPROVED), "holds"),
        (1, (Outcome.REGRESSED, Outcome.INVALID), "worse or invalid"),
        (3, (Outcome.INCONCLUSIVE,), "undecided"),
    ):
        here = [(row, p) for row, (v, p) in enumerate(rows) if v.outcome in outcomes]
        if here:
            low = [100 * max(0.0, p.ratio - p.interval[0]) for _, p in here]
            high = [100 * max(0.0, p.interval[1] - p.ratio) for _, p in here]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [100 * (p.ratio - 1) for _, p in here],
                    "y": [row for row, _ in here],
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": high,
                        "arrayminus": low,
                    },
                    "name": words,
                    "marker": {"size": 10, "symbol": "square"},
                    "hovertemplate": "%{x:+.2f} %<extra>median of the pairs</extra>",
                    "meta": {"colour": colour},
                }
            )
    bands = [
        {
            "type": "rect",
            "layer": "below",
            "x0": -100 * paired.margin,
            "x1": 100 * paired.margin,
            "y0": row - 0.4,
            "y1": row + 0.4,
            "line": {"width": 0},
        }
        for row, (_, paired) in enumerate(rows)
    ]
    labels = [label(f"{figures.TITLES.get(v.metric, v.metric)}, {_what(v)}", 38) for v, _ in rows]
    layout = {
        "yaxis": rows_axis(labels),
        "xaxis": {"title": {"text": "head against base, %"}, "zeroline": True},
        "shapes": bands,
        "showlegend": True,
    }
    height = row_height(len(rows)) + 24 * len(rows)
    lines = "; ".join(
        f"{figures.TITLES.get(v.metric, v.metric)} of {v.subject}: {percent(p.ratio)}"
        for v, p in rows
    )
    return Plot(
        id=f"forest-{tier}",
        title="Change against the margin",
        tiers=(tier,),
        frames=(Frame("", tuple(traces), layout, height),),
        described=plain(f"Relative change of head against base: {lines}."),
        see="the table of verdicts below",
        notes=(
            "Square: the median over pairs, with its interval. Dots: single pairs. Grey: changes "
            "within it do not count. Right of 0 is more.",
            "The base was measured at another time, which is weaker evidence than pairs."
            if any(p.design == "stored" for _, p in rows)
            else "",
        ),
    )


def sessions(gate: GateReport) -> list[Plot]:
    """Medians of sessions in the order of time, base and head apart; one plot a case and tier."""
    chosen = (gate.rules.primary,) if gate.rules.primary else _STEADY
    keys: dict[tuple[str, int, Metric, Tier], list[Session]] = {}
    for session in sorted(gate.sessions, key=lambda one: one.order):
        for metric in chosen:
            found = session.case.measurement(metric)
            if found is not None and found.samples:
                key = (session.case.artifact, session.case.threads, metric, found.tier)
                keys.setdefault(key, []).append(session)
    plots = []
    for number, ((artifact, threads, metric, tier), here) in enumerate(keys.items()):
        traces = []
        for colour, side in enumerate(("base", "head")):
            mine = [(s, v) for s in here if s.side == side
                    and (v := _figure_of(s, metric)) is not None]  # fmt: skip
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": [s.order for s, _ in mine],
                    "y": [value for _, value in mine],
                    "text": [f"pair {s.pair}" for s, _ in mine],
                    "hovertemplate": f"%{{y:,.6g}}, %{{text}}<extra>{side}</extra>",
                    "name": side,
                    "line": {"width": 1},
                    "marker": {"size": 9, "symbol": ("circle-open", "circle")[colour]},
                    "meta": {"colour": colour},
                }
            )
        layout = {
            "xaxis": {"title": {"text": "session, in the order of time"}, "zeroline": False},
            "yaxis": {"title": {"text": label(figures.UNITS.get(metric, ""))}, "zeroline": False},
            "showlegend": True,
        }
        plots.append(
            Plot(
                id=f"sessions-{number}",
                title=f"{figures.title(metric)}: {plain(artifact)}, {threads} thread"
                f"{'' if threads == 1 else 's'}",
                tiers=(tier,),
                frames=(Frame("", tuple(traces), layout, 300),),
                described=f"Medians of {len(here)} sessions in the order of time.",
                see="the table of sessions below",
            )
        )
    if not plots:
        reason = "no session measured the figure that decides"
        plots.append(Plot(id="sessions", title="Sessions in the order of time", reason=reason))
    return plots


def _figure_of(session: Session, metric: Metric) -> float | None:
    found = session.case.measurement(metric)
    return found.median if found else None


def _what(verdict: Verdict) -> str:
    """The subject without the device, which all rows share."""
    artifact, at, place = verdict.subject.partition("@")
    return f"{artifact} {place.rpartition('/')[2]}" if at else artifact
