"""A real PostgreSQL from the distribution's package, for tests and benchmarks, while they last."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASSWORD = "p@ss:w/rd%"
QUOTED = "p%40ss%3Aw%2Frd%25"

QUICK = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "20"}
"""Settings for tests: small, and nothing survives a power cut."""


class AbsentError(Exception):
    """There can be no server here; the text says why."""


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


def _user() -> str | None:
    """Who the server runs as: it refuses to be root. None: whoever asks."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    for name in ("postgres", "nobody"):
        if name in names:
            return name
    raise AbsentError("PostgreSQL refuses root, and there is no user postgres or nobody")


@contextlib.contextmanager
def started(settings: Mapping[str, str] = QUICK) -> Iterator[Server]:
    """A server with no database of ours in it.

    Raises:
        AbsentError: there can be none here.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise AbsentError("psycopg is not installed")
    programs = _programs()
    if programs is None:
        raise AbsentError("PostgreSQL's server is not installed")
    user = _user()
    # Folders of a test are closed to other users, and too long for a Unix socket.
    folder = Path(tempfile.mkdtemp(prefix="ps-"))
    process = None
    try:
        (folder / "password").write_text(PASSWORD)
        for path in (folder, folder / "password"):
            if user:
                shutil.chown(path, user)
        there: dict[str, Any] = {
            "user": user,
            "group": pwd.getpwnam(user).pw_gid if user else None,
            "extra_groups": [] if user else None,
            "cwd": folder,
            "env": {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
        }
        data = folder / "data"
        subprocess.run(
            [
                *(programs / "initdb", "-D", data, "-U", "owner", "--auth=scram-sha-256"),
                *("--pwfile", folder / "password", "-E", "UTF8", "--no-sync", "--no-instructions"),
            ],
            check=True,
            capture_output=True,
            **there,
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        places = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": str(folder),
        }
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data]
                + [f"--{name}={value}" for name, value in {**settings, **places}.items()],
                stdout=log,
                stderr=log,
                **there,
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
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
