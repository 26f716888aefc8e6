"""Bytes and partitions of files as series: recorded, asked for, changed, and of older histories."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import inspect, select, text

from deploy.history import figures, migrations, query, record, runs, tables, trends
from deploy.history.database import Database
from deploy.history.query import Filter
from deploy.types import Artifact, Placement
from tests.deploy.history import made_reports as made


def add(
    history: Database, number: int, *files: Artifact, branch: str = "main", **changes: Any
) -> None:
    record.add(history, made.report(number, artifacts=files, **changes), branch=branch)


def sized(size: int, partitions: int | None = 1, **changes: Any) -> Artifact:
    placement = Placement(backend="XNNPACK", partitions=partitions, reason="nobody can say")
    return made.artifact(content=str(size), bytes=size, placement=placement, **changes)


def newest(history: Database, **wanted: Any) -> list[query.Row]:
    with history.reading() as connection:
        return query.newest(connection, Filter(**wanted), None)


def test_a_file_has_figures_without_being_run(history: Database) -> None:
    add(history, 1, sized(1234), cases=())
    (row,) = newest(history, metric="bytes")
    assert row.model_dump(include=set(FILE)) == FILE
    assert (row.artifact_sha256, row.recipe_sha256) == (
        sized(1234).sha256,
        newest(history, metric="partitions")[0].recipe_sha256,
    )
    assert len(row.recipe_sha256) == 64
    # What asks for a device, or for threads that ran, does not get it.
    assert newest(history, device="*i*") == newest(history, threads=1) == []


FILE = {
    "created_utc": "2030-01-01T00:01:00Z",
    "branch": "main",
    "pipeline": "lenet",
    "run_id": "20300101-000001",
    **dict.fromkeys(("device", "device_sha256", "os_build", "runtime_version", "reason"), ""),
    "tier": "host",
    "runtime": "executorch",
    "artifact": "int8.executorch",
    "variant": "int8",
    "threads": 0,
    "unit": "bytes",
    "status": "ok",
    "n": 1,
    **dict.fromkeys(("median", "mean", "p90", "min", "max"), 1234.0),
    "mad": 0.0,
    "low": None,
    "high": None,
}


def test_what_nobody_knows_of_a_file_has_its_reason(history: Database) -> None:
    add(history, 1, sized(10, None))
    (row,) = newest(history, metric="partitions")
    assert (row.status, row.reason, row.n, row.median) == (
        "unavailable",
        "nobody can say",
        0,
        None,
    )
    assert trends.series(history, Filter(metric="partitions", branch="main")) == []


def test_show_has_them_after_the_cases(history: Database) -> None:
    add(history, 1, sized(10))
    found = [row.metric for row in runs.show(history, "20300101-000001").figures]
    assert found[:2] == ["latency_ms", "energy_mj"]
    assert found[2:4] == ["bytes", "partitions"]


def test_every_difference_of_an_exact_figure_is_a_change(file: Database) -> None:
    """Without any test, from the second run on; noise is what a test is for."""
    for number, size in enumerate((100, 100, 101, 101, 100, 100)):
        add(file, number, sized(size, recipe=({"kind": "x", "n": number // 4},)))
    (series,) = trends.series(file, Filter(metric="bytes", branch="main"))
    assert [point.median for point in series.points] == [100, 100, 101, 101, 100, 100]
    up, down = series.changes
    assert (up.index, up.before, up.after, up.p_value, up.with_it) == (2, 100, 101, None, ())
    assert up.commit == made.report(2).commit
    assert up.commit_before == made.report(1).commit
    assert (down.index, down.ratio, down.with_it) == (4, pytest.approx(100 / 101), ("the recipe",))
    (partitions,) = trends.series(file, Filter(metric="partitions", branch="main"))
    assert (len(partitions.points), partitions.changes) == (6, ())
    # A branch is needed for an order, here too.
    assert trends.series(file, Filter(metric="bytes"))[0].changes == ()


def test_files_of_one_name_in_two_formats_are_two_series(file: Database) -> None:
    from deploy.types import Format

    one = sized(5)
    other = one.model_copy(update={"format": Format.ONNX, "bytes": 7})
    add(file, 1, one)
    add(file, 2, other)
    found = trends.series(file, Filter(metric="bytes", branch="main"))
    assert [[point.median for point in each.points] for each in found] == [[5], [7]]


# --- histories of before --------------------------------------------------------------------------


def of_before(history: Database) -> None:
    """Three runs as the first release left them: its tables, and no figure of a file."""
    with history.writing() as connection:
        tables.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE {tables.VERSION_TABLE}"))
        migrations.upgrade(connection, "0001")
        for number in range(3):
            add_old(connection, number)


def add_old(connection: Any, number: int) -> None:
    """The rows of a run in the tables of revision 0001, by the names that they had."""

    def put(table: str, **values: object) -> None:
        names, places = ", ".join(values), ", ".join(f":{name}" for name in values)
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)

    run, seal = number + 1, f"{number:064d}"
    put(
        "history_run",
        **dict.fromkeys(("commit_id", "seed", "pocketship_version", "outcome"), ""),
        key=seal,
        content_sha256=seal,
        pipeline="lenet",
        run_id=f"r{number}",
        branch="main",
        exit_code=0,
        **dict.fromkeys(("created_utc", "added_utc"), f"2030-01-0{run}T00:00:00Z"),
    )
    if number == 0:
        device = dict.fromkeys(("device_sha256", "os_build", "model", "soc"), "x")
        put("history_device", profile="pixel", tier="device", **device)
        series = {"pipeline": "lenet", "artifact": "int8.onnx", "variant": "int8"}
        place = {"runtime": "onnx", "threads": 1, "metric": "latency_ms", "tier": "device"}
        put("history_series", device_id=1, unit="ms", **series, **place)
    hashes = {"recipe_sha256": "r", "name": "int8.onnx"}
    put(
        "history_artifact",
        **hashes,
        run_id=run,
        variant="int8",
        runtime="onnx",
        sha256=seal,
        bytes=100 + number // 2,
        partitions=1 if number else None,
    )
    put(
        "history_case",
        **hashes,
        run_id=run,
        device_id=1,
        artifact="int8.onnx",
        artifact_sha256=seal,
        threads=1,
        status="ok",
        reason="",
        runtime_version="1",
        wall_seconds=1.0,
        attempts=1,
    )
    put(
        "history_figure",
        case_id=run,
        series_id=1,
        branch="main",
        status="ok",
        created_utc=f"2030-01-0{run}T00:00:00Z",
        reason="",
        source="s",
        n=2,
        median=9.0 + number,
    )
    put("history_samples", case_id=run, data=figures.pack({"latency_ms": (8.0, 10.0)}))


def test_an_older_history_is_brought_up_to_date_with_all_that_it_held(history: Database) -> None:
    of_before(history)
    assert [row.median for row in newest(history, metric="latency_ms")] == [11.0, 10.0, 9.0]
    (size,) = trends.series(history, Filter(metric="bytes", branch="main"))
    assert [point.median for point in size.points] == [100, 100, 101]
    assert [(c.index, c.p_value) for c in size.changes] == [(2, None)]
    found = newest(history, metric="partitions")
    assert [(row.median, row.status) for row in found] == [
        (1.0, "ok"),
        (1.0, "ok"),
        (None, "unavailable"),
    ]
    assert found[2].reason == "nobody noted why when the run was added"
    with history.reading() as connection:
        names = {index["name"] for index in inspect(connection).get_indexes("history_figure")}
        assert names == {index.name for index in tables.figure.indexes}
        assert connection.scalar(select(tables.samples.c.data)) is not None
    # New runs go on with the same series, and old ones take their figures with them.
    add(history, 9, made.artifact(name="int8.onnx", format="onnx", bytes=200))
    (size,) = trends.series(history, Filter(metric="bytes", branch="main"))
    assert [point.median for point in size.points] == [100, 200, 100, 101]
    with history.writing() as connection:
        connection.execute(text("DELETE FROM history_run WHERE run_id LIKE 'r%'"))
    assert len(newest(history, metric="bytes")) == 1


def test_an_older_history_without_runs_is_brought_up_to_date(history: Database) -> None:
    with history.writing() as connection:
        tables.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE {tables.VERSION_TABLE}"))
        migrations.upgrade(connection, "0001")
    assert newest(history) == []
    with history.reading() as connection:
        assert connection.execute(select(tables.device)).all() == []


def test_a_figure_is_of_a_case_or_of_a_file(history: Database) -> None:
    from deploy.errors import ConfigError

    add(history, 1, sized(10))
    for change in ("artifact_id = NULL WHERE case_id IS NULL", "case_id = 1 WHERE case_id IS NULL"):
        with pytest.raises(ConfigError), history.writing() as connection:
            connection.execute(text(f"UPDATE history_figure SET {change}"))
