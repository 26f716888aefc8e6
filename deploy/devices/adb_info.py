"""What a phone says about itself over a shell: properties, processors, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from deploy.android_text import (
    big_core_mask,
    parse_cpu_max_frequencies,
    parse_cpuinfo,
    parse_getprop,
    parse_meminfo,
    printable,
)
from deploy.devices import profiles
from deploy.devices.base import ShellResult
from deploy.devices.questions import QUESTIONS
from deploy.types import DeviceInfo, DeviceProfile

MATCHED_PROPERTIES = (
    "ro.product.manufacturer",
    "ro.product.model",
    "ro.product.device",
    "ro.product.cpu.abi",
    "ro.product.brand",
    "ro.product.name",
    "ro.soc.manufacturer",
    "ro.soc.model",
    "ro.hardware",
    "ro.hardware.chipname",
    "ro.board.platform",
    "ro.kernel.qemu",
    "ro.boot.qemu",
    "ro.boot.pocketship.icount",
    "ro.build.fingerprint",
    "ro.build.version.release",
    "ro.build.version.sdk",
    "ro.build.version.security_patch",
)
"""Kept in a report. Serial numbers and everything personal among the properties is left out."""

ICOUNT_PROPERTY = "ro.boot.pocketship.icount"


class Askable(Protocol):
    """A device that answers commands which only read."""

    @property
    def serial(self) -> str:
        """How the device is called."""

    @property
    def profile(self) -> DeviceProfile:
        """What is declared about it."""

    def ask(self, argv: Sequence[str]) -> ShellResult:
        """Run a command that only reads."""


def read_properties(device: Askable) -> tuple[dict[str, str], str]:
    """All properties, and why there are none where ``getprop`` does not work."""
    result = device.ask(QUESTIONS["getprop"])
    properties = parse_getprop(result.stdout) if result.exit_code == 0 else {}
    if properties:
        return properties, ""
    return {}, f"getprop gave exit code {result.exit_code}: {printable(result.stdout, 80)}"


def read_info(device: Askable) -> DeviceInfo:
    """Everything of :class:`DeviceInfo`; each None has its reason in ``unknown``."""
    properties, no_properties = read_properties(device)
    unknown: dict[str, str] = {}

    def known(field: str, *names: str) -> str | None:
        for name in names:
            if value := printable(properties.get(name, ""), 256):
                return value
        unknown[field] = no_properties or f"the properties {', '.join(names)} are empty"
        return None

    if doubt := profiles.doubts(device.profile, properties):
        unknown["profile"] = doubt
    kernel = device.ask(QUESTIONS["kernel"])
    if kernel.exit_code != 0 or not kernel.stdout.strip():
        unknown["kernel"] = f"uname -r gave exit code {kernel.exit_code}"
    cpu = parse_cpuinfo(device.ask(QUESTIONS["cpuinfo"]).stdout)
    if cpu.count is None:
        unknown["cpu_count"] = "/proc/cpuinfo lists no processor"
    memory = parse_meminfo(device.ask(QUESTIONS["meminfo"]).stdout)
    if memory.total_kib is None:
        unknown["memory_total_kib"] = "/proc/meminfo has no MemTotal"
    mask = _big_cores(device, cpu.count, unknown)
    clock: Literal["monotonic", "icount"] = (
        "icount" if properties.get(ICOUNT_PROPERTY) == "1" else "monotonic"
    )
    return DeviceInfo(
        serial=device.serial,
        profile=device.profile.name,
        tier=device.profile.tier,
        model=known("model", "ro.product.model"),
        manufacturer=known("manufacturer", "ro.product.manufacturer"),
        abi=known("abi", "ro.product.cpu.abi"),
        soc=known("soc", "ro.soc.model", "ro.hardware.chipname", "ro.board.platform"),
        os_build=known("os_build", "ro.build.fingerprint", "ro.build.display.id"),
        kernel=None if "kernel" in unknown else printable(kernel.stdout),
        cpu_count=cpu.count,
        big_core_mask=mask,
        memory_total_kib=memory.total_kib,
        clock=clock,
        properties=_kept(properties),
        unknown=unknown,
    )


def _big_cores(device: Askable, online: int | None, unknown: dict[str, str]) -> str | None:
    frequencies = parse_cpu_max_frequencies(device.ask(QUESTIONS["cpu_max_frequencies"]).stdout)
    mask = big_core_mask(frequencies)
    if not frequencies:
        reason = "cpufreq's cpuinfo_max_freq cannot be read"
    elif online is not None and len(frequencies) < online:
        # Some cores' limits are hidden: the fastest known one may not be the fastest.
        mask = None
        reason = f"cpuinfo_max_freq of {len(frequencies)} of {online} cores can be read"
    else:
        reason = "all cores have the same maximum frequency"
    if mask is None:
        unknown["big_core_mask"] = reason
    return mask


def _kept(properties: Mapping[str, str]) -> dict[str, str]:
    return {
        name: printable(properties[name], 256) for name in MATCHED_PROPERTIES if name in properties
    }
