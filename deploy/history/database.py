"""One history database: opened, brought up to date, read and written in whole transactions.

SQLite keeps its rollback journal rather than a write-ahead log: a history is written once a run for
some milliseconds, so readers hardly ever wait; in return it stays one file, which can be copied,
kept by a CI's cache, and read from a medium that cannot be written. Writers take turns: SQLite by
``BEGIN IMMEDIATE``, PostgreSQL by an advisory lock, so that none fails half-way because of another.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from deploy.errors import ConfigError, first_line
from deploy.history import migrations
from deploy.history.address import Address
from deploy.history.tables import REVISION, VERSION_TABLE

WAIT_S = 30
"""How long a writer waits for its turn."""

_CONNECT_S = 10
# Any number that no other program uses for its own lock in the same database.
_LOCK = 0x706F636B65747368


@dataclass(frozen=True)
class Database:
    """A history that can be read and written.

    ``shown`` names it to people, ``secret`` is what must never be shown. ``file`` is SQLite's.
    """

    engine: Engine
    shown: str
    file: Path | None = None
    secret: str = field(default="", repr=False)
    wait_s: float = WAIT_S

    @property
    def is_postgres(self) -> bool:
        """Whether it is a PostgreSQL, else it is SQLite."""
        return self.file is None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the history, and changes nothing."""
        with self._explained():
            if self.file is not None and not self.file.exists():
                raise self._empty()
            with self.engine.connect() as connection:
                if self.is_postgres:
                    connection.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                stands = self._revision(connection)
                if stands == REVISION:
                    yield connection
                    return
            if stands is None:
                raise self._empty()
            # An older one: brought up to date as a writer would, then read.
            with self.writing() as connection:
                yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is kept as a whole when the block ends, else not at all.

        Makes the tables, or brings them up to date, first.
        """
        with self._explained():
            engine = self.engine.execution_options(pocketship_writes=True)
            with engine.connect() as connection, connection.begin():
                if self.is_postgres:
                    milliseconds = int(self.wait_s * 1000)
                    connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
                    connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
                if self._revision(connection) != REVISION:
                    migrations.upgrade(connection)
                yield connection

    def _empty(self) -> ConfigError:
        return ConfigError(
            "there is no history yet",
            where=self.shown,
            hint="`pocketship run` begins one; `pocketship history import` takes older reports.",
        )

    def _revision(self, connection: Connection) -> str | None:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        stands = context.get_current_revision()
        if stands is not None and stands != REVISION and stands not in migrations.known():
            raise ConfigError(
                f"was made by a newer pocketship (revision {stands[:40]}; this one knows "
                f"{REVISION})",
                where=self.shown,
                hint="Upgrade pocketship here, or use another history.",
            )
        return stands

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise self._error(error) from None
        except sqlite3.Error as error:
            raise self._sqlite_error(str(error)) from None

    def _error(self, error: SQLAlchemyError) -> ConfigError:
        cause = error.orig if isinstance(error, DBAPIError) else None
        said = first_line(cause or error)
        if self.secret:
            said = said.replace(self.secret, "***")
        if not self.is_postgres:
            return self._sqlite_error(said)
        return self._postgres_error(said, getattr(cause, "sqlstate", None))

    def _sqlite_error(self, said: str) -> ConfigError:
        for part, (what, hint) in _SQLITE.items():
            if part in said:
                waited = what.format(wait=self.wait_s)
                return ConfigError(waited, where=self.shown, hint=hint)
        return ConfigError(f"the history cannot be used: {said}", where=self.shown)

    def _postgres_error(self, said: str, state: str | None) -> ConfigError:
        for prefix, (what, hint) in _POSTGRES.items():
            if (state or "").startswith(prefix):
                waited = what.format(wait=self.wait_s)
                return ConfigError(f"{waited} ({said})", where=self.shown, hint=hint)
        if state is None:
            hint = "Is the server running, and are host, port, user and password right?"
            return ConfigError(f"cannot be reached ({said})", where=self.shown, hint=hint)
        return ConfigError(f"the history cannot be used: {said}", where=self.shown)


_DAMAGED = (
    "is damaged, or no SQLite database",
    "Move it away and restore a copy, or fill a new one from the reports: "
    "pocketship history import REPORTS.",
)
_CLOSED = ("cannot be written", "Choose a place where you may write, or `history: none`.")

_SQLITE = {
    "database is locked": (
        "is locked by another program (waited {wait:g} s)",
        "Close what has it open for writing and add the run with: pocketship history import RUN.",
    ),
    "readonly database": _CLOSED,
    "unable to open": ("cannot be opened or made", _CLOSED[1]),
    "not a database": _DAMAGED,
    "malformed": _DAMAGED,
    "disk I/O error": ("cannot be read or written: disk I/O error", "Look at the disk."),
    "is full": ("cannot be written: no space is left", "Make room on the disk."),
}

_POSTGRES = {
    "55P03": ("is locked by another program (waited {wait:g} s)", "Try again later."),
    "42501": ("the user has too few rights", "Grant CREATE on the schema, or use another user."),
    "25006": ("is a server that only reads", "Use the primary server's address."),
    "53": ("the server has no room", "Free disk space or connections there."),
    "57": ("the server is shutting down or ended the connection", "Try again."),
}


def connect(address: Address, *, wait_s: float = WAIT_S) -> Database:
    """The history at ``address``; nothing is opened or made before it is read or written.

    A writer waits ``wait_s`` seconds for its turn.

    Raises:
        ConfigError: PostgreSQL is asked for and its driver is not installed.
    """
    if address.file is not None:
        return Database(_sqlite(address.file, wait_s), address.shown, address.file, wait_s=wait_s)
    url = address.url
    if url is None:
        raise ValueError("an address without a place")
    secrets = [str(url.password or ""), str(url.query.get("password", ""))]
    try:
        engine = create_engine(
            url,
            poolclass=NullPool,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            connect_args={"connect_timeout": _CONNECT_S, "application_name": "pocketship"},
        )
    except ModuleNotFoundError:
        raise ConfigError(
            "the driver of PostgreSQL is not installed",
            where=address.shown,
            hint="Install it: pip install 'pocketship[postgres]'.",
        ) from None
    return Database(engine, address.shown, secret=max(secrets, key=len), wait_s=wait_s)


def _sqlite(file: Path, wait_s: float) -> Engine:
    path = file.absolute()

    def opened() -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rwc",
            uri=True,
            timeout=wait_s,
            # Else Python begins transactions by itself, and none before a CREATE TABLE.
            isolation_level=None,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("pocketship_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
