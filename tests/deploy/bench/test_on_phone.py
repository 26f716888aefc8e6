"""Cases on the emulated ARM64 phone: what only a counting clock and another machine can show."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from adb_shell.auth.keygen import keygen

from deploy import harness
from deploy.bench.job import TaskBatch, TaskSamples, TaskScore
from deploy.bench.passes.choice import MADE, passes_for
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices import adb, profiles
from deploy.emulator import machine
from deploy.types import Format, Metric, Status, Tier
from tests.deploy.bench.conftest import Models

pytestmark = [
    pytest.mark.phone,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("qemu-system-aarch64") is None, reason="QEMU is missing"),
]

JITTER = 512
"""Instructions: this network takes some 16,000, and one run in dozens was 144 off.

A network that is large beside that is counted in test_pipeline.py, to 0.1 %.
"""


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[adb.AdbDevice]:
    folder = tmp_path_factory.mktemp("phone")
    key = folder / "adbkey"
    keygen(str(key))
    running = machine.start(profiles.load("emulated-arm64"), keys=[folder / "adbkey.pub"])
    try:
        device = adb.connect(running.serial, keys=[key])
        yield device
        device.close()
    finally:
        running.stop()


def test_counted_instructions_repeat(phone: adb.AdbDevice, models: Models) -> None:
    # Found by its properties, not named.
    assert phone.profile.name == "emulated-arm64"
    bundle = harness.bundle(phone.profile.abi)
    jobs = [models.job(fmt) for fmt in (Format.EXECUTORCH, Format.ONNX, Format.ORT)]
    first, cases = run_device(phone, jobs, bundle, PRESETS["quick"])
    second, again = run_device(phone, jobs, bundle, PRESETS["quick"])
    assert first.info is not None
    assert (first.info.clock, first.info.tier) == ("icount", Tier.EMULATOR)
    assert (second.bytes_pushed, second.bytes_already_there) == (0, first.bytes_pushed)
    for one, two in zip(cases, again, strict=True):
        assert one.status is Status.OK, one.reason
        assert two.status is Status.OK, two.reason
        counts = [case.measurement(Metric.INSTRUCTIONS) for case in (one, two)]
        medians = [count.median for count in counts if count]
        assert len(medians) == 2
        assert medians[0] is not None
        assert medians[0] > 1000
        assert medians[1] == pytest.approx(medians[0], rel=0.001, abs=JITTER)
        latency = one.measurement(Metric.LATENCY_MS)
        assert latency is not None
        assert latency.status is Status.UNAVAILABLE
        difference = one.measurement(Metric.OUTPUT_MAX_ABS_DIFF)
        assert difference is not None
        assert difference.median is not None
        assert difference.median < 1e-4


@pytest.mark.parametrize("fmt", [Format.EXECUTORCH, Format.ONNX])
def test_every_pass_runs_on_arm(fmt: Format, phone: adb.AdbDevice, models: Models) -> None:
    """Event tracing, ONNX Runtime's profile and smaps_rollup are there on ARM64 too."""
    task = TaskSamples(
        lambda: iter([TaskBatch(models.inputs, 1)]),
        lambda there: TaskScore("first", float(np.ravel(there[0][0])[0]), 0.0, 0.0),
    )
    job = dataclasses.replace(models.job(fmt), task=task)
    preset = PRESETS["quick"]
    passes = passes_for(tuple(MADE), preset, phone.profile)
    bundle = harness.bundle(phone.profile.abi)
    _, (case,) = run_device(phone, [job], bundle, preset, passes=passes)
    assert case.status is Status.OK, case.reason
    rows = {row.metric: row for row in case.measurements}
    assert len(rows[Metric.LOAD_INSTRUCTIONS].samples) == 3
    for metric in (Metric.PSS_KIB, Metric.PRIVATE_DIRTY_KIB):
        assert rows[metric].status is Status.OK, rows[metric].reason
        assert (rows[metric].median or 0) > 100
    assert rows[Metric.TASK_METRIC].median == pytest.approx(models.reference[0, 0], abs=1e-4)
    assert case.operators_reason == ""
    assert {row.unit for row in case.operators} == {"instructions"}
    assert {len(row.samples) for row in case.operators} == {3}
    kinds = " ".join(row.kind for row in case.operators)
    assert ("Fully Connected" if fmt is Format.EXECUTORCH else "MatMul") in kinds, kinds
