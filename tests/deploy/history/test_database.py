"""Databases that cannot be used: one line each, on the real thing, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.errors import ConfigError
from deploy.history import address, database, query, record, retention, tables
from deploy.history.database import Database
from deploy.history.query import Filter
from tests.deploy.history import made_reports as made
from tests.deploy.history.postgres_server import PASSWORD, QUOTED, Server

FORK = multiprocessing.get_context("fork")


def medians(history: Database) -> list[float | None]:
    with history.reading() as connection:
        return [row.median for row in query.newest(connection, Filter(metric="latency_ms"), None)]


def refused(history: Database, number: int = 9) -> str:
    """The one line that adding a report ends in."""
    with pytest.raises(ConfigError) as caught:
        record.add(history, made.report(number))
    line = str(caught.value)
    assert "\n" not in line
    assert PASSWORD not in line
    assert QUOTED not in line
    return line


# --- SQLite ---------------------------------------------------------------------------------------


def test_nothing_is_made_by_looking(file: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no history yet"):
        medians(file)
    with pytest.raises(ConfigError, match="there is no history yet"):
        retention.prune(file, "2030-01-01")
    assert list(tmp_path.iterdir()) == []


def test_a_locked_file_is_waited_for_and_then_told(tmp_path: Path) -> None:
    place = address.parse(str(tmp_path / "history.sqlite"))
    history = database.connect(place, wait_s=0.05)
    record.add(history, made.report(1))
    other = sqlite3.connect(tmp_path / "history.sqlite", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        assert "history.sqlite: is locked by another program (waited 0.05 s)" in refused(history)
        # Who only looks does not wait for a writer.
        assert medians(history) == [11.0]
    finally:
        other.close()
    assert record.add(history, made.report(9)) == "added"


@pytest.mark.parametrize("what", ["text", "cut", "zeros inside", "a folder"])
def test_a_damaged_file_is_told_and_not_touched(tmp_path: Path, what: str) -> None:
    path = tmp_path / "history.sqlite"
    history = database.connect(address.parse(str(path)))
    for number in range(3):
        record.add(history, made.report(number))
    whole = path.read_bytes()
    if what == "text":
        path.write_bytes(b"These are not the pages of a database. " * 500)
    elif what == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif what == "zeros inside":
        path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    else:
        path.unlink()
        path.mkdir()
    before = path.read_bytes() if path.is_file() else None
    expected = "cannot be opened" if what == "a folder" else "is damaged, or no SQLite database"
    assert expected in refused(history)
    if before is not None:
        assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_and_a_number_that_cannot_be_kept(
    file: Database, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    below = database.connect(address.parse(str(tmp_path / "file/history.sqlite")))
    assert "its folder cannot be made: File exists" in refused(below)
    huge = made.artifact(bytes=1 << 70)
    with pytest.raises(ConfigError, match="a number is too large to be stored"):
        record.add(file, made.report(1, artifacts=(huge,)))
    assert record.add(file, made.report(1, seed=1 << 70)) == "added"


def test_somebody_elses_sqlite_file_keeps_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE run (mine TEXT)")
        other.execute("INSERT INTO run VALUES ('kept')")
    history = database.connect(address.parse(str(path)))
    with pytest.raises(ConfigError, match="there is no history yet"):
        medians(history)
    record.add(history, made.report(1))
    assert medians(history) == [11.0]
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT mine FROM run").fetchall() == [("kept",)]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can come to, which pytest's are not."""
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_file_that_may_only_be_read(open_folder: Path) -> None:
    """As another user where the tests run as root, whom no permission stops."""
    path = open_folder / "history.sqlite"
    history = database.connect(address.parse(str(path)))
    record.add(history, made.report(1))
    path.chmod(0o444)
    open_folder.chmod(0o555)
    heard, say = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_try_to_write, args=(path, say))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert heard.recv() == ([11.0], f"{path}: cannot be written. {database._CLOSED[1]}")


def _try_to_write(path: Path, say: Any) -> None:
    """Send the figures that are read, and the one line that writing ends in."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    history = database.connect(address.parse(str(path)), wait_s=0.05)
    found = medians(history)
    try:
        record.add(history, made.report(2))
    except ConfigError as error:
        say.send((found, str(error)))


# --- PostgreSQL -----------------------------------------------------------------------------------


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"postgresql://me:{QUOTED}@127.0.0.1:{port}/history"
        line = refused(database.connect(address.parse(url)))
    assert line.startswith(f"postgresql://me@127.0.0.1:{port}/history: cannot be reached")
    assert "Connection refused" in line


def test_a_wrong_password_and_a_wrong_name(postgres: Server) -> None:
    wrong = database.connect(address.parse(postgres.url("postgres", password="not-it-4711")))
    line = refused(wrong)
    assert 'password authentication failed for user "owner"' in line
    assert "not-it-4711" not in line
    nowhere = database.connect(address.parse(postgres.url("nowhere")))
    assert 'database "nowhere" does not exist' in refused(nowhere)


def test_a_password_stays_out_of_everything(postgres: Server) -> None:
    history = database.connect(address.parse(postgres.url(postgres.new())))
    for shown in (history.shown, str(history.engine.url), repr(history.engine)):
        assert PASSWORD not in shown
        assert QUOTED not in shown
    assert history.shown.startswith("postgresql://owner@127.0.0.1:")
    assert PASSWORD not in repr(history)


def test_a_user_without_rights_and_a_server_that_only_reads(postgres: Server) -> None:
    name = postgres.new()
    postgres.run("DROP ROLE IF EXISTS guest")
    postgres.run("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    guest = database.connect(address.parse(postgres.url(name, "guest", "guest")))
    assert "the user has too few rights" in refused(guest)
    owner = database.connect(address.parse(postgres.url(name)))
    record.add(owner, made.report(1))
    postgres.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "is a server that only reads" in refused(owner)
    assert medians(owner) == [11.0]


def test_a_writer_that_never_ends_is_told(postgres: Server) -> None:
    place = address.parse(postgres.url(postgres.new()))
    record.add(database.connect(place), made.report(1))
    impatient = database.connect(place, wait_s=0.05)
    with database.connect(place).writing():
        assert "is locked by another program (waited 0.05 s)" in refused(impatient)
        assert medians(impatient) == [11.0]
    assert record.add(impatient, made.report(9)) == "added"


def test_other_tables_of_the_same_names_are_left_alone(postgres: Server) -> None:
    name = postgres.new()
    postgres.run("CREATE TABLE run (id int); CREATE TABLE alembic_version (version_num text)", name)
    history = database.connect(address.parse(postgres.url(name)))
    record.add(history, made.report(1))
    assert medians(history) == [11.0]
    assert all(table.name.startswith("history_") for table in tables.metadata.sorted_tables)


def test_a_socket_in_a_folder_is_an_address_too(postgres: Server) -> None:
    name = postgres.new()
    url = f"postgres://owner:{QUOTED}@/{name}?host={postgres.sockets}&port={postgres.port}"
    history = database.connect(address.parse(url))
    record.add(history, made.report(1))
    assert medians(history) == [11.0]


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'pocketship\[postgres\]'"):
        database.connect(address.parse("postgresql://me@127.0.0.1/history"))
