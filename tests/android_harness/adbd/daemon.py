"""Builds the native ADB daemon and runs it for tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SOURCES = Path(__file__).parents[3] / "android_harness" / "adbd"
DEADLINE_S = 30.0
"""How long a condition may take that normally holds at once; only a failing test waits so long."""


def _tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    assert found, f"{name} is needed to build the daemon"
    return found


def build(folder: Path, *, sanitize: bool) -> Path:
    """Build the daemon in ``folder`` (again only where sources changed); return the program."""
    configure = [
        *(_tool("cmake"), "-S", SOURCES, "-B", folder, "-G", "Ninja"),
        f"-DCMAKE_MAKE_PROGRAM={_tool('ninja')}",
        "-DCMAKE_BUILD_TYPE=Release",
        f"-DADBD_SANITIZE={'ON' if sanitize else 'OFF'}",
    ]
    for command in (configure, [_tool("cmake"), "--build", folder, "--parallel", "2"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "adbd"


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Return as soon as ``condition`` holds; fail where it does not within the deadline."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


class Daemon:
    """A running daemon on 127.0.0.1."""

    def __init__(self, program: Path, folder: Path, arguments: Sequence[str | Path], port: int = 0):
        self._port_file = folder / f"port-{time.monotonic_ns()}"
        self._log = self._port_file.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "--listen", f"127.0.0.1:{port}", "--port-file", self._port_file]
                + list(arguments),
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        eventually(
            lambda: self._port_file.exists() or self.process.poll() is not None, "it listens"
        )
        assert self.process.poll() is None, self.log()
        self.port = int(self._port_file.read_text())
        self.serial = f"127.0.0.1:{self.port}"

    def log(self) -> str:
        """What it wrote to stderr so far."""
        return self._log.read_text()

    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def children(self) -> list[int]:
        """Its child processes, zombies as well."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def stop(self) -> int:
        """End it by SIGTERM; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
