"""A phone in a few lines, with a clock of its own: what it says is a function of that clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.android_text import join_sections
from deploy.bench.waiting import Clock
from deploy.devices import profiles
from deploy.devices.base import ShellResult
from deploy.devices.questions import STATE_SECTIONS, SUPPLIES, state_argv
from deploy.errors import DeviceError
from deploy.types import DeviceInfo, DeviceProfile

BOOT = "4f2a7c1e-93b0-4d56-8a11-0e5d7b9c2f34"


def battery_text(celsius: float, usb: bool = False) -> str:
    powered = str(usb).lower()
    return (
        f"Current Battery Service state:\n  AC powered: false\n  USB powered: {powered}\n"
        f"  level: 77\n  scale: 100\n  temperature: {round(celsius * 10)}\n"
    )


def thermal_text(status: int) -> str:
    return f"Thermal Status: {status}\nCurrent temperatures from HAL:\n"


@dataclass
class ScriptedPhone:
    """Time passes by :meth:`sleep` only. ``sections`` replaces what the state script answers."""

    profile: DeviceProfile = field(default_factory=lambda: profiles.load("pixel-8"))
    serial: str = "192.168.1.23:5555"
    passed: float = 0.0
    boot_uptime: float = 1000.25
    boot_id: str = BOOT
    celsius: Callable[[float], float] = lambda _: 30.0
    status: Callable[[float], int] = lambda _: 0
    usb: bool = False
    sections: dict[str, str] = field(default_factory=dict)
    supplies: str = ""
    files: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    answers: dict[str, ShellResult] = field(default_factory=dict)
    said: list[list[str]] = field(default_factory=list)

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: 50.0 + self.passed, sleep=self.sleep)

    @property
    def uptime(self) -> float:
        return self.boot_uptime + self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds

    def info(self) -> DeviceInfo:
        return DeviceInfo(serial=self.serial, profile=self.profile.name, tier=self.profile.tier)

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        words = list(argv)
        self.said.append(words)
        if words[:-1] == state_argv("")[:-1]:
            told = dict.fromkeys(STATE_SECTIONS, "") | {
                "uptime": f"{self.uptime:.2f} 5.00\n",
                "boot_id": f"{self.boot_id}\n",
                "dumpsys_battery": battery_text(self.celsius(self.passed), self.usb),
                "dumpsys_thermalservice": thermal_text(self.status(self.passed)),
            }
            return ShellResult(0, join_sections(told | self.sections, words[-1]))
        if words == list(SUPPLIES):
            return ShellResult(0, self.supplies)
        if words == ["cat", "/proc/uptime"]:
            return ShellResult(0, f"{self.uptime:.2f} 5.00\n")
        if words == ["dumpsys", "battery"]:
            return ShellResult(0, battery_text(self.celsius(self.passed), self.usb))
        for part, answer in self.answers.items():
            if part in " ".join(words):
                return answer
        if words[0] == "cat":
            for part, content in self.files.items():
                if part in words[1]:
                    return ShellResult(0, content().decode())
        return ShellResult(0, "")

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        pass

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        for part, content in self.files.items():
            if part in remote:
                local.write_bytes(content())
                return
        raise DeviceError("no such file", where=self.serial)

    def close(self) -> None:
        pass
