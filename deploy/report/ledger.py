"""What each compression step bought, against the row before it: tables and warnings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.report import figures
from deploy.report.tables import Cell, Column, Table, Tone, missing, name, nothing, plain, why
from deploy.types import Cost, LedgerRow, Report, Tier

NO_METRIC = "none"
"""Name of the metric of a program without a task."""

NOT_MEASURED = (
    "Nothing was measured on a device after each step (recipe.cost names none), so no row says "
    "anything of speed."
)
_DROPPED = "dropped: "
"""How the warning begins that says why a step was not kept."""
_LONGEST_DETAIL = 160


@dataclass(frozen=True)
class Step:
    """A row, its number, and the row that it is compared with: the last one kept before it."""

    number: int
    row: LedgerRow
    before: LedgerRow | None

    @property
    def label(self) -> str:
        """``2 quantize``; the uncompressed model has no number."""
        return f"{self.number} {plain(self.row.step)}" if self.number else plain(self.row.step)


def steps(report: Report) -> tuple[Step, ...]:
    """The ledger's rows with what each is compared with."""
    found: list[Step] = []
    before: LedgerRow | None = None
    for number, row in enumerate(report.ledger):
        found.append(Step(number, row, before))
        if row.kept:
            before = row
    return tuple(found)


def bought(report: Report) -> Table | None:
    """Sizes, work, metric and cost after each step, each with its change; None without a ledger."""
    rows = steps(report)
    if not rows:
        return None
    cost = next((step.row.cost for step in rows if step.row.cost), None)
    notes = [
        "Changes are against the last row that was kept. Bytes are of the weights: packed for our "
        "decoder, and as the program stores them."
    ]
    level = next((s.row.interval.level for s in rows if s.row.interval), None)
    if level is not None:
        notes.append(f"Brackets: {level:.0%} interval over the evaluation samples.")
    if cost is None:
        notes.append(NOT_MEASURED)
    return Table(
        caption="What each step bought",
        columns=(
            Column("Step"),
            Column("Parameters", number=True, tier=Tier.HOST),
            Column("Not zero", number=True, tier=Tier.HOST),
            Column("MACs", number=True, tier=Tier.HOST),
            Column("Download, bytes", number=True, tier=Tier.HOST),
            Column("On disk, bytes", number=True, tier=Tier.HOST),
            Column("Task metric", number=True, tier=Tier.HOST),
            *([_cost_column(cost)] if cost else []),
            Column("Step took, s", number=True, tier=Tier.HOST),
            Column("Kept"),
        ),
        rows=tuple(_bought_row(step, cost) for step in rows),
        notes=tuple(notes),
    )


def _cost_column(cost: Cost) -> Column:
    """One recipe measures on one device: its name, unit and tier stand in the header."""
    unit = figures.UNITS.get(cost.metric, cost.metric)
    return Column(
        f"An inference on {plain(cost.device)}, {plain(unit)}", number=True, tier=_tier(cost)
    )


def _tier(cost: Cost) -> Tier | None:
    return Tier(cost.tier) if cost.tier in set(Tier) else None


def _bought_row(step: Step, cost: Cost | None) -> tuple[Cell, ...]:
    row, before = step.row, step.before
    new, old = row.footprint, before.footprint if before else None
    if new is None:
        size = (
            _count(row.parameters, before.parameters if before else None),
            missing("unknown", "this report was made without footprints"),
            nothing(),
            nothing(),
            _count(row.program_bytes, before.program_bytes if before else None),
        )
    else:
        size = (
            _count(new.parameters, old.parameters if old else None),
            _count(new.nonzeros, old.nonzeros if old else None),
            _count(
                new.macs,
                old.macs if old else None,
                f"cannot be counted: {', '.join(new.macs_unknown)}",
            ),
            _count(new.packed_bytes, old.packed_bytes if old else None, new.packed_reason),
            _count(new.disk_bytes, old.disk_bytes if old else None),
        )
    return (
        name(step.label, _cut(_detail(row), _LONGEST_DETAIL)),
        *size,
        _metric(row),
        *([_cost(row, before)] if cost else []),
        Cell(figures.significant(row.seconds, 3)),
        _kept(step),
    )


def _kept(step: Step) -> Cell:
    if not step.number:
        return Cell("the start")
    if step.row.kept:
        return Cell("yes", tone="good")
    reasons = [text for text in step.row.warnings if text.startswith(_DROPPED)]
    return Cell(
        "no, dropped", why(reasons[0].removeprefix(_DROPPED)) if reasons else "", tone="bad"
    )


def _count(value: float | None, before: float | None, reason: str = "") -> Cell:
    if value is None:
        return missing("unknown", reason)
    return Cell(figures.count(value), change(value, before), tone=_tone(value, before))


def change(value: float, before: float | None) -> str:
    """``−36.2 %`` of ``before``; empty at the start and for what stayed as it was."""
    if before is None or value == before:
        return ""
    if not before:
        return "from 0"
    share = 100 * (value / before - 1)
    digits = 1 if abs(share) >= 0.05 else 3
    return f"{share:+.{digits}f} %".replace("-", "−")


def _tone(value: float, before: float | None) -> Tone:
    """Good for less. More is not toned bad: that makes a reason of a cell's small print."""
    return "good" if before and value < 0.995 * before else ""


def _metric(row: LedgerRow) -> Cell:
    quality = row.quality
    if quality is None:
        return missing("not judged", "this step's quality was not measured")
    if quality.metric == NO_METRIC:
        return missing("none", "the program came without a task to be judged by")
    small = plain(quality.metric)
    if row.interval is not None:
        low, high = figures.significant(row.interval.low), figures.significant(row.interval.high)
        small = f"{small} [{low}, {high}]"
    return Cell(figures.significant(quality.metric_value), small)


def _cost(row: LedgerRow, before: LedgerRow | None) -> Cell:
    cost = row.cost
    if cost is None:
        return missing("not measured", "no device was named for this row")
    if cost.value is None:
        return missing("not measured", cost.reason)
    old = before.cost if before else None
    comparable = (
        old is not None
        and (old.device, old.format, old.metric, old.tier)
        == (cost.device, cost.format, cost.metric, cost.tier)
        and old.value is not None
    )
    previous = old.value if comparable and old is not None else None
    text = figures.figure(cost.metric, cost.value)
    return Cell(text, change(cost.value, previous), tone=_tone(cost.value, previous))


def judged(report: Report) -> Table | None:
    """How near each step stayed to the uncompressed model, and what it said of itself."""
    if not report.ledger:
        return None
    return Table(
        caption="How near each step stayed to the uncompressed model",
        columns=(
            Column("Step"),
            Column("SQNR, dB", number=True, tier=Tier.HOST),
            Column("Top-1 agreement", number=True, tier=Tier.HOST),
            Column("Validation metric", number=True, tier=Tier.HOST),
            Column("Deflated, bytes", number=True, tier=Tier.HOST),
            Column("RAM, bytes", number=True, tier=Tier.ESTIMATE),
            Column("Notes"),
        ),
        rows=tuple(_judged_row(step) for step in steps(report)),
        notes=(
            "RAM: weights and the largest sum of activations that are alive at once, not measured.",
        ),
    )


def _judged_row(step: Step) -> tuple[Cell, ...]:
    row, quality, size = step.row, step.row.quality, step.row.footprint
    no_quality = missing("not judged", "this step's quality was not measured")
    return (
        name(step.label),
        no_quality if quality is None else sqnr(quality.sqnr_db),
        nothing() if quality is None else agreement(quality.top1_agreement, quality.samples),
        missing("none", "the task has no validation data")
        if row.validation is None
        else Cell(figures.significant(row.validation)),
        nothing() if size is None else Cell(figures.count(size.deflated_bytes)),
        nothing()
        if size is None
        else missing("unknown", "a shape is not fixed")
        if size.ram_bytes is None
        else Cell(figures.count(size.ram_bytes)),
        Cell(plain("; ".join(row.notes)) or "none"),
    )


def sqnr(value: float | None) -> Cell:
    """SQNR in dB, or that the outputs are equal."""
    return Cell("infinite", "outputs are equal") if value is None else Cell(f"{value:.1f}")


def agreement(value: float | None, samples: int) -> Cell:
    """Share of samples with the same top class."""
    if value is None:
        return missing("none", "this task has no classes")
    return Cell(figures.share(value), f"{figures.count(samples)} samples")


def warnings(report: Report) -> tuple[str, ...]:
    """One line for each warning of each step: ``2 quantize: ...``."""
    return tuple(
        f"{step.label}: {why(text)}" for step in steps(report) for text in step.row.warnings
    )


def lines(report: Report) -> Iterator[str]:
    """The ledger for a terminal: a line a step, its warnings below it."""
    if len(report.ledger) < 2:
        return
    yield "What each step bought, against the last row that was kept"
    rows = [_terminal_row(step) for step in steps(report)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for step, cells in zip(steps(report), rows, strict=True):
        yield "  ".join(map(str.ljust, cells, widths)).rstrip()
        for text in step.row.warnings:
            yield f"    ! {why(text)}"
    if not any(row.cost for row in report.ledger):
        yield NOT_MEASURED


def _terminal_row(step: Step) -> Sequence[str]:
    row, before = step.row, step.before
    size, old = row.footprint, before.footprint if before else None
    disk = size.disk_bytes if size else row.program_bytes
    disk_before = None if before is None else old.disk_bytes if old else before.program_bytes
    cells = [step.label + ("" if row.kept else " (dropped)")]
    cells.append(_worded(disk, disk_before, "bytes on disk"))
    packed = size.packed_bytes if size else None
    cells.append(
        "" if packed is None else _worded(packed, old.packed_bytes if old else None, "packed")
    )
    macs = size.macs if size else None
    cells.append("" if macs is None else _worded(macs, old.macs if old else None, "MACs"))
    quality = row.quality
    has_metric = quality is not None and quality.metric != NO_METRIC
    metric = _metric(row)
    cells.append(f"{metric.text} {metric.small}" if has_metric else "")
    cost = _cost(row, before)
    if row.cost is not None and row.cost.value is not None:
        unit = figures.UNITS.get(row.cost.metric, row.cost.metric)
        small = ", ".join(part for part in (cost.small, plain(row.cost.tier)) if part)
        cells.append(f"{cost.text} {plain(unit)} on {plain(row.cost.device)} ({small})")
    else:
        cells.append("")
    return cells


def _worded(value: float, before: float | None, what: str) -> str:
    share = change(value, before)
    return f"{figures.count(value)} {what}{f' ({share})' if share else ''}"


def _detail(row: LedgerRow) -> str:
    """The step's settings as in YAML, ``budget.macs=0.5``; its defaults are not repeated."""
    settings = row.detail if row.chosen is None else row.chosen
    return ", ".join(f"{plain(key)}={value}" for key, value in _flat("", settings))


def _flat(path: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in sorted(settings.items()):
        if isinstance(value, dict):
            yield from _flat(f"{path}{key}.", value)
        elif isinstance(value, str):
            yield f"{path}{key}", plain(value)
        elif value is not None:
            yield f"{path}{key}", plain(json.dumps(value, default=str))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
