"""Series: what stands on one line, why a line begins, and where it changed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from deploy.history import record, trends
from deploy.history.database import Database
from deploy.history.query import Filter
from deploy.history.trends import Series
from deploy.types import DeviceRun, Status, Tier
from tests.deploy.history import made_reports as made

LATENCY = Filter(metric="latency_ms", branch="main")


def add(
    history: Database, numbers: Sequence[int], on: DeviceRun | None = None, branch: str = "main",
    *, level: float = 10.0, content: str = "", runtime: str = "1.5.1",
) -> None:  # fmt: skip
    drawn = random.Random(len(numbers))
    where = on or made.device()
    one = made.artifact(content=content)
    with history.writing() as connection:
        for number in numbers:
            samples = [level * (1 + 0.01 * drawn.gauss(0, 1)) for _ in range(9)]
            measured = made.latency(*samples, tier=where.profile.tier)
            case = made.case(
                one, where, measured, made.no_energy(where.profile.tier), runtime_version=runtime
            )
            report = made.report(number, on=where, artifacts=(one,), cases=(case,))
            record.add_within(connection, report, branch=branch)


def test_points_are_oldest_first_with_their_interval(file: Database) -> None:
    add(file, [5, 1, 3])
    (series,) = trends.series(file, LATENCY)
    assert [point.run_id[-1] for point in series.points] == ["1", "3", "5"]
    assert (series.device, series.artifact, series.unit) == ("pixel", "int8.executorch", "ms")
    for point, number in zip(series.points, (1, 3, 5), strict=True):
        assert point.commit == made.report(number).commit
        assert point.n == 9
        assert point.interval is not None
        assert point.interval[0] <= point.median <= point.interval[1]


def test_no_series_mixes_tiers_devices_builds_or_branches(file: Database) -> None:
    add(file, range(2), made.device("one"))
    add(file, range(2, 5), made.device("two"))
    add(file, range(5, 9), made.device("e", name="emulated", tier=Tier.EMULATOR))
    add(file, range(9, 14), made.device("one", os_build="build-2"))
    add(file, range(14, 20), made.device("one"), "feature")
    found = trends.series(file, LATENCY)
    assert sorted(len(one.points) for one in found) == [2, 3, 4, 5]
    assert len({(one.device_sha256, one.os_build, one.tier) for one in found}) == 4
    (feature,) = trends.series(file, Filter(metric="latency_ms", branch="feature"))
    assert len(feature.points) == 6


def test_a_new_os_build_begins_a_series_and_says_so(file: Database) -> None:
    add(file, range(12), made.device())
    add(file, range(12, 24), made.device(os_build="build-2"), level=12)
    add(file, range(24), made.device("another", os_build="build-3"))
    for wanted in (LATENCY, LATENCY.model_copy(update={"os_build": "build-2"})):
        found = trends.series(file, wanted)
        notes = {one.os_build: one.note for one in found}
        assert notes["build-2"] == (
            "the OS build is build-2 from 2030-01-01T00:12:00Z on; it was build-1 before, which "
            "is a series of its own"
        )
        assert {notes.get("build-1", ""), notes.get("build-3", "")} == {""}
        # Twenty per cent between two builds is no change of the model.
        assert [one.changes for one in found] == [()] * len(found)


def changed(history: Database) -> Series:
    add(history, range(15))
    add(history, range(15, 30), level=10.5, content="other", runtime="1.6.0")
    (found,) = trends.series(history, LATENCY)
    return found


def test_a_change_names_its_commits_size_and_what_came_with_it(file: Database) -> None:
    (change,) = changed(file).changes
    assert change.index == 15
    assert change.commit == made.report(15).commit
    assert change.commit_before == made.report(14).commit
    assert change.created_utc == "2030-01-01T00:15:00Z"
    assert change.ratio == pytest.approx(1.05, abs=0.01)
    assert change.before == pytest.approx(10, abs=0.1)
    assert change.with_it == ("the exported file", "the runtime (1.5.1 to 1.6.0)")


def test_changes_are_looked_for_on_one_branch_only(file: Database) -> None:
    changed(file)
    (found,) = trends.series(file, Filter(metric="latency_ms"))
    assert (len(found.points), found.changes, found.branch) == (30, (), None)
    (found,) = trends.series(file, LATENCY, find_changes=False)
    assert found.changes == ()


def test_only_the_newest_points_and_runs_without_a_figure_are_counted(file: Database) -> None:
    add(file, range(10))
    on = made.device()
    failed = made.latency(1.0).model_copy(
        update={"samples": (), "status": Status.FAILED, "reason": "too hot"}
    )
    case = made.case(made.artifact(), on, failed)
    record.add(file, made.report(10, on=on, cases=(case,)), branch="main")
    (found,) = trends.series(file, LATENCY, points=5)
    assert [int(point.run_id[-1]) for point in found.points] == [6, 7, 8, 9]
    assert found.missing == 1
    # Energy was never measured: there is no line to draw.
    assert trends.series(file, Filter(metric="energy_mj", branch="main")) == []


def test_a_history_of_one_run_has_points_and_no_change(file: Database) -> None:
    add(file, [1])
    (found,) = trends.series(file, LATENCY)
    assert (len(found.points), found.changes, found.note) == (1, (), "")
    with pytest.raises(ValueError):
        trends.series(file, LATENCY, points=501)
