"""Whole runs out of the history: what one found, and the newest that a comparison can stand on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, select

from deploy.errors import ConfigError
from deploy.history import figures, query, record, tables
from deploy.history.database import Database
from deploy.types import Case, DeviceRun, Measurement, Metric, Model, Side, Status, Tier

_FEW = 20


class StoredRun(Model):
    """One run as the history has it. ``figures`` are without raw samples."""

    pipeline: str
    run_id: str
    created_utc: str
    added_utc: str
    commit: str
    branch: str
    pocketship_version: str
    outcome: str
    exit_code: int
    content_sha256: str
    artifacts: tuple[dict[str, Any], ...]
    cases: tuple[dict[str, Any], ...]
    figures: tuple[query.Row, ...]
    verdicts: tuple[dict[str, Any], ...]


class Base(Model):
    """A measurement that a new one can be compared with: weaker evidence than a paired one.

    ``case`` has all raw samples; what surrounded it (device state, operators, warnings) is in the
    report alone.
    """

    side: Side
    created_utc: str
    branch: str
    case: Case


def show(database: Database, name: str) -> StoredRun:
    """The run with this id, or the only one whose report's hash begins so.

    Raises:
        ConfigError: there is none, or several; what to write instead.
    """
    run = tables.run
    with database.reading() as connection:
        where = run.c.run_id == name
        found = connection.execute(select(run).where(where).limit(_FEW)).all()
        if not found and len(name) >= 4 and set(name) <= set("0123456789abcdef"):
            where = run.c.content_sha256.startswith(name)
            found = connection.execute(select(run).where(where).limit(_FEW)).all()
        if not found:
            raise ConfigError(
                f"no run '{name[:60]}'",
                where=database.shown,
                hint="`pocketship history list` names runs.",
            )
        if len(found) > 1:
            choices = ", ".join(
                f"{row.content_sha256[:8]} ({row.pipeline}, {row.created_utc})" for row in found
            )
            raise ConfigError(
                f"several runs are '{name[:60]}'",
                where=database.shown,
                hint=f"Name one by its report's hash: {choices}.",
            )
        return _stored(connection, found[0])


def _stored(connection: Connection, row: Row[Any]) -> StoredRun:
    def all_of(table: Any, order: str) -> tuple[dict[str, Any], ...]:
        statement = select(table).where(table.c.run_id == row.id).order_by(table.c[order])
        hidden = {"id", "run_id", "device_id", "position"}
        return tuple(
            {name: value for name, value in one._mapping.items() if name not in hidden}
            for one in connection.execute(statement)
        )

    return StoredRun(
        pipeline=row.pipeline,
        run_id=row.run_id,
        created_utc=row.created_utc,
        added_utc=row.added_utc,
        commit=row.commit_id,
        branch=row.branch,
        pocketship_version=row.pocketship_version,
        outcome=row.outcome,
        exit_code=row.exit_code,
        content_sha256=row.content_sha256,
        artifacts=all_of(tables.artifact, "id"),
        cases=all_of(tables.case, "id"),
        figures=tuple(query.of_run(connection, row.id)),
        verdicts=all_of(tables.verdict, "position"),
    )


def base_for(
    database: Database,
    head: Case,
    device: DeviceRun,
    *,
    pipeline: str,
    branch: str,
    machine: Mapping[str, str],
    count: int = 1,
    before_utc: str = "",
    any_runtime_version: bool = False,
) -> list[Base]:
    """The newest ``count`` measurements of ``head``'s key on ``branch``, newest first.

    The key: the same device (:func:`deploy.history.identity.device_sha256`, whose ``machine`` is
    :func:`deploy.provenance.machine`), OS build, tier, pipeline, artifact name, thread count and,
    unless ``any_runtime_version``, runtime version; cases that ended ``ok`` alone. An empty list
    where there is none. ``before_utc``: only runs begun before it.

    Raises:
        ConfigError: there is no history, or it cannot be read.
    """
    if device.info is None:
        return []
    key = record.device_key(device.info, machine, device.profile.name)
    run, case = tables.run.c, tables.case.c
    statement = (
        select(tables.case, run.run_id.label("run_name"), run.created_utc, run.commit_id)
        .add_columns(run.branch)
        .join(tables.run, case.run_id == run.id)
        .join(tables.device, case.device_id == tables.device.c.id)
        .where(
            *(tables.device.c[name] == value for name, value in key.items()),
            *(case.artifact == head.artifact, case.threads == head.threads),
            *(case.status == Status.OK.value, run.pipeline == pipeline, run.branch == branch),
        )
        .order_by(run.created_utc.desc(), case.id.desc())
        .limit(count)
    )
    if not any_runtime_version:
        statement = statement.where(case.runtime_version == head.runtime_version)
    if before_utc:
        statement = statement.where(run.created_utc < before_utc)
    with database.reading() as connection:
        found = connection.execute(statement).all()
        return [_base(connection, row, head.device) for row in found]


def _base(connection: Connection, row: Row[Any], device: str) -> Base:
    label = f"{row.branch or 'no branch'} at {row.created_utc}"
    return Base(
        side=Side(label=label, kind="history", commit=row.commit_id or None, run_id=row.run_name),
        created_utc=row.created_utc,
        branch=row.branch,
        case=_case(connection, row, device),
    )


def _case(connection: Connection, row: Row[Any], device: str) -> Case:
    data = connection.scalar(
        select(tables.samples.c.data).where(tables.samples.c.case_id == row.id)
    )
    samples = figures.unpack(data) if data is not None else {}
    figure, series = tables.figure.c, tables.series.c
    statement = (
        select(tables.figure, series.metric, series.unit, series.tier)
        .join(tables.series, figure.series_id == series.id)
        .where(figure.case_id == row.id)
        .order_by(figure.id)
    )
    known = {metric.value for metric in Metric}
    measurements = tuple(
        Measurement(
            metric=Metric(one.metric),
            unit=one.unit,
            tier=Tier(one.tier),
            source=one.source,
            status=Status(one.status),
            reason=one.reason,
            samples=samples.get(one.metric, ()),
            # Of one sample there is no other interval than the measurement's own.
            interval=(one.low, one.high) if one.n == 1 and one.low is not None else None,
        )
        for one in connection.execute(statement)
        if one.metric in known
    )
    return Case(
        id=row.name,
        artifact=row.artifact,
        artifact_sha256=row.artifact_sha256,
        device=device,
        threads=row.threads,
        status=Status(row.status),
        reason=row.reason,
        runtime_version=row.runtime_version,
        measurements=measurements,
        wall_seconds=row.wall_seconds,
        attempts=row.attempts,
    )
