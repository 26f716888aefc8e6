"""Tables and text as GitHub's Markdown, with nothing in the data able to become markup."""

from __future__ import annotations

import re

from deploy.report.tables import Cell, Table, plain, split

_SAFE_IN_CODE = re.compile(r"[A-Za-z0-9 ._@/+:=-]*[A-Za-z0-9._@/+:=-]")
_REFERENCES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&vert;"})


def escape(text: str) -> str:
    """``text`` as one line that Markdown and GitHub show literally.

    What could start markup, a table cell, mathematics or HTML is escaped. An empty comment breaks
    what GitHub links after rendering: mentions, issue numbers, addresses.
    """
    out = re.sub(r"[\\`*\[\]~$]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", plain(text))
    out = out.translate(_REFERENCES)
    out = re.sub(r"^[-+=#:]", lambda m: f"\\{m[0]}", out)
    out = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", out)
    out = re.sub(r"@(?=\w)", "@<!-- -->", out)
    out = re.sub(r"(?i)(#|\bgh-)(?=\d)", r"\1<!-- -->", out)
    out = re.sub(r"(?i)\b(https?|ftp|mailto|xmpp):", r"\1<!-- -->:", out)
    return re.sub(r"(?i)\bwww\.", lambda m: f"{m[0][:3]}<!-- -->.", out)


def code(text: str) -> str:
    """An identifier as code where it is made of harmless characters, else escaped text."""
    shown = plain(text)
    return f"`{shown}`" if _SAFE_IN_CODE.fullmatch(shown) else escape(shown)


def table(content: Table, *, heading: str = "") -> str:
    """A pipe table; reasons stand below it, numbered, so that its rows stay short."""
    reasons: list[str] = []
    lines = []
    for row in content.rows:
        lines.append(_row([_cell(cell, reasons) for cell in row]))
    tiers = [f" ({column.tier})" if column.tier else "" for column in content.columns]
    head = [escape(c.title) + tier for c, tier in zip(content.columns, tiers, strict=True)]
    rule = ["---:" if column.number else "---" for column in content.columns]
    parts = [heading or f"**{escape(content.caption)}**", "", _row(head), _row(rule), *lines]
    if reasons:
        parts += ["", *(f"- ({i}) {escape(text)}" for i, text in enumerate(reasons, 1))]
    if content.notes:
        parts += ["", f"<sub>{' '.join(escape(note) for note in content.notes)}</sub>"]
    return "\n".join(parts)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell, reasons: list[str]) -> str:
    text, more = split(cell, reasons)
    shown = code(text) if cell.name else escape(text)
    return f"{shown} ({escape(more)})" if more else shown
