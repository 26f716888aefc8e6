"""``getprop``."""

from __future__ import annotations

import re

MAX_PROPERTIES = 8192
MAX_VALUE = 4096

_PROPERTY = re.compile(r"^\[([A-Za-z0-9_.:@\-]{1,256})\]: \[(.*)$")


def parse_getprop(text: str) -> dict[str, str]:
    """Property names to values, from ``getprop`` without arguments.

    Values can be empty, hold brackets or commas and run over several lines; the closing bracket at
    the end of a line ends one.
    """
    properties: dict[str, str] = {}
    name: str | None = None
    parts: list[str] = []
    for raw in text.split("\n"):
        line = raw.removesuffix("\r")
        start = _PROPERTY.match(line)
        if start and (name is None or not line.startswith("[]")):
            name, parts = start.group(1), [start.group(2)]
        elif name is not None:
            parts.append(line)
        else:
            continue
        if parts[-1].endswith("]"):
            if len(properties) < MAX_PROPERTIES:
                properties[name] = "\n".join(parts)[:-1][:MAX_VALUE]
            name = None
    return properties
