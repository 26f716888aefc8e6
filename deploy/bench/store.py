"""Files on a device by their content: what is there with the right hash is not sent again."""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.android_text import parse_df_available_kib, parse_sha256sum, printable
from deploy.devices.base import Device, ShellResult
from deploy.errors import DeviceError, MeasurementError
from deploy.files import sha256
from deploy.types import Progress, silent

MAX_STORE_BYTES = 2 << 30
SPARE_BYTES = 32 << 20
"""Left free on the device beside what is pushed: outputs and results need room too."""

SLOWEST_HASH_BYTES_S = 1_000_000
_MOVE = 'while [ $# -gt 1 ]; do mv -f -- "$1" "$2" || exit 1; shift 2; done'
_LIST = 'for f in ./*; do [ -f "$f" ] && stat -c "%Y %s %n" "$f"; done; true'
_STALE_MINUTES = 180


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


class Store:
    """Content-addressed folders below a device's work folder."""

    def __init__(self, device: Device, progress: Progress = silent) -> None:
        self._device = device
        self._progress = progress
        self._work_dir = device.profile.work_dir
        self.folder = f"{self._work_dir}/store"
        self.traffic = Traffic()
        self._verified: set[str] = set()

    def prepare(self) -> None:
        """Make the folders; remove what an interrupted run left behind hours ago."""
        self.must(["mkdir", "-p", "--", self.folder, f"{self._work_dir}/cases"], "make its folders")
        old = ["-mmin", f"+{_STALE_MINUTES}", "-exec", "rm", "-rf", "{}", "+"]
        self._device.shell(["find", self.folder, "-name", ".*.tmp", *old])
        self._device.shell(
            ["find", f"{self._work_dir}/cases", "-mindepth", "1", "-maxdepth", "1", *old]
        )

    def put(self, path: Path, digest: str) -> str:
        """Have ``path``, whose SHA-256 is ``digest``, on the device; give its path there.

        Raises ``MeasurementError`` when the local file is not what ``digest`` says, ``DeviceError``
        when the device has no room or does not keep the content.
        """
        remote = f"{self.folder}/{digest}"
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
        self.must(["mkdir", "-p", "--", folder], "make its folders")
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
        return folder

    def must(
        self, argv: Sequence[str], what: str, *, timeout_s: float | None = None
    ) -> ShellResult:
        """Run a command that has to succeed; ``DeviceError`` with its words where it does not."""
        result = self._device.shell(argv, timeout_s=timeout_s)
        if result.exit_code != 0:
            words = printable(result.stderr or result.stdout, 160)
            raise DeviceError(
                f"cannot {what}: {words or f'exit code {result.exit_code}'}",
                where=self._device.serial,
                hint=f"Check that {self._work_dir} can be written on the device.",
            )
        return result

    def _send(self, folder: str, files: Mapping[str, tuple[Path, str]], *, mode: int) -> None:
        """Push under temporary names, check the hashes on the device, and only then rename."""
        temporary = {name: f".{name}.{secrets.token_hex(4)}.tmp" for name in files}
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
                    raise DeviceError(
                        f"{len(damaged)} of {len(files)} files arrive damaged ({damaged[0][:80]})",
                        where=self._device.serial,
                        hint="Check cable, storage and free space of the device.",
                    )
            moves = [word for name in files for word in (temporary[name], name)]
            words = self._device.shell(["sh", "-c", _MOVE, "sh", *moves], cwd=folder)
            if words.exit_code != 0:
                raise DeviceError(
                    f"cannot rename pushed files: {printable(words.stderr or words.stdout, 160)}",
                    where=self._device.serial,
                )
        except BaseException:
            with contextlib.suppress(DeviceError):
                self._device.shell(["rm", "-f", "--", *temporary.values()], cwd=folder)
            raise

    def _hashes(self, folder: str, names: Sequence[str], size: int) -> dict[str, str]:
        """Name to SHA-256 as the device computes it; files that are not there are left out."""
        seconds = self._device.profile.shell_timeout_s + size / SLOWEST_HASH_BYTES_S
        result = self._device.shell(["sha256sum", "--", *names], cwd=folder, timeout_s=seconds)
        if result.exit_code in {126, 127}:
            raise DeviceError(
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
        if free is not None and free < size + SPARE_BYTES:
            raise DeviceError(
                f"{size / 2**20:.0f} MiB do not fit: {free / 2**20:.0f} MiB are free and "
                f"{SPARE_BYTES >> 20} MiB stay free",
                where=self._device.serial,
                hint=f"Make room on the device; {self._work_dir} can be deleted.",
            )

    def _entries(self) -> list[tuple[int, int, str]]:
        """(last use, bytes, SHA-256) of the stored files, the longest unused first."""
        listing = self._device.shell(["sh", "-c", _LIST], cwd=self.folder)
        entries = []
        for line in listing.stdout.split("\n"):
            found = re.fullmatch(r"([0-9]{1,12}) ([0-9]{1,15}) \./([0-9a-f]{64})\s*", line)
            if found:
                entries.append((int(found.group(1)), int(found.group(2)), found.group(3)))
        return sorted(entries)
