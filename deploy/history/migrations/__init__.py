"""How the tables came to be, step by step, for Alembic; :func:`upgrade` applies what is missing."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

_HERE = Path(__file__).resolve().parent


def _config() -> Config:
    config = Config()
    # Alembic reads settings with interpolation: a per cent sign in a path must be doubled.
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    return config


def known() -> set[str]:
    """Names of all revisions that this pocketship can come from or go to."""
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables to ``revision``, within the transaction that ``connection`` is in."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
