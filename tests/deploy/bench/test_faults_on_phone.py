"""Faults of a whole machine: an emulated phone with little memory and a small disk.

The tests share one phone and run in their order; the last one ends it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from adb_shell.auth.keygen import keygen

from deploy import harness
from deploy.bench.faults import Fault
from deploy.bench.job import Job
from deploy.bench.recovery import Patience
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices import adb, adb_direct, profiles
from deploy.emulator import machine
from deploy.types import Case, DeviceRun, Format, Metric, Status, TensorSpec
from tests.deploy.bench import fake_runner
from tests.deploy.bench.conftest import artifact
from tests.deploy.bench.fake_runner import FakeBundle
from tests.deploy.bench.proxy import Proxy, between
from tests.deploy.bench.test_faults import HASTY, ONE, assert_right, meanwhile, wait_until

pytestmark = [
    pytest.mark.phone,
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="QEMU is missing"),
]

EXACT = PRESETS["exact"]
PATIENCE = Patience(comeback_s=120.0, first_pause_s=0.1, longest_pause_s=0.5)
HOLD = "/data/local/tmp/hold"
FILL = "/data/local/tmp/fill"
WAIT = f"while [ -e {HOLD} ]; do : >{HOLD}.held; sleep 0.05; done"


@dataclass
class Phone:
    """The machine, a bad link to it, and a second connection past that."""

    machine: machine.Phone
    key: Path
    proxy: Proxy
    side: adb.AdbDevice
    folder: Path

    def bundle(self, behaviour: str = "") -> FakeBundle:
        folder = self.folder / f"bundle{len(list(self.folder.iterdir()))}"
        return fake_runner.make(folder, behaviour, abi="arm64-v8a")

    def job(self, size: int = 400_000) -> Job:
        return fake_runner.job(self.folder / "models", len(list(self.folder.rglob("*"))), size)

    def device(self, **changes: object) -> adb.AdbDevice:
        profile = profiles.load("emulated-arm64-lowmem").model_copy(update=changes)
        return adb.connect(self.proxy.serial, profile, keys=[self.key])

    def run(
        self,
        jobs: list[Job],
        bundle: FakeBundle | harness.Bundle,
        *,
        patience: Patience = PATIENCE,
        said: list[str] | None = None,
        **changes: object,
    ) -> tuple[DeviceRun, list[Case]]:
        with contextlib.closing(self.device(**changes)) as device:
            say = (said if said is not None else []).append
            run, cases = run_device(device, jobs, bundle, EXACT, progress=say, patience=patience)
        return run, cases

    def tell(self, *words: str) -> str:
        return self.side.shell(words, timeout_s=120).stdout

    def held(self) -> bool:
        return self.side.shell(["test", "-e", f"{HOLD}.held"]).exit_code == 0

    def hold(self) -> None:
        self.tell("rm", "-f", f"{HOLD}.held")
        self.tell("touch", HOLD)

    def left(self) -> list[str]:
        work_dir = self.side.profile.work_dir
        return self.tell("find", f"{work_dir}/cases", "-mindepth", "1").split()


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phone]:
    folder = tmp_path_factory.mktemp("phone")
    key = folder / "adbkey"
    keygen(str(key))
    profile = profiles.load("emulated-arm64-lowmem")
    started = machine.start(profile, keys=[folder / "adbkey.pub"])
    try:
        with between(int(started.serial.rpartition(":")[2])) as proxy:
            side = adb.connect(started.serial, profile, keys=[key])
            (folder / "files").mkdir()
            yield Phone(started, key, proxy, side, folder / "files")
    finally:
        started.stop()


def test_frozen_and_thawed(phone: Phone, monkeypatch: pytest.MonkeyPatch) -> None:
    """QMP ``stop`` while the runner computes, until pocketship asks in vain; then ``cont``."""
    phone.hold()
    said: list[str] = []

    def freezes() -> None:
        wait_until(phone.held)
        monkeypatch.setattr(adb_direct, "CONNECT_TIMEOUT_S", 0.5)
        phone.machine.monitor("stop")
        wait_until(lambda: any("does not answer" in line for line in said))
        monkeypatch.undo()
        phone.machine.monitor("cont")
        phone.tell("rm", HOLD)

    with meanwhile(freezes):
        _, cases = phone.run(
            [phone.job()], phone.bundle(WAIT), said=said, case_timeout_s=3.0, bench=ONE
        )
    assert (cases[0].status, cases[0].attempts) == (Status.OK, 2), said
    assert any(f"{Fault.FROZE}: " in line for line in said)
    assert_right(cases[0])
    assert phone.left() == []


def test_a_clock_that_jumps_while_a_case_runs(phone: Phone) -> None:
    bundle, jobs = phone.bundle(WAIT), [phone.job(), phone.job()]
    for when in ("2037-01-01 00:00", "1999-01-01 00:00"):
        phone.hold()

        def jumps(when: str = when) -> None:
            wait_until(phone.held)
            phone.tell("date", "-s", when)
            phone.tell("rm", HOLD)

        with meanwhile(jumps):
            run, cases = phone.run(jobs, bundle)
        assert [(case.status, case.attempts) for case in cases] == [(Status.OK, 1)] * 2
    assert run.bytes_pushed == 0
    assert phone.left() == []


def test_a_full_disk(phone: Phone) -> None:
    """Too full for a model before it is sent; then filled while the runner computes."""
    free = "df -kP /data | tail -n 1 | { read -r _ _ _ free _; echo $free; }"
    free_mib = int(phone.tell("sh", "-c", free)) // 1024
    phone.tell("dd", "if=/dev/zero", f"of={FILL}", "bs=1M", f"count={free_mib - 20}")
    bundle = phone.bundle()
    run, cases = phone.run([phone.job(1000)], bundle)
    assert cases[0].status is Status.INVALID
    assert f"{Fault.NO_ROOM}: " in cases[0].reason
    assert "do not fit" in cases[0].reason
    phone.tell("rm", "-f", FILL)
    fills = f"dd if=/dev/zero of={FILL} bs=1M 2>/dev/null; dd if=/dev/zero bs=4k >>{FILL}"
    run, cases = phone.run([phone.job(1000)], phone.bundle(f"{fills} 2>/dev/null"))
    assert cases[0].status is Status.INVALID
    assert cases[0].reason.startswith(f"{Fault.NO_ROOM}: ")
    phone.tell("rm", "-f", FILL)
    run, cases = phone.run([phone.job(1000)], bundle)
    assert (run.status, cases[0].status) == (Status.OK, Status.OK), cases[0].reason
    assert phone.left() == []


def expanding(folder: Path, rows: int) -> Job:
    """A file of some hundred bytes whose inference needs about 1.5 kB a row, in several pieces."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["a"]),
        helper.make_node("Exp", ["a"], ["b"]),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=0),
        helper.make_node("Sin", ["c"], ["d"]),
        helper.make_node("Concat", ["c", "d"], ["e"], axis=0),
        helper.make_node("ReduceSum", ["e", "axes"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "expanding",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [
            numpy_helper.from_array(np.array([rows, 64], dtype=np.int64), "shape"),
            numpy_helper.from_array(np.array([0], dtype=np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path, inputs = folder / f"{rows}.onnx", folder / "inputs.bin"
    onnx.save(model, path)
    x = np.linspace(-1, 1, 64, dtype=np.float32)
    inputs.write_bytes(x.tobytes())
    c = np.stack([x, np.exp(x)]).sum(axis=0)
    y = rows * (c + np.sin(x) + np.sin(np.exp(x)))
    spec = TensorSpec(name="y", dtype="float32", shape=(1, 64))
    described = artifact(path, Format.ONNX).model_copy(
        update={"name": f"{rows}.onnx", "outputs": (spec,)}
    )
    return Job(described, path, inputs, [y.reshape(1, 64)])


def test_a_model_too_big_for_the_memory(phone: Phone, tmp_path: Path) -> None:
    """The real runner and a real runtime; the phone lives on, and so does the next case."""
    bundle = harness.bundle("arm64-v8a")
    big, small = expanding(tmp_path, 600_000), expanding(tmp_path, 3)
    run, cases = phone.run([big, small], bundle)
    assert cases[0].status is Status.FAILED
    assert cases[0].reason.split(": ")[0] in {Fault.KILLED, Fault.MODEL}, cases[0].reason
    assert cases[0].attempts == 1
    assert cases[1].status is Status.OK, cases[1].reason
    difference = cases[1].measurement(Metric.OUTPUT_MAX_ABS_DIFF)
    assert difference is not None
    assert difference.samples[0] < 1e-4
    assert run.status is Status.OK
    assert phone.left() == []


def resets(phone: Phone, reached: Callable[[], object]) -> Callable[[], None]:
    def act() -> None:
        wait_until(reached)
        phone.machine.monitor("system_reset")
        phone.proxy.cut()
        # What runs past the proxy is not told of the restart either: it starts anew.
        phone.side.close()

    return act


@pytest.mark.parametrize("stage", ["push", "run", "pull"])
def test_a_phone_that_restarts(phone: Phone, stage: str) -> None:
    """The power fails at each stage, with what was not yet on the disk; it boots, we go on."""
    bundle, warm = phone.bundle(WAIT), phone.job()
    phone.run([warm], bundle)
    reached: Callable[[], object] = phone.held
    if stage == "run":
        phone.hold()
    else:
        way, after = ("up", 200_000) if stage == "push" else ("down", 100_000)
        reached = phone.proxy.plan(way, after, "hold").done.is_set  # type: ignore[arg-type]

    def act() -> None:
        resets(phone, reached)()
        if stage == "run":
            # The second attempt would wait for it too.
            remove_hold(phone)

    said: list[str] = []
    with meanwhile(act):
        run, cases = phone.run([phone.job(), warm], bundle, said=said)
    assert [case.status for case in cases] == [Status.OK] * 2, [case.reason for case in cases]
    assert cases[0].attempts == 2
    assert any(f"{Fault.REBOOTED}: " in line for line in said), said
    assert run.status is Status.OK
    for case in cases:
        assert_right(case)
    assert phone.left() == []


def remove_hold(phone: Phone) -> None:
    def removed() -> bool:
        with contextlib.suppress(Exception):
            phone.tell("rm", "-f", HOLD)
            return True
        return False

    wait_until(removed)


def test_a_phone_that_dies_loses_its_other_cases_only(phone: Phone) -> None:
    """QEMU is killed while the second case runs."""
    odd = phone.job()
    renamed = odd.path.rename(odd.path.with_suffix(".odd"))
    odd = Job(odd.artifact, renamed, odd.inputs, odd.reference)
    phone.hold()
    bundle = phone.bundle(f"case $model in *.odd) {WAIT};; esac")

    def dies() -> None:
        wait_until(phone.held)
        os.kill(phone.machine.qemu_pid, signal.SIGKILL)

    with meanwhile(dies):
        run, cases = phone.run([phone.job(), odd, phone.job()], bundle, patience=HASTY)
    assert [case.status for case in cases] == [Status.OK, Status.INVALID, Status.INVALID]
    assert all(case.reason.startswith(f"{Fault.LOST}: ") for case in cases[1:])
    assert run.status is Status.INVALID
    assert_right(cases[0])
