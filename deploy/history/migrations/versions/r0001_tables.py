"""The tables of the first release.

They are written out here, and not taken from :mod:`deploy.history.tables`, because those go on.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _id() -> sa.Column[int]:
    return sa.Column("id", _ID, primary_key=True, autoincrement=True)


def _of(name: str, target: str, *, key: bool = False) -> sa.Column[int]:
    place = sa.ForeignKey(f"{target}.id", ondelete="CASCADE")
    return sa.Column(name, _ID, place, nullable=False, primary_key=key, autoincrement=False)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def _hash(name: str, *, unique: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), nullable=False, unique=unique or None)


def _time(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(20), nullable=False)


def _integer(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _floats(*names: str) -> list[sa.Column[float]]:
    return [sa.Column(name, sa.Float) for name in names]


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "history_run",
        *(_id(), _hash("key", unique=True), _hash("content_sha256", unique=True)),
        *_texts("pipeline", "run_id"),
        *(_time("created_utc"), _time("added_utc")),
        *_texts("commit_id", "branch", "seed", "pocketship_version", "outcome"),
        _integer("exit_code"),
    )
    op.create_index("history_run_created", "history_run", ["created_utc"])
    op.create_index("history_run_run_id", "history_run", ["run_id"])
    op.create_table(
        "history_device",
        *(_id(), _hash("device_sha256")),
        *_texts("profile", "tier", "os_build", "model", "soc"),
        sa.UniqueConstraint(
            "device_sha256", "profile", "tier", "os_build", name="history_device_identity"
        ),
    )
    op.create_table(
        "history_series",
        *(_id(), _of("device_id", "history_device")),
        *_texts("pipeline", "artifact", "variant", "runtime"),
        _integer("threads"),
        *_texts("metric", "tier", "unit"),
        sa.UniqueConstraint(
            *("device_id", "pipeline", "artifact", "runtime", "threads", "metric", "tier", "unit"),
            name="history_series_identity",
        ),
    )
    op.create_table(
        "history_artifact",
        *(_id(), _of("run_id", "history_run")),
        *_texts("name", "variant", "runtime"),
        *(_hash("sha256"), _hash("recipe_sha256")),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("partitions", sa.Integer),
        *_floats("delegated_share"),
    )
    op.create_index("history_artifact_run", "history_artifact", ["run_id"])
    op.create_table(
        "history_case",
        *(_id(), _of("run_id", "history_run"), _of("device_id", "history_device")),
        *_texts("name", "artifact"),
        *(_hash("artifact_sha256"), _hash("recipe_sha256"), _integer("threads")),
        *_texts("status", "reason", "runtime_version"),
        sa.Column("wall_seconds", sa.Float, nullable=False),
        _integer("attempts"),
    )
    op.create_index("history_case_run", "history_case", ["run_id"])
    op.create_index("history_case_artifact", "history_case", ["device_id", "artifact", "threads"])
    op.create_table(
        "history_figure",
        *(_id(), _of("case_id", "history_case"), _of("series_id", "history_series")),
        _time("created_utc"),
        *_texts("branch", "status", "reason", "source"),
        _integer("n"),
        *_floats("median", "mad", "mean", "p90", "min", "max", "low", "high"),
    )
    for name, columns in {
        "case": ["case_id"],
        "created": ["created_utc", "id"],
        "series": ["series_id", "created_utc", "id"],
        "branch_created": ["branch", "created_utc", "id"],
        "series_branch": ["series_id", "branch", "created_utc", "id"],
    }.items():
        op.create_index(f"history_figure_{name}", "history_figure", columns)
    op.create_table(
        "history_samples",
        _of("case_id", "history_case", key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "history_verdict",
        *(_id(), _of("run_id", "history_run"), _integer("position")),
        *_texts("outcome", "subject", "metric", "tier"),
        *_floats("value", "limit_value", "base_value"),
        *_texts("source", "reason", "accepted", "paired"),
    )
    op.create_index("history_verdict_run", "history_verdict", ["run_id"])
