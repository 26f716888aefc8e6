"""Adding a report: all of its rows in one transaction, or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any, Literal

from sqlalchemy import Connection, Table, delete, insert, select

from deploy.history import figures, file_figures, identity, tables
from deploy.history.database import Database
from deploy.history.identity import storable
from deploy.types import ARTIFACT_METRICS, Artifact, Case, DeviceInfo, Measurement, Report, Tier

Added = Literal["added", "replaced", "unchanged"]

_Row = dict[str, Any]
_Key = tuple[Any, ...]

_NO_DEVICE = ""
_SERIES_KEY = (
    *("device_id", "pipeline", "artifact", "runtime", "threads", "metric", "tier", "unit"),
)


def add(database: Database, report: Report, *, branch: str = "", key: str = "") -> Added:
    """Add ``report``, which must be sealed (``content_sha256``, as written or loaded).

    The same report changes nothing. Another report with the same ``key`` (that of the run folder)
    takes the place of the earlier one: it says anew what the same run found.

    Raises:
        ConfigError: the history cannot be written; it is as it was.
    """
    with database.writing() as connection:
        return add_within(connection, report, branch=branch, key=key)


def add_within(connection: Connection, report: Report, *, branch: str = "", key: str = "") -> Added:
    """As :func:`add`, in a transaction of :meth:`Database.writing` that may hold more."""
    seal = report.content_sha256
    if not seal:
        raise ValueError("the report was neither written nor loaded: it has no hash")
    run = tables.run
    done: Added = "added"
    if connection.scalar(select(run.c.id).where(run.c.content_sha256 == seal)) is not None:
        return "unchanged"
    if key:
        earlier = connection.execute(delete(run).where(run.c.key == key))
        done = "replaced" if earlier.rowcount else "added"
    run_id = _insert(connection, run, _run_row(report, branch, key or seal))
    _many(connection, tables.verdict, _verdict_rows(report, run_id))
    adding = _Adding(connection, report, run_id, storable(branch))
    adding.add_files()
    adding.add_cases()
    return done


def _run_row(report: Report, branch: str, key: str) -> _Row:
    return {
        "key": key,
        "content_sha256": report.content_sha256,
        "pipeline": storable(report.pipeline),
        "run_id": storable(report.run_id),
        "created_utc": identity.sortable(report.created_utc),
        "added_utc": identity.now(),
        "commit_id": storable(report.commit or ""),
        "branch": storable(branch),
        "seed": str(report.seed),
        "pocketship_version": storable(report.pocketship_version),
        "outcome": report.outcome.value,
        "exit_code": report.exit_code,
    }


def _artifact_row(artifact: Artifact, run_id: int) -> _Row:
    return {
        "run_id": run_id,
        "name": storable(artifact.name),
        "variant": storable(artifact.variant),
        "runtime": artifact.format.value,
        "sha256": storable(artifact.sha256),
        "recipe_sha256": identity.recipe_sha256(artifact.recipe),
        "bytes": artifact.bytes,
        "partitions": artifact.placement.partitions,
        "delegated_share": artifact.placement.delegated_share,
    }


def _verdict_rows(report: Report, run_id: int) -> Iterable[_Row]:
    for position, verdict in enumerate(report.verdicts):
        yield {
            "run_id": run_id,
            "position": position,
            "outcome": verdict.outcome.value,
            "subject": storable(verdict.subject),
            "metric": storable(verdict.metric),
            "tier": verdict.tier.value if verdict.tier else "",
            "value": verdict.value,
            "limit_value": verdict.limit,
            "base_value": verdict.base_value,
            "source": storable(verdict.source),
            "reason": storable(verdict.reason),
            "accepted": storable(verdict.accepted),
            "paired": verdict.paired.model_dump_json() if verdict.paired else "",
        }


class _Adding:
    """One report on its way in: the rows that its figures point at, and the figures."""

    def __init__(self, connection: Connection, report: Report, run_id: int, branch: str) -> None:
        self._connection, self._report, self._run_id = connection, report, run_id
        self._artifacts = {one.name: one for one in report.artifacts}
        self._devices = _devices(connection, report)
        self._common = {"created_utc": identity.sortable(report.created_utc), "branch": branch}
        wanted = {self._key_of_case(c, m) for c in report.cases for m in c.measurements}
        wanted |= {self._key_of_file(a, m) for a in report.artifacts for m in ARTIFACT_METRICS}
        self._series = self._series_of(wanted)

    def add_files(self) -> None:
        """The artifacts and their figures."""
        rows: list[_Row] = []
        for artifact in self._report.artifacts:
            row = _artifact_row(artifact, self._run_id)
            artifact_id = _insert(self._connection, tables.artifact, row)
            for metric in ARTIFACT_METRICS:
                series_id = self._series[self._key_of_file(artifact, metric)]
                of = {"artifact_id": artifact_id, "series_id": series_id}
                rows.append(of | self._common | file_figures.row(artifact, metric))
        _many(self._connection, tables.figure, rows)

    def add_cases(self) -> None:
        """The cases, their figures and their raw samples."""
        rows: list[_Row] = []
        packed: list[_Row] = []
        for case in self._report.cases:
            artifact = self._artifacts.get(case.artifact)
            row = _case_row(case, self._run_id, self._devices[case.device], artifact)
            case_id = _insert(self._connection, tables.case, row)
            rows += [
                {
                    "case_id": case_id,
                    "series_id": self._series[self._key_of_case(case, measurement)],
                    **self._common,
                    "status": measurement.status.value,
                    "reason": storable(measurement.reason),
                    "source": storable(measurement.source),
                    **figures.summary(measurement),
                }
                for measurement in case.measurements
            ]
            samples = {one.metric.value: one.samples for one in case.measurements if one.samples}
            if samples:
                packed.append({"case_id": case_id, "data": figures.pack(samples)})
        _many(self._connection, tables.figure, rows)
        _many(self._connection, tables.samples, packed)

    def _key_of_case(self, case: Case, measurement: Measurement) -> _Key:
        artifact = self._artifacts.get(case.artifact)
        return (
            self._devices[case.device],
            storable(self._report.pipeline),
            storable(case.artifact),
            artifact.format.value if artifact else case.artifact.rpartition(".")[2],
            case.threads,
            measurement.metric.value,
            measurement.tier.value,
            storable(measurement.unit),
        )

    def _key_of_file(self, artifact: Artifact, metric: str) -> _Key:
        return (
            self._devices[_NO_DEVICE],
            storable(self._report.pipeline),
            storable(artifact.name),
            artifact.format.value,
            file_figures.THREADS,
            metric,
            Tier.HOST.value,
            file_figures.unit(metric),
        )

    def _series_of(self, wanted: Set[_Key]) -> dict[_Key, int]:
        """Row id of each series that the report has a figure of; those that are new are made."""
        table = tables.series
        known: dict[_Key, int] = {}
        for device_id in sorted(set(self._devices.values())):
            query = select(table.c.id, *(table.c[name] for name in _SERIES_KEY)).where(
                table.c.device_id == device_id,
                table.c.pipeline == storable(self._report.pipeline),
            )
            known |= {tuple(row[1:]): row[0] for row in self._connection.execute(query)}
        for key in sorted(wanted - known.keys()):
            artifact = self._artifacts.get(key[2])
            variant = artifact.variant if artifact else key[2].rpartition(".")[0]
            row = dict(zip(_SERIES_KEY, key, strict=True)) | {"variant": storable(variant)}
            known[key] = _insert(self._connection, table, row)
        return known


def _case_row(case: Case, run_id: int, device_id: int, artifact: Artifact | None) -> _Row:
    return {
        "run_id": run_id,
        "device_id": device_id,
        "name": storable(case.id),
        "artifact": storable(case.artifact),
        "artifact_sha256": storable(case.artifact_sha256),
        "recipe_sha256": identity.recipe_sha256(artifact.recipe if artifact else ()),
        "threads": case.threads,
        "status": case.status.value,
        "reason": storable(case.reason),
        "runtime_version": storable(case.runtime_version),
        "wall_seconds": case.wall_seconds,
        "attempts": case.attempts,
    }


def device_key(info: DeviceInfo, machine: Mapping[str, str], profile: str) -> _Row:
    """The columns that tell devices apart: another OS build is another device here."""
    return {
        "device_sha256": identity.device_sha256(info, machine),
        "profile": storable(profile),
        "tier": info.tier.value,
        "os_build": storable(info.os_build or ""),
    }


def _devices(connection: Connection, report: Report) -> dict[str, int]:
    """Profile name -> row id, for every device that a case of the report names.

    The name of what files are on, which is no device, is empty.
    """
    found: dict[str, int] = {}
    if report.artifacts:
        nothing = {"model": "", "soc": ""}
        found[_NO_DEVICE] = _known(connection, tables.device, file_figures.DEVICE, nothing)
    runs = {row.profile.name: row for row in report.devices}
    for name in sorted({case.device for case in report.cases}):
        row = runs.get(name)
        if row is not None and row.info is not None:
            key = device_key(row.info, report.machine, name)
            more = {
                "model": storable(row.info.model or ""),
                "soc": storable(row.info.soc or ""),
            }
        else:
            # A device that never answered has no identity; what it failed at is still kept.
            tier = row.profile.tier.value if row else _tier_of_cases(report, name)
            key = {"device_sha256": "", "profile": storable(name), "tier": tier, "os_build": ""}
            more = {"model": "", "soc": ""}
        found[name] = _known(connection, tables.device, key, more)
    return found


def _tier_of_cases(report: Report, device: str) -> str:
    cases = [case for case in report.cases if case.device == device]
    return next((one.tier.value for case in cases for one in case.measurements), "")


def _known(connection: Connection, table: Table, key: _Row, more: _Row) -> int:
    # Writers take turns, so nobody can add the row between these two statements.
    where = [table.c[name] == value for name, value in key.items()]
    found = connection.scalar(select(table.c.id).where(*where))
    return int(found) if found is not None else _insert(connection, table, key | more)


def _insert(connection: Connection, table: Table, row: _Row) -> int:
    made = connection.execute(insert(table), row).inserted_primary_key
    if made is None:
        raise ValueError(f"{table.name} gave no id")
    return int(made[0])


def _many(connection: Connection, table: Table, rows: Iterable[_Row]) -> None:
    if listed := list(rows):
        connection.execute(insert(table), listed)
