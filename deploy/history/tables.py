"""The tables, as SQLAlchemy knows them; ``migrations`` makes them.

::

    run 1──n case 1──n figure n──1 series n──1 device
     │        └──1 samples │
     ├──n artifact 1──n ───┘
     └──n verdict

A figure is of a case, or of a file (:mod:`deploy.history.file_figures`).

A *series* is what may stand on one line of a plot: one metric of one artifact on one device with
one OS build. What changes from point to point (commit, artifact hash, recipe hash, runtime version)
stands with the run and the case. A figure repeats its run's time and branch, because an index that
answers "the newest of this series on this branch" cannot reach over tables.

Text that is unknown is empty and not NULL: NULLs are never equal, so a unique constraint would not
hold over them. Times are UTC as ``2026-11-22T15:37:42Z``, which sorts as text in both databases.
All names have a prefix: a shared PostgreSQL may hold the tables of others.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

REVISION = "0002"
"""The newest revision of ``migrations``, which these tables are."""

VERSION_TABLE = "history_version"

metadata = MetaData()

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _id() -> Column[int]:
    return Column("id", _Id, primary_key=True, autoincrement=True)


def _of(name: str, target: str, *, key: bool = False, optional: bool = False) -> Column[int]:
    place = ForeignKey(f"{target}.id", ondelete="CASCADE")
    return Column(name, _Id, place, nullable=optional, primary_key=key, autoincrement=False)


run = Table(
    "history_run",
    metadata,
    _id(),
    # Of the run folder: its report replaces the one that it had before.
    Column("key", String(64), nullable=False, unique=True),
    # Of the report: the same one is not added twice.
    Column("content_sha256", String(64), nullable=False, unique=True),
    _text("pipeline"),
    _text("run_id"),
    Column("created_utc", String(20), nullable=False),
    Column("added_utc", String(20), nullable=False),
    _text("commit_id"),
    _text("branch"),
    # Of any size, so it is text.
    _text("seed"),
    _text("pocketship_version"),
    _text("outcome"),
    Column("exit_code", Integer, nullable=False),
    Index("history_run_created", "created_utc"),
    Index("history_run_run_id", "run_id"),
)

device = Table(
    "history_device",
    metadata,
    _id(),
    Column("device_sha256", String(64), nullable=False),
    _text("profile"),
    _text("tier"),
    _text("os_build"),
    _text("model"),
    _text("soc"),
    UniqueConstraint(
        "device_sha256", "profile", "tier", "os_build", name="history_device_identity"
    ),
)

series = Table(
    "history_series",
    metadata,
    _id(),
    _of("device_id", "history_device"),
    _text("pipeline"),
    _text("artifact"),
    _text("variant"),
    _text("runtime"),
    Column("threads", Integer, nullable=False),
    _text("metric"),
    # Of the figure: an estimate can be made of a real device, too.
    _text("tier"),
    _text("unit"),
    UniqueConstraint(
        *("device_id", "pipeline", "artifact", "runtime", "threads", "metric", "tier", "unit"),
        name="history_series_identity",
    ),
)

artifact = Table(
    "history_artifact",
    metadata,
    _id(),
    _of("run_id", "history_run"),
    _text("name"),
    _text("variant"),
    _text("runtime"),
    Column("sha256", String(64), nullable=False),
    Column("recipe_sha256", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("partitions", Integer),
    Column("delegated_share", Float),
    Index("history_artifact_run", "run_id"),
)

case = Table(
    "history_case",
    metadata,
    _id(),
    _of("run_id", "history_run"),
    _of("device_id", "history_device"),
    _text("name"),
    _text("artifact"),
    Column("artifact_sha256", String(64), nullable=False),
    Column("recipe_sha256", String(64), nullable=False),
    Column("threads", Integer, nullable=False),
    _text("status"),
    _text("reason"),
    _text("runtime_version"),
    Column("wall_seconds", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Index("history_case_run", "run_id"),
    Index("history_case_artifact", "device_id", "artifact", "threads"),
)

figure = Table(
    "history_figure",
    metadata,
    _id(),
    # Exactly one of these two.
    _of("case_id", "history_case", optional=True),
    _of("artifact_id", "history_artifact", optional=True),
    _of("series_id", "history_series"),
    Column("created_utc", String(20), nullable=False),
    _text("branch"),
    _text("status"),
    _text("reason"),
    _text("source"),
    Column("n", Integer, nullable=False),
    *(Column(name, Float) for name in ("median", "mad", "mean", "p90", "min", "max")),
    Column("low", Float),
    Column("high", Float),
    CheckConstraint("(case_id IS NULL) <> (artifact_id IS NULL)", name="history_figure_of_one"),
    Index("history_figure_case", "case_id"),
    Index("history_figure_artifact", "artifact_id"),
    Index("history_figure_created", "created_utc", "id"),
    Index("history_figure_branch_created", "branch", "created_utc", "id"),
    Index("history_figure_series", "series_id", "created_utc", "id"),
    Index("history_figure_series_branch", "series_id", "branch", "created_utc", "id"),
)

samples = Table(
    "history_samples",
    metadata,
    _of("case_id", "history_case", key=True),
    Column("data", LargeBinary, nullable=False),
)

verdict = Table(
    "history_verdict",
    metadata,
    _id(),
    _of("run_id", "history_run"),
    Column("position", Integer, nullable=False),
    _text("outcome"),
    _text("subject"),
    _text("metric"),
    _text("tier"),
    Column("value", Float),
    Column("limit_value", Float),
    Column("base_value", Float),
    _text("source"),
    _text("reason"),
    _text("accepted"),
    _text("paired"),
    Index("history_verdict_run", "run_id"),
)
