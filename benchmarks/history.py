"""How long a large history takes to answer: ``make bench-history``, targets beside figures.

A history of CASES cases (100,000 unless told) is made of runs with 10 devices x 2 artifacts each,
five metrics a case with up to 50 samples, as ``pocketship run`` would have left them over the
years. Then the questions that people and pages ask are timed, each on a connection of its own, the
median of REPEATS.
Absolute times depend on the machine; the ratio to a full scan of the same table does less so.

    python -m benchmarks.history [--cases N] [--postgres URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select, text

from deploy.history import address, database, query, record, runs, tables, trends
from deploy.history.database import Database
from deploy.history.query import Filter
from deploy.types import (
    Artifact,
    Case,
    DeviceInfo,
    DeviceProfile,
    DeviceRun,
    EnergySource,
    Format,
    Measurement,
    Metric,
    Outcome,
    Placement,
    Report,
    Status,
    Tier,
)

DEVICES, VARIANTS = 10, ("fp32", "int8")
MACHINE = {"architecture": "x86_64", "cpu": "made up", "cpu_count": "2"}
METRICS = {
    Metric.LATENCY_MS: (14.4, 50),
    Metric.LOAD_MS: (80.0, 5),
    Metric.FIRST_MS: (21.0, 5),
    Metric.PEAK_RSS_KIB: (61_000.0, 1),
}
QUERY_TARGET_MS, REPORT_TARGET_S = 100.0, 5.0
REPEATS = 5


@dataclass(frozen=True)
class Timed:
    """One question: its time, and that of a scan of all figures on the same database."""

    question: str
    rows: int
    milliseconds: float
    of_a_scan: float
    target_ms: float | None


def devices() -> list[DeviceRun]:
    """Ten phones."""
    made = []
    for number in range(DEVICES):
        profile = DeviceProfile(
            name=f"phone-{number}",
            description="made up",
            transport="adb",
            tier=Tier.DEVICE,
            abi="arm64-v8a",
            work_dir="/data/local/tmp/x",
            energy=EnergySource(source="none", reason="made up"),
        )
        info = DeviceInfo(
            serial=f"serial-{number}", profile=profile.name, tier=Tier.DEVICE, os_build="build-1"
        )
        made.append(DeviceRun(profile=profile, status=Status.OK, info=info))
    return made


def report(number: int, drawn: random.Random) -> Report:
    """Run ``number``: every device, every variant; a step of 5 % in each thousandth run."""
    level = 1.05 if number // 1000 % 2 else 1.0
    files = [artifact(variant, number) for variant in VARIANTS]
    there = devices()
    begun = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    commit = f"{number:040x}"
    return Report(
        pocketship_version="0.1.0",
        pipeline="lite0",
        run_id=f"{number:08d}-000000",
        created_utc=begun.isoformat(timespec="seconds"),
        commit=commit,
        seed=0,
        baseline_variant="fp32",
        machine=MACHINE,
        tools={},
        artifacts=tuple(files),
        devices=tuple(there),
        cases=tuple(case(one, on, level, drawn) for on in there for one in files),
        outcome=Outcome.PASS,
        exit_code=0,
        content_sha256=f"{number:064x}",
    )


def artifact(variant: str, number: int) -> Artifact:
    """A file that changes with every run, as a model in work does."""
    return Artifact(
        name=f"{variant}.executorch",
        variant=variant,
        format=Format.EXECUTORCH,
        path=f"{variant}.pte",
        sha256=f"{hash((variant, number)) & (1 << 60) - 1:064x}",
        bytes=5_000_000,
        inputs=(),
        outputs=(),
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="XNNPACK", delegated=64, total=65, partitions=1),
    )


def case(of: Artifact, on: DeviceRun, level: float, drawn: random.Random) -> Case:
    """Figures with 1 % of noise between runs and 3 % within them."""
    shift = level * (1 + 0.01 * drawn.gauss(0, 1))
    measured = [
        Measurement(
            metric=metric,
            unit=metric.value.rpartition("_")[2],
            tier=Tier.DEVICE,
            source="made up",
            status=Status.OK,
            samples=tuple(
                round(middle * shift * (1 + 0.03 * drawn.gauss(0, 1)), 6) for _ in range(count)
            ),
        )
        for metric, (middle, count) in METRICS.items()
    ]
    measured.append(
        Measurement(
            metric=Metric.ENERGY_MJ,
            unit="mJ",
            tier=Tier.DEVICE,
            source="made up",
            status=Status.UNAVAILABLE,
            reason="no rail",
        )
    )
    return Case(
        id=f"{of.name}@{on.profile.name}/t1",
        artifact=of.name,
        artifact_sha256=of.sha256,
        device=on.profile.name,
        threads=1,
        status=Status.OK,
        runtime_version="1.5.1",
        measurements=tuple(measured),
    )


def fill(history: Database, cases: int, say: Callable[[str], None]) -> float:
    """Add runs until there are so many cases; returns the seconds that it took."""
    drawn = random.Random(0)
    begun = time.perf_counter()
    count = -(-cases // (DEVICES * len(VARIANTS)))
    for first in range(0, count, 250):
        with history.writing() as connection:
            for number in range(first, min(first + 250, count)):
                branch = "main" if number % 2 else f"feature-{number // 20}"
                record.add_within(connection, report(number, drawn), branch=branch)
        done = min(first + 250, count) * DEVICES * len(VARIANTS)
        say(f"{done:,} cases after {time.perf_counter() - begun:.0f} s")
    return time.perf_counter() - begun


def timed(action: Callable[[], int]) -> tuple[float, int]:
    """Median milliseconds of REPEATS, and how many rows came."""
    spent, rows = [], 0
    for _ in range(REPEATS):
        begun = time.perf_counter()
        rows = action()
        spent.append(1000 * (time.perf_counter() - begun))
    return statistics.median(spent), rows


def questions(history: Database, newest: Report) -> dict[str, tuple[Callable[[], int], float]]:
    """What is asked, and how long it may take, in milliseconds."""

    def listed(limit: int = 50, **fields: object) -> Callable[[], int]:
        def ask() -> int:
            with history.reading() as connection:
                return len(query.newest(connection, Filter.model_validate(fields), limit))

        return ask

    def series(changes: bool, **fields: object) -> Callable[[], int]:
        def ask() -> int:
            wanted = Filter.model_validate({"branch": "main", **fields})
            found = trends.series(history, wanted, find_changes=changes)
            return sum(len(one.points) for one in found)

        return ask

    def base() -> int:
        return len(
            runs.base_for(
                history,
                newest.cases[0],
                newest.devices[0],
                pipeline="lite0",
                branch="main",
                machine=MACHINE,
                count=6,
            )
        )

    def shown() -> int:
        return len(runs.show(history, newest.run_id).figures)

    fast, slow = QUERY_TARGET_MS, 1000 * REPORT_TARGET_S
    one = {"device": "phone-3", "artifact": "int8.executorch", "metric": "latency_ms"}
    return {
        "list: the newest 50 of all": (listed(), fast),
        "list: one metric of one device on main": (listed(branch="main", **one), fast),
        "list: a branch that ended long ago": (listed(branch="feature-1"), fast),
        "list: since a day, one device": (
            listed(since="2030-01-05T00:00:00Z", device="phone-3"),
            fast,
        ),
        "show: one run": (shown, fast),
        "base_for: the newest 6 of one case": (base, fast),
        "series: one, 200 points, change points": (series(True, **one), fast),
        "report: all series of the pipeline, 200 points": (series(False, pipeline="lite0"), slow),
        "report: the same with change points": (series(True, pipeline="lite0"), slow),
    }


def scan(history: Database) -> float:
    """Milliseconds of reading every figure's row once, without an index: the yardstick."""

    def ask() -> int:
        with history.reading() as connection:
            figure = tables.figure.c
            total = select(func.sum(figure.median + figure.mad + figure.p90))
            if history.is_postgres:
                connection.execute(text("SET enable_indexscan = off"))
            return int(connection.scalar(total) or 0) and 1

    return timed(ask)[0]


def measure(history: Database, cases: int, say: Callable[[str], None]) -> dict[str, object]:
    """Fill an empty history and time every question."""
    seconds = fill(history, cases, say)
    if history.is_postgres:
        # Autovacuum would do so within a minute; the first questions shall not come before it.
        with history.writing() as connection:
            connection.execute(text("ANALYZE"))
    with history.reading() as connection:
        there = connection.scalar(select(func.count()).select_from(tables.case)) or 0
        figures = connection.scalar(select(func.count()).select_from(tables.figure)) or 0
    last = report(there // (DEVICES * len(VARIANTS)) - 1, random.Random(0))
    yardstick = scan(history)
    rows = []
    for name, (action, target) in questions(history, last).items():
        spent, count = timed(action)
        rows.append(Timed(name, count, spent, spent / yardstick, target))
        say(f"{name}: {spent:.1f} ms")
    return {
        "cases": there,
        "figures": figures,
        "file_mib": history.file.stat().st_size / 2**20 if history.file else None,
        "fill_s": seconds,
        "scan_ms": yardstick,
        "timed": [asdict(row) for row in rows],
    }


def table(name: str, found: dict[str, object]) -> list[str]:
    """The figures as Markdown, each target beside what was reached."""
    size = f", {found['file_mib']:.0f} MiB" if found["file_mib"] else ""
    lines = [
        f"{name}: {found['cases']:,} cases, {found['figures']:,} figures{size}; filled in "
        f"{found['fill_s']:.0f} s; a scan of all figures takes {found['scan_ms']:.0f} ms",
        "",
        "| question | rows | ms | of a scan | target | reached |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    timings = found["timed"]
    assert isinstance(timings, list)
    for row in timings:
        reached = "yes" if row["milliseconds"] <= row["target_ms"] else "**no**"
        lines.append(
            f"| {row['question']} | {row['rows']:,} | {row['milliseconds']:,.1f} | "
            f"{row['of_a_scan']:.3f} | {row['target_ms']:,.0f} | {reached} |"
        )
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--postgres", help="URL of an empty database, measured as well")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = address.parse(str(Path(folder) / "history.sqlite"))
        found["SQLite"] = measure(database.connect(file), asked.cases, say)
    if asked.postgres:
        server = database.connect(address.parse(asked.postgres))
        found["PostgreSQL"] = measure(server, asked.cases, say)
    for name, figures in found.items():
        print("\n".join(table(name, figures)), end="\n\n")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    missed = [
        row["question"]
        for figures in found.values()
        for row in figures["timed"]  # type: ignore[attr-defined]
        if row["milliseconds"] > row["target_ms"]
    ]
    print(f"targets missed: {', '.join(missed) if missed else 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
