"""The comment on a pull request: the verdict, what changed, by how much, on which device.

GitHub refuses a body of more than 65,536 characters. This one is counted in bytes of UTF-8, which
is the strictest way to count: rows are left out from its end until it fits, and it says how many.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.report import figures
from deploy.report.formats.judged import FILES, Judged, Line, change, figure, judged, reason
from deploy.report.markdown import code, escape, table
from deploy.report.tables import TIERS, Cell, Column, Table, name, nothing, plain
from deploy.types import Acceptance, GateReport, Outcome, Report

MAX_BYTES = 65_536
_MARK = re.compile(r"<!-- pocketship-comment: [\w. /-]{1,120} -->")

_ROWS, _FOLDED = 25, 100
_NAME, _REASON = 120, 300


@dataclass(frozen=True)
class _Room:
    """How much is shown of what: rows that changed, rows that hold, other lines, tables."""

    rows: int
    folded: int
    lines: int
    tables: int


def comment(report: Report | GateReport, *, link: str = "", key: str = "") -> str:
    """The body of the comment, below :data:`MAX_BYTES`, with its mark on the first line.

    ``link`` leads to the whole report. ``key`` tells several comments on one pull request apart;
    unless given, it is the pipeline's name for a run and the device's for a gate.
    """
    shown = judged(report)
    mark = f"<!-- pocketship-comment: {_key(key or f'{shown.kind} {shown.place}')} -->"
    room = _Room(rows=_ROWS, folded=_FOLDED, lines=12, tables=4)
    return fitting(shown, room, MAX_BYTES, link=link, head=f"{mark}\n")


def document(report: Report | GateReport, *, link: str = "", most: int) -> str:
    """The same without a mark and with every row, in at most ``most`` bytes."""
    shown = judged(report)
    every = len(shown.lines)
    room = _Room(rows=every, folded=every, lines=every + len(shown.accepted), tables=100)
    return fitting(shown, room, most, link=link)


def marks(body: str) -> str:
    """The mark on the first line of a comment's body; empty where there is none."""
    first = body.split("\n", 1)[0].strip()
    return first if _MARK.fullmatch(first) else ""


def fitting(shown: Judged, room: _Room, most: int, *, link: str, head: str = "") -> str:
    """The longest document that stays below ``most`` bytes, by halving what is shown of each."""
    while True:
        text = head + _document(shown, room, link)
        if len(text.encode("utf-8")) < most or room == _Room(0, 0, 0, 0):
            return text
        # What holds is dropped first, what changed last.
        if room.folded or room.tables:
            room = _Room(room.rows, room.folded // 2, room.lines, room.tables // 2)
        else:
            room = _Room(room.rows // 2, 0, room.lines // 2, 0)


def _document(shown: Judged, room: _Room, link: str) -> str:
    changed = [line for line in shown.lines if _changed(line)]
    held = [line for line in shown.lines if not _changed(line)]
    parts = [
        f"## {shown.outcome}: {code(_cut(shown.name, _NAME))}",
        f"**{escape(shown.headline)}**",
        "\n".join(f"- {escape(_cut(text, _REASON))}" for text in _intro(shown)[: room.lines]),
    ]
    if changed:
        label = "What changed" if shown.kind == "gate" else "What does not hold"
        parts.append(_rows(label, changed, room.rows, heading=f"### {label}"))
    if shown.accepted:
        parts.append(_accepted(shown.accepted, room.lines))
    parts += [
        table(content, heading=f"### {escape(content.caption)}")
        for content in shown.tables[: room.tables]
    ]
    if left := len(shown.tables) - room.tables:
        parts.append(_left_out(left, "table") if left > 0 else "")
    if held:
        label = _held(shown, len(held))
        body = _rows("What holds", held, room.folded)
        parts.append(f"<details><summary>{label}</summary>\n\n{body}\n\n</details>")
    parts.append("\n".join(f"- *{tier}*: {escape(TIERS[tier])}" for tier in shown.tiers()))
    parts.append(_foot(shown, link))
    return "\n\n".join(part for part in parts if part) + "\n"


def _held(shown: Judged, count: int) -> str:
    if shown.kind == "gate":
        return f"{count} figure{'' if count == 1 else 's'} without a change that counts"
    return "1 check holds" if count == 1 else f"{count} checks hold"


def _changed(line: Line) -> bool:
    return line.verdict.outcome is not Outcome.PASS or bool(line.verdict.accepted)


def _intro(shown: Judged) -> list[str]:
    """Where, and from what to what; then which device took no part."""
    told = []
    for run in shown.devices:
        info = run.info
        tier = info.tier if info else run.profile.tier
        about = [str(tier)]
        if info:
            about += [text for text in (info.model, info.os_build) if text]
        state = "" if run.status == "ok" else f": {run.status}: {run.reason or 'no reason given'}"
        told.append(f"{plain(run.profile.name)} ({plain(', '.join(about))}){plain(state)}")
    if shown.kind == "gate":
        told = [f"{label}: {value}" for label, value in shown.facts[:2]] + told
    return told


def _rows(caption: str, lines: Sequence[Line], most: int, *, heading: str = "") -> str:
    kept, left = lines[:most], lines[most:]
    parts = [table(_table(caption, kept), heading=heading)] if kept else []
    if left:
        parts.append(_left_out(len(left), "row", lines=left))
    return "\n\n".join(parts)


def _left_out(count: int, noun: str, *, lines: Sequence[Line] = ()) -> str:
    wrong = [
        str(line.verdict.outcome) for line in lines if line.verdict.outcome is not Outcome.PASS
    ]
    kinds = ", ".join(f"{wrong.count(one)} {one}" for one in dict.fromkeys(wrong))
    more = f" ({kinds})" if kinds else ""
    return f"**{count} more {noun}{'' if count == 1 else 's'}**{more} are in the full report only."


def _table(caption: str, lines: Sequence[Line]) -> Table:
    columns = [
        (Column("Outcome"), [Cell(str(line.verdict.outcome)) for line in lines]),
        (Column("What"), [_subject(line) for line in lines]),
        (Column("Metric"), [_metric(line) for line in lines]),
        (Column("Figure", number=True), [_cell(figure(o.verdict), o.tier) for o in lines]),
        (Column("Change", number=True), [_cell(change(line.verdict)) for line in lines]),
        (Column("Limit", number=True), [_cell(_limit(line)) for line in lines]),
        (Column("Why"), [Cell(_cut(reason(line.verdict), _REASON)) for line in lines]),
    ]
    # A run compares with limits only, a gate often with the base only.
    used = [(c, cells) for c, cells in columns if any(cell != nothing() for cell in cells)]
    return Table(
        caption=caption,
        columns=tuple(column for column, _ in used),
        rows=tuple(zip(*(cells for _, cells in used), strict=True)),
    )


def _subject(line: Line) -> Cell:
    subject = plain(line.verdict.subject)
    if line.device != FILES and subject.endswith("/t1"):
        subject = subject.removesuffix("/t1")
    return name(_cut(subject, _NAME))


def _metric(line: Line) -> Cell:
    metric = line.verdict.metric
    return Cell(_cut(plain(figures.TITLES.get(metric, metric)), _NAME))


def _limit(line: Line) -> str:
    limit = line.verdict.limit
    # Of an exact comparison the limit is the base's figure, which the row has already.
    if limit is None or limit == line.verdict.base_value:
        return ""
    return figures.limit(limit)


def _cell(text: str, tier: object = None) -> Cell:
    if not text:
        return nothing()
    return Cell(f"{text} ({tier})" if tier else text)


def _accepted(accepted: Sequence[Acceptance], most: int) -> str:
    lines = [
        f"- {code(_cut(plain(one.subject), _NAME))}, {code(_cut(plain(one.metric), _NAME))}: up to "
        f"{figures.limit(one.up_to)} times the base until {one.until}, "
        f"{escape(_cut(plain(one.by), _NAME))}: {escape(_cut(plain(one.reason), _REASON))}"
        for one in accepted
    ]
    if left := len(lines) - most:
        lines = [*lines[:most], f"- and {left} more"] if left > 0 else lines
    return "\n".join(["### Accepted changes in force", "", *lines])


def _foot(shown: Judged, link: str) -> str:
    known = dict(shown.facts)
    facts = f"Run {known['Run']}, {known['Made, UTC']}, pocketship {known['pocketship']}"
    start = f"[Full report]({link}). " if link else ""
    return f"{start}<sub>{escape(_cut(facts, _REASON))}</sub>"


def _key(text: str) -> str:
    """What can stand in an HTML comment: it must not end there, nor hold two hyphens in a row."""
    safe = re.sub(r"[^A-Za-z0-9_. /-]", "_", plain(text))
    return re.sub(r"-{2,}", "-", safe).strip(" -")[:120].strip(" -") or "_"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
