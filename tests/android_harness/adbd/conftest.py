"""One native daemon for the session, and what is needed to talk to it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.android_harness.adbd.daemon import Daemon, build
from tests.android_harness.adbd.wire import Wire, android_public_key

SANITIZE = "POCKETSHIP_ADBD_SANITIZE"
"""Set to 1 to run all of these tests on a daemon with the address and undefined sanitizers."""


@pytest.fixture(scope="session")
def adbd_builder(request: pytest.FixtureRequest) -> Callable[[bool], Path]:
    """Builds the program, with sanitizers or without; pytest's cache keeps the objects."""

    def built(sanitize: bool) -> Path:
        cache = request.config.cache
        return build(cache.mkdir(f"adbd-{'sanitize' if sanitize else 'native'}"), sanitize=sanitize)

    return built


@pytest.fixture(scope="session")
def adbd_program(adbd_builder: Callable[[bool], Path]) -> Path:
    """The native daemon."""
    return adbd_builder(os.environ.get(SANITIZE) == "1")


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    """The key that the daemon knows."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def write_key(tmp_path_factory: pytest.TempPathFactory) -> Callable[[rsa.RSAPrivateKey], Path]:
    """Makes a home folder in which a key is adb's own; returns the private key's path."""

    def written(key: rsa.RSAPrivateKey) -> Path:
        path = tmp_path_factory.mktemp("home") / ".android" / "adbkey"
        path.parent.mkdir()
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        path.with_suffix(".pub").write_text(android_public_key(key.public_key()))
        return path

    return written


@pytest.fixture(scope="session")
def key_file(key: rsa.RSAPrivateKey, write_key: Callable[[rsa.RSAPrivateKey], Path]) -> Path:
    """``key`` in a home folder of its own."""
    return write_key(key)


@pytest.fixture(scope="session")
def start_daemon(
    adbd_program: Path, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons that know ``key``; each must still live and end cleanly on SIGTERM."""
    started: list[Daemon] = []

    def start(*arguments: str | Path, port: int = 0, keys: Path | None = None) -> Daemon:
        known = ("--authorized-keys", keys or key_file.with_suffix(".pub"))
        daemon = Daemon(
            adbd_program, tmp_path_factory.mktemp("adbd"), [*known, *arguments], port=port
        )
        started.append(daemon)
        return daemon

    yield start
    for daemon in started:
        if daemon.process.returncode is None:
            assert daemon.process.poll() is None, f"the daemon died: {daemon.log()}"
            assert daemon.stop() == 0, daemon.log()


@pytest.fixture(scope="session")
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    """The daemon that most tests share."""
    return start_daemon()


@pytest.fixture
def wire(daemon: Daemon, key: rsa.RSAPrivateKey) -> Iterator[Wire]:
    """An authorised connection by hand."""
    with Wire(daemon.port, key) as connection:
        yield connection


class GoogleAdb:
    """Google's adb client with a server, a home and a key of its own."""

    def __init__(self, key_file: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._home = key_file.parent.parent

    def environment(self) -> dict[str, str]:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("ADB_", "ANDROID_"))}
        return keep | {"HOME": str(self._home), "ANDROID_ADB_SERVER_PORT": str(self._port)}

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run ``adb words`` to its end."""
        options = {"stdin": subprocess.DEVNULL} | options if "input" not in options else options
        return subprocess.run(
            ["adb", *words], capture_output=True, env=self.environment(), timeout=120, **options
        )

    def popen(self, words: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        """Start ``adb words``."""
        return subprocess.Popen(["adb", *words], env=self.environment(), **options)

    def connect(self, daemon: Daemon) -> Device:
        """Connect to ``daemon``, which must let us in."""
        said = self("connect", daemon.serial).stdout.decode()
        assert "connected to" in said, said
        return Device(self, daemon)


class Device:
    """Google's adb, aimed at one daemon."""

    def __init__(self, adb: GoogleAdb, daemon: Daemon):
        self.adb = adb
        self.daemon = daemon

    def __call__(self, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
        return self.adb("-s", self.daemon.serial, *words, **options)

    def popen(self, *words: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        return self.adb.popen(["-s", self.daemon.serial, *words], **options)


@pytest.fixture(scope="session")
def make_adb() -> Iterator[Callable[[Path], GoogleAdb]]:
    """Makes a Google adb that uses a given key; its server ends with the session."""
    if shutil.which("adb") is None:
        pytest.skip("Google's adb is not installed")
    made: list[GoogleAdb] = []

    def make(key_file: Path) -> GoogleAdb:
        made.append(GoogleAdb(key_file))
        return made[-1]

    yield make
    for adb in made:
        adb("kill-server")


@pytest.fixture(scope="session")
def google_adb(make_adb: Callable[[Path], GoogleAdb], key_file: Path) -> GoogleAdb:
    """Google's adb with the key that the daemon knows."""
    return make_adb(key_file)


@pytest.fixture(scope="session")
def device(google_adb: GoogleAdb, daemon: Daemon) -> Device:
    """Google's adb, connected to the shared daemon."""
    return google_adb.connect(daemon)
