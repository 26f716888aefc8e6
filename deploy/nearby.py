"""All places to look for devices: those that ``deploy.devices`` knows, and our emulated phones."""

from __future__ import annotations

from deploy.devices import discovery
from deploy.emulator import machine


def sources() -> dict[str, discovery.Source]:
    """All places to look for devices; ``deploy.devices`` may not know of our emulated phones."""
    return {**discovery.SOURCES, "emulated phones": _emulated_phones}


def _emulated_phones() -> list[discovery.Sighting]:
    return [discovery.Sighting(phone.serial, "tcp") for phone in machine.running()]
