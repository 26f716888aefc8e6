"""What is in a database after reports were added to it: by one writer, by two, by a killed one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, select, text

from deploy.errors import ConfigError
from deploy.history import database, figures, query, record, runs, tables
from deploy.history.address import Address
from deploy.history.database import Database
from deploy.history.query import Filter
from deploy.types import ARTIFACT_METRICS, Measurement, Metric, Status, Tier
from tests.deploy.history import made_reports as made

FORK = multiprocessing.get_context("fork")


def content(history: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but when it was added."""
    with history.reading() as connection:
        return {
            table.name: [
                tuple(value for name, value in row._mapping.items() if name != "added_utc")
                for row in connection.execute(select(table).order_by(*table.primary_key))
            ]
            for table in tables.metadata.sorted_tables
        }


def rows(history: Database, **wanted: Any) -> list[query.Row]:
    with history.reading() as connection:
        return query.newest(connection, Filter(**wanted), None)


def test_the_tables_are_those_that_the_migrations_make(history: Database) -> None:
    with history.writing() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": tables.VERSION_TABLE, "compare_type": True},
        )
        assert compare_metadata(context, tables.metadata) == []
        assert context.get_current_revision() == tables.REVISION


def test_every_field_of_the_key_and_the_summary_is_kept(history: Database) -> None:
    samples = (10.0, 11.5, 9.25, 30.0, 10.125, 10.5, 9.75)
    report = made.report(3, *samples)
    assert record.add(history, report, branch="main") == "added"
    energy, latency = rows(history, device="pixel")
    assert (energy.metric, energy.status, energy.reason) == ("energy_mj", "unavailable", "no rail")
    assert (energy.n, energy.median, energy.low) == (0, None, None)
    device, artifact = report.devices[0], report.artifacts[0]
    assert latency.model_dump(exclude={"mad", "mean", "p90", "low", "high"}) == {
        "created_utc": "2030-01-01T00:03:00Z",
        "branch": "main",
        "commit": report.commit,
        "run_id": report.run_id,
        "pipeline": "lenet",
        "device": "pixel",
        "device_sha256": made.digest("R58M42"),
        "os_build": "build-1",
        "tier": "device",
        "runtime": "executorch",
        "runtime_version": "1.5.1",
        "artifact": "int8.executorch",
        "variant": "int8",
        "artifact_sha256": artifact.sha256,
        "recipe_sha256": latency.recipe_sha256,
        "threads": 1,
        "metric": "latency_ms",
        "unit": "ms",
        "status": "ok",
        "reason": "",
        "source": "bench_runner",
        "n": 7,
        "median": statistics.median(samples),
        "min": 9.25,
        "max": 30.0,
    }
    assert len(latency.recipe_sha256) == 64
    assert latency.mad == np.median(np.abs(np.array(samples) - np.median(samples)))
    assert latency.mean == pytest.approx(np.mean(samples))
    assert latency.p90 == pytest.approx(np.quantile(samples, 0.9))
    # Of seven the extremes hold the median with probability 1 - 2/2^7.
    assert (latency.low, latency.high) == (9.25, 30.0)
    # The serial is nowhere in what was written.
    assert device.info is not None
    assert device.info.serial not in repr(content(history))


def test_the_same_report_twice_changes_nothing(history: Database) -> None:
    report = made.report(1)
    assert record.add(history, report, branch="main", key="folder") == "added"
    before = content(history)
    assert record.add(history, report, branch="main", key="folder") == "unchanged"
    # Nor does its copy in another folder, or one that is imported without its folder.
    assert record.add(history, report, branch="other", key="copy") == "unchanged"
    assert record.add(history, report) == "unchanged"
    assert content(history) == before


def test_a_report_of_the_same_folder_takes_the_place_of_the_earlier(history: Database) -> None:
    record.add(history, made.report(1, 5.0), branch="main", key="folder")
    record.add(history, made.report(2, 6.0), branch="main", key="another")
    assert record.add(history, made.report(1, 7.0), branch="main", key="folder") == "replaced"
    assert [row.median for row in rows(history, metric="latency_ms")] == [6.0, 7.0]
    counts = {name: len(found) for name, found in content(history).items()}
    # Cases, artifacts, verdicts and samples of the earlier one went with it.
    assert counts == {
        "history_run": 2,
        "history_artifact": 2,
        "history_verdict": 2,
        "history_case": 2,
        "history_samples": 2,
        "history_figure": 2 * (2 + len(ARTIFACT_METRICS)),
        "history_series": 2 + len(ARTIFACT_METRICS),
        # The phone, and that which stands for none.
        "history_device": 2,
    }


def test_verdicts_and_failed_cases_are_kept(history: Database) -> None:
    report = made.report(1)
    crashed = report.cases[0].model_copy(
        update={"status": Status.FAILED, "reason": "crashed", "measurements": ()}
    )
    record.add(history, made.report(1, cases=(crashed,)), branch="main")
    stored = runs.show(history, report.run_id)
    assert [(one["status"], one["reason"]) for one in stored.cases] == [("failed", "crashed")]
    (verdict,) = stored.verdicts
    expected = made.verdict()
    assert expected.paired is not None
    assert verdict["outcome"] == "PASS"
    assert verdict["limit_value"] == 20.0
    assert verdict["paired"] == expected.paired.model_dump_json()
    assert stored.artifacts[0]["bytes"] == 1234
    assert {row.metric for row in stored.figures} == set(ARTIFACT_METRICS)


def test_a_device_that_never_answered_is_kept_without_identity(history: Database) -> None:
    on = made.device().model_copy(update={"info": None, "status": Status.INVALID, "reason": "gone"})
    record.add(history, made.report(1, on=on))
    found = rows(history, metric="latency_ms")
    assert {(row.device, row.device_sha256, row.os_build) for row in found} == {("pixel", "", "")}


def test_text_that_no_database_holds_is_escaped(history: Database) -> None:
    hostile = "x'; DROP TABLE history_run; --\0\udcff\N{SNOWMAN}"
    on = made.device(os_build=hostile, name=hostile)
    record.add(history, made.report(1, on=on), branch=hostile, key="k")
    found = rows(history, device="x'*")
    assert len(found) == 2
    shown = "x'; DROP TABLE history_run; --\\x00\\udcff\N{SNOWMAN}"
    assert {(row.device, row.os_build, row.branch) for row in found} == {(shown, shown, shown)}
    # Another run finds the same device again.
    record.add(history, made.report(2, on=on), branch=hostile)
    assert len({row.device_sha256 for row in rows(history, device="x'*")}) == 1


def test_emulated_phones_are_the_same_wherever_they_were_started(history: Database) -> None:
    def emulated(port: int, clock: str) -> Any:
        on = made.device(f"127.0.0.1:{port}", name="emulated", tier=Tier.EMULATOR)
        assert on.info is not None
        return on.model_copy(update={"info": on.info.model_copy(update={"clock": clock})})

    slow = made.MACHINE | {"cpu": "Another processor"}
    record.add(history, made.report(1, on=emulated(40001, "icount")))
    record.add(history, made.report(2, on=emulated(40002, "icount"), machine=slow))
    assert len({row.device_sha256 for row in rows(history, device="emulated")}) == 1
    # A clock that tells time depends on the processor below.
    record.add(history, made.report(3, on=emulated(40003, "monotonic")))
    record.add(history, made.report(4, on=emulated(40004, "monotonic"), machine=slow))
    assert len({row.device_sha256 for row in rows(history, device="emulated")}) == 3


# --- several writers, and killed ones -------------------------------------------------------------


def begin(work: Callable[..., None], *arguments: Any) -> Any:
    process = FORK.Process(target=work, args=arguments)
    process.start()
    return process


def _add_some(place: Address, first: int, start: Any) -> None:
    start.wait()
    history = database.connect(place)
    for number in (*range(first, first + 5), 99):
        record.add(history, made.report(number), branch="main", key=f"folder {number}")


def test_two_writers_at_once_lose_nothing(place: Address) -> None:
    """Both begin with no tables; run 99 is added by both."""
    start = FORK.Barrier(2)
    writers = [begin(_add_some, place, first, start) for first in (0, 50)]
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    history = database.connect(place)
    numbers = [*range(5), *range(50, 55), 99]
    found = rows(history, metric="latency_ms")
    assert sorted(row.median or 0 for row in found) == [10.0 + number for number in numbers]
    counts = {name: len(every) for name, every in content(history).items()}
    assert counts["history_run"] == counts["history_samples"] == len(numbers)
    assert (counts["history_device"], counts["history_series"]) == (2, 2 + len(ARTIFACT_METRICS))


def _stop_half_way(place: Address, told: Any) -> None:
    def stop(_: object) -> bytes:
        told.send("in the middle")
        signal.pause()
        raise AssertionError("it was to be killed")

    figures.pack = stop  # type: ignore[assignment]
    record.add(database.connect(place), made.report(1, 5.0), branch="main", key="folder")


@pytest.mark.parametrize("earlier", [True, False], ids=["replacing", "the very first"])
def test_a_killed_writer_leaves_the_old_state(place: Address, earlier: bool) -> None:
    history = database.connect(place)
    if earlier:
        record.add(history, made.report(1, 4.0), branch="main", key="folder")
    told, tell = FORK.Pipe(duplex=False)
    writer = begin(_stop_half_way, place, tell)
    assert told.poll(60), "it never came to the middle"
    assert writer.pid is not None
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    if earlier:
        assert [row.median for row in rows(history, metric="latency_ms")] == [4.0]
    else:
        with pytest.raises(ConfigError, match="there is no history yet"):
            rows(history)
    done = record.add(history, made.report(1, 6.0), branch="main", key="folder")
    assert done == ("replaced" if earlier else "added")
    assert [row.median for row in rows(history, metric="latency_ms")] == [6.0]


def test_a_newer_history_is_left_alone(history: Database) -> None:
    record.add(history, made.report(1))
    with history.writing() as connection:
        connection.execute(text(f"UPDATE {tables.VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="made by a newer pocketship"):
        record.add(history, made.report(2))
    with pytest.raises(ConfigError, match="made by a newer pocketship"):
        rows(history)
    with history.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(tables.run)) == 1


# --- what a comparison stands on ------------------------------------------------------------------


def test_base_is_the_newest_measurement_of_the_same_key(history: Database) -> None:
    one, other = made.device("one"), made.device("other")
    newer_build = made.device("one", os_build="build-2")
    for number, on, branch in (
        (1, one, "main"),
        (2, one, "main"),
        (3, other, "main"),
        (4, newer_build, "main"),
        (5, one, "feature"),
    ):
        record.add(history, made.report(number, on=on), branch=branch)
    crashed = (
        made.report(6)
        .cases[0]
        .model_copy(update={"status": Status.FAILED, "reason": "x", "measurements": ()})
    )
    record.add(history, made.report(6, on=one, cases=(crashed,)), branch="main")
    head = made.report(7, on=one).cases[0]
    asked: dict[str, Any] = {"pipeline": "lenet", "branch": "main", "machine": made.MACHINE}
    found = runs.base_for(history, head, one, **asked, count=5)
    assert [base.side.run_id for base in found] == ["20300101-000002", "20300101-000001"]
    base = found[0]
    assert base.side.kind == "history"
    assert base.side.commit == made.report(2).commit
    # The whole measurement comes back, raw samples and what was not measured with its reason.
    assert base.case == made.report(2, on=one).cases[0]
    assert len(runs.base_for(history, head, one, **asked)) == 1
    earlier = runs.base_for(history, head, one, **asked, before_utc="2030-01-01T00:02:00Z")
    assert [base.side.run_id for base in earlier] == ["20300101-000001"]
    upgraded = head.model_copy(update={"runtime_version": "1.6.0"})
    assert runs.base_for(history, upgraded, one, **asked) == []
    assert runs.base_for(history, upgraded, one, **asked, any_runtime_version=True) == [base]
    for change in ({"pipeline": "another"}, {"branch": "nowhere"}):
        assert runs.base_for(history, head, one, **(asked | change)) == []
    two = head.model_copy(update={"threads": 2})
    assert runs.base_for(history, two, one, **asked) == []
    unknown = one.model_copy(update={"info": None})
    assert runs.base_for(history, head, unknown, **asked) == []


def test_an_interval_of_one_computed_sample_comes_back(history: Database) -> None:
    energy = Measurement(
        metric=Metric.ENERGY_MJ,
        unit="mJ",
        tier=Tier.DEVICE,
        source="slope",
        status=Status.OK,
        samples=(3.5,),
        interval=(3.25, 4.0),
    )
    report = made.report(1)
    measured = report.cases[0].model_copy(update={"measurements": (energy,)})
    record.add(history, made.report(1, cases=(measured,)), branch="main")
    on = made.device()
    (base,) = runs.base_for(
        history, measured, on, pipeline="lenet", branch="main", machine=made.MACHINE
    )
    assert base.case.measurements == (energy,)
    (row,) = rows(history, metric="energy_mj")
    assert (row.median, row.low, row.high) == (3.5, 3.25, 4.0)
