"""Under which conditions a device's cases ran: battery, heat, what was warned of."""

from __future__ import annotations

from collections.abc import Callable

from deploy.android_text import thermal_status_word
from deploy.report import figures
from deploy.report.tables import Cell, Column, Table, case_name, nothing, plain
from deploy.types import Case, DeviceState


def table(cases: list[Case]) -> Table | None:
    """A row for each case about which there is anything to say, None where there is none."""
    told = [case for case in cases if _speaks(case)]
    if not told:
        return None
    return Table(
        caption="Conditions",
        columns=(
            Column("Case"),
            Column("Battery, %", number=True),
            Column("Battery, °C", number=True),
            Column("Thermal status"),
            Column("Warmest sensor, °C", number=True),
            Column("Attempts", number=True),
            Column("Take note"),
        ),
        rows=tuple(_row(case) for case in told),
        notes=("Before → after the case.",) if any(case.before for case in told) else (),
    )


def _speaks(case: Case) -> bool:
    known = any(
        state is not None
        and (
            state.battery_percent is not None
            or state.battery_c is not None
            or state.thermal_status is not None
            or state.temperatures_c
        )
        for state in (case.before, case.after)
    )
    return known or bool(case.warnings) or case.attempts > 1


def _row(case: Case) -> tuple[Cell, ...]:
    return (
        case_name(case),
        _change(case, lambda state: _number(state.battery_percent)),
        _change(case, lambda state: _number(state.battery_c)),
        _change(case, lambda state: _status(state.thermal_status)),
        _change(case, _warmest),
        Cell(figures.count(case.attempts), tone="bad" if case.attempts > 1 else ""),
        Cell(plain("; ".join(case.warnings))) if case.warnings else nothing(),
    )


def _change(case: Case, of: Callable[[DeviceState], str]) -> Cell:
    texts = ["" if state is None else of(state) for state in (case.before, case.after)]
    if not any(texts):
        return nothing()
    before, after = (text or "unknown" for text in texts)
    return Cell(before if before == after else f"{before} → {after}")


def _number(value: float | None) -> str:
    return "" if value is None else figures.significant(value, 3)


def _status(value: int | None) -> str:
    return "" if value is None else thermal_status_word(value)


def _warmest(state: DeviceState) -> str:
    if not state.temperatures_c:
        return ""
    sensor, celsius = max(state.temperatures_c.items(), key=lambda pair: pair[1])
    return f"{_number(celsius)} ({plain(sensor)})"
