"""Pictures of two runs side by side: how much each figure differs, and how its samples lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from deploy.report import figures
from deploy.report.distributions import Summary, summarize
from deploy.report.pages.paired_cases import Judged, Pair
from deploy.report.pages.plots import Frame, Plot, in_pages, label, row_height, rows_axis
from deploy.report.tables import Cell, Column, Table, name, plain
from deploy.types import Measurement, Metric, Paired, Tier

STRIP_BELOW = 8
"""Fewer samples are drawn one by one: quartiles of a handful say less than the handful."""

_STEADY = (Metric.LATENCY_MS, Metric.INSTRUCTIONS)
_DRAWN = (
    *_STEADY,
    Metric.LOAD_MS,
    Metric.LOAD_INSTRUCTIONS,
    Metric.FIRST_MS,
    Metric.FIRST_INSTRUCTIONS,
    Metric.PEAK_RSS_KIB,
    Metric.ENERGY_MJ,
)
"""Figures of which less is better and 0 means none: only of such a ratio is a length."""

_MARKS = {
    metric: (colour, symbol)
    for metrics, colour, symbol in (
        (_STEADY, 0, "circle"),
        ((Metric.LOAD_MS, Metric.LOAD_INSTRUCTIONS), 2, "triangle-up"),
        ((Metric.FIRST_MS, Metric.FIRST_INSTRUCTIONS), 3, "diamond"),
        ((Metric.PEAK_RSS_KIB,), 4, "square-open"),
        ((Metric.ENERGY_MJ,), 5, "x"),
    )
    for metric in metrics
}

Names = tuple[str, str]
Sides = tuple[Pair, tuple[Measurement, Measurement]]


# --- ratios ---------------------------------------------------------------------------------------


def ratios(pairs: Sequence[Pair], judged: Judged, names: Names) -> list[Plot]:
    """Second / first of every case on a logarithmic scale, what differs most on top; one a tier.

    Where a gate judged the same two files, its interval stands beside the ratio of the runs.
    """
    found = []
    for tier in Tier:
        rows = [(pair, here) for pair in pairs if (here := _ratios_of(pair, tier))]
        if rows:
            rows.sort(key=lambda row: -_distance(row[1]))
            found.append(_ratio_plot(tier, rows, judged, names))
    return found or [
        Plot(
            id="ratios",
            title="Second against first",
            reason="no figure of one run may be compared with one of the other; see the tables",
        )
    ]


def _ratios_of(pair: Pair, tier: Tier) -> dict[Metric, float]:
    found = {}
    for metric in _DRAWN:
        sides, ratio = pair.measured(metric), pair.ratio(metric)
        if sides and sides[0].tier is tier and ratio is not None and 0 < ratio < math.inf:
            found[metric] = ratio
    return found


def _distance(found: dict[Metric, float]) -> float:
    """How far apart the two runs are in this row: by the steady figure where there is one."""
    steady = [ratio for metric, ratio in found.items() if metric in _STEADY]
    return max(abs(math.log(ratio)) for ratio in steady or found.values())


def _ratio_plot(
    tier: Tier, rows: Sequence[tuple[Pair, dict[Metric, float]]], judged: Judged, names: Names
) -> Plot:
    gated = False
    frames = []
    for words, page in in_pages(len(rows)):
        here = [rows[index] for index in page]
        traces = list(_ratio_traces(here))
        intervals = _intervals(here, judged)
        gated = gated or bool(intervals)
        layout = {
            "yaxis": rows_axis([label(pair.first.id, 38) for pair, _ in here]),
            "xaxis": {"title": {"text": "second / first"}, "type": "log", "zeroline": False},
            "showlegend": True,
            "shapes": [
                {
                    "type": "line",
                    "layer": "below",
                    "x0": 1,
                    "x1": 1,
                    "yref": "paper",
                    "y0": 0,
                    "y1": 1,
                    "line": {"width": 1},
                }
            ],
        }
        frames.append(Frame(words, (*traces, *intervals), layout, row_height(len(here)) + 24))
    pair, most = rows[0]
    metric = max(most, key=lambda one: (one in _STEADY, abs(math.log(most[one]))))
    return Plot(
        id=f"ratios-{tier}",
        title="Second against first",
        tiers=(tier,),
        frames=tuple(frames),
        described=plain(
            f"Ratio of {names[1]} to {names[0]} for {len(rows)} cases. Furthest apart: "
            f"{figures.title(metric)} of {pair.first.id}, {figures.ratio(most[metric])}."
        ),
        see="the table of figures",
        notes=(
            "Ratios of medians on a logarithmic scale, what differs most on top; left of the line "
            "the second run has less. Each run was made once: without an interval nobody knows "
            "what is noise.",
            "Large squares are what the gate found of the same two files: the median of its pairs, "
            "with its interval."
            if gated
            else "No gate's interval is about these.",
        ),
    )


def _ratio_traces(rows: Sequence[tuple[Pair, dict[Metric, float]]]) -> Iterator[dict[str, Any]]:
    for metric in _DRAWN:
        here = [(row, found[metric]) for row, (_, found) in enumerate(rows) if metric in found]
        if here:
            colour, symbol = _MARKS[metric]
            yield {
                "type": "scatter",
                "mode": "markers",
                "x": [ratio for _, ratio in here],
                "y": [row for row, _ in here],
                "name": figures.TITLES.get(metric, str(metric)),
                "marker": {"size": 9, "symbol": symbol},
                "hovertemplate": "%{x:.4g}x<extra>%{fullData.name}</extra>",
                "meta": {"colour": colour},
            }


def _intervals(
    rows: Sequence[tuple[Pair, dict[Metric, float]]], judged: Judged
) -> list[dict[str, Any]]:
    """The gate's intervals, a little above the ratios of the runs."""
    traces = []
    for metric in _DRAWN:
        here = [
            (row, paired)
            for row, (pair, found) in enumerate(rows)
            if metric in found and (paired := judged.get((pair.first.id, metric))) is not None
            if _positive(paired)
        ]
        if here:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [paired.ratio for _, paired in here],
                    "y": [row - 0.25 for row, _ in here],
                    "error_x": {
                        "type": "data",
                        "symmetric": False,
                        "array": [max(0.0, p.interval[1] - p.ratio) for _, p in here],
                        "arrayminus": [max(0.0, p.ratio - p.interval[0]) for _, p in here],
                    },
                    "name": f"{figures.TITLES.get(metric, str(metric))}, gate",
                    "marker": {"size": 11, "symbol": "square"},
                    "hovertemplate": "%{x:.4g}x<extra>%{fullData.name}</extra>",
                    "meta": {"colour": _MARKS[metric][0]},
                }
            )
    return traces


def _positive(paired: Paired) -> bool:
    return all(0 < value < math.inf for value in (paired.ratio, *paired.interval))


# --- samples --------------------------------------------------------------------------------------


def distributions(pairs: Sequence[Pair], names: Names) -> list[Plot]:
    """Raw samples of both runs, a row a case; one plot a metric and tier."""
    found = []
    for metric in _DRAWN:
        for tier in Tier:
            rows = [
                (pair, sides)
                for pair in pairs
                if (sides := pair.measured(metric)) and sides[0].tier is tier
                if all(len(side.samples) > 1 for side in sides)
            ]
            if rows:
                found.append(_distribution(metric, tier, rows, names))
    return found or [
        Plot(
            id="samples",
            title="How the samples lie",
            reason="no case has several samples of a figure that may be compared in both runs",
        )
    ]


def _distribution(metric: Metric, tier: Tier, rows: Sequence[Sides], names: Names) -> Plot:
    told = [(pair, (summarize(a.samples), summarize(b.samples))) for pair, (a, b) in rows]
    frames = []
    for words, page in in_pages(len(rows)):
        layout = {
            "yaxis": rows_axis([label(rows[index][0].first.id, 38) for index in page]),
            "xaxis": {"title": {"text": figures.UNITS.get(metric, "")}, "zeroline": False},
            "showlegend": True,
        }
        traces = []
        for side in (0, 1):
            here = [(row, rows[index][1][side], told[index][1][side])
                    for row, index in enumerate(page)]  # fmt: skip
            traces += _side(side, here, names[side])
        frames.append(Frame(words, tuple(traces), layout, row_height(2 * len(page))))
    few = sum(len(m.samples) < STRIP_BELOW for _, both in rows for m in both)
    return Plot(
        id=f"samples-{metric}-{tier}",
        title=f"{figures.title(metric)}: samples of both runs",
        tiers=(tier,),
        frames=tuple(frames),
        described=_described(metric, told, names),
        table=_table(metric, told, names),
        notes=(
            "In each row the upper one is the first run. A box holds the middle half of the "
            "samples, its line is the median; whiskers reach the furthest sample within 1.5 box "
            "lengths.",
            f"Fewer than {STRIP_BELOW} samples are drawn one by one." if few else "",
        ),
    )


def _side(
    side: int, rows: Sequence[tuple[int, Measurement, Summary]], run: str
) -> list[dict[str, Any]]:
    """The boxes of one run, and the samples of cases that have too few for one."""
    lower = -0.2 if side == 0 else 0.2
    boxed = [(row, told) for row, m, told in rows if len(m.samples) >= STRIP_BELOW]
    dotted = [(row, x) for row, m, _ in rows if len(m.samples) < STRIP_BELOW for x in m.samples]
    common = {"name": label(run, 40), "legendgroup": str(side), "meta": {"colour": side}}
    traces: list[dict[str, Any]] = []
    if boxed:
        traces.append(
            {
                "type": "box",
                "orientation": "h",
                "y": [row + lower for row, _ in boxed],
                "q1": [told.q1 for _, told in boxed],
                "median": [told.median for _, told in boxed],
                "q3": [told.q3 for _, told in boxed],
                "lowerfence": [told.fence_low for _, told in boxed],
                "upperfence": [told.fence_high for _, told in boxed],
                "width": 0.32,
                "hoverinfo": "x",
                **common,
            }
        )
    if dotted:
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [x for _, x in dotted],
                "y": [row + lower for row, _ in dotted],
                "marker": {"size": 8, "symbol": ("circle-open", "circle")[side]},
                "hovertemplate": "%{x:,.6g}<extra>%{fullData.name}</extra>",
                "showlegend": not boxed,
                **common,
            }
        )
    return traces


def _described(
    metric: Metric, told: Sequence[tuple[Pair, tuple[Summary, Summary]]], names: Names
) -> str:
    apart = sum(a.q3 < b.q1 or b.q3 < a.q1 for _, (a, b) in told)
    return plain(
        f"Samples of {figures.title(metric)} in {names[0]} and {names[1]} for {len(told)} cases. "
        f"In {apart} of them the middle halves of the two runs do not overlap."
    )


def _table(
    metric: Metric, told: Sequence[tuple[Pair, tuple[Summary, Summary]]], names: Names
) -> Table:
    titles = ("n", "Lowest", "First quartile", "Median", "Third quartile", "Highest")
    return Table(
        caption=f"{figures.title(metric)}: samples of both runs",
        columns=(
            Column("Case"),
            Column("Run"),
            *(Column(title, number=True) for title in titles),
        ),
        rows=tuple(
            (
                name(pair.first.id),
                Cell(run),
                Cell(figures.count(one.n)),
                *(
                    Cell(figures.figure(metric, value))
                    for value in (one.low, one.q1, one.median, one.q3, one.high)
                ),
            )
            for pair, both in told
            for run, one in zip(names, both, strict=True)
        ),
    )
