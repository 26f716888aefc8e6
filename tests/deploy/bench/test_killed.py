"""pocketship itself killed with SIGKILL at each stage of a case, and started again."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

from deploy.bench.session import run_device
from deploy.types import Status
from tests.deploy.bench.test_faults import EXACT, Bench, runner_of, wait_until
from tests.deploy.bench.test_faults import bench as bench
from tests.deploy.bench.test_session import assert_dead


def killed(bench: Bench, told: Path, reached: Callable[[], object]) -> None:
    """Run all cases in a process of its own, which is killed where ``reached`` first holds."""
    jobs = bench.jobs(1)

    def run() -> None:
        run_device(
            bench.device(),
            jobs,
            bench.bundle,
            EXACT,
            keep=lambda case, _: told.write_text(case.status),
        )

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    try:
        wait_until(lambda: reached() or not process.is_alive())
        assert process.is_alive(), "it ended before"
        os.kill(process.pid or 0, signal.SIGKILL)
    finally:
        process.kill()
        process.join()
    bench.proxy.cut()
    assert not told.exists(), "a case that had not ended was told of"


def test_pocketship_killed_at_each_stage_and_started_again(bench: Bench, tmp_path: Path) -> None:
    told = tmp_path / "told"
    plan = bench.proxy.plan
    # 200 kB of bundle go up first; without them 400 kB of model; 200 kB of outputs come down.
    killed(bench, told, plan("up", 100_000, "hold").done.is_set)
    assert list(bench.work_dir.glob("bundle-*/.*.tmp")), "it was not killed within the bundle"
    killed(bench, told, plan("up", 500_000, "hold").done.is_set)
    assert not list(bench.work_dir.glob("bundle-*/.*.tmp")), "leftovers of the one before"
    assert not list(bench.work_dir.glob("store/*")), "half a model has a whole one's name"
    bench.hold.touch()
    pids: list[int] = []
    killed(bench, told, lambda: bench.held.exists() and not pids.append(runner_of(bench)))
    bench.hold.unlink()
    killed(bench, told, plan("down", 100_000, "hold").done.is_set)
    # Whether adbd ended it or the next contact did, the first one's runner is gone.
    assert_dead(pids[0])
    run, cases = bench.run(bench.jobs(2))
    assert [(case.status, case.attempts) for case in cases] == [(Status.OK, 1)] * 2
    assert run.status is Status.OK
    assert bench.left() == []
