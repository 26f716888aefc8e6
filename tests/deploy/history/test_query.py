"""Filters against a plain loop over the same rows; the indices that queries go through."""

from __future__ import annotations

import random
from fnmatch import fnmatchcase
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects import sqlite

from deploy.history import query, record, retention, tables
from deploy.history.database import Database
from deploy.history.query import Filter, Row
from deploy.types import ARTIFACT_METRICS, Report, Status, Tier
from tests.deploy.history import made_reports as made

PER_RUN = 2 + len(ARTIFACT_METRICS)
"""A case has two figures; its file has the others."""


def reports() -> list[tuple[Report, str]]:
    """40 runs in no order, some at the same time, of three devices and three branches."""
    drawn = random.Random(5)
    found = []
    for number in range(40):
        on = drawn.choice(
            [
                made.device("one"),
                made.device("one", os_build="build-2"),
                made.device("127.0.0.1:5", name="emulated", tier=Tier.EMULATOR, os_build=None),
            ]
        )
        report = made.report(
            number,
            on=on,
            pipeline=drawn.choice(["lenet", "lite0"]),
            created_utc=f"2030-01-{1 + drawn.randrange(9):02d}T00:00:00+00:00",
        )
        found.append((report, drawn.choice(["main", "feature", ""])))
    return found


@pytest.fixture
def filled(file: Database) -> Database:
    with file.writing() as connection:
        for report, branch in reports():
            record.add_within(connection, report, branch=branch)
    return file


def fits(row: Row, wanted: Filter) -> bool:
    named = ("pipeline", "device", "os_build", "runtime", "artifact", "metric")
    return (
        all(
            not (pattern := getattr(wanted, name)) or fnmatchcase(getattr(row, name), pattern)
            for name in named
        )
        and wanted.tier in {None, row.tier}
        and wanted.threads in {None, row.threads}
        and wanted.branch in {None, row.branch}
        and wanted.status in {None, row.status}
        and (not wanted.since or row.created_utc >= wanted.since)
        and (not wanted.until or row.created_utc < wanted.until)
    )


FILTERS: list[dict[str, Any]] = [
    {},
    {"metric": "latency_ms"},
    {"metric": "*_m[sj]", "pipeline": "l?net"},
    {"device": "emulated"},
    {"tier": Tier.DEVICE, "branch": "main"},
    {"branch": ""},
    {"os_build": "build-*", "since": "2030-01-03T00:00:00Z", "until": "2030-01-07T00:00:00Z"},
    {"status": Status.UNAVAILABLE, "runtime": "executorch"},
    {"artifact": "nothing"},
    {"threads": 2},
    {"device": "pix*", "metric": "latency_ms", "branch": "feature"},
    {"metric": "bytes"},
    {"tier": Tier.HOST, "branch": "main"},
    {"threads": 0, "metric": "part*"},
]


@pytest.mark.parametrize("seek", [64, 0], ids=["by series", "through time"])
def test_filters_do_what_a_loop_does(
    filled: Database, monkeypatch: pytest.MonkeyPatch, seek: int
) -> None:
    monkeypatch.setattr(query, "_SEEK", seek)
    with filled.reading() as connection:
        every = list(query.rows(connection, Filter()))
        assert len(every) == 40 * PER_RUN
        assert [row.created_utc for row in every] == sorted(
            (row.created_utc for row in every), reverse=True
        )
        for fields in FILTERS:
            wanted = Filter(**fields)
            expected = [row for row in every if fits(row, wanted)]
            assert list(query.rows(connection, wanted)) == expected, fields
            for limit in (1, 7, 1000):
                assert query.newest(connection, wanted, limit) == expected[:limit], fields


def test_raw_samples_come_with_their_figure(filled: Database) -> None:
    with filled.reading() as connection:
        found = list(query.rows(connection, Filter(), samples=True))
    by_run = {report.run_id: report for report, _ in reports()}
    assert len(found) == 40 * PER_RUN
    for row in found:
        if row.metric in ARTIFACT_METRICS:
            # An exact figure is its own one sample.
            assert row.samples == ((row.median,) if row.median is not None else ())
            continue
        measured = by_run[row.run_id].cases[0].measurements
        (one,) = (m for m in measured if m.metric == row.metric)
        assert row.samples == one.samples


def plan(history: Database, statement: Any) -> list[str]:
    compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with history.reading() as connection:
        return [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]


@pytest.mark.parametrize(
    ("fields", "index"),
    [
        ({"branch": "main"}, "history_figure_series_branch (series_id=? AND branch=?)"),
        ({}, "history_figure_series (series_id=?)"),
        (
            {"since": "2030-01-03T00:00:00Z"},
            "history_figure_series (series_id=? AND created_utc>?)",
        ),
    ],
)
def test_the_newest_of_a_series_are_sought_not_sorted(
    filled: Database, fields: dict[str, Any], index: str
) -> None:
    lines = plan(filled, query.newest_ids([1, 2], Filter(**fields), 5))
    seeks = [line for line in lines if "history_figure" in line]
    assert len(seeks) == 2, lines
    assert all(line.endswith(f"COVERING INDEX {index}") for line in seeks), lines


@pytest.mark.parametrize(
    ("fields", "walk"),
    [
        ({}, "SCAN history_figure USING INDEX history_figure_created"),
        ({"metric": "l*"}, "SCAN history_figure USING INDEX history_figure_created"),
        (
            {"branch": "main", "metric": "l*"},
            "SEARCH history_figure USING INDEX history_figure_branch_created (branch=?)",
        ),
        (
            {"since": "2030-01-03T00:00:00Z"},
            "SEARCH history_figure USING INDEX history_figure_created (created_utc>?)",
        ),
    ],
)
def test_many_series_are_walked_in_the_order_of_time(
    filled: Database, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], walk: str
) -> None:
    """Never sorted: what ends the walk is the limit."""
    monkeypatch.setattr(query, "_SEEK", 0)
    wanted = Filter(**fields)
    with filled.reading() as connection:
        found = query.tracks(connection, wanted)
        statement = query._newest_of(connection, found, wanted, 50)
    lines = plan(filled, statement)
    assert walk in lines
    assert not any("TEMP B-TREE" in line or line == "SCAN history_figure" for line in lines), lines


def test_pruning_removes_whole_runs_and_series_without_figures(filled: Database) -> None:
    with filled.reading() as connection:
        every = list(query.rows(connection, Filter()))
    kept = [r for r in every if not (r.created_utc < "2030-01-05" and r.branch == "main")]
    assert 0 < len(kept) < len(every)
    count = retention.prune(filled, "2030-01-05", branch="main", dry_run=True)
    assert count == (len(every) - len(kept)) / PER_RUN
    assert retention.prune(filled, "2030-01-05", branch="main") == count
    with filled.reading() as connection:
        assert list(query.rows(connection, Filter())) == kept
    assert retention.prune(filled, "2031-01-01") == len(kept) / PER_RUN
    with filled.reading() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.device:
                assert connection.execute(select(table)).all() == [], table.name
