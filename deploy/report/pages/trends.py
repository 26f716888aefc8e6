"""A figure over commits, with the places where it changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.report import figures
from deploy.report.pages.plots import Frame, Plot, label
from deploy.report.series import Change, Series
from deploy.report.tables import Cell, Column, Table, missing, name, plain
from deploy.types import Tier

_TOLD = 8
"""Changes that are told in words; a figure that is exact can have one a run."""


@dataclass(frozen=True)
class Trend:
    """One series as the page shows it; ``told`` are its changes in words."""

    heading: str
    plot: Plot
    told: tuple[str, ...]
    note: str


def trend(number: int, series: Series) -> Trend:
    """The picture and table of one series; a series of one point has no picture and says so."""
    title = figures.title(series.metric)
    told = [_told(series, change) for change in series.changes]
    if len(told) > _TOLD:
        told = [*told[-_TOLD:], f"And {len(told) - _TOLD:,} earlier ones, in the table."]
    reason = (
        ""
        if len(series.points) > 1
        else ("a line needs two runs, and there are fewer of this figure")
    )
    notes = []
    if _of_file(series):
        notes.append("Of the file itself: exact, so every difference is a change.")
        reason = reason or _constant(series)
    else:
        notes.append(
            f"OS build {plain(series.os_build)}." if series.os_build else "OS build unknown."
        )
    if series.missing:
        notes.append(f"{series.missing} run{'s' * (series.missing != 1)} between have no figure.")
    if series.branch is None:
        notes.append("Points are of several branches, so nobody looked for change points.")
    elif not reason and not told:
        told = [f"No change point was found on {plain(series.branch)}."]
    plot = Plot(
        id=f"trend-{number}",
        title=title,
        tiers=(Tier(series.tier),),
        frames=(Frame("", tuple(_traces(series)), _layout(series), 300),) if not reason else (),
        described=" ".join((f"{title} over {len(series.points)} runs.", *told)),
        table=_table(series) if series.points else None,
        notes=tuple(notes),
        reason=reason,
    )
    place = f"{figures.threads(series.threads)}, on {series.device}"
    heading = f"{series.artifact}, {'the file' if _of_file(series) else place}"
    return Trend(plain(heading), plot, tuple(told), plain(series.note))


def _of_file(series: Series) -> bool:
    return not series.threads


def _constant(series: Series) -> str:
    """Why there is nothing to see of an exact figure that never changed."""
    values = {point.median for point in series.points}
    if len(values) > 1:
        return ""
    return f"it is {figures.figure(series.metric, values.pop())} in all {len(series.points)} runs"


def _traces(series: Series) -> list[dict[str, Any]]:
    points, places = series.points, list(range(len(series.points)))
    line: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": places,
        "y": [point.median for point in points],
        "text": [label(f"{_commit(point.commit)}, {point.created_utc}") for point in points],
        "hovertemplate": "%{text}<br>%{y:,.6g}<extra></extra>",
        "meta": {"colour": 0},
        "name": "median",
    }
    if any(point.interval for point in points):
        edges_of = [point.interval or (point.median, point.median) for point in points]
        up = [max(0.0, e[1] - p.median) for e, p in zip(edges_of, points, strict=True)]
        down = [max(0.0, p.median - e[0]) for e, p in zip(edges_of, points, strict=True)]
        line["error_y"] = {"type": "data", "symmetric": False, "array": up, "arrayminus": down}
    levels: list[dict[str, Any]] = []
    edges = [0, *(change.index for change in series.changes), len(points)]
    means = [change.before for change in series.changes[:1]]
    means += [change.after for change in series.changes]
    for start, stop, mean in zip(edges, edges[1:], means, strict=False):
        levels.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [start - 0.5, stop - 0.5],
                "y": [mean, mean],
                "hoverinfo": "skip",
                "name": "level",
                "showlegend": not levels,
                "meta": {"colour": 1},
            }
        )
    return [line, *levels]


def _layout(series: Series) -> dict[str, Any]:
    count = len(series.points)
    shown = range(0, count, max(1, count // 8))
    return {
        "xaxis": {
            "tickmode": "array",
            "tickvals": list(shown),
            "ticktext": [label(_commit(series.points[i].commit), 10) for i in shown],
            "title": {"text": "commit"},
            "zeroline": False,
        },
        "yaxis": {"title": {"text": label(figures.UNITS.get(series.metric, ""))}},
        "showlegend": bool(series.changes),
        "shapes": [
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": change.index - 0.5,
                "x1": change.index - 0.5,
                "y0": 0,
                "y1": 1,
                "line": {"dash": "dot", "width": 1},
            }
            for change in series.changes
        ],
    }


def _table(series: Series) -> Table:
    changes = {change.index: change for change in series.changes}
    rows = []
    for index, point in enumerate(series.points):
        interval = ""
        if point.interval is not None:
            low, high = (figures.figure(series.metric, edge) for edge in point.interval)
            interval = f"{low} to {high}"
        rows.append(
            (
                name(point.run_id),
                Cell(plain(point.created_utc)),
                name(_commit(point.commit)) if point.commit else missing("unknown", "no commit"),
                Cell(figures.figure(series.metric, point.median), interval, tier=Tier(series.tier)),
                Cell(figures.count(point.n)),
                Cell(_told(series, changes[index]) if index in changes else "–"),
            )
        )
    return Table(
        caption=f"{figures.title(series.metric)}, run by run",
        columns=(
            Column("Run"),
            Column("UTC"),
            Column("Commit"),
            Column("Median", number=True),
            Column("Samples", number=True),
            Column("Change point"),
        ),
        rows=tuple(rows),
    )


def _commit(commit: str) -> str:
    return plain(commit)[:8] if commit else "unknown"


def _told(series: Series, change: Change) -> str:
    before, after = (figures.figure(series.metric, v) for v in (change.before, change.after))
    share = f" ({100 * (change.after / change.before - 1):+.1f} %)" if change.before else ""
    known = 0 <= change.index < len(series.points)
    place = _commit(series.points[change.index].commit) if known else f"point {change.index}"
    between = f"From {place} on (after {_commit(change.commit_before)})"
    text = f"{between}: {before} → {after}{share.replace('-', '−')}"
    also = f"; {plain(', '.join(change.with_it))} changed there too" if change.with_it else ""
    test = "" if change.p_value is None else f", p = {figures.significant(change.p_value, 2)}"
    return f"{text}{test}{also}."
