"""A figure can be of a file instead of a case: bytes and partitions become series.

The files of the runs that are there already get theirs from what was kept of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_RULE = "(case_id IS NULL) <> (artifact_id IS NULL)"


def upgrade() -> None:
    """Let a figure belong to an artifact; add those of the artifacts that are there."""
    # SQLite cannot change a column: Alembic copies the table there, with its indices.
    with op.batch_alter_table("history_figure") as figure:
        figure.alter_column("case_id", existing_type=_ID, existing_nullable=False, nullable=True)
        figure.add_column(sa.Column("artifact_id", _ID, nullable=True))
        figure.create_foreign_key(
            "history_figure_artifact_fkey",
            "history_artifact",
            ["artifact_id"],
            ["id"],
            ondelete="CASCADE",
        )
        figure.create_check_constraint("history_figure_of_one", _RULE)
    op.create_index("history_figure_artifact", "history_figure", ["artifact_id"])
    connection = op.get_bind()
    if connection.scalar(sa.text("SELECT count(*) FROM history_artifact")):
        for statement in (_DEVICE, *_both(_SERIES), *_both(_FIGURES)):
            connection.execute(sa.text(statement))


def _both(statement: str) -> tuple[str, str]:
    return statement.format(metric="bytes", unit="bytes"), statement.format(
        metric="partitions", unit=""
    )


# Files are of no device: one without a name stands for that.
_OF_FILES = "d.device_sha256 = '' AND d.profile = '' AND d.tier = 'host' AND d.os_build = ''"

_DEVICE = f"""
INSERT INTO history_device (device_sha256, profile, tier, os_build, model, soc)
SELECT '', '', 'host', '', '', ''
WHERE NOT EXISTS (SELECT 1 FROM history_device d WHERE {_OF_FILES})
"""

_SERIES = f"""
INSERT INTO history_series
    (device_id, pipeline, artifact, variant, runtime, threads, metric, tier, unit)
SELECT d.id, r.pipeline, a.name, max(a.variant), a.runtime, 0, '{{metric}}', 'host', '{{unit}}'
FROM history_artifact a
JOIN history_run r ON r.id = a.run_id
JOIN history_device d ON {_OF_FILES}
GROUP BY d.id, r.pipeline, a.name, a.runtime
"""

_FIGURES = f"""
INSERT INTO history_figure
    (artifact_id, series_id, created_utc, branch, status, reason, source, n,
     median, mad, mean, p90, min, max)
SELECT a.id, s.id, r.created_utc, r.branch,
    CASE WHEN a.{{metric}} IS NULL THEN 'unavailable' ELSE 'ok' END,
    CASE WHEN a.{{metric}} IS NULL THEN 'nobody noted why when the run was added' ELSE '' END,
    'the exported file',
    CASE WHEN a.{{metric}} IS NULL THEN 0 ELSE 1 END,
    a.{{metric}}, CASE WHEN a.{{metric}} IS NULL THEN NULL ELSE 0 END,
    a.{{metric}}, a.{{metric}}, a.{{metric}}, a.{{metric}}
FROM history_artifact a
JOIN history_run r ON r.id = a.run_id
JOIN history_device d ON {_OF_FILES}
JOIN history_series s ON s.device_id = d.id AND s.pipeline = r.pipeline AND s.artifact = a.name
    AND s.runtime = a.runtime AND s.threads = 0 AND s.metric = '{{metric}}'
ORDER BY r.created_utc, a.id
"""
