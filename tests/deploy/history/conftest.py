"""A SQLite file, and a database in a real PostgreSQL that lives as long as the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.history import address, database
from deploy.history.address import Address
from deploy.history.database import Database
from tests.deploy.history import postgres_server
from tests.deploy.history.postgres_server import Server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    try:
        with postgres_server.started() as server:
            yield server
    except postgres_server.AbsentError as absent:
        pytest.skip(str(absent))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Address:
    """Where an empty history of each kind can be."""
    if request.param == "sqlite":
        return address.parse(str(tmp_path / "history it's.sqlite"))
    server: Server = request.getfixturevalue("postgres")
    return address.parse(server.url(server.new()))


@pytest.fixture
def history(place: Address) -> Database:
    return database.connect(place)


@pytest.fixture
def file(tmp_path: Path) -> Database:
    """A SQLite history by itself, for what does not depend on the kind."""
    return database.connect(address.parse(str(tmp_path / "history.sqlite")))
