"""A SQLite file, and a database in a real PostgreSQL that lives as long as the tests."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.history import address, database
from deploy.history.address import Address
from deploy.history.database import Database

PASSWORD = "p@ss:w/rd%"
QUOTED = "p%40ss%3Aw%2Frd%25"


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL on 127.0.0.1 and its Unix socket; ``owner`` may do everything."""

    port: int
    sockets: Path

    def url(self, name: str, user: str = "owner", password: str = QUOTED) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str, name: str = "postgres") -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="owner",
            password=PASSWORD,
            dbname=name,
            autocommit=True,
        ) as connection:
            connection.execute(statement.encode())

    def new(self) -> str:
        name = f"h{secrets.token_hex(4)}"
        self.run(f"CREATE DATABASE {name}")
        return name


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    there = shutil.which("postgres")
    return Path(there).parent if there else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed")
    # It refuses to run as root.
    user = None
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = next((name for name in ("postgres", "nobody") if name in names), None)
        if user is None:
            pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody")
    # pytest's own folders are closed to other users, and too long for a Unix socket.
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    process = None
    try:
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if user:
                shutil.chown(path, user)
        group = pwd.getpwnam(user).pw_gid if user else None
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        data = folder / "data"
        subprocess.run(
            [
                *(programs / "initdb", "-D", data, "-U", "owner", "--auth=scram-sha-256"),
                *("--pwfile", folder / "password", "-E", "UTF8", "--no-sync", "--no-instructions"),
            ],
            user=user,
            group=group,
            extra_groups=[] if user else None,
            check=True,
            capture_output=True,
            cwd=folder,
            env=environment,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "20",
        }
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data]
                + [f"--{name}={value}" for name, value in settings.items()],
                user=user,
                group=group,
                extra_groups=[] if user else None,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=environment,
            )
        server = Server(port, folder)
        _await(server, process, folder / "log")
        yield server
    finally:
        if process is not None:
            # At once: its folder is removed in any case.
            process.send_signal(signal.SIGQUIT)
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _await(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    import psycopg

    for _ in range(600):
        try:
            server.run("SELECT 1")
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
    pytest.fail(f"PostgreSQL did not start:\n{log.read_text()}")


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
