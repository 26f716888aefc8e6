"""Push and pull rates over ADB: two clients against our native daemon and the emulated phone.

    python -m benchmarks.adb_transfer [--megabytes 20] [--repeats 3] [--no-phone]

Clients take turns within each repeat, so that a change of the machine's load meets all of them, and
what arrived is compared with what was sent. Rates are host wall time and depend on this machine:
only the ratios within one run say something. Table on stdout, samples in
build/bench/adb_transfer.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.adb_clients import connect, make_key
from deploy import harness
from deploy.devices import profiles
from deploy.emulator import machine
from deploy.errors import EXIT_INTERRUPTED, PocketshipError
from deploy.files import sha256, write_text

RESULT = Path("build/bench/adb_transfer.json")
START_TIMEOUT_S = 20.0
MEGABYTE = 1_000_000


@dataclass
class Row:
    """All samples of one client on one target; ``reason`` says why there are none."""

    target: str
    client: str
    client_version: str = ""
    push_mb_s: list[float] = field(default_factory=list)
    pull_mb_s: list[float] = field(default_factory=list)
    reason: str = ""


def say(line: str) -> None:
    """Progress, apart from the table on stdout."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def native_daemon(folder: Path, key: Path) -> Iterator[tuple[str, str]]:
    """Our daemon on this machine: its serial and a folder that it may write to."""
    port_file = folder / "port"
    program = harness.adbd("x86_64", progress=say)
    command = [program, "--listen", "127.0.0.1:0", "--port-file", port_file]
    log = (folder / "adbd.log").open("wb")
    process = subprocess.Popen(
        [*command, "--authorized-keys", f"{key}.pub"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not port_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (folder / "adbd.log").read_text(errors="replace").strip()
                raise OSError(f"the ADB daemon did not start: {said or 'no output'}")
            time.sleep(0.01)
        remote = folder / "remote"
        remote.mkdir()
        yield f"127.0.0.1:{port_file.read_text().strip()}", str(remote)
    finally:
        process.terminate()
        process.wait()
        log.close()


@contextlib.contextmanager
def emulated_phone(_: Path, key: Path) -> Iterator[tuple[str, str]]:
    """The emulated ARM64 phone: its serial and a folder on its disk."""
    profile = profiles.load("emulated-arm64")
    phone = machine.start(profile, keys=[Path(f"{key}.pub")], detached=False, progress=say)
    try:
        yield phone.serial, "/data/local/tmp"
    finally:
        phone.stop()


def measure(
    target: str, place: tuple[str, str], *, key: Path, payload: Path, repeats: int
) -> list[Row]:
    """One row a client, ``repeats`` samples each; a client that fails keeps its reason.

    ``place`` is the target's serial and a folder there that can be written to.
    """
    serial, remote_folder = place
    clients, absent = connect(serial, key)
    rows = {client.name: Row(target, client.name, client.version) for client in clients}
    megabytes = payload.stat().st_size / MEGABYTE
    digest = sha256(payload)
    try:
        for repeat in range(repeats):
            for client in clients:
                row = rows[client.name]
                if row.reason:
                    continue
                say(f"{target}: {client.name}, {repeat + 1} of {repeats}")
                remote = f"{remote_folder}/transfer-{client.name}"
                back = payload.with_name(f"back-{client.name}")
                try:
                    pushed = _seconds(lambda c=client, r=remote: c.push(payload, r))
                    pulled = _seconds(lambda c=client, r=remote, b=back: c.pull(r, b))
                    if sha256(back) != digest:
                        raise OSError("what came back is not what was sent")
                except Exception as error:  # adb-shell raises classes of its own
                    row.reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    row.push_mb_s, row.pull_mb_s = [], []
                else:
                    row.push_mb_s.append(megabytes / pushed)
                    row.pull_mb_s.append(megabytes / pulled)
                finally:
                    back.unlink(missing_ok=True)
    finally:
        for client in clients:
            with contextlib.suppress(Exception):
                client.close()
    return [*rows.values(), *(Row(target, name, reason=why) for name, why in absent.items())]


def _seconds(transfer: Callable[[], None]) -> float:
    start = time.perf_counter()
    transfer()
    return time.perf_counter() - start


def table(rows: list[Row]) -> Table:
    """Medians, and each client's ratio to Google's adb on the same target in the same run."""
    shown = Table("target", "client", "push MB/s", "pull MB/s", "push / adb", "pull / adb", "n")
    for row in rows:
        if row.reason:
            shown.add_row(row.target, row.client, "not run", row.reason, "", "", "0")
            continue
        judge = next((r for r in rows if r.target == row.target and r.client == "adb"), None)
        cells = [f"{statistics.median(s):.1f}" for s in (row.push_mb_s, row.pull_mb_s)]
        for direction in ("push_mb_s", "pull_mb_s"):
            base = getattr(judge, direction) if judge else []
            mine = statistics.median(getattr(row, direction))
            cells.append(f"{mine / statistics.median(base):.2f}" if base else "")
        name = f"{row.client} {row.client_version}"
        shown.add_row(row.target, name, *cells, str(len(row.push_mb_s)))
    return shown


def run(megabytes: int, repeats: int, with_phone: bool) -> list[Row]:
    """Measure every target; one that cannot be had here becomes a row with a reason."""
    targets = [("native daemon", native_daemon)]
    if with_phone:
        targets.append(("emulated phone", emulated_phone))
    rows: list[Row] = []
    for title, opened in targets:
        with tempfile.TemporaryDirectory(prefix="pocketship-bench-") as name:
            folder = Path(name)
            payload = folder / "payload"
            # Random, so that no layer can gain by compressing it.
            payload.write_bytes(os.urandom(megabytes * MEGABYTE))
            try:
                key = make_key(folder)
                with opened(folder, key) as place:
                    rows += measure(title, place, key=key, payload=payload, repeats=repeats)
            except (PocketshipError, OSError) as error:
                rows.append(Row(title, "all", reason=str(error)))
    return rows


def main() -> int:
    """Exit code: 0 when every row has figures, 6 when one has none."""
    parser = argparse.ArgumentParser(description="Push and pull rates over ADB.")
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-phone", action="store_true", help="only the daemon on this machine")
    arguments = parser.parse_args()
    if arguments.megabytes < 1 or arguments.repeats < 1:
        parser.error("--megabytes and --repeats must be at least 1")
    try:
        rows = run(arguments.megabytes, arguments.repeats, not arguments.no_phone)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    # As a plain file it must not be cut to the width of a terminal that is not there.
    Console(width=None if sys.stdout.isatty() else 140).print(table(rows))
    result = {
        "schema": 1,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
        "payload_bytes": arguments.megabytes * MEGABYTE,
        "rows": [asdict(row) for row in rows],
    }
    write_text(RESULT, json.dumps(result, indent=2) + "\n")
    say(f"all samples: {RESULT}")
    return 6 if any(row.reason for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
