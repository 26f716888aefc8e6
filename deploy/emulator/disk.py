"""The phone's disk: a sparse file with an empty ext4 file system."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.emulator.packages import require_tool
from deploy.errors import DeviceError

# Fixed, so that two phones lay their folders out alike and count alike.
_UUID = "6d4f6b0e-9d1f-4c53-8f0a-706f636b6574"


def require_maker() -> str:
    """Path of mke2fs.

    Raises:
        DeviceError: it is not installed.
    """
    return require_tool("mke2fs", "e2fsprogs")


def make(path: Path, size_mib: int) -> None:
    """Make ``path``, ``size_mib`` MiB large, taking only what is written to it later.

    Raises:
        DeviceError: the file system cannot be made there.
    """
    options = f"lazy_itable_init=1,lazy_journal_init=1,hash_seed={_UUID}"
    argv = [require_maker(), "-q", "-F", "-t", "ext4", "-m", "0", "-U", _UUID]
    argv += ["-E", options, str(path), f"{size_mib}M"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DeviceError(f"cannot make the phone's disk: {done.stderr.strip()[-300:]}")
