"""Since when a device runs: ``/proc/uptime`` and the kernel's boot id."""

from __future__ import annotations

import re

_UPTIME = re.compile(r"^([0-9]{1,10}\.[0-9]{1,6}) [0-9]{1,14}\.[0-9]{1,6}\s*$")
_BOOT_ID = re.compile(r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def parse_uptime_s(text: str) -> float | None:
    """Seconds since boot, sleep included, from ``/proc/uptime``."""
    match = _UPTIME.match(text.strip())
    return float(match.group(1)) if match else None


def parse_boot_id(text: str) -> str | None:
    """The UUID in ``/proc/sys/kernel/random/boot_id``: another one after each boot."""
    found = text.strip()
    return found if _BOOT_ID.match(found) else None
