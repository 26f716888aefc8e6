"""The benchmark of the history on a tiny one: what it fills, and that a missed target is told."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks import history as bench
from deploy.history import address, database, query, tables
from deploy.history.query import Filter
from deploy.types import ARTIFACT_METRICS
from tests.deploy.history import postgres_server
from tests.deploy.history.conftest import postgres as postgres  # A fixture.
from tests.deploy.history.postgres_server import Server

RUNS = (
    *((tables.run, 5), (tables.artifact, 10), (tables.case, 100)),
    (tables.figure, 500 + 10 * len(ARTIFACT_METRICS)),
)


def test_copied_runs_are_as_added_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ADDED", 2)
    history = database.connect(address.parse(str(tmp_path / "h.sqlite")))
    bench.fill(history, 5 * 20, lambda _: None)
    with history.reading() as connection:
        for table, count in RUNS:
            assert connection.scalar(select(func.count()).select_from(table)) == count
        found = list(query.rows(connection, Filter(metric="latency_ms"), samples=True))
        files = list(query.rows(connection, Filter(metric="bytes")))
    assert sorted((row.run_id, row.created_utc, row.branch, row.artifact) for row in files) == [
        (bench.name_of(number), bench.begun(number), bench.branch_of(number), f"{of}.executorch")
        for number in range(5)
        for of in bench.VARIANTS
    ]
    assert len(found) == 100
    assert {row.run_id for row in found} == {bench.name_of(number) for number in range(5)}
    for row in found:
        number = int(row.run_id[:8])
        assert (row.created_utc, row.branch) == (bench.begun(number), bench.branch_of(number))
        assert row.samples is not None
        assert len(row.samples) == row.n == 50
    newest = bench.report(4, random.Random(0))
    for question, (ask, _) in bench.questions(history, newest).items():
        # Five runs reach neither that day nor the second feature.
        late = "since a day" in question or "long ago" in question
        assert (ask() > 0) != late, question


def test_a_missed_target_is_called_so() -> None:
    row = bench.Timed("asked", 5, 150.0, 40.0, 1.5, 100.0)
    found = {"cases": 1, "figures": 1, "file_mib": None, "add_s": 0.1, "scan_ms": 1.0}
    lines = bench.table("SQLite", {**found, "timed": [vars(row)]})
    assert lines[-1] == "| asked | 5 | 150.0 | 40.0 | 1.500 | 100 | **no** |"


def test_postgres_that_is_not_there_is_told_and_is_no_missed_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(_: object) -> object:
        raise postgres_server.AbsentError("PostgreSQL's server is not installed")

    monkeypatch.setattr(postgres_server, "started", absent)
    monkeypatch.setattr(bench, "ADDED", 2)
    monkeypatch.setattr(bench, "REPEATS", 1)
    monkeypatch.setattr(bench, "QUERY_TARGET_MS", 1e9)
    monkeypatch.setattr(bench, "REPORT_TARGET_S", 1e9)
    monkeypatch.setattr(os, "getloadavg", lambda: (9.0, 9.0, 9.0))
    assert bench.main(["--cases", "60"]) == 0
    said = capsys.readouterr().out
    assert "PostgreSQL: not measured: PostgreSQL's server is not installed" in said
    assert "load average of the last 5 minutes 9.0: other work ran beside it" in said
    assert said.endswith("targets missed: none\n")


def test_both_databases_are_asked_the_same(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "REPEATS", 1)
    found = bench.on_postgres(postgres.url(postgres.new()), 40, lambda _: None)
    file = database.connect(address.parse(str(tmp_path / "h.sqlite")))
    other = bench.measure(file, 40, lambda _: None)
    assert isinstance(found, dict)
    rows = [[(row["question"], row["rows"]) for row in one["timed"]] for one in (found, other)]
    assert rows[0] == rows[1]
