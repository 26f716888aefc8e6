"""Tables apart from how they look: one content for the page, for Markdown and for the terminal.

Everything that a device, a model or a user named goes through :func:`plain` on its way into a
cell, so that no control or direction character reaches a reader.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from deploy.report import compare, figures
from deploy.types import Case, Comparison, Format, Metric, Outcome, Report, Status, Tier

Tone = Literal["", "good", "bad", "missing"]

OUTCOME_TONES: dict[Outcome, Tone] = {
    Outcome.PASS: "good",
    Outcome.IMPROVED: "good",
    Outcome.REGRESSED: "bad",
    Outcome.INVALID: "bad",
    Outcome.INCONCLUSIVE: "",
}

RUNTIMES = {
    Format.EXECUTORCH: "ExecuTorch",
    Format.ONNX: "ONNX Runtime (.onnx)",
    Format.ORT: "ONNX Runtime (.ort)",
    Format.COREML: "Core ML",
    Format.PACKED: "packed (.psk)",
}
"""What people call the runtime that a format is for."""

TIERS = {
    Tier.ESTIMATE: "computed from a model of the hardware, never run",
    Tier.EMULATOR: "run on an emulated phone that counts instructions; no statement about time",
    Tier.SIMULATOR: "run in a simulator; no statement about a phone's time",
    Tier.HOST: "run or weighed on the machine that made this report",
    Tier.DEVICE: "run on a real device",
}
"""What each tier means, for legends."""


@dataclass(frozen=True)
class Cell:
    """One figure or word. ``small`` explains it (the two figures of a ratio, n, a reason)."""

    text: str
    small: str = ""
    tier: Tier | None = None
    tone: Tone = ""
    name: bool = False


@dataclass(frozen=True)
class Column:
    """A header with its unit; ``tier`` where all figures below it are of one."""

    title: str
    number: bool = False
    tier: Tier | None = None


@dataclass(frozen=True)
class Table:
    """A caption, headers, and rows of as many cells; the first cell names its row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.caption}: {len(row)} cells, {len(self.columns)} columns")

    def plain_rows(self) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
        """Rows as text for a terminal, ``0.54x (155.3 → 84.59 M instructions, emulator)``, and
        the reasons that cells like ``no ratio (1)`` point to, in order.
        """
        reasons: list[str] = []
        rows = []
        for row in self.rows:
            pairs = [split(cell, reasons) for cell in row]
            rows.append(tuple(f"{text} ({more})" if more else text for text, more in pairs))
        return tuple(rows), tuple(reasons)


def plain(text: object) -> str:
    """One line of visible characters: white space collapsed, controls as ``⟨U+202E⟩``.

    Characters that set the direction, join or hide text (Unicode categories C*) are named instead
    of obeyed; letters of right-to-left scripts stay.
    """
    words = " ".join(str(text).split())
    if words.isprintable():  # So it holds none of these characters: by far the most frequent case.
        return words
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c).startswith("C") else c for c in words
    )


def split(cell: Cell, reasons: list[str]) -> tuple[str, str]:
    """A cell as text and what stands in brackets behind it.

    That is its small print and tier; of a missing or failed thing it is the number of its reason
    in ``reasons``, to which a new one is added, so that one long reason does not widen a table.
    """
    if cell.small and (cell.tone == "missing" or (cell.tone == "bad" and cell.tier is None)):
        if cell.small not in reasons:
            reasons.append(cell.small)
        return cell.text, str(reasons.index(cell.small) + 1)
    return cell.text, ", ".join(part for part in (cell.small, str(cell.tier or "")) if part)


def missing(status: str, reason: str) -> Cell:
    """A cell in place of a figure that is not there, with why."""
    return Cell(words_of(status), small=why(reason), tone="missing")


def status_cell(status: Status, reason: str) -> Cell:
    """A status with its reason; a plain ``ok`` needs none."""
    tone: Tone = "good" if status is Status.OK else "missing"
    if status in (Status.FAILED, Status.INVALID):
        tone = "bad"
    if status is not Status.OK:
        reason = reason or "no reason given"
    return Cell(words_of(status), plain(reason), tone=tone)


def pairs(caption: str, rows: list[tuple[Cell, Cell]]) -> Table:
    """A table of facts: what, and its value."""
    return Table(caption=caption, columns=(Column("What"), Column("Value")), rows=tuple(rows))


def nothing() -> Cell:
    """A cell without a figure in a row where another cell says why there is none."""
    return Cell("–", tone="missing")


def why(reason: str) -> str:
    """A reason on one line; where somebody left it empty, that is said."""
    return plain(reason) or "no reason given"


def words_of(status: str) -> str:
    """A status as people write it: ``not run``."""
    return plain(status).replace("_", " ")


def name(text: object, small: str = "") -> Cell:
    """A cell with an identifier."""
    return Cell(plain(text), small=plain(small), name=True)


def case_name(case: Case) -> Cell:
    """The cell that names a case within its device's section: the artifact, and the threads."""
    return name(case.artifact, figures.threads(case.threads))


def case_words(case: Case) -> str:
    """The same as text: ``int8.onnx, 2 threads``."""
    return plain(f"{case.artifact}, {figures.threads(case.threads)}")


def candidates(report: Report) -> tuple[str, ...]:
    """The variants that are compared with the baseline, in the order of their artifacts."""
    return tuple(dict.fromkeys(row.candidate for row in report.comparisons))


def summary(report: Report) -> tuple[Table, ...]:
    """What each candidate bought over the baseline: one table a candidate, the README's too."""
    return tuple(
        _bought(candidate, [r for r in report.comparisons if r.candidate == candidate])
        for candidate in candidates(report)
    )


def _bought(candidate: str, rows: Sequence[Comparison]) -> Table:
    files = {row.format: row for row in rows if row.metric == compare.BYTES}
    runs: dict[tuple[str, int, Format], dict[str, Comparison]] = {}
    for row in rows:
        if row.device:
            runs.setdefault((row.device, row.threads, row.format), {})[row.metric] = row
    threads = {key[1] for key in runs}
    many = len(threads) > 1
    size_scale, size_unit = _byte_scale(files.values())
    columns = (
        Column("Device"),
        Column("Runtime"),
        *([Column("Threads", number=True)] if many else []),
        Column("Per inference", number=True),
        Column(f"File, {size_unit}", number=True, tier=Tier.HOST),
        Column("Peak RSS, MiB", number=True),
    )
    body = []
    for (device, count, format_), found in runs.items():
        steady, peak = _steady(found), found.get(Metric.PEAK_RSS_KIB)
        memory = _ratio(peak, 1024, "MiB", in_header=True)
        if steady and peak and peak.ratio is None and peak.reason == steady.reason:
            memory = nothing()  # The cell before it says why.
        body.append(
            (
                name(device),
                Cell(RUNTIMES[format_]),
                *([Cell(str(count))] if many else []),
                _speed(steady) if steady else missing("not run", "no such figure here"),
                _file(files.get(format_), size_scale, size_unit),
                memory,
            )
        )
    ran = {key[2] for key in runs}
    for format_, row in files.items():
        if format_ not in ran:
            body.append(
                (
                    Cell("no device"),
                    Cell(RUNTIMES[format_]),
                    *([nothing()] if many else []),
                    missing("not run", "no case on any device"),
                    _file(row, size_scale, size_unit),
                    nothing(),
                )
            )
    notes = ["Each ratio is candidate / baseline of the medians: below 1 is less."]
    if len(threads) == 1:
        notes.append(f"All cases ran with {figures.threads(threads.pop())}.")
    return Table(
        caption=f"What {plain(candidate)} bought over {plain(rows[0].baseline)}",
        columns=columns,
        rows=tuple(body),
        notes=tuple(notes),
    )


def _steady(found: dict[str, Comparison]) -> Comparison | None:
    """The figure that stands for speed: time where there is one, else the instruction count."""
    timed, counted = found.get(Metric.LATENCY_MS), found.get(Metric.INSTRUCTIONS)
    if counted and (timed is None or (timed.ratio is None and counted.ratio is not None)):
        return counted
    return timed or counted


def _speed(row: Comparison) -> Cell:
    if row.metric == Metric.LATENCY_MS:
        return _ratio(row, 1, "ms")
    largest = max(row.baseline_value or 0, row.candidate_value or 0)
    scale, letter = next(
        ((s, w) for s, w in ((1e9, "G "), (1e6, "M "), (1e3, "k ")) if largest >= s), (1, "")
    )
    return _ratio(row, scale, f"{letter}instructions")


def _file(row: Comparison | None, scale: float, unit: str) -> Cell:
    return replace(_ratio(row, scale, unit, in_header=True), tier=None)  # The header has it.


def _ratio(row: Comparison | None, scale: float, unit: str, *, in_header: bool = False) -> Cell:
    if row is None:
        return missing("not run", "no such figure")
    if row.ratio is None or row.baseline_value is None or row.candidate_value is None:
        cell = missing("no ratio", row.reason)
        have = [
            f"{label} {figures.significant(value / scale)} {unit}".strip()
            for label, value in (
                (plain(row.baseline), row.baseline_value),
                (plain(row.candidate), row.candidate_value),
            )
            if value is not None
        ]
        small = "; ".join((*have, cell.small))
        return Cell(cell.text, small, tier=row.tier if have else None, tone="missing")
    tone: Tone = "good" if row.ratio < 0.995 else "bad" if row.ratio > 1.005 else ""
    small = figures.from_to(row.baseline_value, row.candidate_value, scale)
    return Cell(
        figures.ratio(row.ratio),
        small if in_header else f"{small} {unit}",
        tier=row.tier,
        tone=tone,
    )


def _byte_scale(rows: Iterable[Comparison]) -> tuple[float, str]:
    largest = max((v for r in rows for v in (r.baseline_value, r.candidate_value) if v), default=0)
    if largest >= 1e6:
        return 1e6, "MB"
    return (1e3, "kB") if largest >= 1e3 else (1, "bytes")
