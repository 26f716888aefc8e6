"""Text of a device as something that can be shown."""

from __future__ import annotations


def printable(text: str, limit: int = 200) -> str:
    """``text`` as one line of printable characters, cut at ``limit``: fit for a message."""
    one_line = " ".join(text.split())
    kept = "".join(c if c.isprintable() else "?" for c in one_line)
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"
