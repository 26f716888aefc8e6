"""How this machine waits for a device: a clock that tests and recordings can replace."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from deploy.devices.base import Device


@dataclass(frozen=True)
class Clock:
    """Monotonic seconds of this machine, and how to let them pass."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def clock_for(device: Device) -> Clock:
    """The real clock; for a recording one on which waiting takes no time."""
    if device.profile.transport != "replay":
        return Clock()
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    return Clock(now=lambda: time.monotonic() + passed[0], sleep=sleep)
