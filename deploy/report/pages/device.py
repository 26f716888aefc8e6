"""The page of one device: how its figures are distributed, from load to steady state, and heat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from markupsafe import Markup

from deploy.report import figures, sections
from deploy.report.distributions import (
    P90_FROM,
    P99_FROM,
    Summary,
    histogram,
    summarize,
    trace,
)
from deploy.report.pages import heat, minutes, profiler
from deploy.report.pages.plots import (
    Frame,
    Plot,
    embedded,
    in_pages,
    label,
    row_height,
    rows_axis,
)
from deploy.report.tables import Cell, Column, Table, case_name, case_words, plain
from deploy.types import Case, DeviceRun, Measurement, Metric, Report, Status, Tier

_STEADY = (Metric.LATENCY_MS, Metric.INSTRUCTIONS)
_STAGES = (
    (Metric.LOAD_MS, Metric.FIRST_MS, Metric.LATENCY_MS),
    (Metric.LOAD_INSTRUCTIONS, Metric.FIRST_INSTRUCTIONS, Metric.INSTRUCTIONS),
)
_MEMORY = (
    Metric.PEAK_RSS_KIB,
    Metric.DELTA_RSS_KIB,
    Metric.PSS_KIB,
    Metric.PRIVATE_DIRTY_KIB,
    Metric.PHYS_FOOTPRINT_KIB,
)

Found = list[tuple[Case, Measurement]]
Summaries = Sequence[tuple[Case, Measurement, Summary]]


def content(report: Report, run: DeviceRun) -> dict[str, object]:
    """What the template needs beside the device's own section."""
    cases = [case for case in report.cases if case.device == run.profile.name]
    found = summaries(cases)
    return {
        "boxes": [plot for metric in _STEADY for plot in boxes(found, metric)],
        "distributions": distributions(found),
        "explorer": explorer(cases),
        "stages": [plot for metrics in _STAGES for plot in dots(cases, metrics, "stages")],
        "memory": dots(cases, _MEMORY, "memory"),
        "energy": dots(cases, (Metric.ENERGY_MJ,), "energy"),
        "energy_absent": energy_absent(run, cases),
        "minutes": minutes.plot(run, cases),
        "heat": heat.plot(run, cases),
        "profile": profiler.plot(cases),
        "parity": sections.parity(report, {case.artifact for case in cases}),
    }


def _with(cases: Sequence[Case], metric: Metric, tier: Tier) -> Found:
    return [
        (case, found)
        for case in cases
        if (found := case.measurement(metric)) is not None and found.tier is tier and found.samples
    ]


def _tiers(cases: Sequence[Case], metrics: Sequence[Metric]) -> list[Tier]:
    seen = {m.tier for c in cases for m in c.measurements if m.metric in metrics and m.samples}
    return [tier for tier in Tier if tier in seen]


def summaries(cases: Sequence[Case]) -> Summaries:
    """The summary of everything that has several samples, in the order of the cases."""
    return [
        (case, m, summarize(m.samples))
        for case in cases
        for m in case.measurements
        if len(m.samples) > 1
    ]


def boxes(summaries: Summaries, metric: Metric) -> list[Plot]:
    """A box a case from its summary, in the order of the cases; one plot a tier."""
    found = []
    for tier in Tier:
        told = [(c, s) for c, m, s in summaries if m.metric is metric and m.tier is tier]
        if not told:
            continue
        frames = []
        for words, page in in_pages(len(told)):
            here = [told[index] for index in page]
            frames.append(Frame(words, (_box(here),), _box_layout(here, metric), _height(here)))
        found.append(
            Plot(
                id=f"boxes-{metric}-{tier}",
                title=f"{figures.title(metric)}: how the samples are distributed",
                tiers=(tier,),
                frames=tuple(frames),
                described=_described(metric, told),
                see="the table of distributions below",
                notes=(
                    "A box holds the middle half of a case's samples, its line is the median; "
                    "whiskers reach the furthest sample within 1.5 box lengths. What lies further "
                    "out is counted in the table and never removed.",
                ),
            )
        )
    return found


def _height(rows: Sequence[object]) -> int:
    return row_height(len(rows))


def _box(told: Sequence[tuple[Case, Summary]]) -> dict[str, Any]:
    return {
        "type": "box",
        "orientation": "h",
        "y": list(range(len(told))),
        "q1": [s.q1 for _, s in told],
        "median": [s.median for _, s in told],
        "q3": [s.q3 for _, s in told],
        "lowerfence": [s.fence_low for _, s in told],
        "upperfence": [s.fence_high for _, s in told],
        "width": 0.6,
        "hoverinfo": "x",
        "meta": {"colour": 0},
        "showlegend": False,
    }


def _box_layout(told: Sequence[tuple[Case, Summary]], metric: Metric) -> dict[str, Any]:
    return {
        "yaxis": rows_axis([label(case.artifact) for case, _ in told]),
        "xaxis": {"title": {"text": figures.UNITS.get(metric, "")}, "zeroline": False},
    }


def _described(metric: Metric, told: Sequence[tuple[Case, Summary]]) -> str:
    medians = [(summary.median, case_words(case)) for case, summary in told]
    (low, first), (high, last) = min(medians), max(medians)
    unit = figures.UNITS.get(metric, "")
    return plain(
        f"Box plot of {figures.title(metric)} for {len(told)} cases. Lowest median: "
        f"{figures.figure(metric, low)} {unit} of {first}; highest: "
        f"{figures.figure(metric, high)} {unit} of {last}."
    )


def distributions(summaries: Summaries) -> Table | None:
    """Percentiles of everything that has several samples, None where nothing has."""
    rows = [_distribution(case, m, found) for case, m, found in summaries]
    if not rows:
        return None
    titles = ("n", "Lowest", "First quartile", "Median", "Third quartile", "p90", "p99", "Highest")
    return Table(
        caption="Distributions of the raw samples",
        columns=(
            Column("Case"),
            Column("Metric"),
            *(Column(title, number=True) for title in titles),
            Column("Mean", number=True),
            Column("MAD", number=True),
            Column("Outliers", number=True),
        ),
        rows=tuple(rows),
        notes=(
            f"p90 is given from {P90_FROM} samples on, p99 from {P99_FROM} on: fewer do not bear "
            "them. MAD: median distance from the median. Outliers lie further than 14.8 MAD from "
            "the median; they are counted and never removed.",
        ),
    )


def _distribution(case: Case, m: Measurement, found: Summary) -> tuple[Cell, ...]:
    def at(value: float) -> Cell:
        return Cell(figures.figure(m.metric, value))

    def percentile(value: float | None, least: int) -> Cell:
        return Cell(f"n < {least}") if value is None else at(value)

    return (
        case_name(case),
        Cell(figures.title(m.metric), tier=m.tier),
        Cell(figures.count(found.n)),
        *map(at, (found.low, found.q1, found.median, found.q3)),
        percentile(found.p90, P90_FROM),
        percentile(found.p99, P99_FROM),
        *map(at, (found.high, found.mean, found.mad)),
        Cell(figures.count(found.outliers)),
    )


def explorer(cases: Sequence[Case]) -> Markup | None:
    """Trace and histogram of each case's samples, None where no case has several."""
    found = []
    for case in cases:
        rows = [_row(m) for m in case.measurements if len(m.samples) > 1]
        if rows:
            found.append({"case": case_words(case), "rows": rows})
    return embedded(found) if found else None


def _row(m: Measurement) -> dict[str, object]:
    drawn, counted = trace(m.samples), histogram(m.samples)
    return {
        "metric": figures.title(m.metric),
        "unit": figures.UNITS.get(m.metric, ""),
        "tier": str(m.tier),
        "source": label(m.source, 120),
        "n": len(m.samples),
        "median": m.median,
        "start": drawn.start,
        "step": drawn.step,
        "stretch": drawn.stretch,
        "deltas": drawn.deltas,
        "bins": [counted.start, counted.width, list(counted.counts)],
    }


def dots(cases: Sequence[Case], metrics: Sequence[Metric], about: str) -> list[Plot]:
    """Medians of several metrics in one unit, a row a case; one plot a tier."""
    titles = {
        "stages": "Load, first inference, steady state",
        "memory": "Memory",
        "energy": "Energy an inference",
    }
    found = []
    for tier in _tiers(cases, metrics):
        rows = [case for case in cases if any(_with([case], metric, tier) for metric in metrics)]
        unit = figures.UNITS.get(metrics[0], "")
        frames = []
        for words, page in in_pages(len(rows)):
            here = [rows[index] for index in page]
            traces = tuple(_dots(here, metrics, tier))
            axis = {"title": {"text": unit}, "type": "log" if about == "stages" else "linear"}
            if about != "stages":
                axis["rangemode"] = "tozero"
            layout = {
                "yaxis": rows_axis([label(case.artifact) for case in here]),
                "xaxis": axis,
                "showlegend": len(traces) > 1,
            }
            frames.append(Frame(words, traces, layout, _height(here)))
        scale = " The scale is logarithmic." if about == "stages" else ""
        found.append(
            Plot(
                id=f"{about}-{metrics[-1]}-{tier}",
                title=f"{titles[about]}, {unit}",
                tiers=(tier,),
                frames=tuple(frames),
                described=f"{titles[about]} of {len(rows)} cases in {unit}.{scale}",
                see="the tables of this device",
                notes=(f"Medians.{scale}",),
            )
        )
    return found


def _dots(cases: Sequence[Case], metrics: Sequence[Metric], tier: Tier) -> Iterator[dict[str, Any]]:
    symbols = ("circle", "diamond", "square", "triangle-up", "x")
    for colour, metric in enumerate(metrics):
        values = [
            (row, m) for row, case in enumerate(cases) for _, m in _with([case], metric, tier)
        ]
        if not values:
            continue
        dot: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "x": [m.median for _, m in values],
            "y": [row for row, _ in values],
            "name": figures.TITLES.get(metric, str(metric)),
            "hovertemplate": "%{x:,.6g}<extra>%{fullData.name}</extra>",
            "marker": {"size": 9, "symbol": symbols[colour]},
            "meta": {"colour": colour},
        }
        if any(m.interval for _, m in values):
            medians = [m.median or 0.0 for _, m in values]
            edges = [m.interval or (x, x) for (_, m), x in zip(values, medians, strict=True)]
            dot["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [max(0.0, e[1] - x) for e, x in zip(edges, medians, strict=True)],
                "arrayminus": [max(0.0, x - e[0]) for e, x in zip(edges, medians, strict=True)],
            }
        yield dot


def energy_absent(run: DeviceRun, cases: Sequence[Case]) -> tuple[str, ...]:
    """Why there is no energy figure, once a reason; empty where every case that ran has one."""
    ran = [case for case in cases if case.status is Status.OK]
    found = [case.measurement(Metric.ENERGY_MJ) for case in ran]
    reasons = [f"{m.status.replace('_', ' ')}: {m.reason}" for m in found if m and not m.samples]
    if run.profile.energy.source == "none" and not any(m and m.samples for m in found):
        reasons.append(f"unavailable: {run.profile.energy.reason}")
    if not ran and not reasons:
        reasons.append("not run: no case was measured here")
    if any(m is None for m in found) and not reasons:
        reasons.append("not run: the energy pass was not asked for")
    return tuple(dict.fromkeys(plain(reason) for reason in reasons))
