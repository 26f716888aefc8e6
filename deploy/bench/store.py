"""Files on a device by their content: what is there with the right hash is not sent again."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.android_text import parse_df_available_kib, parse_sha256sum, printable
from deploy.bench import leftovers
from deploy.bench.faults import FULL_DISK, Fault, FaultError
from deploy.devices.base import Device, ShellResult
from deploy.errors import DeviceError, MeasurementError
from deploy.files import sha256
from deploy.types import Progress, silent

MAX_STORE_BYTES = 2 << 30
SPARE_BYTES = 32 << 20
"""Left free on the device beside what is pushed: outputs and results need room too."""

SLOWEST_HASH_BYTES_S = 1_000_000
KEPT_BUNDLES = 2
"""The bundle in use and the one used before it: going back and forth between two sends nothing."""

# Data reaches these scripts as positional parameters only. A folder or a link where a file of ours
# belongs is not ours: mv would move into it, so it goes first.
_MOVE = (
    "while [ $# -gt 1 ]; do "
    'if [ -d "$2" ] || [ -L "$2" ]; then rm -rf -- "$2"; fi; '
    'mv -f -- "$1" "$2" || exit 1; shift 2; done'
)
_FOLDERS = (
    'for f; do if [ -L "$f" ] || [ ! -d "$f" ]; then rm -rf -- "$f"; mkdir -p -- "$f" || exit 1; '
    "fi; done"
)
_LIST = 'for f in ./*; do [ -f "$f" ] && stat -c "%Y %s %n" "$f"; done; true'
_BUNDLES = 'for f in bundle-*; do [ -e "$f" ] && stat -c "%Y %n" "$f"; done; true'
_DIGEST_GLOB = "[0-9a-f]" * 64


@dataclass
class Traffic:
    """What was sent to a device and what did not have to be. Seconds are of the transfers alone."""

    bytes_pushed: int = 0
    bytes_already_there: int = 0
    seconds: float = 0.0

    @property
    def mb_s(self) -> float | None:
        """Speed of the transfers in 10^6 bytes a second; None where nothing was sent."""
        return self.bytes_pushed / 1e6 / self.seconds if self.bytes_pushed else None


def checked_bytes(path: Path, digest: str) -> int:
    """The size of a local file; ``MeasurementError`` where it is not what ``digest`` says."""
    try:
        actual, size = sha256(path), path.stat().st_size
    except OSError as error:
        raise MeasurementError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if actual != digest:
        raise MeasurementError(
            "the file changed: its SHA-256 is not the recorded one",
            where=str(path),
            hint="Export it again.",
        )
    return size


class Store:
    """Content-addressed folders below a device's work folder."""

    def __init__(self, device: Device, progress: Progress = silent) -> None:
        self._device = device
        self._progress = progress
        self._work_dir = device.profile.work_dir
        self.folder = f"{self._work_dir}/store"
        self.traffic = Traffic()
        self._verified: set[str] = set()
        self._bundle = ""

    def prepare(self) -> None:
        """Make the folders; remove what interrupted runs left there, and what is not ours.

        The work folder belongs to pocketship: files of others in the store are deleted.
        """
        # The work folder itself may be a link that its owner put there; what is in it may not.
        self.must(["mkdir", "-p", "--", self._work_dir], "make its folders")
        self.must(
            ["sh", "-c", _FOLDERS, "sh", self.folder, f"{self._work_dir}/cases"], "make its folders"
        )
        if swept := leftovers.sweep(self._device):
            self._progress(f"{self._device.serial}: removed {swept} leftovers of interrupted runs")
        known = ["-type", "f", "(", "-name", _DIGEST_GLOB, "-o", "-name", ".*.tmp", ")"]
        within = ["find", self.folder, "-mindepth", "1", "-maxdepth", "1"]
        self._device.shell([*within, "!", "(", *known, ")", "-exec", "rm", "-rf", "{}", "+"])

    def forget(self) -> None:
        """Trust nothing that was verified before: the device restarted meanwhile."""
        self._verified.clear()

    def put(self, path: Path, digest: str) -> str:
        """Have ``path``, whose SHA-256 is ``digest``, on the device; give its path there.

        Raises ``MeasurementError`` when the local file is not what ``digest`` says, ``DeviceError``
        when the device has no room or does not keep the content.
        """
        remote = f"{self.folder}/{digest}"
        size = checked_bytes(path, digest)
        if digest in self._verified:
            return remote
        if self._hashes(self.folder, [digest], size).get(digest) == digest:
            self.traffic.bytes_already_there += size
            self._device.shell(["touch", "-c", "--", remote])
        else:
            self._make_room(size)
            self._send(self.folder, {digest: (path, digest)}, mode=0o644)
        self._verified.add(digest)
        return remote

    def put_folder(self, source: Path, files: Mapping[str, str], name: str) -> str:
        """Have exactly ``files`` ({name: SHA-256}) in the folder ``name``; give its path there.

        The files are executable. Anything else in the folder makes it start afresh.
        """
        folder = f"{self._work_dir}/{name}"
        bad = [n for n in files if re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]*", n) is None]
        if bad:
            raise MeasurementError(f"{bad[0]!r} is no plain file name", where=str(source))
        self.must(["sh", "-c", _FOLDERS, "sh", folder], "make its folders")
        self._drop_bundles(name, KEPT_BUNDLES)
        listing = self._device.shell(["ls", "--", folder])
        if set(listing.stdout.split("\n")) - {""} - set(files):
            self._progress(f"{self._device.serial}: {name} holds foreign files; made anew")
            self.must(["rm", "-rf", "--", folder], "remove a folder")
            self.must(["mkdir", "-p", "--", folder], "make its folders")
        sizes = {n: (source / n).stat().st_size for n in files}
        there = self._hashes(folder, list(files), sum(sizes.values()))
        missing = {n: (source / n, digest) for n, digest in files.items() if there.get(n) != digest}
        self.traffic.bytes_already_there += sum(s for n, s in sizes.items() if n not in missing)
        if missing:
            size = sum(sizes[n] for n in missing)
            self._make_room(size)
            self._progress(
                f"{self._device.serial}: sending {len(missing)} files, {size / 1e6:.1f} MB"
            )
            self._send(folder, missing, mode=0o755)
        # Its time of last use, by which the others are told apart.
        self._device.shell(["touch", "-c", "--", folder])
        self._bundle = name
        return folder

    def must(self, argv: Sequence[str], what: str, *, cwd: str | None = None) -> ShellResult:
        """Run a command that has to succeed; ``DeviceError`` with its words where it does not."""
        result = self._device.shell(argv, cwd=cwd)
        if result.exit_code != 0:
            said = result.stderr or result.stdout
            words = printable(said, 160)
            raise FaultError(
                Fault.NO_ROOM if FULL_DISK in said else Fault.REFUSED,
                f"cannot {what}: {words or f'exit code {result.exit_code}'}",
                where=self._device.serial,
                hint=f"Check that {self._work_dir} can be written on the device.",
            )
        return result

    def _send(self, folder: str, files: Mapping[str, tuple[Path, str]], *, mode: int) -> None:
        """Push under temporary names, check the hashes on the device, and only then rename."""
        mine = leftovers.new_name()
        temporary = {name: f".{name}.{mine}.tmp" for name in files}
        try:
            for attempt in (1, 2):
                total = 0
                for name, (path, _) in files.items():
                    size = path.stat().st_size
                    started = time.monotonic()
                    self._device.push(path, f"{folder}/{temporary[name]}", mode=mode)
                    self.traffic.seconds += time.monotonic() - started
                    self.traffic.bytes_pushed += size
                    total += size
                there = self._hashes(folder, list(temporary.values()), total)
                damaged = [n for n, (_, h) in files.items() if there.get(temporary[n]) != h]
                if not damaged:
                    break
                if attempt == 2:
                    raise FaultError(
                        Fault.DAMAGED,
                        f"{len(damaged)} of {len(files)} files arrive damaged ({damaged[0][:80]})",
                        where=self._device.serial,
                        hint="Check cable, storage and free space of the device.",
                    )
            moves = [word for name in files for word in (temporary[name], name)]
            self.must(["sh", "-c", _MOVE, "sh", *moves], "rename pushed files", cwd=folder)
        except BaseException:
            with contextlib.suppress(DeviceError):
                self._device.shell(["rm", "-f", "--", *temporary.values()], cwd=folder)
            raise
        finally:
            leftovers.release(mine)

    def _hashes(self, folder: str, names: Sequence[str], size: int) -> dict[str, str]:
        """Name to SHA-256 as the device computes it; files that are not there are left out."""
        seconds = self._device.profile.shell_timeout_s + size / SLOWEST_HASH_BYTES_S
        result = self._device.shell(["sha256sum", "--", *names], cwd=folder, timeout_s=seconds)
        if result.exit_code in {126, 127}:
            raise FaultError(
                Fault.REFUSED,
                f"sha256sum does not run: {printable(result.stderr or result.stdout, 120)}",
                where=self._device.serial,
                hint="Pushed files could not be verified on this device.",
            )
        return parse_sha256sum(result.stdout)

    def _make_room(self, size: int) -> None:
        """Delete the content that was not used for the longest time until ``size`` more fits."""
        entries = self._entries()
        used = sum(entry_size for _, entry_size, _ in entries)
        df = self._device.shell(["df", "-kP", self.folder])
        free_kib = parse_df_available_kib(df.stdout)
        limit = MAX_STORE_BYTES
        if free_kib is not None:
            limit = min(limit, (free_kib * 1024 + used) // 2)
        free = None if free_kib is None else free_kib * 1024
        for _, entry_size, digest in entries:
            full = free is not None and free < size + SPARE_BYTES
            if not full and used + size <= limit:
                break
            if digest in self._verified:
                continue
            self.must(["rm", "-f", "--", f"{self.folder}/{digest}"], "delete old content")
            used -= entry_size
            free = None if free is None else free + entry_size
        if free is not None and free < size + SPARE_BYTES and self._drop_bundles(self._bundle, 1):
            free_kib = parse_df_available_kib(self._device.shell(["df", "-kP", self.folder]).stdout)
            free = None if free_kib is None else free_kib * 1024
        if free is not None and free < size + SPARE_BYTES:
            raise FaultError(
                Fault.NO_ROOM,
                f"{size / 2**20:.0f} MiB do not fit: {free / 2**20:.0f} MiB are free and "
                f"{SPARE_BYTES >> 20} MiB stay free",
                where=self._device.serial,
                hint=f"Make room on the device; {self._work_dir} can be deleted.",
            )

    def _drop_bundles(self, current: str, keep: int) -> int:
        """Delete the longest unused bundles until ``keep`` with ``current`` are left; how many."""
        listing = self._device.shell(["sh", "-c", _BUNDLES], cwd=self._work_dir)
        others = []
        for line in listing.stdout.split("\n"):
            found = re.fullmatch(r"([0-9]{1,12}) (bundle-[0-9a-f]{16})\s*", line)
            if found and found.group(2) != current:
                others.append((int(found.group(1)), found.group(2)))
        doomed = [name for _, name in sorted(others, reverse=True)[keep - 1 :]]
        for name in doomed:
            self.must(["rm", "-rf", "--", f"{self._work_dir}/{name}"], "delete an old bundle")
        return len(doomed)

    def _entries(self) -> list[tuple[int, int, str]]:
        """(last use, bytes, SHA-256) of the stored files, the longest unused first."""
        listing = self._device.shell(["sh", "-c", _LIST], cwd=self.folder)
        entries = []
        for line in listing.stdout.split("\n"):
            found = re.fullmatch(r"([0-9]{1,12}) ([0-9]{1,15}) \./([0-9a-f]{64})\s*", line)
            if found:
                entries.append((int(found.group(1)), int(found.group(2)), found.group(3)))
        return sorted(entries)
