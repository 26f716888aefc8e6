"""How long a large history takes to answer: ``make bench-history``, targets beside figures.

A history of CASES cases (100,000 unless told) is made of runs with 10 devices x 2 artifacts each,
five metrics a case with up to 50 samples, as ``pocketship run`` would have left them over the
years (most of them copies of the first). Then the questions that people and pages ask are timed,
each on a connection of its own, the median of REPEATS. Beside the time that passed stands the time
that this process computed (for PostgreSQL without the server's), which other work on the machine
hardly changes.

    python -m benchmarks.history [--cases N] [--postgres URL] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, func, insert, select, text

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
from tests.deploy.history import postgres_server

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
ADDED = 250
SERVER = {"max_connections": "20"}
"""PostgreSQL's own settings otherwise: 128 MB of shared buffers, and every commit on the disk."""


@dataclass(frozen=True)
class Timed:
    """One question: the time that passed, and as a share of a scan of all figures."""

    question: str
    rows: int
    milliseconds: float
    computed_ms: float
    of_a_scan: float
    target_ms: float


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
    commit = f"{number:040x}"
    return Report(
        pocketship_version="0.1.0",
        pipeline="lite0",
        run_id=name_of(number),
        created_utc=begun(number),
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
    """Fill an empty history; returns the seconds that adding one report took.

    The first runs (ADDED) go the way of every report. The others are copies of their rows, later
    and with other keys, since making all of them anew would take most of the time.
    """
    drawn = random.Random(0)
    count = -(-cases // (DEVICES * len(VARIANTS)))
    added = min(count, ADDED)
    started = time.perf_counter()
    for number in range(added):
        record.add(history, report(number, drawn), branch=branch_of(number))
    spent = (time.perf_counter() - started) / added
    say(f"{added} runs added, {1000 * spent:.0f} ms each")
    with history.writing() as connection:
        for first in range(added, count, added):
            copy_runs(connection, first, min(added, count - first))
            say(f"{min(first + added, count):,} runs")
    return spent


def copy_runs(connection: Connection, first: int, count: int) -> None:
    """Repeat the first ``count`` runs as runs ``first`` and so on."""
    numbers: dict[int, int] = {}
    rows = []
    for row in connection.execute(select(tables.run).order_by(tables.run.c.id).limit(count)):
        number = first + len(numbers)
        numbers[row.id] = number
        seal = f"{number:064x}"
        changed = {"id": number + 1, "key": seal, "content_sha256": seal, "run_id": name_of(number)}
        changed |= {"created_utc": begun(number), "commit_id": f"{number:040x}"}
        rows.append(dict(row._mapping) | changed | {"branch": branch_of(number)})
    connection.execute(insert(tables.run), rows)
    _copy(connection, count, first, numbers, per_run=len(VARIANTS), of="artifact")
    _copy(connection, count, first, numbers, per_run=DEVICES * len(VARIANTS), of="case")


def _copy(
    connection: Connection,
    count: int,
    first: int,
    numbers: Mapping[int, int],
    *,
    per_run: int,
    of: Literal["artifact", "case"],
) -> None:
    """Repeat the artifacts or cases of the first ``count`` runs, their figures and samples."""
    figure, packed = tables.figure, tables.samples
    table = tables.case if of == "case" else tables.artifact
    column = f"{of}_id"
    shift = first * per_run
    found = connection.execute(select(table).where(table.c.id <= count * per_run)).all()
    runs_of = {row.id: numbers[row.run_id] for row in found}
    connection.execute(
        insert(table),
        [dict(r._mapping) | {"id": r.id + shift, "run_id": runs_of[r.id] + 1} for r in found],
    )
    if of == "case":
        statement = select(packed).where(packed.c.case_id <= count * per_run)
        samples = connection.execute(statement).all()
        connection.execute(
            insert(packed), [{"case_id": row.case_id + shift, "data": row.data} for row in samples]
        )
    figures = connection.execute(select(figure).where(figure.c[column] <= count * per_run)).all()
    moved = []
    for row in figures:
        number = runs_of[row._mapping[column]]
        changed = {column: row._mapping[column] + shift, "created_utc": begun(number)}
        values = dict(row._mapping) | changed | {"branch": branch_of(number)}
        del values["id"]
        moved.append(values)
    connection.execute(insert(figure), moved)


def branch_of(number: int) -> str:
    """Every other run is one of main; a feature's branch has ten."""
    return "main" if number % 2 else f"feature-{number // 20}"


def name_of(number: int) -> str:
    """The run id of a run."""
    return f"{number:08d}-000000"


def begun(number: int) -> str:
    """Run ``number`` begins an hour after the one before it."""
    moment = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def timed(action: Callable[[], int]) -> tuple[float, float, int]:
    """Median milliseconds of REPEATS that passed and were computed, and how many rows came."""
    spent, computed, rows = [], [], 0
    for _ in range(REPEATS):
        started, busy = time.perf_counter(), time.process_time()
        rows = action()
        computed.append(1000 * (time.process_time() - busy))
        spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent), statistics.median(computed), rows


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
        "series: bytes of one file, every change": (
            series(True, artifact="int8.executorch", metric="bytes"),
            fast,
        ),
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
        spent, computed, count = timed(action)
        rows.append(Timed(name, count, spent, computed, spent / yardstick, target))
        say(f"{name}: {spent:.1f} ms")
    return {
        "cases": there,
        "figures": figures,
        "file_mib": history.file.stat().st_size / 2**20 if history.file else None,
        "add_s": seconds,
        "scan_ms": yardstick,
        "timed": [asdict(row) for row in rows],
    }


def table(name: str, found: dict[str, object]) -> list[str]:
    """The figures as Markdown, each target beside what was reached."""
    size = f", {found['file_mib']:.0f} MiB" if found["file_mib"] else ""
    lines = [
        f"{name}: {found['cases']:,} cases, {found['figures']:,} figures{size}; adding "
        f"a report of 20 cases takes {1000 * found['add_s']:.0f} ms; a scan of all figures takes "
        f"{found['scan_ms']:.0f} ms",
        "",
        "| question | rows | ms | computed, ms | of a scan | target, ms | reached |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    timings = found["timed"]
    assert isinstance(timings, list)
    for row in timings:
        reached = "yes" if row["milliseconds"] <= row["target_ms"] else "**no**"
        lines.append(
            f"| {row['question']} | {row['rows']:,} | {row['milliseconds']:,.1f} | "
            f"{row['computed_ms']:,.1f} | "
            f"{row['of_a_scan']:.3f} | {row['target_ms']:,.0f} | {reached} |"
        )
    return lines


def on_postgres(url: str | None, cases: int, say: Callable[[str], None]) -> dict[str, object] | str:
    """As :func:`measure` on ``url``, else on a server of our own; why not, where there is none."""
    if url is not None:
        return measure(database.connect(address.parse(url)), cases, say)
    try:
        with postgres_server.started(SERVER) as server:
            history = database.connect(address.parse(server.url(server.new())))
            return measure(history, cases, say)
    except postgres_server.AbsentError as absent:
        return str(absent)


def surroundings() -> str:
    """The machine's cores and load, and what a high load means for the figures."""
    cores, load = os.cpu_count() or 1, os.getloadavg()[1]
    told = f"{cores} cores, load average of the last 5 minutes {load:.1f}"
    # This process and, for PostgreSQL, its server take one core.
    if load > 1.5:
        told += ": other work ran beside it, so the times are longer than on a quiet machine"
    return told


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--postgres", help="URL of an empty database; by default one is started")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    asked = parser.parse_args(arguments)

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = address.parse(str(Path(folder) / "history.sqlite"))
        found["SQLite"] = measure(database.connect(file), asked.cases, say)
    print("\n".join(table("SQLite", found["SQLite"])), end="\n\n", flush=True)
    served = on_postgres(asked.postgres, asked.cases, say)
    if isinstance(served, str):
        print(f"PostgreSQL: not measured: {served}\n")
    else:
        found["PostgreSQL"] = served
        print("\n".join(table("PostgreSQL", served)), end="\n\n")
    print(surroundings())
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    missed = [
        f"{name}: {row['question']}"
        for name, figures in found.items()
        for row in figures["timed"]  # type: ignore[attr-defined]
        if row["milliseconds"] > row["target_ms"]
    ]
    print(f"targets missed: {', '.join(missed) if missed else 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
