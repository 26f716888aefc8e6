"""Many devices, random faults: does every case still end exactly once?

Native ADB daemons and emulated phones work through their cases side by side, while daemons are
killed and restarted, connections cut and held, phones reset, frozen and killed. Which faults come
is seeded; when they strike depends on the machine's speed, and they prefer devices that are in the
middle of a push or of a run. Cases that ended INVALID are run again in the next round, as
``pocketship run --resume`` does. A case is lost if it has no good result in the end, and doubled if
it was told of twice in a round or has two good results.

The runner is a stand-in of a few hundred bytes: it is the agent that is on trial here, and nothing
is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from adb_shell.auth.keygen import keygen

from deploy import harness
from deploy.bench import fleet
from deploy.bench.job import Job
from deploy.bench.recovery import Patience
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices import adb, profiles
from deploy.devices.host import HostDevice
from deploy.emulator import machine
from deploy.errors import EXIT_INTERRUPTED, DeviceError
from deploy.types import Case, DeviceProfile, Metric, Progress, Status, Tier, silent
from tests.deploy.bench import fake_runner
from tests.deploy.bench.proxy import Proxy
from tests.deploy.native_adbd import NativeAdbd

PATIENCE = Patience(attempts=3, comeback_s=40.0, first_pause_s=0.1, longest_pause_s=1.0)
ROUNDS = 6
"""The last ones are without faults: by then all of them have been injected."""

PAUSE_S = 0.15
"""Mean time between two faults, so that they spread over the time that the cases take."""

PHONE_SHARE = 0.1
"""Share of the faults that strike phones: one that was reset needs its time to start."""

RUN_S = 0.4
"""What the stand-in runner takes for a case."""


@dataclass
class Target:
    """A device of the fleet: reached through a proxy, and hit by faults."""

    name: str
    proxy: Proxy
    faults: dict[str, Callable[[random.Random], None]]
    alive: Callable[[], bool]
    revive: Callable[[], None]
    busy: Callable[[], bool]
    profile: DeviceProfile

    @property
    def is_phone(self) -> bool:
        """Whether it is a machine of its own."""
        return "phone killed" in self.faults


class _Beside(fleet.Turn):
    """An emulated phone is served beside the others, too: nothing is measured here."""

    @property
    def computes_here(self) -> bool:
        """Never."""
        return False


@dataclass
class Outcome:
    """What came of it. ``ended`` counts good results a case; ``told`` those of one round."""

    cases: int
    injected: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    doubled: int = 0
    rounds: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Cases without a good result."""
        return self.cases - len(self.ended)

    def in_words(self) -> str:
        """The last line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.injected.items()))
        return (
            f"{self.injected.total()} faults injected ({kinds}); {self.cases} cases in "
            f"{self.rounds} rounds and {self.seconds:.0f} s, {self.retried} of them retried within "
            f"a round: {self.lost} lost, {self.doubled} doubled, {len(self.wrong)} wrong"
        )


def run(
    *,
    daemons: int,
    phones: int,
    cases: int,
    faults: int,
    seed: int,
    max_seconds: float,
    say: Progress = silent,
) -> Outcome:
    """Let ``daemons`` and ``phones`` run ``cases`` each under ``faults`` random faults."""
    started = time.monotonic()
    outcome = Outcome(cases=(daemons + phones) * cases)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        key = folder / "adbkey"
        keygen(str(key))
        targets = [
            *(stack.enter_context(_daemon(folder, key, number)) for number in range(daemons)),
            *(stack.enter_context(_phone(folder, key, number, say)) for number in range(phones)),
        ]
        say(f"{len(targets)} devices answer after {time.monotonic() - started:.0f} s")
        jobs = [fake_runner.job(folder / "models", number, 1_000_000) for number in range(cases)]
        bundles = {
            abi: fake_runner.make(folder / abi, f"sleep {RUN_S}", abi=abi)
            for abi in (HostDevice().profile.abi, "arm64-v8a")
        }
        over = threading.Event()
        until = time.monotonic() + max_seconds / 2
        monkey = _Monkey(targets, faults, random.Random(seed), outcome, over, until)
        thread = threading.Thread(target=monkey.run, daemon=True)
        thread.start()
        try:
            for number in range(ROUNDS):
                if outcome.lost == 0 or time.monotonic() - started > max_seconds:
                    break
                if number == ROUNDS - 2:
                    over.set()
                    thread.join()
                _round(targets, jobs, bundles, key, outcome)
                say(
                    f"round {number + 1}: {len(outcome.ended)} of {outcome.cases} cases ended, "
                    f"{outcome.injected.total()} faults so far"
                )
                for target in targets:
                    if not target.alive():
                        target.revive()
                outcome.rounds += 1
        finally:
            over.set()
            thread.join()
        if monkey.error is not None:
            raise monkey.error
    outcome.seconds = time.monotonic() - started
    return outcome


def _round(
    targets: Sequence[Target],
    jobs: Sequence[Job],
    bundles: dict[str, fake_runner.FakeBundle],
    key: Path,
    outcome: Outcome,
) -> None:
    """One run over all devices with what has no good result yet."""
    told: Counter[str] = Counter()
    lock = threading.Lock()

    def keep(case: Case, _: bytes | None) -> None:
        with lock:
            told[case.id] += 1
            outcome.doubled += told[case.id] > 1 or case.id in outcome.ended
            outcome.retried += case.attempts > 1
            if case.status is Status.OK:
                outcome.ended[case.id] += 1
                if not _right(case):
                    outcome.wrong.append(case.id)
            else:
                outcome.reasons[case.reason.split(": ")[0]] += 1

    def serve(target: Target, guard: fleet.Guard, say: Progress) -> None:
        missing = [j for j in jobs if f"{j.artifact.name}@{target.name}/t1" not in outcome.ended]
        if not missing:
            return
        try:
            device = adb.connect(target.proxy.serial, target.profile, keys=[key])
        except DeviceError as error:
            with lock:
                outcome.reasons[f"{target.name}: no connection: {error}"] += 1
            return
        with contextlib.closing(device):
            run_device(
                guard(device),
                missing,
                bundles[target.profile.abi],
                PRESETS["exact"],
                progress=say,
                keep=keep,
                patience=PATIENCE,
            )

    turns = [_Beside(target.profile, partial(serve, target)) for target in targets]
    fleet.serve_all(turns, silent)


def _right(case: Case) -> bool:
    difference = case.measurement(Metric.OUTPUT_MAX_ABS_DIFF)
    return difference is not None and difference.samples == (0.0,)


@dataclass
class _Monkey:
    """Injects faults one after the other until there were enough or the time is over."""

    targets: Sequence[Target]
    count: int
    rng: random.Random
    outcome: Outcome
    over: threading.Event
    until: float
    error: Exception | None = None

    def run(self) -> None:
        try:
            while (
                self.outcome.injected.total() < self.count
                and time.monotonic() < self.until
                and not self.over.wait(self.rng.uniform(0, 2 * PAUSE_S))
            ):
                self._strike()
        except Exception as error:
            self.error = error

    def _strike(self) -> None:
        alive = [target for target in self.targets if target.alive()]
        phones = [target for target in alive if target.is_phone]
        rare = phones and self.rng.random() < PHONE_SHARE
        candidates = phones if rare else [target for target in alive if target not in phones]
        candidates = candidates or alive
        chosen = self.rng.sample(candidates, min(len(candidates), 8))
        victim = next((target for target in chosen if target.busy()), chosen[0])
        kind = self.rng.choice(sorted(victim.faults))
        self.outcome.injected[kind] += 1
        victim.faults[kind](self.rng)


@contextlib.contextmanager
def _daemon(folder: Path, key: Path, number: int) -> Iterator[Target]:
    """One of our ADB daemons with storage of its own, behind a proxy."""
    name = f"native-{number:02}"
    abi = HostDevice().profile.abi
    adbd = NativeAdbd(harness.adbd(abi), folder / name, key)
    proxy = Proxy(adbd.port)
    work_dir = folder / name / "work"

    def kill(rng: random.Random) -> None:
        adbd.kill()
        time.sleep(rng.uniform(0, 0.3))
        adbd.start(adbd.port)

    def freeze(rng: random.Random) -> None:
        adbd.processes[0].send_signal(signal.SIGSTOP)
        time.sleep(rng.uniform(0, 0.3))
        adbd.processes[0].send_signal(signal.SIGCONT)

    def busy() -> bool:
        return any(work_dir.glob("cases/*/pid")) or any(work_dir.glob("*/.*.tmp"))

    def flip(rng: random.Random) -> None:
        proxy.plan(rng.choice(("up", "down")), rng.randrange(200_000), "flip")

    profile = adbd.profile(work_dir, name=name, tier=Tier.DEVICE, shell_timeout_s=20.0)
    try:
        yield Target(
            name,
            proxy,
            {
                "adbd killed": kill,
                "adbd frozen": freeze,
                "connection cut": lambda _: proxy.cut(),
                "byte flipped": flip,
            },
            lambda: True,
            lambda: None,
            busy,
            profile,
        )
    finally:
        proxy.close()
        adbd.kill()


@contextlib.contextmanager
def _phone(folder: Path, key: Path, number: int, say: Progress) -> Iterator[Target]:
    """An emulated phone with little memory, behind a proxy that outlives it."""
    declared = profiles.load("emulated-arm64-lowmem")
    name = f"phone-{number:02}"
    say(f"starting {name}")

    def start() -> machine.Phone:
        return machine.start(declared, keys=[Path(f"{key}.pub")])

    running = [start()]

    def port() -> int:
        return int(running[0].serial.rpartition(":")[2])

    proxy = Proxy(port())

    def alive() -> bool:
        return running[0].alive()

    def kill(_: random.Random) -> None:
        os.kill(running[0].qemu_pid, signal.SIGKILL)
        while alive():
            time.sleep(0.02)

    def reset(_: random.Random) -> None:
        running[0].monitor("system_reset")
        proxy.cut()

    def freeze(rng: random.Random) -> None:
        running[0].monitor("stop")
        time.sleep(rng.uniform(0, 0.5))
        running[0].monitor("cont")

    def revive() -> None:
        running[0].stop()
        running[0] = start()
        proxy.target = port()

    profile = declared.model_copy(
        update={"name": name, "transport": "adb", "shell_timeout_s": 60.0}
    )
    try:
        yield Target(
            name,
            proxy,
            {
                "phone killed": kill,
                "phone reset": reset,
                "phone frozen": freeze,
                "connection cut": lambda _: proxy.cut(),
            },
            alive,
            revive,
            lambda: False,
            profile,
        )
    finally:
        proxy.close()
        running[0].stop()


def main() -> int:
    """Exit code: 0 when no case was lost, doubled or wrong, else 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--daemons", type=int, default=64)
    parser.add_argument("--phones", type=int, default=4)
    parser.add_argument("--cases", type=int, default=4, help="for each device")
    parser.add_argument("--faults", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-seconds", type=float, default=600.0)
    arguments = parser.parse_args()

    def say(line: str) -> None:
        print(f"chaos: {line}", file=sys.stderr, flush=True)

    try:
        outcome = run(**vars(arguments), say=say)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    for reason, count in outcome.reasons.most_common():
        say(f"{count} cases ended with: {reason}")
    print(outcome.in_words())
    return 1 if outcome.lost or outcome.doubled or outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
