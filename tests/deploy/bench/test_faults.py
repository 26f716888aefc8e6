"""Faults of links, daemons and devices against our own ADB daemon: real sockets, real processes.

The emulated phone has its own file: what is here needs no other kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from deploy.bench.agent import bundle_folder_name
from deploy.bench.faults import Fault
from deploy.bench.job import Job
from deploy.bench.recovery import Patience
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices import adb, adb_direct
from deploy.types import BenchOverride, Case, DeviceRun, Metric, Status
from tests.deploy.bench import fake_runner
from tests.deploy.bench.fake_runner import FakeBundle
from tests.deploy.bench.proxy import Kind, Proxy, between
from tests.deploy.bench.test_session import alive, assert_dead
from tests.deploy.native_adbd import NativeAdbd

# Proxies, cut links and time-outs: four minutes in sum.
pytestmark = pytest.mark.soak

EXACT = PRESETS["exact"]
PATIENCE = Patience(comeback_s=15.0, first_pause_s=0.05, longest_pause_s=0.2)
HASTY = Patience(comeback_s=0.3, first_pause_s=0.05, longest_pause_s=0.1)
ONE = BenchOverride(warmup_iterations=0, iterations=1)
"""With it a case may take its profile's ``case_timeout_s`` and no more."""

HOLD = 'while [ -e "{hold}" ]; do : >"{held}"; sleep 0.02; done'
CAT = '#!/bin/sh\n[ "$1" = /proc/sys/kernel/random/boot_id ] && exec /bin/cat "{boot}"\n'
CAT += 'exec /bin/cat "$@"\n'


def wait_until(reached: Callable[[], object]) -> None:
    for _ in range(6000):
        if reached():
            return
        threading.Event().wait(0.005)
    raise AssertionError("that point was not reached")


@dataclass
class Bench:
    """A daemon behind a bad link, and a bundle whose runner can be held."""

    adbd: NativeAdbd
    proxy: Proxy
    folder: Path
    bundle: FakeBundle

    @property
    def work_dir(self) -> Path:
        return self.folder / "it's a $(touch pwned) device"

    @property
    def hold(self) -> Path:
        return self.folder / "hold"

    @property
    def held(self) -> Path:
        return self.folder / "held"

    def jobs(self, count: int = 2) -> list[Job]:
        return [fake_runner.job(self.folder / "models", number) for number in range(count)]

    def device(self, **changes: object) -> adb.AdbDevice:
        profile = self.adbd.profile(self.work_dir, **changes)
        return adb.connect(self.proxy.serial, profile, keys=[self.adbd.key])

    def run(
        self,
        jobs: list[Job],
        *,
        patience: Patience = PATIENCE,
        device: adb.AdbDevice | None = None,
        bundle: FakeBundle | None = None,
    ) -> tuple[DeviceRun, list[Case]]:
        """Run, and check what holds for every fault: each case once, in order."""
        kept: list[Case] = []
        connected = device or self.device()
        run, cases = run_device(
            connected,
            jobs,
            bundle or self.bundle,
            EXACT,
            keep=lambda case, _: kept.append(case),
            patience=patience,
        )
        connected.close()
        assert kept == cases
        assert [case.artifact for case in cases] == [job.artifact.name for job in jobs]
        for case in cases:
            assert "\n" not in case.reason
            if case.status is Status.OK:
                assert_right(case)
            else:
                assert not case.measurements
                assert case.reason.split(": ")[0] in set(Fault)
        return run, cases

    def left(self) -> list[str]:
        """Everything in the work folder that is neither content nor bundle, whole and right."""
        found = []
        for path in self.work_dir.rglob("*"):
            inside = path.relative_to(self.work_dir)
            if path.is_file() and inside.parts[0] == "store":
                if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:
                    found.append(str(inside))
            elif path.suffix == ".tmp" or (inside.parts[0] == "cases" and len(inside.parts) > 1):
                found.append(str(inside))
        return found


def assert_right(case: Case) -> None:
    difference = case.measurement(Metric.OUTPUT_MAX_ABS_DIFF)
    assert difference is not None
    assert difference.samples == (0.0,)


@pytest.fixture
def bench(adbd: NativeAdbd, tmp_path: Path) -> Iterator[Bench]:
    hold = HOLD.format(hold=tmp_path / "hold", held=tmp_path / "held")
    bundle = fake_runner.make(tmp_path / "bundle", hold)
    with between(adbd.port) as proxy:
        yield Bench(adbd, proxy, tmp_path, bundle)


@contextlib.contextmanager
def meanwhile(action: Callable[[], None]) -> Iterator[None]:
    """Run ``action`` in a thread; what it raises fails the test."""
    failed: list[BaseException] = []

    def act() -> None:
        try:
            action()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    assert not failed, failed


def runner_of(bench: Bench) -> int:
    """The runner that is held now."""
    wait_until(bench.held.exists)
    (note,) = bench.work_dir.glob("cases/*/pid")
    return int(note.read_text())


@pytest.mark.parametrize("what", get_args(Kind)[:2])
@pytest.mark.parametrize("stage", ["push", "pull"])
def test_a_link_that_fails_once_in_a_transfer(bench: Bench, stage: str, what: Kind) -> None:
    jobs = bench.jobs()
    device = bench.device()
    bench.run(jobs[:1], device=device)
    # The models are 400 kB up, the outputs 200 kB down; all else is below 50 kB.
    damage = (
        bench.proxy.plan("up", 200_000, what)
        if stage == "push"
        else bench.proxy.plan("down", 100_000, what)
    )
    run, cases = bench.run(jobs[1:], device=device)
    assert damage.done.is_set()
    assert cases[0].status is Status.OK, cases[0].reason
    assert cases[0].attempts <= 2
    assert run.status is Status.OK
    assert bench.left() == []


def test_a_link_that_damages_every_transfer_is_given_up_on(bench: Bench) -> None:
    jobs = bench.jobs()
    device = bench.device()
    bench.run(jobs[:1], device=device)
    for number in range(40):
        bench.proxy.plan("up", 200_000 + number * 250_000, "flip")
    run, cases = bench.run(jobs[1:], device=device)
    assert cases[0].status is Status.INVALID
    assert cases[0].attempts == PATIENCE.attempts
    assert cases[0].reason.split(": ")[0] in {Fault.DAMAGED, Fault.CUT, Fault.SLOW}
    assert run.status is Status.OK
    assert bench.left() == []


@pytest.mark.parametrize("fault", ["link", "adbd"])
def test_what_breaks_while_the_runner_computes_is_measured_again(bench: Bench, fault: str) -> None:
    """A case of which nobody knows the end counts as not begun, and its runner does not go on."""
    pids: list[int] = []
    bench.hold.touch()

    def breaks() -> None:
        pids.append(runner_of(bench))
        if fault == "link":
            bench.proxy.cut()
        else:
            bench.adbd.kill()
            bench.adbd.start(bench.adbd.port)
        bench.hold.unlink()

    with meanwhile(breaks):
        run, cases = bench.run(bench.jobs())
    assert [(case.status, case.attempts) for case in cases] == [(Status.OK, 2), (Status.OK, 1)]
    assert run.status is Status.OK
    assert_dead(pids[0])
    assert bench.left() == []


def test_adbd_restarted_during_a_push(bench: Bench) -> None:
    jobs = bench.jobs()
    device = bench.device()
    bench.run(jobs[:1], device=device)
    stuck = bench.proxy.plan("up", 200_000, "hold")

    def restart() -> None:
        assert stuck.done.wait(30)
        bench.adbd.kill()
        bench.adbd.start(bench.adbd.port)

    with meanwhile(restart):
        _, cases = bench.run(jobs[1:], device=device)
    assert cases[0].status is Status.OK, cases[0].reason
    assert bench.left() == []


@pytest.mark.parametrize("stage", ["prepare", "push", "run", "pull"])
def test_a_link_that_stays_cut_loses_the_device_and_no_result(bench: Bench, stage: str) -> None:
    """What a phone that dies looks like from here; the first case ended before."""
    plan, jobs = bench.proxy.plan, bench.jobs(3)
    device = bench.device()
    if stage != "prepare":
        bench.run(jobs[2:], device=device)
    # Beside the bundle (200 kB up), models (400 kB up) and outputs (200 kB down) little is sent.
    reached: Callable[[], object] = bench.held.exists
    if stage == "run":
        bench.hold.touch()
    elif stage == "pull":
        reached = plan("down", 100_000, "hold").done.is_set
    else:
        reached = plan("up", 100_000 if stage == "prepare" else 200_000, "hold").done.is_set

    def dies() -> None:
        wait_until(reached)
        bench.proxy.open = False
        bench.proxy.cut()

    with meanwhile(dies):
        run, cases = bench.run(jobs[:2], patience=HASTY, device=device)
    assert [case.status for case in cases] == [Status.INVALID] * 2
    assert all(case.reason.startswith(f"{Fault.LOST}: ") for case in cases)
    assert run.status is Status.INVALID
    assert run.reason.startswith(f"{Fault.LOST}: ")
    # Next contact: what was left there is ended and removed, and everything is measured.
    bench.proxy.open = True
    bench.hold.unlink(missing_ok=True)
    run, cases = bench.run(jobs)
    assert [case.status for case in cases] == [Status.OK] * 3
    assert bench.left() == []


def test_a_link_that_is_too_slow_is_named(bench: Bench) -> None:
    jobs = bench.jobs()
    bench.run(jobs[:1])
    device = bench.device(shell_timeout_s=1.0)
    bench.proxy.bytes_s = 80_000
    run, cases = bench.run(jobs[1:], device=device, patience=Patience(2, 30.0, 0.05, 0.1))
    assert cases[0].status is Status.INVALID
    assert cases[0].reason.split(": ")[0] in {Fault.SLOW, Fault.FROZE}
    assert cases[0].attempts == 2
    assert run.status is Status.OK


def test_a_slow_link_is_no_fault(bench: Bench) -> None:
    bench.proxy.bytes_s = 2_000_000
    _, cases = bench.run(bench.jobs(1))
    assert (cases[0].status, cases[0].attempts) == (Status.OK, 1)


def test_a_device_that_freezes_and_thaws(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb_direct, "CONNECT_TIMEOUT_S", 0.5)
    bench.hold.touch()
    (daemon,) = bench.adbd.processes
    said: list[str] = []

    def freezes() -> None:
        runner_of(bench)
        daemon.send_signal(signal.SIGSTOP)
        wait_until(lambda: any("does not answer" in line for line in said))
        bench.hold.unlink()
        daemon.send_signal(signal.SIGCONT)

    device = bench.device(case_timeout_s=1.0, bench=ONE)
    with meanwhile(freezes):
        _, cases = run_device(
            device, bench.jobs(1), bench.bundle, EXACT, progress=said.append, patience=PATIENCE
        )
    assert (cases[0].status, cases[0].attempts) == (Status.OK, 2), said
    assert any(Fault.FROZE in line for line in said)
    assert bench.left() == []


ENDS = {
    "crash": ("kill -SEGV $$", Status.FAILED, Fault.CRASHED),
    "kill": ("kill -KILL $$", Status.FAILED, Fault.KILLED),
    "term": ("kill -TERM $$", Status.INVALID, Fault.ENDED),
    "refusal": ('echo "bench_runner: no" >&2; exit 3', Status.FAILED, Fault.MODEL),
    "options": ("exit 2", Status.INVALID, Fault.NOT_STARTED),
    "full disk": (
        'echo "bench_runner: result: No space left on device" >&2; exit 7',
        Status.INVALID,
        Fault.NO_ROOM,
    ),
    "nothing": ("exit 0", Status.INVALID, Fault.GARBAGE),
    "garbage": (
        'head -c 3000 /dev/urandom; head -c 3000 /dev/urandom >"$result"; : >"$outputs"; exit 0',
        Status.INVALID,
        Fault.GARBAGE,
    ),
    "half a result": (
        'head -c 100 template >"$result"; cp values "$outputs"; exit 0',
        Status.INVALID,
        Fault.GARBAGE,
    ),
}


def test_runners_that_end_badly_are_named_and_not_repeated(bench: Bench) -> None:
    """One case for each bad end, and a good one after them all."""
    # A model's name says how its runner ends.
    choices = "".join(
        f"*.end{number}) {behaviour};; " for number, (behaviour, _, _) in enumerate(ENDS.values())
    )
    bundle = fake_runner.make(bench.folder / "odd", f"case $model in {choices} esac")
    *jobs, good = [
        fake_runner.job(bench.folder / "models", number, size=1000)
        for number in range(len(ENDS) + 1)
    ]
    for number, job in enumerate(jobs):
        path = job.path.rename(job.path.with_suffix(f".end{number}"))
        jobs[number] = dataclasses.replace(job, path=path)
    run, cases = bench.run([*jobs, good], bundle=bundle)
    ends = {
        end: (case.status, case.reason.split(": ")[0], case.attempts)
        for end, case in zip(ENDS, cases, strict=False)
    }
    assert ends == {end: (status, fault, 1) for end, (_, status, fault) in ENDS.items()}
    assert cases[-1].status is Status.OK, cases[-1].reason
    assert run.status is Status.OK
    assert bench.left() == []


def test_a_runner_that_hangs_is_ended_and_not_repeated(bench: Bench) -> None:
    bundle = fake_runner.make(bench.folder / "hanging", "trap '' HUP TERM; while :; do :; done")
    device = bench.device(case_timeout_s=0.5, bench=ONE)
    pids: list[int] = []

    def watch() -> None:
        wait_until(lambda: [p for p in bench.work_dir.glob("cases/*/pid") if p.read_text()])
        pids.extend(int(p.read_text()) for p in bench.work_dir.glob("cases/*/pid"))

    with meanwhile(watch):
        run, cases = bench.run(bench.jobs(1), bundle=bundle, device=device)
    assert cases[0].status is Status.INVALID
    assert cases[0].reason.startswith(f"{Fault.HUNG}: ")
    assert cases[0].attempts == 1
    assert run.status is Status.OK
    assert_dead(pids[0])
    assert bench.left() == []


def boots(bench: Bench, number: int) -> None:
    """From now on the device says that this is its boot ``number``."""
    boot = bench.folder / "boot"
    boot.write_text(f"0000000{number}-0000-4000-8000-000000000000\n")
    cat = bench.adbd.commands / "cat"
    cat.write_text(CAT.format(boot=boot))
    cat.chmod(0o755)


@pytest.mark.parametrize("same", [True, False])
def test_a_device_that_restarted_is_prepared_again_if_it_is_the_same(
    bench: Bench, same: bool
) -> None:
    boots(bench, 1)
    bench.hold.touch()

    def reboot() -> None:
        runner_of(bench)
        bench.adbd.kill()
        boots(bench, 2)
        # A work folder in RAM is empty after a restart.
        shutil.rmtree(bench.work_dir)
        if not same:
            getprop = bench.adbd.commands / "getprop"
            getprop.write_text(getprop.read_text().replace("native adbd", "a neighbour"))
        bench.hold.unlink()
        bench.adbd.start(bench.adbd.port)

    with meanwhile(reboot):
        run, cases = bench.run(bench.jobs())
    if same:
        assert [(case.status, case.attempts) for case in cases] == [(Status.OK, 2), (Status.OK, 1)]
        assert bench.left() == []
    else:
        assert [case.status for case in cases] == [Status.INVALID] * 2
        assert run.reason.startswith(f"{Fault.REPLACED}: ")
        assert "a neighbour" in run.reason
        assert not bench.work_dir.exists(), "another device's storage was written to"


def test_foreign_things_in_the_work_folder(bench: Bench) -> None:
    """Folders, links and files where ours belong; nothing outside is touched through a link."""
    jobs = bench.jobs(3)
    outside = bench.folder / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    bundle = bench.work_dir / bundle_folder_name(bench.bundle.files)
    (bundle / "runner").mkdir(parents=True)
    (bundle / "foreign").write_text("")
    store = bench.work_dir / "store"
    (store / jobs[0].artifact.sha256 / "inside").mkdir(parents=True)
    (store / jobs[1].artifact.sha256).symlink_to(outside)
    (store / jobs[2].artifact.sha256).write_bytes(jobs[2].path.read_bytes()[:100])
    (store / "a video\n.mp4").write_bytes(bytes(1000))
    (bench.work_dir / "cases").symlink_to(outside)
    _, cases = bench.run(jobs)
    assert [case.status for case in cases] == [Status.OK] * 3, [case.reason for case in cases]
    assert sorted(p.name for p in bundle.iterdir()) == sorted(bench.bundle.files)
    assert sorted(p.name for p in store.iterdir()) == sorted(
        hashlib.sha256(p.read_bytes()).hexdigest()
        for p in [*(job.path for job in jobs), jobs[0].inputs]
    )
    assert (outside / "precious").read_text() == "mine"
    assert [p.name for p in outside.iterdir()] == ["precious"]


def test_old_bundles_go(bench: Bench) -> None:
    bench.work_dir.mkdir()
    for age, number in enumerate((3, 1, 2)):
        old = bench.work_dir / f"bundle-{number:016x}"
        old.mkdir()
        (old / "runner").write_bytes(bytes(1000))
        os.utime(old, (1e9 - age, 1e9 - age))
    foreign = bench.work_dir / "bundle-of-letters"
    foreign.mkdir()
    bench.run(bench.jobs(1))
    kept = {bundle_folder_name(bench.bundle.files), f"bundle-{3:016x}", foreign.name}
    assert {p.name for p in bench.work_dir.glob("bundle-*")} == kept


def test_a_device_whose_clock_is_wrong_or_jumps(bench: Bench) -> None:
    """Times of files only order content by its last use; none of them decides about a case."""
    jobs = bench.jobs(2)
    bench.run(jobs[:1])
    for path in [bench.work_dir, *bench.work_dir.rglob("*")]:
        os.utime(path, (2**32, 2**32))
    _, cases = bench.run(jobs)
    for path in [bench.work_dir, *bench.work_dir.rglob("*")]:
        os.utime(path, (0, 0))
    again, after = bench.run(jobs)
    assert [case.status for case in cases + after] == [Status.OK] * 4
    assert again.bytes_pushed == 0


def test_a_living_pocketship_s_case_is_left_alone(bench: Bench) -> None:
    """Two at once on one device (from two machines, say) do not end each other's runners."""
    bench.hold.touch()
    pids: list[int] = []

    def other() -> None:
        pids.append(runner_of(bench))
        second = fake_runner.make(bench.folder / "second")
        _, cases = bench.run(bench.jobs(1), bundle=second)
        assert cases[0].status is Status.OK
        assert alive(pids[0])
        bench.hold.unlink()

    with meanwhile(other):
        _, cases = bench.run([fake_runner.job(bench.folder / "more", 7)])
    assert (cases[0].status, cases[0].attempts) == (Status.OK, 1)
