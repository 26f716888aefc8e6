from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.emulator import qmp
from deploy.errors import DeviceError


class Monitor:
    """A server that speaks QMP over a real socket; ``answers`` maps a command to its messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, list[Any]] = {"qmp_capabilities": [{"return": {}}]}
        self.asked: list[dict[str, Any]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        folder = os.open(path.parent, os.O_PATH)
        self._listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        link, _ = self._listener.accept()
        with link, link.makefile("rwb") as stream:
            stream.write(b'{"QMP": {"version": {}}}\n')
            stream.flush()
            for line in stream:
                request = json.loads(line)
                self.asked.append(request)
                for message in self.answers[request["execute"]]:
                    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
                    stream.write(raw + b"\n")
                stream.flush()
                if not self.answers[request["execute"]]:
                    return

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    # Longer than the 107 bytes that a socket's path may have.
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    server = Monitor(folder / "qmp.sock")
    yield server
    server.close()


def test_an_answer_is_found_among_events(monitor: Monitor) -> None:
    monitor.answers["query-status"] = [{"event": "STOP"}, {"return": {"running": True}}]
    assert qmp.execute(monitor.path, "query-status") == {"running": True}


def test_arguments_are_sent(monitor: Monitor) -> None:
    monitor.answers["human-monitor-command"] = [{"return": "text"}]
    qmp.execute(monitor.path, "human-monitor-command", {"command-line": "info"})
    assert monitor.asked[-1]["arguments"] == {"command-line": "info"}


def test_a_refusal_carries_qemus_reason(monitor: Monitor) -> None:
    monitor.answers["nonsense"] = [{"error": {"class": "CommandNotFound", "desc": "no such"}}]
    with pytest.raises(DeviceError, match="refuses nonsense: no such"):
        qmp.execute(monitor.path, "nonsense")


@pytest.mark.parametrize("answer", [[], [b"not json"]])
def test_an_end_or_garbage_is_an_error(monitor: Monitor, answer: list[Any]) -> None:
    monitor.answers["query-status"] = answer
    with pytest.raises(DeviceError, match="monitor does not answer"):
        qmp.execute(monitor.path, "query-status")


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="monitor does not answer"):
        qmp.execute(tmp_path / "qmp.sock", "quit")
