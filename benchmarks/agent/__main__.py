"""The agent's figures beside their targets, in one run.

    python -m benchmarks.agent [--parts transfers,memory,cases,steady] [--phone] [--megabytes 100]

The device is our own ADB daemon on this machine; ``--phone`` adds transfers with the emulated
phone. Wall times depend on this machine and on what else runs on it: the ratios within one run say
more. Tables on stdout, all samples in build/bench/agent.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.adb_clients import make_key
from benchmarks.adb_transfer import emulated_phone, native_daemon
from benchmarks.agent.figures import Part, say
from deploy.devices.base import Device
from deploy.errors import EXIT_INTERRUPTED, PocketshipError
from deploy.files import write_text

RESULT = Path("build/bench/agent.json")
Opened = Callable[[Path, Path], contextlib.AbstractContextManager[tuple[str, str]]]
PARTS = ("transfers", "memory", "cases", "steady")


def run(chosen: list[str], arguments: argparse.Namespace) -> Iterator[Part]:
    """The parts one after the other; one that cannot run here says why."""
    with tempfile.TemporaryDirectory(prefix="pocketship-bench-") as name:
        folder = Path(name)
        key = make_key(folder)
        if "transfers" in chosen:
            targets = [("native daemon", native_daemon)]
            if arguments.phone:
                targets.append(("emulated phone", emulated_phone))
            for title, opened in targets:
                yield _guarded(
                    f"transfers, {title}",
                    lambda o=opened, t=title: _transfers(o, t, folder, key, arguments),
                )
        if "memory" in chosen:
            # Before torch is loaded, which would hide what grows.
            yield _guarded("memory", lambda: _memory(folder, key, arguments.memory_cases))
        if set(chosen) & {"cases", "steady"}:
            yield from _with_models(chosen, arguments, folder, key)


def _guarded(name: str, measure: Callable[[], Part]) -> Part:
    try:
        return measure()
    except (PocketshipError, OSError) as error:
        return Part(name, not_run=str(error).splitlines()[0])


def _transfers(
    opened: Opened, title: str, folder: Path, key: Path, arguments: argparse.Namespace
) -> Part:
    from benchmarks.agent import transfers
    from deploy.devices import profiles

    with tempfile.TemporaryDirectory(dir=folder) as own, opened(Path(own), key) as (serial, remote):
        base = profiles.load("host" if opened is native_daemon else "emulated-arm64")
        profile = base.model_copy(update={"transport": "adb", "work_dir": remote})
        return transfers.measure(
            title,
            serial,
            profile,
            key=key,
            google=shutil.which("adb"),
            folder=folder,
            megabytes=arguments.megabytes,
            repeats=arguments.repeats,
        )


@contextlib.contextmanager
def _device(folder: Path, key: Path) -> Iterator[Device]:
    from deploy.devices import adb
    from deploy.devices.host import HostDevice

    with (
        tempfile.TemporaryDirectory(dir=folder) as own,
        native_daemon(Path(own), key) as (serial, remote),
    ):
        profile = HostDevice().profile.model_copy(
            update={"name": "native-adbd", "transport": "adb", "work_dir": remote}
        )
        device = adb.connect(serial, profile, transport="tcp", keys=[key])
        try:
            yield device
        finally:
            device.close()


def _with_models(
    chosen: list[str], arguments: argparse.Namespace, folder: Path, key: Path
) -> Iterator[Part]:
    from benchmarks.agent import cases, steady, tiny
    from deploy import harness

    say("exporting a small network")
    models = tiny.export(folder)
    bundle = harness.bundle(harness.native_abi(), say)
    if "cases" in chosen:

        def overhead() -> Part:
            with _device(folder, key) as device:
                return cases.measure_overhead(device, bundle, models, cases=arguments.cases)

        yield _guarded("cases", overhead)
    if "steady" in chosen:
        yield _guarded(
            "steady latency",
            lambda: steady.measure(
                bundle,
                steady.build(folder),
                models,
                folder=folder,
                pairs=arguments.pairs,
                iterations=arguments.iterations,
            ),
        )


def _memory(folder: Path, key: Path, cases: int) -> Part:
    from benchmarks.agent import memory

    with _device(folder, key) as device:
        return memory.measure(device, folder / "stand-in", cases=cases)


def table(part: Part) -> Table:
    """One part with its figures."""
    shown = Table("figure", "value", "unit", "note", title=part.name, title_justify="left")
    for row in part.rows:
        shown.add_row(row.what, f"{row.value:.4g}", row.unit, row.note)
    return shown


def targets(parts: list[Part]) -> Table:
    """The last lines: what was promised beside what was reached."""
    shown = Table("target", "wanted", "reached", "", title="targets", title_justify="left")
    for row in (row for part in parts for row in part.rows if row.target is not None):
        reached = f"{row.value:.4g} {row.unit}"
        shown.add_row(row.what, f"{row.wanted} {row.unit}", reached, row.verdict)
    for part in parts:
        if part.not_run:
            shown.add_row(part.name, "", "not run", part.not_run)
    return shown


def main() -> int:
    """Exit code: 0 when all targets are met, 1 when one is missed, 6 when a part did not run."""
    parser = argparse.ArgumentParser(description="The agent's figures beside their targets.")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--phone", action="store_true", help="transfers with the emulated phone too"
    )
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5, help="rounds there and back")
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--memory-cases", type=int, default=1000)
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    if unknown := set(chosen) - set(PARTS):
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    for name in ("megabytes", "repeats", "pairs", "iterations"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if arguments.cases < 3 or arguments.memory_cases < 3:
        parser.error("--cases and --memory-cases must be at least 3")
    # As a plain file it must not be cut to the width of a terminal that is not there.
    console = Console(width=None if sys.stdout.isatty() else 150)
    load_before = os.getloadavg()
    parts: list[Part] = []
    try:
        for part in run(chosen, arguments):
            parts.append(part)
            console.print(table(part))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    machine = {"system": platform.platform(), "processor": _processor(), "cpus": os.cpu_count()}
    load = [round(one, 1) for one in (load_before[0], os.getloadavg()[0])]
    console.print(f"{machine['processor']}, {machine['cpus']} CPUs, load {load[0]} to {load[1]}")
    console.print(targets(parts))
    result = {
        "schema": 1,
        "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "load_average": load,
        "arguments": vars(arguments),
        "parts": [asdict(part) for part in parts],
    }
    write_text(RESULT, json.dumps(result, indent=2) + "\n")
    say(f"all samples: {RESULT}")
    if any(part.not_run for part in parts):
        return 6
    return int(any(row.verdict == "missed" for part in parts for row in part.rows))


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
