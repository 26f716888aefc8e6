"""``pocketship devices``: every device that can be seen, and the profiles that are known.

Apart from the other commands, because a look at phones need not wait until torch is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from deploy import nearby, paths
from deploy.console import Session
from deploy.devices import discovery, profiles
from deploy.devices.discovery import Found

_TITLES = ("Serial", "Transport", "State", "Profile", "Tier", "Model", "ABI", "SoC", "OS build")


def show(serials: Sequence[str], ui: Session, *, as_json: bool) -> None:
    """Every device that can be seen, what to do about it, then the profiles that are known."""
    troubles: list[str] = []
    seen = discovery.sightings(serials, sources=nearby.sources(), troubles=troubles)
    found = discovery.ask_all(seen)
    if as_json:
        known = [one.model_dump(mode="json") for one in profiles.all_profiles()]
        rows = [one.model_dump(mode="json") for one in found]
        answer = {"devices": rows, "profiles": known, "troubles": troubles}
        ui.say(json.dumps(answer, indent=2))
        return
    for trouble in troubles:
        ui.progress(f"could not look at {trouble}")
    if found:
        columns = [(title, False) for title in _TITLES] + [("Battery", True), ("What to do", False)]
        ui.table("Devices", columns, [_device_row(one) for one in found])
    else:
        ui.progress("no device is there; start an emulated one with: pocketship phone start")
    table = [
        [known.name, known.transport, known.tier.value, known.abi, known.tested_on or "never run"]
        for known in profiles.all_profiles()
        if known.name != profiles.AUTO
    ]
    columns = [(name, False) for name in ("Profile", "Transport", "Tier", "ABI", "Tested on")]
    ui.table(f"Profiles in {paths.profiles_dir()}", columns, table)


def _device_row(one: Found) -> list[str]:
    words = [one.serial, one.transport, one.state]
    words += [
        value or "-" for value in (one.profile, one.tier, one.model, one.abi, one.soc, one.os_build)
    ]
    battery = [f"{one.battery_percent:.0f} %"] if one.battery_percent is not None else []
    battery += [f"{one.battery_c:.1f} °C"] if one.battery_c is not None else []
    return [*words, ", ".join(battery) or "-", one.hint]
