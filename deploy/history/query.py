"""Finding figures: by filter, newest first, through the indices."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field
from sqlalchemy import Connection, Select, and_, func, literal, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from deploy.history import figures, file_figures, tables
from deploy.types import Model, Status, Tier

_WILD = frozenset("*?[")
_SEEK = 64
"""Up to so many series are each asked for their newest figures; more are one walk through time."""


class Filter(Model):
    """Which figures are meant; an empty field means all. ``*``, ``?``, ``[...]`` as in file names.

    ``device`` is a profile's name, ``runtime`` the artifact's format. ``since`` (included) and
    ``until`` (not included) are as :func:`deploy.history.identity.sortable` gives them.
    """

    pipeline: str = ""
    device: str = ""
    device_sha256: str = ""
    os_build: str = ""
    runtime: str = ""
    artifact: str = ""
    metric: str = ""
    tier: Tier | None = None
    threads: int | None = None
    branch: str | None = None
    status: Status | None = None
    since: str = ""
    until: str = ""


class Row(Model):
    """One figure with all that its key is made of. Empty text is unknown.

    One of a file (:mod:`deploy.history.file_figures`) has no device and 0 threads.
    """

    created_utc: str
    branch: str
    commit: str
    run_id: str
    pipeline: str
    device: str
    device_sha256: str
    os_build: str
    tier: str
    runtime: str
    runtime_version: str
    artifact: str
    variant: str
    artifact_sha256: str
    recipe_sha256: str
    threads: int
    metric: str
    unit: str
    status: str
    reason: str
    source: str
    n: int
    median: float | None
    mad: float | None
    mean: float | None
    p90: float | None
    min: float | None
    max: float | None
    low: float | None
    high: float | None
    samples: tuple[float, ...] | None = Field(default=None, exclude=True)


class SeriesKey(Model):
    """What the points of one series have in common; empty text is unknown."""

    pipeline: str
    device: str
    device_sha256: str
    os_build: str
    tier: str
    runtime: str
    artifact: str
    variant: str
    threads: int
    metric: str
    unit: str


class Track(SeriesKey):
    """One series: what may stand on one line of a plot."""

    id: int


_F, _S, _D = tables.figure.c, tables.series.c, tables.device.c
_C, _A, _R = tables.case.c, tables.artifact.c, tables.run.c
_BOTH = {
    "pipeline": _S.pipeline,
    "device": _D.profile,
    "device_sha256": _D.device_sha256,
    "os_build": _D.os_build,
    "tier": _S.tier,
    "runtime": _S.runtime,
    "artifact": _S.artifact,
    "variant": _S.variant,
    "threads": _S.threads,
    "metric": _S.metric,
    "unit": _S.unit,
}
OF_FILE_OR_CASE = {
    # A file has no version of a runtime: it was not run.
    "runtime_version": func.coalesce(_C.runtime_version, ""),
    "artifact_sha256": func.coalesce(_C.artifact_sha256, _A.sha256),
    "recipe_sha256": func.coalesce(_C.recipe_sha256, _A.recipe_sha256),
}
"""Columns that stand with the case of a figure, or with its file; of :data:`WITH_RUN`."""

WITH_RUN = (
    tables.figure.outerjoin(tables.case, _F.case_id == _C.id)
    .outerjoin(tables.artifact, _F.artifact_id == _A.id)
    .join(tables.run, _R.id == func.coalesce(_C.run_id, _A.run_id))
)
"""Figures with their case or file, and their run."""

_COLUMNS = {
    **_BOTH,
    "created_utc": _F.created_utc,
    "branch": _F.branch,
    "commit": _R.commit_id,
    "run_id": _R.run_id,
    **OF_FILE_OR_CASE,
    **{name: _F[name] for name in ("status", "reason", "source", "n", "median", "mad", "mean")},
    **{name: _F[name] for name in ("p90", "min", "max", "low", "high")},
}


def tracks(connection: Connection, wanted: Filter) -> list[Track]:
    """The series that a filter's fields allow, by name; some may have no figure left."""
    query = select(_S.id, *(column.label(name) for name, column in _BOTH.items())).join(
        tables.device, _S.device_id == _D.id
    )
    patterns: dict[str, str] = {}
    for name, column in _BOTH.items():
        value = getattr(wanted, name, None)
        if value is None or value == "":
            continue
        if isinstance(value, str) and _WILD & set(value):
            patterns[name] = value
        else:
            query = query.where(column == value)
    order = ("pipeline", "artifact", "device", "os_build", "threads", "metric", "tier", "unit")
    found = [Track(**row._mapping) for row in connection.execute(query)]
    kept = [
        one
        for one in found
        if all(fnmatchcase(getattr(one, name), value) for name, value in patterns.items())
    ]
    return sorted(kept, key=lambda one: (*(getattr(one, name) for name in order), one.id))


def newest(connection: Connection, wanted: Filter, limit: int | None = 50) -> list[Row]:
    """The newest figures that fit, newest first; equal times in the order of addition, reversed.

    ``limit`` None: all of them.
    """
    return list(rows(connection, wanted, limit))


def rows(
    connection: Connection, wanted: Filter, limit: int | None = None, *, samples: bool = False
) -> Generator[Row, None, None]:
    """As :func:`newest`, one at a time; with ``samples`` each has all of its raw samples.

    It reads as it goes: who may stop before its end closes it before the connection.
    """
    found = tracks(connection, wanted)
    query = _newest_of(connection, found, wanted, limit, samples=samples)
    with connection.execution_options(yield_per=1000).execute(query) as result:
        for row in result:
            values = dict(row._mapping)
            data = values.pop("data", None)
            if samples and data is not None:
                values["samples"] = figures.unpack(data).get(values["metric"], ())
            elif samples and values["threads"] == file_figures.THREADS:
                values["samples"] = (values["median"],) if values["n"] else ()
            yield Row(**values)


def _newest_of(
    connection: Connection,
    found: Sequence[Track],
    wanted: Filter,
    limit: int | None,
    *,
    samples: bool = False,
) -> Select[Any]:
    made = _wide(samples).where(_which(connection, found, wanted, limit))
    made = made.order_by(_F.created_utc.desc(), _F.id.desc())
    return made if limit is None else made.limit(limit)


def of_run(connection: Connection, run_id: int) -> Iterator[Row]:
    """All figures of one run (a row's id): its cases' as its report has them, then its files'."""
    # Two questions, as no index answers "of this case or of that file" in one.
    for where in (_C.run_id == run_id, _A.run_id == run_id):
        for row in connection.execute(_wide(False).where(where).order_by(_F.id)):
            yield Row(**row._mapping)


def _wide(samples: bool) -> Select[Any]:
    columns: list[Any] = [column.label(name) for name, column in _COLUMNS.items()]
    joined = WITH_RUN.join(tables.series, _F.series_id == _S.id).join(
        tables.device, _S.device_id == _D.id
    )
    if samples:
        columns.append(tables.samples.c.data.label("data"))
        joined = joined.outerjoin(tables.samples, tables.samples.c.case_id == _F.case_id)
    return select(*columns).select_from(joined)


def _which(
    connection: Connection, found: Sequence[Track], wanted: Filter, limit: int | None
) -> ColumnElement[bool]:
    """What a figure must fulfil; for few series and a limit, the very figures by their ids."""
    rest = figure_conditions(wanted)
    if limit is not None and found and len(found) <= _SEEK:
        ids = connection.scalars(newest_ids([one.id for one in found], wanted, limit))
        return _F.id.in_(list(ids))
    everything = not any(getattr(wanted, name, None) for name in _BOTH)
    if not everything:
        # As a sum it can be no reason to read all of these series through their index and sort
        # them, where the newest few are wanted: those are met on the walk through time.
        column = _F.series_id if limit is None else _F.series_id + 0
        rest.append(column.in_([one.id for one in found]))
    return and_(literal(True), *rest)


def figure_conditions(wanted: Filter) -> list[ColumnElement[bool]]:
    """Those parts of a filter that stand with each figure."""
    made: list[ColumnElement[bool]] = []
    if wanted.branch is not None:
        made.append(_F.branch == wanted.branch)
    if wanted.status is not None:
        made.append(_F.status == wanted.status.value)
    if wanted.since:
        made.append(_F.created_utc >= wanted.since)
    if wanted.until:
        made.append(_F.created_utc < wanted.until)
    return made


def newest_ids(series: Sequence[int], wanted: Filter, limit: int) -> Select[Any]:
    """Ids of the newest ``limit`` figures over all of ``series``: a seek in an index for each."""
    parts = [
        select(_F.id, _F.created_utc)
        .where(_F.series_id == one, *figure_conditions(wanted))
        .order_by(_F.created_utc.desc(), _F.id.desc())
        .limit(limit)
        .subquery()
        for one in series
    ]
    # SQLite takes a LIMIT within a UNION only where each part is a query of its own.
    every = union_all(*(select(part.c.id, part.c.created_utc) for part in parts)).subquery()
    return select(every.c.id).order_by(every.c.created_utc.desc(), every.c.id.desc()).limit(limit)
