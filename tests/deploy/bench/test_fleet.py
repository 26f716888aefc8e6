"""Several devices at once: daemons of our own, each a phone with storage of its own."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import harness
from deploy.bench import fleet
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices import profiles
from deploy.devices.host import HostDevice
from deploy.errors import ConfigError
from deploy.types import Case, Progress, Status, silent
from tests.deploy.bench import fake_runner
from tests.deploy.bench.test_faults import assert_right, wait_until
from tests.deploy.bench.test_session import assert_dead
from tests.deploy.native_adbd import NativeAdbd, running

EXACT = PRESETS["exact"]


@pytest.fixture
def daemons(tmp_path: Path, adb_key: Path) -> Iterator[list[NativeAdbd]]:
    program = harness.adbd(HostDevice().profile.abi)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(running(program, tmp_path / f"adbd{n}", adb_key)) for n in range(3)
        ]


Serve = Callable[[str, fleet.Guard, Progress], None]


def turn(name: str, serve: Serve) -> fleet.Turn:
    return fleet.Turn(profiles.load(name), functools.partial(serve, name))


class Fleet:
    """Three phones by profiles that exist; their runners wait for each other in ``meeting``."""

    PROFILES = ("pixel-8", "galaxy-s23", "xiaomi-13")

    def __init__(self, folder: Path, daemons: list[NativeAdbd]) -> None:
        self.folder = folder
        self.by_name = dict(zip(self.PROFILES, daemons, strict=True))
        self.meeting = folder / "meeting"
        self.meeting.mkdir()
        # A runner goes on only when as many as there are devices have begun their case.
        meets = fake_runner.make(
            folder / "bundle",
            f': >"{self.meeting}/$$"; while [ $(ls "{self.meeting}" | wc -l) -lt 3 ]; '
            "do sleep 0.02; done",
        )
        self.bundles = dict.fromkeys(self.PROFILES, meets)
        self.jobs = [fake_runner.job(folder / "models", number) for number in range(2)]
        self.kept: list[Case] = []
        self.said: list[str] = []

    def serve(self, name: str, guard: fleet.Guard, say: Progress) -> None:
        device = self.by_name[name].connect(self.folder / name, name=name)
        with contextlib.closing(device):
            run_device(
                guard(device),
                self.jobs,
                self.bundles[name],
                EXACT,
                progress=say,
                keep=lambda case, _: self.kept.append(case),
            )

    def run(self) -> None:
        fleet.serve_all([turn(name, self.serve) for name in self.PROFILES], self.said.append)


@pytest.fixture
def three(tmp_path: Path, daemons: list[NativeAdbd]) -> Fleet:
    return Fleet(tmp_path, daemons)


def test_phones_run_side_by_side_and_each_case_ends_once(three: Fleet) -> None:
    three.run()
    assert sorted(case.id for case in three.kept) == sorted(
        f"{job.artifact.name}@{name}/t1" for job in three.jobs for name in three.PROFILES
    )
    for case in three.kept:
        assert (case.status, case.attempts) == (Status.OK, 1), case.reason
        assert_right(case)
    for daemon in three.by_name.values():
        assert any(line.startswith(f"{daemon.serial}: case 2/2") for line in three.said)


def test_a_device_that_fails_leaves_the_others_alone(three: Fleet) -> None:
    three.meeting.joinpath("stands-for-the-absent").touch()

    def serve(name: str, guard: fleet.Guard, say: Progress) -> None:
        if name == "galaxy-s23":
            raise ConfigError("is wrong")
        three.serve(name, guard, say)

    with pytest.raises(ConfigError, match="is wrong"):
        fleet.serve_all([turn(name, serve) for name in three.PROFILES], three.said.append)
    assert [case.status for case in three.kept] == [Status.OK] * 4


def test_ctrl_c_ends_all_and_keeps_what_ended(three: Fleet) -> None:
    """Two phones compute without end, the third one's cases have ended."""
    for absent in ("one", "another"):
        (three.meeting / absent).touch()
    endless = fake_runner.make(three.folder / "endless", "while :; do sleep 0.02; done")
    three.bundles |= {"pixel-8": endless, "galaxy-s23": endless}
    pids: list[int] = []

    def interrupt() -> None:
        busy = [three.folder / name for name in ("pixel-8", "galaxy-s23")]
        wait_until(lambda: len(three.kept) == 2)
        wait_until(lambda: all(list(one.glob("cases/*/pid")) for one in busy))
        pids.extend(int(note.read_text()) for one in busy for note in one.glob("cases/*/pid"))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        three.run()
    thread.join()
    assert [(case.device, case.status) for case in three.kept] == [("xiaomi-13", Status.OK)] * 2
    assert len(pids) == 2
    for pid in pids:
        assert_dead(pid)
    for name in three.PROFILES:
        assert list((three.folder / name / "cases").iterdir()) == []
    assert not [t for t in threading.enumerate() if t.name in three.PROFILES]


def test_what_computes_here_runs_alone_and_last() -> None:
    log: list[tuple[str, str]] = []
    both = threading.Barrier(2, timeout=30)

    def serve(name: str, _: fleet.Guard, say: Progress) -> None:
        log.append(("begins", name))
        if name in {"pixel-8", "galaxy-s23"}:
            both.wait()
        say(name)
        log.append(("ends", name))

    names = ["host", "pixel-8", "emulated-arm64", "galaxy-s23"]
    fleet.serve_all([turn(name, serve) for name in names], silent)
    assert {name for _, name in log[:4]} == {"pixel-8", "galaxy-s23"}
    assert log[4:] == [
        ("begins", "host"),
        ("ends", "host"),
        ("begins", "emulated-arm64"),
        ("ends", "emulated-arm64"),
    ]
