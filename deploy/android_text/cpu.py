"""Processors: ``/proc/cpuinfo``, and cpufreq's limits and time in each state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.android_text.printing import printable

_MAX_CPUS = 1024
_MAX_STATES = 256

_PROCESSOR = re.compile(r"^processor[ \t]*:[ \t]*([0-9]{1,5})[ \t]*$")
_MAX_FREQUENCY = re.compile(
    r"^(?:\S*/)?cpu([0-9]{1,4})/cpufreq/cpuinfo_max_freq[ \t]+([0-9]{1,9})[ \t]*$"
)
_POLICY = re.compile(r"^(?:\S*/)?(policy[0-9]{1,4}|cpu[0-9]{1,4})(?:/\S*)?/time_in_state[ \t]*$")
_GOVERNOR = re.compile(r"^(?:\S*/)?(policy[0-9]{1,4})/scaling_governor ([a-z_]{1,32})[ \t]*$")
_STATE = re.compile(r"^([0-9]{1,9})[ \t]+([0-9]{1,15})[ \t]*$")
USER_HZ = 100
"""time_in_state counts in clock_t, of which Linux shows 100 a second on every architecture here."""


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


def parse_time_in_state(text: str) -> dict[str, dict[int, int]]:
    """cpufreq policy to {kHz: milliseconds since boot}.

    The text has a line with the path ``…/policyN/stats/time_in_state`` before the lines
    ``KHZ TICKS`` of each file; a tick is 10 ms. Lines of anything else (``Permission denied``) end
    the policy that they follow; a policy without a state is left out.
    """
    found: dict[str, dict[int, int]] = {}
    policy: dict[int, int] | None = None
    for raw in text.split("\n"):
        line = raw.removesuffix("\r")
        if path := _POLICY.match(line):
            policy = found.setdefault(path.group(1), {}) if len(found) < _MAX_CPUS else None
        elif (state := _STATE.match(line)) and policy is not None:
            if len(policy) < _MAX_STATES:
                policy.setdefault(int(state.group(1)), int(state.group(2)) * 1000 // USER_HZ)
        elif line.strip():
            policy = None
    return {name: states for name, states in found.items() if states}


def parse_governors(text: str) -> dict[str, str]:
    """cpufreq policy to its governor, from lines ``…/policyN/scaling_governor NAME``."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        if (match := _GOVERNOR.match(line.removesuffix("\r"))) and len(found) < _MAX_CPUS:
            found.setdefault(match.group(1), match.group(2))
    return found
