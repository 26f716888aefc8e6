"""What a pocketship that was killed left on a device, told from what a living one is using.

Case folders and temporary files carry in their names who made them: this machine, the process and
when that process started. At the next contact from the same machine whatever belongs to a process
that has ended is removed, and a runner that still computes for it is ended, since it would
disturb what is measured now. What other machines left goes by its age.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
from pathlib import Path

from deploy.devices.base import Device

STALE_MINUTES = 180
"""Age at which what another machine left is taken for abandoned, by the device's own clock."""

# Data reaches these scripts as positional parameters only.
CLEAN_UP = (
    'p=$(cat "$1/pid" 2>/dev/null); '
    "case $p in ''|*[!0-9]*) ;; "
    # The number may belong to someone else by now: only a process that names this case is killed.
    '*) grep -qF -- "$1" "/proc/$p/cmdline" 2>/dev/null && kill -9 "$p";; esac; '
    'rm -rf -- "$1"'
)
"""Ends the runner of the case folder ``$1`` and removes the folder."""

_LIST = (
    "for f in cases/* store/.*.tmp bundle-*/.*.tmp; do "
    '[ -e "$f" ] || [ -L "$f" ] && printf "%s\\n" "$f"; done; true'
)
_OWNED = re.compile(
    r"(?:cases/|store/\.[0-9a-f]{64}\.|bundle-[0-9a-f]{16}/\.[A-Za-z0-9._+-]+\.)"
    r"(([0-9a-f]{12}-[0-9]{1,10}-[0-9]{1,20})-[0-9a-f]{8})(?:\.tmp)?"
)


_in_use: set[str] = set()
"""What this process has on devices now. A disk that lost power brings back what was removed."""


def new_name() -> str:
    """A fresh name that says whose it is: ``<machine>-<process>-<its start>-<random>``.

    It is in use until :func:`release`.
    """
    name = f"{_own()}-{secrets.token_hex(4)}"
    _in_use.add(name)
    return name


def release(name: str) -> None:
    """What has this name was removed, or its device was lost: whoever meets it may remove it."""
    _in_use.discard(name)


def has_ended(owner: str) -> bool:
    """Whether ``<machine>-<process>-<its start>`` is a process of this machine that is no more."""
    machine, pid, started = owner.split("-")
    return machine == _machine() and str(_started(int(pid))) != started


def sweep(device: Device) -> int:
    """Remove what ended pocketships of this machine, and old ones of others, left; how many."""
    work_dir = device.profile.work_dir
    listing = device.shell(["sh", "-c", _LIST], cwd=work_dir)
    swept = 0
    for line in listing.stdout.split("\n"):
        found = _OWNED.fullmatch(line.removesuffix("\r"))
        if found is None:
            continue
        name, owner = found.groups()
        if name in _in_use or (owner != _own() and not has_ended(owner)):
            continue
        path = f"{work_dir}/{found.group(0)}"
        if found.group(0).startswith("cases/"):
            device.shell(["sh", "-c", CLEAN_UP, "sh", path])
        else:
            device.shell(["rm", "-rf", "--", path])
        swept += 1
    old = ["-mmin", f"+{STALE_MINUTES}", "-exec", "rm", "-rf", "{}", "+"]
    within = ["-mindepth", "1", "-maxdepth", "1"]
    device.shell(["find", f"{work_dir}/cases", *within, *old])
    device.shell(["find", work_dir, "-mindepth", "2", "-maxdepth", "2", "-name", ".*.tmp", *old])
    return swept


def _own() -> str:
    return f"{_machine()}-{os.getpid()}-{_started(os.getpid())}"


def _started(pid: int) -> int:
    """When a process started, in clock ticks; 0 where nobody says, -1 if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if Path("/proc/self/stat").exists():
            return -1
        return 0 if _exists(pid) else -1
    fields = stat.rpartition(")")[2].split()
    # Z: it has ended and its parent has not noticed yet.
    return -1 if fields[0] == "Z" else int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@functools.cache
def _machine() -> str:
    """This boot of this machine and its space of process numbers, as 12 hexadecimal digits."""
    words = [platform.node()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            is_link = Path(path).is_symlink()
            words.append(str(Path(path).readlink()) if is_link else Path(path).read_text())
        except OSError:
            words.append("")
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
