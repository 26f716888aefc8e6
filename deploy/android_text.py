"""Parsers of what phones print: text in, dataclass out, no I/O.

The text is untrusted. No parser raises on any text, and none makes a number up: what is not there,
cannot be read or is out of any sane range is None. Formats differ between vendors; each parser says
which traps it knows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

MAX_PROPERTIES = 8192
MAX_VALUE = 4096
_MAX_CPUS = 1024

_PROPERTY = re.compile(r"^\[([A-Za-z0-9_.:@\-]{1,256})\]: \[(.*)$")
_MEMINFO = re.compile(r"^([A-Za-z0-9_()]{1,64}):[ \t]+([0-9]{1,15})[ \t]+kB[ \t]*$")
_PROCESSOR = re.compile(r"^processor[ \t]*:[ \t]*([0-9]{1,5})[ \t]*$")
_MAX_FREQUENCY = re.compile(
    r"^(?:\S*/)?cpu([0-9]{1,4})/cpufreq/cpuinfo_max_freq[ \t]+([0-9]{1,9})[ \t]*$"
)
_DF = re.compile(
    r"^.*?[ \t]([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]+[0-9]{1,3}%[ \t]"
)


def printable(text: str, limit: int = 200) -> str:
    """``text`` as one line of printable characters, cut at ``limit``: fit for a message."""
    one_line = " ".join(text.split())
    kept = "".join(c if c.isprintable() else "?" for c in one_line)
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"


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


@dataclass(frozen=True)
class CpuInfo:
    """What ``/proc/cpuinfo`` says: processors that are online now, and the part's names if any."""

    count: int | None
    hardware: str | None
    model_name: str | None
    features: frozenset[str]


def parse_cpuinfo(text: str) -> CpuInfo:
    """Read ``/proc/cpuinfo`` of ARM or x86. Offline cores are not listed there."""
    processors: set[int] = set()
    hardware: str | None = None
    model_name: str | None = None
    features: frozenset[str] = frozenset()
    for line in text.split("\n"):
        if found := _PROCESSOR.match(line):
            processors.add(int(found.group(1)))
            continue
        key, separator, value = line.partition(":")
        if not separator:
            continue
        if key.strip() == "Hardware" and hardware is None:
            hardware = printable(value) or None
        elif key.strip() == "model name" and model_name is None:
            model_name = printable(value) or None
        elif key.strip() in {"Features", "flags"} and not features:
            features = frozenset(printable(word, 40) for word in value.split()[:512])
    count = len(processors) if 0 < len(processors) <= _MAX_CPUS else None
    return CpuInfo(count=count, hardware=hardware, model_name=model_name, features=features)


@dataclass(frozen=True)
class MemInfo:
    """Sizes from ``/proc/meminfo`` in KiB; None where the line is missing."""

    total_kib: int | None
    available_kib: int | None


def parse_meminfo(text: str) -> MemInfo:
    """Read ``/proc/meminfo`` (its ``kB`` are KiB). The first line of a name counts."""
    found: dict[str, int] = {}
    for line in text.split("\n"):
        if match := _MEMINFO.match(line.removesuffix("\r")):
            found.setdefault(match.group(1), int(match.group(2)))
    return MemInfo(
        total_kib=found.get("MemTotal") or None,
        available_kib=found.get("MemAvailable"),
    )


def parse_cpu_max_frequencies(text: str) -> dict[int, int]:
    """CPU number to its limit in kHz, from lines ``…/cpuN/cpufreq/cpuinfo_max_freq KHZ``."""
    frequencies: dict[int, int] = {}
    for line in text.split("\n"):
        if match := _MAX_FREQUENCY.match(line.removesuffix("\r")):
            cpu, khz = int(match.group(1)), int(match.group(2))
            if cpu < _MAX_CPUS and khz > 0:
                frequencies.setdefault(cpu, khz)
    return frequencies


def big_core_mask(frequencies: Mapping[int, int]) -> str | None:
    """Hex mask of the cores with the highest maximum frequency.

    None where there is nothing to choose: no frequency is known, or all cores are equal.
    """
    if not frequencies or min(frequencies.values()) == max(frequencies.values()):
        return None
    fastest = max(frequencies.values())
    return hex(sum(1 << cpu for cpu, khz in frequencies.items() if khz == fastest))


def parse_df_available_kib(text: str) -> int | None:
    """Available KiB from ``df -kP FOLDER`` (toybox, busybox and coreutils agree on the columns)."""
    for line in reversed(text.strip().split("\n")):
        if match := _DF.match(line):
            return int(match.group(3))
    return None


def parse_sha256sum(text: str) -> dict[str, str]:
    """Path to hex SHA-256 from ``sha256sum`` lines; names that coreutils escapes are skipped."""
    hashes: dict[str, str] = {}
    for line in text.split("\n"):
        match = re.match(r"^([0-9a-f]{64})[ \t][ *](.+)$", line.removesuffix("\r"))
        if match:
            hashes[match.group(2)] = match.group(1)
    return hashes
