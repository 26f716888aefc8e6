"""What pocketship changes on a phone, and how it is changed back, also after a crash.

Before a setting is changed, its former value is written into ``<work_dir>/changed/<name>`` on the
device: under a temporary name, synced, renamed. Whoever comes next, this run or another one after a
``kill -9``, restores what the journal names. The journal lies on a device, so it is not trusted:
only names in :data:`KNOWN` count, and a value only where it matches that setting's pattern; what is
run stands in this file and never in the journal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploy.android_text import printable
from deploy.devices.base import Device
from deploy.errors import DeviceError

MAX_ENTRIES = 64
_FORM = "pocketship-changed 1 "

# $1 folder, $2 name, $3 content, $4... the command that changes the setting. A journal entry that
# is there already tells the older, truer value and stays.
_CHANGE = (
    'mkdir -p -- "$1" || exit 71; f=$1/$2; '
    'if [ ! -e "$f" ]; then '
    '{ printf "%s\\n" "$3" >"$1/.$2.tmp" && { fsync "$1/.$2.tmp" 2>/dev/null || sync; } '
    '&& mv -f -- "$1/.$2.tmp" "$f" && { fsync "$1" 2>/dev/null || sync; }; } || exit 71; fi; '
    'shift 3; "$@"'
)
_FORGET = 'rm -f -- "$1/$2" "$1/.$2.tmp"'
_LIST = (
    'cd -- "$1" 2>/dev/null || exit 0; n=0; for f in *; do [ -f "$f" ] || continue; '
    f'n=$((n + 1)); [ $n -gt {MAX_ENTRIES} ] && break; v=; read -r v <"$f"; '
    'printf "%s %s\\n" "$f" "$v"; done; true'
)
_ENTRY = re.compile(r"^([a-z][a-z0-9-]{0,63}) " + re.escape(_FORM) + r"(\S{1,64})$")


@dataclass(frozen=True)
class Setting:
    """One thing that can be changed. ``{value}`` in the command stands for the value to set."""

    name: str
    values: re.Pattern[str]
    command: tuple[str, ...]

    def argv(self, value: str) -> list[str]:
        """The command that sets ``value``; ``ValueError`` for one that the pattern refuses."""
        if self.values.fullmatch(value) is None:
            raise ValueError(f"{self.name} cannot be set to {printable(value, 40)!r}")
        return [word.replace("{value}", value) for word in self.command]


FIXED_PERFORMANCE = Setting(
    "fixed-performance-mode",
    re.compile(r"true|false"),
    ("cmd", "power", "set-fixed-performance-mode-enabled", "{value}"),
)
"""Android 11 and later: the power HAL holds clocks that it can sustain. Nothing tells whether it is
on, so the former value is taken to be ``false``, as it is after every boot."""

KNOWN: dict[str, Setting] = {one.name: one for one in (FIXED_PERFORMANCE,)}


class Settings:
    """The changed settings of one device."""

    def __init__(self, device: Device, known: Mapping[str, Setting] = KNOWN) -> None:
        self._device = device
        self._known = known
        self.folder = f"{device.profile.work_dir}/changed"

    def change(self, name: str, *, former: str, value: str) -> str:
        """Write ``former`` into the journal, then set ``value``; why that failed, or nothing.

        Raises ``KeyError`` for an unknown name, ``ValueError`` for a value that the setting does
        not have, ``DeviceError`` for a lost device. Where the command fails, the setting is what it
        was and the entry is taken back.
        """
        setting = self._known[name]
        setting.argv(former)
        words = ["sh", "-c", _CHANGE, "sh", self.folder, name, f"{_FORM}{former}"]
        done = self._device.shell([*words, *setting.argv(value)])
        if done.exit_code == 0:
            return ""
        self._forget(name)
        said = printable(done.stderr or done.stdout, 160) or f"exit code {done.exit_code}"
        if done.exit_code == 71:
            return f"the journal of changed settings cannot be written: {said}"
        return said

    def restore_all(self) -> list[str]:
        """Restore every known setting that the journal names; give a line for each that stays.

        An entry goes only when its command succeeded. Raises ``DeviceError`` for a lost device.
        """
        listing = self._device.shell(["sh", "-c", _LIST, "sh", self.folder])
        problems = []
        for line in listing.stdout.splitlines()[:MAX_ENTRIES]:
            found = _ENTRY.match(line.rstrip("\r"))
            setting = self._known.get(found.group(1)) if found else None
            if found is None or setting is None:
                problems.append(f"the journal names no known setting: {printable(line, 80)!r}")
                continue
            try:
                argv = setting.argv(found.group(2))
            except ValueError as error:
                problems.append(f"the journal is damaged: {error}")
                continue
            done = self._device.shell(argv)
            if done.exit_code == 0:
                self._forget(setting.name)
            else:
                said = printable(done.stderr or done.stdout, 120) or f"exit code {done.exit_code}"
                problems.append(f"{setting.name} could not be restored: {said}")
        return problems

    def _forget(self, name: str) -> None:
        done = self._device.shell(["sh", "-c", _FORGET, "sh", self.folder, name])
        if done.exit_code != 0:
            raise DeviceError(
                f"cannot take {name} out of the journal of changed settings: "
                f"{printable(done.stderr or done.stdout, 120)}",
                where=self._device.serial,
            )
