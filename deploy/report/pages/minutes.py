"""Latency minute by minute, as the preset ``sustained`` measures it, above the temperatures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from deploy.report import figures
from deploy.report.pages import heat
from deploy.report.pages.plots import Frame, Plot, in_pages, label
from deploy.report.tables import Cell, Column, Table, case_name, case_words, plain
from deploy.types import Case, DeviceRun, Measurement, Metric, Status

_TITLE = "Latency over minutes"
_AT_ONCE = 6  # As many as there are colours.

Found = tuple[Case, Measurement]


def plot(run: DeviceRun, cases: Sequence[Case]) -> Plot:
    """A line a case over the minutes since its first steady inference, or why there is none.

    Below each other on the same minutes: latency, and how warm the device was before and after.
    """
    tier = run.info.tier if run.info else run.profile.tier
    told = [
        (case, m)
        for case in cases
        if (m := case.measurement(Metric.LATENCY_MS)) is not None and m.minutes and m.tier is tier
    ]
    if not told:
        return Plot(id="minutes", title=_TITLE, tiers=(tier,), reason=_reason(run, cases))
    frames = []
    warm = False
    for words, page in in_pages(len(told), _AT_ONCE):
        here = [told[index] for index in page]
        sensors = _sensors(here)
        warm = warm or bool(sensors)
        frames.append(
            Frame(words, tuple(_traces(here, sensors)), _layout(sensors), _height(sensors))
        )
    return Plot(
        id="minutes",
        title=_TITLE,
        tiers=(tier,),
        frames=tuple(frames),
        described=_described(told),
        table=_table(told),
        notes=(
            "Each point is the median of the inferences that began in a minute, at its middle; "
            "minutes count from the first steady inference of the case.",
            "Below: temperatures before and after the case, solid the warmest sensor's, dotted "
            "the battery's. They count from the reading before, which loading and warm-up follow; "
            "between the two readings nothing is known."
            if warm
            else "No temperature was read on both sides of these cases.",
        ),
    )


def _sensors(told: Sequence[Found]) -> list[str]:
    """The sensor that got warmest around these cases, and the battery."""
    peaks: dict[str, float] = {}
    for case, _ in told:
        for _, readings in _ends(case):
            for sensor, celsius in readings.items():
                peaks[sensor] = max(celsius, peaks.get(sensor, celsius))
    others = sorted((s for s in peaks if s != heat.BATTERY), key=lambda s: (-peaks[s], s))
    return [*others[:1], *([heat.BATTERY] if heat.BATTERY in peaks else [])]


def _ends(case: Case) -> list[tuple[float, dict[str, float]]]:
    """Minutes since the reading before the case, and the readings: two of them, or none."""
    a, b = case.before, case.after
    if a is None or b is None or a.boot_id != b.boot_id:
        return []
    if a.uptime_s is None or b.uptime_s is None or b.uptime_s < a.uptime_s:
        return []
    return [(0.0, heat.readings(a)), ((b.uptime_s - a.uptime_s) / 60, heat.readings(b))]


def _traces(told: Sequence[Found], sensors: Sequence[str]) -> Iterator[dict[str, Any]]:
    for colour, (case, m) in enumerate(told):
        common = {"legendgroup": str(colour), "meta": {"colour": colour}}
        yield {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [minute + 0.5 for minute in m.minutes],
            "y": list(m.samples),
            "text": [f"minute {minute + 1}" for minute in m.minutes],
            "name": label(case_words(case)),
            "marker": {"size": 5},
            "hovertemplate": "%{text}: %{y:,.6g} ms<extra>%{fullData.name}</extra>",
            **common,
        }
        for sensor in sensors:
            here = [(x, readings[sensor]) for x, readings in _ends(case) if sensor in readings]
            if len(here) == 2:
                yield {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "x": [round(x, 3) for x, _ in here],
                    "y": [celsius for _, celsius in here],
                    "yaxis": "y2",
                    "name": label(f"{sensor}, {case_words(case)}", 48),
                    "line": {"dash": "dot" if sensor == heat.BATTERY else "solid"},
                    "marker": {"size": 7, "symbol": "circle-open"},
                    "hovertemplate": "%{y:.1f} °C<extra>%{fullData.name}</extra>",
                    "showlegend": False,
                    **common,
                }


def _layout(sensors: Sequence[str]) -> dict[str, Any]:
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "minutes"}, "zeroline": False, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "ms"}, "zeroline": False},
        "showlegend": True,
    }
    if sensors:
        layout["xaxis"]["anchor"] = "y2"
        layout["yaxis"]["domain"] = [0.4, 1]
        layout["yaxis2"] = {"title": {"text": "°C"}, "zeroline": False, "domain": [0, 0.3]}
    return layout


def _height(sensors: Sequence[str]) -> int:
    return 480 if sensors else 340


def _drift(m: Measurement) -> float | None:
    """The last minute against the first."""
    return m.samples[-1] / m.samples[0] if m.samples[0] > 0 else None


def _described(told: Sequence[Found]) -> str:
    longest = max(m.minutes[-1] for _, m in told) + 1
    drifts = [(drift, case) for case, m in told if (drift := _drift(m)) is not None]
    most = ""
    if drifts:
        drift, case = max(drifts, key=lambda one: one[0])
        most = (
            f" The one that slowed down most is {case_words(case)}: its last minute is "
            f"{figures.ratio(drift)} its first."
        )
    count = f"{len(told)} case{'s' * (len(told) != 1)}"
    return plain(f"Latency of {count} over {longest} minute{'s' * (longest != 1)}.{most}")


def _table(told: Sequence[Found]) -> Table:
    return Table(
        caption="Medians minute by minute",
        columns=(
            Column("Case"),
            Column("Minute", number=True),
            Column("Median, ms", number=True),
            Column("Against the first", number=True),
        ),
        rows=tuple(
            (
                case_name(case),
                Cell(figures.count(minute + 1)),
                Cell(figures.figure(Metric.LATENCY_MS, value)),
                Cell(figures.ratio(value / m.samples[0]) if m.samples[0] > 0 else "–"),
            )
            for case, m in told
            for minute, value in zip(m.minutes, m.samples, strict=True)
        ),
    )


def _reason(run: DeviceRun, cases: Sequence[Case]) -> str:
    """Why no case has a figure a minute."""
    if run.info is not None and run.info.clock == "icount":
        return "this device's clock counts instructions, so it has no minutes"
    rows = [m for case in cases if (m := case.measurement(Metric.LATENCY_MS)) is not None]
    if any(m.status is Status.OK for m in rows):
        if run.profile.bench is not None:
            return "the device's profile sets how many inferences there are, not how many minutes"
        return (
            "the samples are single inferences, or of before minutes were noted; "
            "bench.preset: sustained measures minute by minute"
        )
    why = dict.fromkeys([m.reason for m in rows] + [case.reason for case in cases])
    return plain("; ".join(reason for reason in why if reason)) or "no case was measured here"
