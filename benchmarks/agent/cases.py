"""What a case costs beside the runner's own time, and what a second run sends."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.agent.figures import Part, Row, say
from deploy.bench.agent import RunnerBundle
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices.base import Device, ShellResult
from deploy.types import Case, DeviceInfo, DeviceProfile, Format, Status

if TYPE_CHECKING:
    from benchmarks.agent.tiny import Exported

_T = TypeVar("_T")
OVERHEAD_S = 0.5


@dataclass
class Timed:
    """A device that notes how long each call takes."""

    inner: Device
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def serial(self) -> str:
        """The inner device's."""
        return self.inner.serial

    @property
    def profile(self) -> DeviceProfile:
        """The inner device's."""
        return self.inner.profile

    def info(self) -> DeviceInfo:
        """The inner device's."""
        return self._noted("info", self.inner.info)

    def shell(
        self, argv: Sequence[str], *, timeout_s: float | None = None, cwd: str | None = None
    ) -> ShellResult:
        """The inner device's; starts of the runner are kept apart."""
        kind = "runner" if "--model" in argv else "shell"
        return self._noted(kind, lambda: self.inner.shell(argv, timeout_s=timeout_s, cwd=cwd))

    def push(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """The inner device's."""
        self._noted("push", lambda: self.inner.push(local, remote, mode=mode))

    def pull(self, remote: str, local: Path, *, max_bytes: int) -> None:
        """The inner device's."""
        self._noted("pull", lambda: self.inner.pull(remote, local, max_bytes=max_bytes))

    def close(self) -> None:
        """The inner device's."""
        self.inner.close()

    def _noted(self, kind: str, call: Callable[[], _T]) -> _T:
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[kind].append(time.perf_counter() - start)


def measure_overhead(device: Device, bundle: RunnerBundle, models: Exported, *, cases: int) -> Part:
    """Wall time of a case without its runs of the runner; then a second run's bytes.

    The first case, which pushes, is not counted. The time in which the runner was started and
    awaited includes one empty round trip, which is measured and given back to the overhead.
    """
    part = Part(f"agent, {cases} cases")
    jobs = [models.job(fmt) for fmt in (Format.EXECUTORCH, Format.ONNX)]
    first, _ = _run(device, bundle, jobs)
    timed = Timed(device)
    costs: list[float] = []
    calls: list[dict[str, int]] = []
    before: dict[str, int] = {}

    def note(case: Case, _: bytes | None) -> None:
        nonlocal before
        spent = {
            kind: seconds[len(before.get(kind, [])) :] for kind, seconds in timed.seconds.items()
        }
        before = {kind: list(seconds) for kind, seconds in timed.seconds.items()}
        must_be_ok(case)
        runner = spent.get("runner", [])
        costs.append(case.wall_seconds - sum(runner))
        calls.append({kind: len(seconds) for kind, seconds in spent.items()})

    say(f"overhead: {cases} cases")
    second, _ = run_device(timed, (jobs * cases)[:cases], bundle, PRESETS["exact"], keep=note)
    trips = []
    for _ in range(20):
        start = time.perf_counter()
        device.shell(["true"])
        trips.append(time.perf_counter() - start)
    trip = statistics.median(trips)
    # The first case of a run counts what preparing the device took, in calls and not in seconds.
    runs = calls[-1].get("runner", 0)
    overhead = statistics.median(costs[1:]) + runs * trip
    part.samples = {
        "overhead_s": costs,
        "calls_of_the_last_case": calls[-1],
        "empty_shell_s": trips,
        "first_run_bytes": [first.bytes_pushed, first.bytes_already_there],
        "second_run_bytes": [second.bytes_pushed, second.bytes_already_there],
    }
    part.rows = [
        Row(
            "overhead a case (all but the runner)",
            overhead,
            "s",
            "<=",
            OVERHEAD_S,
            ", ".join(f"{count} {kind}" for kind, count in sorted(calls[-1].items())),
        ),
        Row("an empty shell command", trip, "s"),
        Row("first run: sent", first.bytes_pushed / 1e6, "MB"),
        Row("second run: sent", second.bytes_pushed, "bytes", "==", 0),
        Row("second run: there already", second.bytes_already_there / 1e6, "MB"),
    ]
    return part


def _run(device: Device, bundle: RunnerBundle, jobs: Sequence[Any]) -> Any:
    run, cases = run_device(device, jobs, bundle, PRESETS["exact"])
    for case in cases:
        must_be_ok(case)
    return run, cases


def must_be_ok(case: Case) -> None:
    """``OSError`` for a case whose figures would mean nothing."""
    if case.status is not Status.OK:
        raise OSError(f"{case.id} {case.status.value}: {case.reason}")
