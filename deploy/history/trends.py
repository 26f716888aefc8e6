"""Series over time for plots, and the points where they changed.

A series never mixes tiers, devices, OS builds, runtimes or thread counts. A new OS build begins a
new series, which says so in its ``note``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Row, select

from deploy.history import changes, file_figures, query, tables
from deploy.history.database import Database
from deploy.history.query import Filter, SeriesKey, Track
from deploy.types import Model, Status

POINTS = 200
"""How many of the newest points of a series are looked at, unless asked."""


class Point(Model):
    """One run's figure. ``interval`` holds the median of the samples (95 %), None for too few."""

    created_utc: str
    commit: str
    branch: str
    run_id: str
    median: float
    interval: tuple[float, float] | None
    n: int
    artifact_sha256: str
    recipe_sha256: str
    runtime_version: str


class Change(Model):
    """A point where a series changed: advice to look, no verdict.

    ``index`` is the first point after it; ``before`` and ``after`` are the medians of the points
    between this change and its neighbours, ``ratio`` is after / before, None where before is 0.
    ``p_value`` is None where the figures are exact and nothing had to be tested. ``with_it`` names
    what else changed at that very point. ``commit_before`` is the commit of the
    last point before: the cause is one of the commits after it, up to ``commit``.
    """

    index: int
    created_utc: str
    commit_before: str
    commit: str
    before: float
    after: float
    ratio: float | None
    p_value: float | None
    with_it: tuple[str, ...] = ()


class Series(SeriesKey):
    """One metric of one artifact on one device, run after run, oldest first.

    ``missing`` counts the runs that have no figure (not ``ok``) between the first point and now.
    """

    branch: str | None
    points: tuple[Point, ...]
    missing: int = 0
    changes: tuple[Change, ...] = ()
    note: str = ""


def series(
    database: Database,
    wanted: Filter,
    *,
    points: int = POINTS,
    find_changes: bool = True,
    seed: int = 0,
) -> list[Series]:
    """Every series that fits and has a point, each with its newest ``points``.

    Change points are looked for on a branch only (``wanted.branch``): points of several branches
    have no order. ``points`` is at most :data:`deploy.history.changes.MAX_POINTS`.

    Raises:
        ConfigError: there is no history, or it cannot be read.
    """
    if not 1 <= points <= changes.MAX_POINTS:
        raise ValueError(f"points: 1 to {changes.MAX_POINTS}")
    with database.reading() as connection:
        # All OS builds, for the note.
        every = query.tracks(connection, wanted.model_copy(update={"os_build": ""}))
        asked = {one.id for one in query.tracks(connection, wanted)}
        conditions = query.figure_conditions(wanted.model_copy(update={"status": None}))
        figure, run = tables.figure.c, tables.run.c
        columns = (
            *(figure.created_utc, run.commit_id, figure.branch, run.run_id, figure.median),
            *(figure.low, figure.high, figure.n, figure.status),
            *(column.label(name) for name, column in query.OF_FILE_OR_CASE.items()),
        )
        found: dict[int, tuple[list[Point], int]] = {}
        for one in every:
            statement = (
                select(*columns)
                .select_from(query.WITH_RUN)
                .where(figure.series_id == one.id, *conditions)
                .order_by(figure.created_utc.desc(), figure.id.desc())
                .limit(points)
            )
            rows = connection.execute(statement).all()
            kept = [_point(row) for row in reversed(rows) if row.status == Status.OK.value]
            if kept:
                found[one.id] = kept, len(rows) - len(kept)
    made = []
    for one in every:
        if one.id in asked and one.id in found:
            kept, missing = found[one.id]
            # Points of several branches have no order.
            search = find_changes and wanted.branch is not None
            exact = file_figures.is_exact(one.metric)
            made.append(
                Series(
                    **one.model_dump(exclude={"id"}),
                    branch=wanted.branch,
                    points=tuple(kept),
                    missing=missing,
                    changes=tuple(change_points(kept, seed, exact=exact)) if search else (),
                    note=_note(one, every, found),
                )
            )
    return made


def _point(row: Row[Any]) -> Point:
    return Point(
        created_utc=row.created_utc,
        commit=row.commit_id,
        branch=row.branch,
        run_id=row.run_id,
        median=row.median,
        interval=None if row.low is None or row.high is None else (row.low, row.high),
        n=row.n,
        artifact_sha256=row.artifact_sha256,
        recipe_sha256=row.recipe_sha256,
        runtime_version=row.runtime_version,
    )


def change_points(points: Sequence[Point], seed: int = 0, *, exact: bool = False) -> list[Change]:
    """The change points of a series, oldest first; of ``exact`` figures every difference."""
    values = [point.median for point in points]
    splits = changes.differences(values) if exact else changes.e_divisive(values, seed=seed)
    edges = [0, *(split.index for split in splits), len(values)]
    found = []
    for number, split in enumerate(splits, start=1):
        before = statistics.median(values[edges[number - 1] : edges[number]])
        after = statistics.median(values[edges[number] : edges[number + 1]])
        last, first = points[split.index - 1], points[split.index]
        found.append(
            Change(
                index=split.index,
                created_utc=first.created_utc,
                commit_before=last.commit,
                commit=first.commit,
                before=before,
                after=after,
                ratio=after / before if before else None,
                p_value=split.p_value,
                # That the file is another one is what its figures say.
                with_it=tuple(_with_it(last, first, but="the exported file" if exact else "")),
            )
        )
    return found


_ALSO: tuple[tuple[str, Callable[[Point], str]], ...] = (
    ("the recipe", lambda point: point.recipe_sha256),
    ("the exported file", lambda point: point.artifact_sha256),
)


def _with_it(last: Point, first: Point, *, but: str = "") -> list[str]:
    found = [name for name, of in _ALSO if of(last) != of(first) and name != but]
    if last.runtime_version != first.runtime_version:
        found.append(
            f"the runtime ({last.runtime_version or 'unknown'} to "
            f"{first.runtime_version or 'unknown'})"
        )
    return found


def _note(track: Track, every: Sequence[Track], found: dict[int, tuple[list[Point], int]]) -> str:
    """Why this series begins where it does, if that is because of another OS build."""
    if track.id not in found:
        return ""
    same = track.model_dump(exclude={"id", "os_build"})
    begins = found[track.id][0][0].created_utc
    earlier = [
        (found[one.id][0][-1].created_utc, one.os_build)
        for one in every
        if one.id != track.id
        and one.id in found
        and found[one.id][0][0].created_utc < begins
        and one.model_dump(exclude={"id", "os_build"}) == same
    ]
    if not earlier:
        return ""
    _, build = max(earlier)
    return (
        f"the OS build is {track.os_build or 'unknown'} from {begins} on; it was "
        f"{build or 'unknown'} before, which is a series of its own"
    )
