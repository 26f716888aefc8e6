"""Memory: of the machine (``/proc/meminfo``) and of a process (smaps_rollup, dumpsys meminfo)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MEMINFO = re.compile(r"^([A-Za-z0-9_()]{1,64}):[ \t]+([0-9]{1,15})[ \t]+kB[ \t]*$")
_DUMPSYS_TOTAL = re.compile(r"^[ \t]*TOTAL(?:[ \t]+-?[0-9]{1,12}){3,10}[ \t]*$")
_DUMPSYS_TOTAL_PSS = re.compile(r"^[ \t]*TOTAL PSS:[ \t]+([0-9]{1,12})(?:[ \t]|$)")
_DUMPSYS_PID = re.compile(r"^\*\* MEMINFO in pid ([0-9]{1,9})[ \t]")


@dataclass(frozen=True)
class MemInfo:
    """Sizes from ``/proc/meminfo`` in KiB; None where the line is missing."""

    total_kib: int | None
    available_kib: int | None


def parse_meminfo(text: str) -> MemInfo:
    """Read ``/proc/meminfo`` (its ``kB`` are KiB). The first line of a name counts."""
    found = _kib(text)
    return MemInfo(
        total_kib=found.get("MemTotal") or None,
        available_kib=found.get("MemAvailable"),
    )


@dataclass(frozen=True)
class SmapsRollup:
    """Memory of one process in KiB from ``/proc/PID/smaps_rollup``; None where the line is missing.

    ``pss`` shares each page among the processes that map it; ``private_dirty`` is what ending the
    process would give back and cannot be read again from a file.
    """

    rss_kib: int | None
    pss_kib: int | None
    private_dirty_kib: int | None
    swap_pss_kib: int | None


def parse_smaps_rollup(text: str) -> SmapsRollup:
    """Read ``/proc/PID/smaps_rollup``.

    Newer kernels follow ``Pss:`` with ``Pss_Dirty:``, ``Pss_Anon:`` and others, which are not it.
    The first line of a name counts.
    """
    found = _kib(text)
    return SmapsRollup(
        rss_kib=found.get("Rss"),
        pss_kib=found.get("Pss"),
        private_dirty_kib=found.get("Private_Dirty"),
        swap_pss_kib=found.get("SwapPss"),
    )


@dataclass(frozen=True)
class ProcessMemory:
    """What ``dumpsys meminfo PID`` says; ``pid`` is None where the banner is missing."""

    pid: int | None
    pss_kib: int | None
    private_dirty_kib: int | None


def parse_dumpsys_meminfo(text: str) -> ProcessMemory:
    """Read ``dumpsys meminfo PID``: the columns of the row ``TOTAL`` are Pss, Private Dirty, ….

    Native processes lack the banner ``** MEMINFO in pid``. The ``App Summary`` below has a line
    ``TOTAL PSS:`` (``TOTAL:`` before Android 12) that is used where the table is missing.
    """
    pid = pss = dirty = None
    for raw in text.split("\n"):
        line = raw.removesuffix("\r")
        if pid is None and (banner := _DUMPSYS_PID.match(line)):
            pid = int(banner.group(1))
        elif pss is None and _DUMPSYS_TOTAL.match(line):
            columns = [int(word) for word in line.split()[1:]]
            if columns[0] >= 0 and columns[1] >= 0:
                pss, dirty = columns[0], columns[1]
        elif pss is None and (total := _DUMPSYS_TOTAL_PSS.match(line)):
            pss = int(total.group(1))
    return ProcessMemory(pid=pid, pss_kib=pss, private_dirty_kib=dirty)


def _kib(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in text.split("\n"):
        if match := _MEMINFO.match(line.removesuffix("\r")):
            found.setdefault(match.group(1), int(match.group(2)))
    return found
