"""Removing what is no longer wanted; nothing is ever removed by itself."""

from __future__ import annotations

from sqlalchemy import delete, func, select

from deploy.history import identity, tables
from deploy.history.database import Database


def prune(
    database: Database, before: str, *, branch: str | None = None, dry_run: bool = False
) -> int:
    """Remove the runs begun before a time, with all that belongs to them; returns how many.

    Raises:
        ConfigError: ``before`` is no time, or the history cannot be written.
    """
    run, series, figure = tables.run, tables.series, tables.figure
    where = [run.c.created_utc < identity.sortable(before)]
    if branch is not None:
        where.append(run.c.branch == branch)
    if dry_run:
        with database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(run).where(*where)) or 0
    # A history that is not there has nothing to remove, and shall not be made for that.
    with database.reading():
        pass
    with database.writing() as connection:
        removed = connection.execute(delete(run).where(*where)).rowcount
        used = select(figure.c.series_id).where(figure.c.series_id == series.c.id)
        connection.execute(delete(series).where(~used.exists()))
        return removed
