"""Push and pull: our two paths to a device beside Google's adb and plain adb-shell.

All talk to the same daemon in turns, forwards and backwards, so that a change of the machine's load
meets all of them; what came back is compared with what was sent.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from benchmarks.adb_clients import AdbShell, GoogleAdb
from benchmarks.agent.figures import Part, Row, interval, say
from deploy.devices import adb
from deploy.files import sha256
from deploy.types import DeviceProfile

MEGABYTE = 1_000_000


class Client(Protocol):
    """What is compared."""

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device."""

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device."""

    def close(self) -> None:
        """Disconnect."""


class Ours:
    """The device as the agent has it, over one of its transports."""

    def __init__(
        self, serial: str, profile: DeviceProfile, transport: adb.Transport, key: Path
    ) -> None:
        self._device = adb.connect(serial, profile, transport=transport, keys=[key])

    def push(self, local: Path, remote: str) -> None:
        """Copy a file to the device."""
        self._device.push(local, remote)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file from the device."""
        self._device.pull(remote, local, max_bytes=1 << 32)

    def close(self) -> None:
        """Disconnect."""
        self._device.close()


@contextlib.contextmanager
def _server_at(port: str) -> Iterator[None]:
    # The variable that Google's adb reads, and that our transport reads with it.
    former = os.environ.get("ANDROID_ADB_SERVER_PORT")
    os.environ["ANDROID_ADB_SERVER_PORT"] = port
    try:
        yield
    finally:
        if former is None:
            del os.environ["ANDROID_ADB_SERVER_PORT"]
        else:
            os.environ["ANDROID_ADB_SERVER_PORT"] = former


def measure(
    target: str,
    serial: str,
    profile: DeviceProfile,
    *,
    key: Path,
    google: str | None,
    folder: Path,
    megabytes: int,
    repeats: int,
) -> Part:
    """Rates on one device. ``google`` is Google's program; without it its two rows are missing.

    ``folder`` is on this machine; files on the device go to the profile's work folder, which must
    exist. ``repeats`` is the number of forward-and-backward rounds.
    """
    part = Part(f"transfers, {target}, {megabytes} MB, n = {2 * repeats}")
    payload = folder / "payload"
    # Random, so that no layer can gain by compressing it.
    payload.write_bytes(os.urandom(megabytes * MEGABYTE))
    digest = sha256(payload)
    with contextlib.ExitStack() as stack:
        clients: dict[str, Client] = {}

        def add(name: str, client: Client) -> None:
            stack.callback(client.close)
            clients[name] = client

        if google is not None:
            judge = GoogleAdb(google, serial, key)
            add("Google's adb", judge)
            stack.enter_context(_server_at(judge.server_port))
            add("pocketship, ADB server", Ours(serial, profile, "adb-server", key))
        add("pocketship, direct", Ours(serial, profile, "tcp", key))
        add("adb-shell as it comes", AdbShell(serial, key))
        pushes: dict[str, list[float]] = {name: [] for name in clients}
        pulls: dict[str, list[float]] = {name: [] for name in clients}
        order = list(clients)
        for round_ in range(2 * repeats):
            say(f"{target}: transfers, round {round_ + 1} of {2 * repeats}")
            for name in order if round_ % 2 == 0 else order[::-1]:
                remote, back = f"{profile.work_dir}/transfer", folder / "back"
                pushes[name].append(_rate(megabytes, clients[name].push, payload, remote))
                pulls[name].append(_rate(megabytes, clients[name].pull, remote, back))
                if sha256(back) != digest:
                    raise OSError(f"{name}: what came back is not what was sent")
                back.unlink()
    payload.unlink()
    part.samples = {"push_mb_s": pushes, "pull_mb_s": pulls}
    part.rows = _rows(pushes, "push") + _rows(pulls, "pull")
    if google is None:
        part.not_run = "Google's adb is not installed: nothing to compare with"
    return part


def _rate(
    megabytes: int, transfer: Callable[..., None], source: Path | str, to: Path | str
) -> float:
    start = time.perf_counter()
    transfer(source, to)
    return megabytes / (time.perf_counter() - start)


def _rows(rates: dict[str, list[float]], what: str) -> list[Row]:
    rows = [Row(f"{what}: {n}", statistics.median(r), "MB/s") for n, r in rates.items()]
    judge = rates.get("Google's adb")
    if judge is None:
        return rows
    for name, target in (("pocketship, ADB server", 0.9), ("pocketship, direct", None)):
        # Of the same round: neighbours in time share the machine's load.
        ratios = [a / b for a, b in zip(rates[name], judge, strict=True)]
        low, middle, high = interval(ratios)
        note = f"95 %: {low:.2f} to {high:.2f}"
        title = f"{what}: {name} / Google's adb"
        rows.append(Row(title, middle, "x", ">=", target, note, (low, high)))
    return rows
