"""From units to figures over seeds: targets judged, a Markdown page, lines for the terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.compression.results import Result
from benchmarks.compression.rows import Row, Target

NOT_RUN = "not run"

ROW_MINUTES, ALL_MINUTES = 30, 120
"""What a row and what all rows may take, with two units side by side."""
_SIDE_BY_SIDE = 2

Units = dict[tuple[str, int], Result]
"""(variant, seed) -> what the unit left."""


@dataclass(frozen=True)
class Spread:
    """A figure over seeds; ``reason`` says why there is none."""

    values: tuple[float, ...]
    reason: str = ""

    @property
    def mean(self) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of a sample; None where there are fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


def over_seeds(units: Units, variant: str, figure: str) -> Spread:
    """One figure of one variant."""
    made = [unit for (name, _), unit in sorted(units.items()) if name == variant]
    values = tuple(unit.figures[figure] for unit in made if figure in unit.figures)
    reasons = [unit.missing[figure] for unit in made if figure in unit.missing]
    return Spread(values, "" if values else next(iter(reasons), NOT_RUN))


def reached(target: Target, units: Units) -> Spread:
    """What a target asks for, seed by seed."""
    if target.against is None:
        return over_seeds(units, target.variant, target.figure)
    values = []
    for (name, seed), unit in sorted(units.items()):
        other = units.get((target.against.variant, seed))
        if name != target.variant or other is None:
            continue
        value = unit.figures.get(target.figure)
        reference = other.figures.get(target.against.figure)
        if value is None or reference is None:
            continue
        values.append(_derived(target, value, reference))
    if values:
        return Spread(tuple(values))
    own = over_seeds(units, target.variant, target.figure)
    its = over_seeds(units, target.against.variant, target.against.figure)
    return Spread((), own.reason or its.reason or NOT_RUN)


def _derived(target: Target, value: float, reference: float) -> float:
    if target.kind == "times_smaller":
        return reference / value
    if target.kind == "share":
        return value / reference
    # In points of a hundred; rounded, because 0.9 - 0.895 is a little more than 0.005 in binary.
    return round(100 * (reference - value), 9)


def judged(target: Target, units: Units) -> tuple[str, str]:
    """``(figure in words, reached | missed | not run)`` for the mean over seeds."""
    spread = reached(target, units)
    if spread.mean is None:
        return spread.reason, NOT_RUN
    seeds = f"{len(spread.values)} seed{'s' if len(spread.values) > 1 else ''}"
    words = f"{number(spread.mean)}{_plus_minus(spread)} ({seeds})"
    return words, "reached" if target.holds(spread.mean) else "missed"


def limit(target: Target) -> str:
    """The target's limit in words."""
    words = {"times_smaller": "x smaller", "share": "x", "points_lost": " points lost", "value": ""}
    if target.at_least is not None:
        return f">= {number(target.at_least)}{words[target.kind]}"
    assert target.at_most is not None
    return f"<= {number(target.at_most)}{words[target.kind]}"


def number(value: float) -> str:
    """Bytes and counts with separators, everything else with four digits."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _plus_minus(spread: Spread) -> str:
    return "" if spread.deviation is None else f" ± {spread.deviation:.2g}"


def target_lines(row: Row, units: Units) -> list[str]:
    """One line a target: what was asked, what was reached."""
    lines = []
    for target in row.targets:
        words, verdict = judged(target, units)
        figure = "" if words == NOT_RUN else f", figure {words}"
        lines.append(f"{verdict:8} {row.title}: {target.text}: asked {limit(target)}{figure}")
    return lines


def minutes(units: Units) -> float:
    """What units took to make and measure, two of them at a time; counting instructions not."""
    seconds = (unit.make_seconds + unit.measure_seconds for unit in units.values())
    return sum(seconds) / 60 / _SIDE_BY_SIDE


def time_line(row: Row, units: Units) -> str:
    """The row's time beside what was asked, and the command that makes the row."""
    asked = len(row.variants) * row.seeds
    line = _time(row.title, minutes(units), ROW_MINUTES, len(units), asked)
    return f"{line}; {command(row)}"


def total_time_line(everything: Sequence[tuple[Row, Units]]) -> str:
    """The same of all rows together."""
    spent = sum(minutes(units) for _, units in everything)
    made = sum(len(units) for _, units in everything)
    asked = sum(len(row.variants) * row.seeds for row, _ in everything)
    return f"{_time('all rows', spent, ALL_MINUTES, made, asked)}; make bench-compress"


def command(row: Row) -> str:
    """What makes the row."""
    return f"make bench-compress MODEL={row.name}"


def timed(spent: float, most: int, made: int, asked: int) -> tuple[str, str]:
    """``(minutes in words, verdict)`` of ``made`` units; a part can miss a limit, not reach it."""
    verdict = "missed" if spent > most else "reached" if made >= asked else NOT_RUN
    return (f"{spent:.1f} ({made} of {asked} units)" if made else "", verdict)


def _time(title: str, spent: float, most: int, made: int, asked: int) -> str:
    words, verdict = timed(spent, most, made, asked)
    figure = f", figure {words}" if words else ""
    return f"{verdict:8} {title}: time: asked <= {most} minutes{figure}"


COLUMNS = {
    "top-1": ("pte_top1", "onnx_top1", "simulated_top1"),
    "agreement": ("pte_agreement", "onnx_agreement", "simulated_agreement"),
    "SQNR dB": ("pte_sqnr_db", "onnx_sqnr_db", "simulated_sqnr_db"),
    "packed bytes": ("packed_bytes",),
    "`.pte` bytes": ("pte_bytes",),
    "`.onnx` bytes": ("onnx_bytes",),
    "`.mlpackage` bytes": ("mlpackage_bytes",),
    "instructions": ("pte_instructions",),
    "latency / onnxruntime's": ("onnx_latency_ratio",),
}
"""A column of the table and the figures that may fill it, the first that is there."""


def markdown(row: Row, units: Units) -> str:
    """The row's section of the page."""
    shown = {
        title: names
        for title, names in COLUMNS.items()
        if any(name in unit.figures for unit in units.values() for name in names)
    }
    head = ["variant", *shown, "minutes", "seeds"]
    lines = [f"## {row.title}", "", _line(head), _line(["---"] * len(head))]
    for name, variant in row.variants.items():
        made = [unit for (own, _), unit in sorted(units.items()) if own == name]
        if not made:
            lines.append(_line([variant.title, *[NOT_RUN] * len(shown), "", "0"]))
            continue
        cells = [_cell(units, name, names) for names in shown.values()]
        spent = statistics.fmean((u.make_seconds + u.measure_seconds) / 60 for u in made)
        lines.append(_line([variant.title, *cells, f"{spent:.1f}", str(len(made))]))
    lines += ["", f"`{command(row)}` makes it.", ""]
    lines += [_line(["target", "asked", "figure", ""]), _line(["---"] * 4)]
    for target in row.targets:
        words, verdict = judged(target, units)
        figure = "" if words == NOT_RUN else words
        lines.append(_line([target.text, limit(target), figure, verdict]))
    words, verdict = timed(minutes(units), ROW_MINUTES, len(units), len(row.variants) * row.seeds)
    lines += [_line(["time, minutes", f"<= {ROW_MINUTES}", words, verdict]), ""]
    return "\n".join(lines)


def _cell(units: Units, variant: str, names: Sequence[str]) -> str:
    for name in names:
        spread = over_seeds(units, variant, name)
        if spread.mean is not None:
            note = " (simulated)" if name.startswith("simulated_") else ""
            return f"{number(spread.mean)}{_plus_minus(spread)}{note}"
        if spread.reason != NOT_RUN:
            return spread.reason
    return ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
