"""Locks: one at a time, who holds it, and nothing left by a process that was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.devices import locks
from deploy.devices.adb_link import NotReady
from tests.deploy.conftest import environment

HOLD = """
import sys
from deploy.devices import locks
with locks.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path))
    return tmp_path / "locks"


@pytest.fixture
def other(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of ``phone``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, "phone", "--an option"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_who_holds_it_is_said_and_a_killed_holder_holds_nothing(
    other: subprocess.Popen[str], cache: Path
) -> None:
    says = rf"^192\.168\.0\.7:5: in use by process {other.pid} "
    with pytest.raises(NotReady, match=says) as no, locks.held("phone", serial="192.168.0.7:5"):
        raise AssertionError
    assert no.value.state == "busy"
    assert "'--an option'" in str(no.value)
    found = locks.holder("phone")
    assert found is not None
    assert found.pid == other.pid
    with locks.held("another phone"):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert locks.holder("phone") is None
    with locks.held("phone"):
        pass
    assert list(cache.iterdir()) == [], "locks are removed when they are given back"


def test_waiting_ends_when_the_holder_does(other: subprocess.Popen[str]) -> None:
    told: list[str] = []

    def progress(line: str) -> None:
        told.append(line)
        other.kill()

    with locks.held("phone", wait_s=60, progress=progress):
        pass
    assert len(told) == 1
    assert told[0].startswith(f"phone: waiting up to 60 s for process {other.pid} ")


def test_also_within_one_process_and_never_two_at_once() -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(10):
            with locks.held("phone", wait_s=60):
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "\0", "x" * 9000, "ü\udc80", ""])
def test_a_hostile_name_is_no_path(name: str, cache: Path) -> None:
    with locks.held(name):
        (file,) = cache.iterdir()
        assert file.parent == cache
        assert len(file.name) == 37


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"pid": "x"}', b"\xff" * 9000])
def test_a_note_that_cannot_be_read_is_another_pocketship(note: bytes, cache: Path) -> None:
    with locks.held("phone"):
        (file,) = cache.iterdir()
        file.write_bytes(note)
        assert str(locks.holder("phone")) == "another pocketship"
