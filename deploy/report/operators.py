"""The dearest operators of a case, as a table."""

from __future__ import annotations

import statistics

from deploy.report import figures
from deploy.report.tables import Cell, Column, Table, name, nothing, plain
from deploy.types import Case, OperatorCost

SHOWN = 10


def tables(cases: list[Case]) -> tuple[Table, ...]:
    """One table a case that has a profile."""
    return tuple(_table(case) for case in cases if case.operators)


def _table(case: Case) -> Table:
    medians = [(statistics.median(row.samples), row) for row in case.operators if row.samples]
    total = sum(median for median, _ in medians)
    dearest = sorted(medians, key=lambda pair: -pair[0])[:SHOWN]
    unit = case.operators[0].unit
    note = (
        f"The {len(dearest)} dearest of {len(case.operators)} rows, medians of "
        f"{len(case.operators[0].samples)} inferences in a process of their own: profiling costs "
        f"time, so compare rows with each other and not with the case's latency."
    )
    return Table(
        caption=f"Operators of {plain(case.id)}",
        columns=(
            Column("Operator"),
            Column("Layer"),
            Column("Runs on"),
            Column(f"Median, {unit}", number=True),
            Column("Share", number=True),
        ),
        rows=tuple(_row(case, row, median, total) for median, row in dearest),
        notes=(note,),
    )


def _row(case: Case, row: OperatorCost, median: float, total: float) -> tuple[Cell, ...]:
    tier = case.measurements[0].tier if case.measurements else None
    value = figures.count(median) if row.unit == "instructions" else figures.significant(median)
    return (
        name(row.name, row.kind if row.kind not in row.name else ""),
        name(", ".join(row.layers)) if row.layers else nothing(),
        Cell(plain(row.backend)),
        Cell(value, tier=tier),
        Cell(figures.share(median / total)) if total else nothing(),
    )
