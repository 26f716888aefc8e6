"""The supervisor with a program that just waits in QEMU's place: what lives and dies with what."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.emulator import machine

WAITING = [sys.executable, "-c", "import time; time.sleep(600)"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def launch(folder: Path, program: list[str]) -> subprocess.Popen[bytes]:
    """What machine.start does to start QEMU."""
    folder.mkdir()
    for name in ("disk.img", "initrd", "console.log"):
        (folder / name).touch()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        return machine._supervise(folder, lock, program)
    finally:
        os.close(lock)


def pids(folder: Path) -> tuple[int, int]:
    until((folder / "pids").exists)
    supervisor, program = map(int, (folder / "pids").read_text().split())
    return supervisor, program


def test_the_end_of_the_thread_that_started_it_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    started: list[subprocess.Popen[bytes]] = []
    thread = threading.Thread(target=lambda: started.append(launch(folder, WAITING)))
    thread.start()
    thread.join()
    supervisor, program = pids(folder)
    # A signal at the thread's end would have been sent before join() returned.
    assert is_alive(supervisor) and is_alive(program)
    assert machine._locked(folder)
    assert started[0].stdin
    started[0].stdin.close()
    started[0].wait()
    assert not is_alive(program)
    assert not folder.exists()


def owner_of_a_phone(folder: Path, *, detach: bool) -> subprocess.Popen[str]:
    """Another process that starts one, says so, and waits."""
    script = f"""
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("here", {__file__!r})
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)
process = here.launch(Path({str(folder)!r}), here.WAITING)
here.pids(Path({str(folder)!r}))
if {detach}:
    process.stdin.write(b"detach\\n")
    process.stdin.flush()
print("up", flush=True)
time.sleep(600)
"""
    root = str(Path(machine.__file__).parents[2])
    owner = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert owner.stdout and owner.stdout.readline() == "up\n"
    return owner


def test_it_dies_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    owner = owner_of_a_phone(folder, detach=False)
    supervisor, program = pids(folder)
    owner.kill()
    owner.wait()
    until(lambda: not is_alive(program) and not is_alive(supervisor))
    assert not folder.exists(), "and leaves nothing"


def test_detached_it_lives_on_until_it_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    owner = owner_of_a_phone(folder, detach=True)
    supervisor, program = pids(folder)
    # The supervisor has read "detach" once it waits for its child alone.
    until(lambda: "do_wait" in wait_channel(supervisor))
    owner.kill()
    owner.wait()
    assert is_alive(program) and machine._locked(folder)
    os.kill(supervisor, signal.SIGTERM)
    until(lambda: not is_alive(program) and not is_alive(supervisor))
    assert not folder.exists()


def wait_channel(pid: int) -> str:
    try:
        channel = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return ""
    if channel in ("", "0"):  # not told on this machine: settle for its system call, wait4
        call = Path(f"/proc/{pid}/syscall").read_text().split()[0]
        return "do_wait" if call in ("61", "260") else ""
    return channel


def test_the_program_dies_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    process = launch(folder, WAITING)
    supervisor, program = pids(folder)
    os.kill(supervisor, signal.SIGKILL)
    process.wait()
    until(lambda: not is_alive(program))
    assert not machine._locked(folder)


@pytest.mark.parametrize("stubborn", ["SIGTERM", "stopped"])
def test_a_program_that_does_not_listen_is_killed(tmp_path: Path, stubborn: str) -> None:
    folder = tmp_path / "phone"
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    program_text = deaf + "open('deaf', 'w').close(); time.sleep(600)"
    process = launch(folder, [sys.executable, "-c", program_text])
    _, program = pids(folder)
    until((folder / "deaf").exists)
    if stubborn == "stopped":
        os.kill(program, signal.SIGSTOP)
    process.terminate()
    process.wait()
    assert not is_alive(program)


def test_when_qemu_ends_by_itself_its_logs_stay(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    process = launch(folder, [sys.executable, "-c", "import sys; sys.exit('out of luck')"])
    assert process.wait() == 1
    assert (folder / "qemu.log").read_text() == "out of luck\n"
    assert (folder / "console.log").exists()
    assert not (folder / "disk.img").exists() and not (folder / "initrd").exists()
    assert not machine._locked(folder)


def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    process = launch(folder, ["/nonexistent/qemu"])
    assert process.wait() == 1
    assert "/nonexistent/qemu" in (folder / "qemu.log").read_text()
