"""Temperature over time, from what surrounded each case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deploy.android_text import thermal_status_word
from deploy.report import figures
from deploy.report.pages.plots import Frame, Plot, label
from deploy.report.tables import Cell, Column, Table, name, nothing, plain
from deploy.types import Case, DeviceRun, DeviceState

BATTERY = "battery"
_SENSORS = 6
_TITLE = "Temperature over time"

Moment = tuple[float, str, DeviceState]


def plot(run: DeviceRun, cases: Sequence[Case]) -> Plot:
    """Lines of the battery's and the warmest sensors' temperature, or why there are none.

    Time is the device's own since it started. After a restart it begins anew, so each start has a
    line of its own.
    """
    tier = run.info.tier if run.info else run.profile.tier
    moments = _moments(cases)
    starts = {state.boot_id: None for _, _, state in moments}
    sensors = _warmest(moments)
    if len(moments) < 2 or not sensors:
        return Plot(id="heat", title=_TITLE, tiers=(tier,), reason=_reason(cases))
    zero = moments[0][0]
    many = len(starts) > 1
    traces = tuple(
        _line(sensor, colour, boot, moments, zero=zero)
        for colour, sensor in enumerate(sensors)
        for boot in starts
    )
    peak = max(celsius for _, _, state in moments for celsius in readings(state).values())
    return Plot(
        id="heat",
        title=_TITLE,
        tiers=(tier,),
        frames=(
            Frame(
                "",
                tuple(trace for trace in traces if trace["x"]),
                {
                    "xaxis": {"title": {"text": "minutes since the first case"}, "zeroline": False},
                    "yaxis": {"title": {"text": "°C"}, "zeroline": False},
                    "showlegend": True,
                },
                340,
            ),
        ),
        described=f"Temperatures at {len(moments)} moments before and after cases; the highest is "
        f"{figures.significant(peak, 3)} °C.",
        table=_table(moments, sensors, zero),
        notes=(
            "Read before and after each case; between them nothing is known.",
            "The device was restarted between cases: each start has its own line." if many else "",
        ),
    )


def readings(state: DeviceState) -> dict[str, float]:
    """Sensor -> °C, the battery among them."""
    found = dict(state.temperatures_c)
    if state.battery_c is not None:
        found[BATTERY] = state.battery_c
    return found


def _moments(cases: Sequence[Case]) -> list[Moment]:
    # A restart sets the clock of a device back: the order of cases keeps starts apart.
    found: dict[str | None, list[Moment]] = {}
    for case in cases:
        for when, state in (("before", case.before), ("after", case.after)):
            if state is not None and state.uptime_s is not None and readings(state):
                moment = (state.uptime_s, f"{when} {plain(case.artifact)}", state)
                found.setdefault(state.boot_id, []).append(moment)
    return [moment for group in found.values() for moment in sorted(group, key=lambda m: m[0])]


def _warmest(moments: Sequence[Moment]) -> list[str]:
    """The battery, and the sensors that got warmest."""
    peaks: dict[str, float] = {}
    for _, _, state in moments:
        for sensor, celsius in readings(state).items():
            peaks[sensor] = max(celsius, peaks.get(sensor, celsius))
    ordered = sorted(peaks, key=lambda sensor: (sensor != BATTERY, -peaks[sensor], sensor))
    return ordered[:_SENSORS]


def _line(
    sensor: str, colour: int, boot: str | None, moments: Sequence[Moment], *, zero: float
) -> dict[str, Any]:
    here = [(t, readings(s)[sensor]) for t, _, s in moments
            if s.boot_id == boot and sensor in readings(s)]  # fmt: skip
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [round((t - zero) / 60, 3) for t, _ in here],
        "y": [celsius for _, celsius in here],
        "name": label(sensor, 24),
        "legendgroup": str(colour),
        "showlegend": boot == moments[0][2].boot_id,
        "hovertemplate": "%{y:.1f} °C<extra>%{fullData.name}</extra>",
        "meta": {"colour": colour},
    }


def _table(moments: Sequence[Moment], sensors: Sequence[str], zero: float) -> Table:
    rows = []
    for when, what, state in moments:
        now = readings(state)
        status = state.thermal_status
        rows.append(
            (
                name(what),
                Cell(figures.significant((when - zero) / 60, 3)),
                nothing() if status is None else Cell(thermal_status_word(status)),
                *(
                    Cell(figures.significant(now[sensor], 3)) if sensor in now else nothing()
                    for sensor in sensors
                ),
            )
        )
    return Table(
        caption="Temperatures before and after each case",
        columns=(
            Column("When"),
            Column("Minutes", number=True),
            Column("Thermal status"),
            *(Column(f"{plain(sensor)}, °C", number=True) for sensor in sensors),
        ),
        rows=tuple(rows),
    )


def _reason(cases: Sequence[Case]) -> str:
    states = [state for case in cases for state in (case.before, case.after) if state is not None]
    if not states:
        return "no case recorded the state of the device"
    why = dict.fromkeys(
        reason
        for state in states
        for key in ("temperatures_c", "battery_c", "uptime_s")
        if (reason := state.unknown.get(key))
    )
    return plain("; ".join(why)) or "the device told no temperature at two moments"
