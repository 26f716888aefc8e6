"""Several answers in one output, so that many questions cost one round trip."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_SECTION = 256 << 10
_TOKEN = re.compile(r"^[0-9a-f]{16}$")


def split_sections(text: str, token: str) -> dict[str, str]:
    """Name to text: what follows each line ``@@TOKEN NAME``, the first of a name, cut at 256 KiB.

    ``token`` is random, so that nothing a device prints by itself looks like a heading.
    ``ValueError`` where it is not 16 hexadecimal digits.
    """
    if not _TOKEN.match(token):
        raise ValueError("a token has 16 hexadecimal digits")
    parts = re.split(rf"^@@{token} ([a-z_]{{1,40}})\r?$\n?", text, flags=re.M)
    sections: dict[str, str] = {}
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        sections.setdefault(name, body[:MAX_SECTION])
    return sections


def join_sections(sections: Mapping[str, str], token: str) -> str:
    """The text that :func:`split_sections` takes apart."""
    return "".join(
        f"@@{token} {name}\n{body}{'' if not body or body.endswith(chr(10)) else chr(10)}"
        for name, body in sections.items()
    )
