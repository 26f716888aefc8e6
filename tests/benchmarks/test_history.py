"""The benchmark of the history on a tiny one: what it fills, and that a missed target is told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from sqlalchemy import func, select

from benchmarks import history as bench
from deploy.history import address, database, query, tables
from deploy.history.query import Filter


def test_copied_runs_are_as_added_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ADDED", 2)
    history = database.connect(address.parse(str(tmp_path / "h.sqlite")))
    bench.fill(history, 5 * 20, lambda _: None)
    with history.reading() as connection:
        for table, count in ((tables.run, 5), (tables.case, 100), (tables.figure, 500)):
            assert connection.scalar(select(func.count()).select_from(table)) == count
        found = list(query.rows(connection, Filter(metric="latency_ms"), samples=True))
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
