"""Whole cases with the real runner and real models, here and behind a real ADB daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import harness
from deploy.bench.recovery import Patience
from deploy.bench.runner import PRESETS, Preset
from deploy.bench.session import run_device
from deploy.devices.base import Device
from deploy.devices.host import HostDevice
from deploy.types import BenchOverride, Case, EnergySource, Format, Metric, Status
from tests.deploy.bench.conftest import Models
from tests.deploy.native_adbd import NativeAdbd

EXACT = PRESETS["exact"]
HASTY = Patience(comeback_s=0.5)
ENDLESS = Preset("endless", 0, 0.0, 1, 3600.0, 3600.0)
RUNS = [Format.EXECUTORCH, Format.ONNX, Format.ORT]


def folders(device: Device) -> list[str]:
    return sorted(p.name for p in (Path(device.profile.work_dir) / "cases").iterdir())


def test_every_format_runs_and_computes_the_same(
    device: Device, models: Models, bundle: harness.Bundle, tmp_path: Path
) -> None:
    jobs = [models.job(fmt) for fmt in [*RUNS, Format.COREML]]
    kept: list[tuple[Case, bytes | None]] = []
    run, cases = run_device(
        device, jobs, bundle, EXACT, keep=lambda case, raw: kept.append((case, raw))
    )
    assert run.status is Status.OK
    assert run.info is not None
    assert run.bytes_pushed > sum((bundle.folder / n).stat().st_size for n in bundle.files)
    assert run.push_mb_s is not None
    assert [case for case, _ in kept] == cases
    assert cases[3].status is Status.NOT_RUN
    assert "Core ML" in cases[3].reason
    for job, (case, raw) in zip(jobs[:3], kept[:3], strict=True):
        assert case.status is Status.OK, case.reason
        assert case.id == f"{job.artifact.name}@{device.profile.name}/t1"
        assert raw is not None
        result = json.loads(raw)
        assert case.runtime_version == result["runtime_version"]
        latency = case.measurement(Metric.LATENCY_MS)
        assert latency is not None
        assert latency.samples == tuple(ns / 1e6 for ns in result["steady_ns"])
        assert len(latency.samples) == 3
        assert latency.tier is device.profile.tier
        difference = case.measurement(Metric.OUTPUT_MAX_ABS_DIFF)
        assert difference is not None
        assert difference.median is not None
        assert difference.median < 1e-4
        for metric in (Metric.LOAD_MS, Metric.FIRST_MS, Metric.PEAK_RSS_KIB, Metric.DELTA_RSS_KIB):
            row = case.measurement(metric)
            assert row is not None
            assert row.status is Status.OK, row.reason
        energy = case.measurement(Metric.ENERGY_MJ)
        assert energy is not None
        assert energy.status is Status.UNAVAILABLE
        assert case.wall_seconds > 0
    assert folders(device) == []
    assert not list(tmp_path.rglob("pwned"))


def test_a_second_run_pushes_nothing(
    device: Device, models: Models, bundle: harness.Bundle
) -> None:
    jobs = [models.job(Format.ONNX)]
    first, _ = run_device(device, jobs, bundle, EXACT)
    second, cases = run_device(device, jobs, bundle, EXACT)
    assert cases[0].status is Status.OK
    assert (second.bytes_pushed, second.bytes_already_there) == (0, first.bytes_pushed)
    assert second.push_mb_s is None


def test_a_half_file_on_the_device_is_replaced(
    device: Device, models: Models, bundle: harness.Bundle
) -> None:
    job = models.job(Format.ONNX)
    run_device(device, [job], bundle, EXACT)
    stored = Path(device.profile.work_dir) / "store" / job.artifact.sha256
    os.truncate(stored, 100)
    run, cases = run_device(device, [job], bundle, EXACT)
    assert cases[0].status is Status.OK, cases[0].reason
    assert run.bytes_pushed == job.artifact.bytes


def test_one_failure_does_not_stop_the_others(
    seeded: Device, models: Models, bundle: harness.Bundle, tmp_path: Path
) -> None:
    cut = tmp_path / "cut $(id)\n.pte"
    cut.write_bytes(models.files[Format.EXECUTORCH].read_bytes()[:700])
    short = tmp_path / "short.bin"
    short.write_bytes(b"1234")
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(models.files[Format.ONNX].read_bytes())
    changed_job = models.job(Format.ONNX, path=changed)
    changed.write_bytes(b"other")
    gone = dataclasses.replace(models.job(Format.ONNX), path=tmp_path / "gone.onnx")
    no_inputs = dataclasses.replace(models.job(Format.ONNX), inputs=tmp_path / "gone.bin")
    jobs = [
        models.job(Format.EXECUTORCH, path=cut),
        dataclasses.replace(models.job(Format.ONNX), inputs=short),
        changed_job,
        dataclasses.replace(gone, artifact=gone.artifact.model_copy(update={"sha256": "1" * 64})),
        no_inputs,
        models.job(Format.ONNX),
    ]
    run, cases = run_device(seeded, jobs, bundle, EXACT)
    failed, invalid = Status.FAILED, Status.INVALID
    assert [c.status for c in cases] == [failed, failed, invalid, invalid, invalid, Status.OK]
    assert cases[0].reason.startswith("model refused: bench_runner: ")
    assert cases[1].reason.startswith("model refused: bench_runner: ")
    assert "changed" in cases[2].reason
    assert "gone.onnx" in cases[3].reason
    assert "gone.bin" in cases[4].reason
    assert all("\n" not in case.reason for case in cases)
    assert run.status is Status.OK
    assert folders(seeded) == []


def test_other_outputs_than_here_are_measured(
    host: HostDevice, models: Models, bundle: harness.Bundle, tmp_path: Path
) -> None:
    job = models.job(Format.ONNX)
    reference = tmp_path / "reference.bin"
    reference.write_bytes((models.reference + 0.25).astype("<f4").tobytes())
    wrong_shape = dataclasses.replace(job, reference=[np.zeros(3)])
    jobs = [
        dataclasses.replace(job, reference=reference),
        wrong_shape,
        dataclasses.replace(job, reference=None),
    ]
    _, cases = run_device(host, jobs, bundle, EXACT)
    rows = [case.measurement(Metric.OUTPUT_MAX_ABS_DIFF) for case in cases]
    assert rows[0] is not None
    assert rows[0].median == pytest.approx(0.25, abs=1e-4)
    assert [row.status for row in rows if row] == [Status.OK, Status.FAILED, Status.NOT_RUN]
    assert all(case.status is Status.OK for case in cases)


def test_threads_and_presets_reach_the_runner(
    host: HostDevice, models: Models, bundle: harness.Bundle
) -> None:
    raws: list[Any] = []
    preset = Preset("mine", 4, 0.0, 7, 0.0, 30.0)
    job = models.job(Format.EXECUTORCH, threads=2)
    run_device(host, [job], bundle, preset, keep=lambda _, raw: raws.append(json.loads(raw or b"")))
    assert raws[0]["threads"] == 2
    assert (len(raws[0]["warmup_ns"]), len(raws[0]["steady_ns"])) == (4, 7)


def runner_pid(device: Device) -> int:
    """Process id of the case that runs now, as soon as the runner itself is what runs."""
    for _ in range(4000):
        for note in Path(device.profile.work_dir).glob("cases/*/pid"):
            with contextlib.suppress(ValueError, OSError):
                pid = int(note.read_text())
                if b"--backend" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                    return pid
        threading.Event().wait(0.005)
    raise AssertionError("no runner was started")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_dead(pid: int) -> None:
    for _ in range(2000):
        if not alive(pid):
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"the runner {pid} still runs")


@pytest.mark.parametrize(
    ("number", "status", "says"),
    [
        (signal.SIGKILL, Status.FAILED, "SIGKILL"),
        (signal.SIGSEGV, Status.FAILED, "SIGSEGV"),
        (signal.SIGTERM, Status.INVALID, "SIGTERM"),
    ],
)
def test_a_killed_runner_says_so(
    seeded: Device,
    models: Models,
    bundle: harness.Bundle,
    number: signal.Signals,
    status: Status,
    says: str,
) -> None:
    killer = threading.Thread(target=lambda: os.kill(runner_pid(seeded), number))
    killer.start()
    _, cases = run_device(seeded, [models.job(Format.ONNX)], bundle, ENDLESS)
    killer.join()
    assert cases[0].status is status
    assert says in cases[0].reason
    assert folders(seeded) == []


def test_a_late_case_is_invalid_and_nothing_keeps_running(
    seeded: Device, models: Models, bundle: harness.Bundle
) -> None:
    pids: list[int] = []
    watcher = threading.Thread(target=lambda: pids.append(runner_pid(seeded)))
    watcher.start()
    slow = BenchOverride(warmup_iterations=0, iterations=10**7)
    changes = {"bench": slow, "case_timeout_s": 2.0}
    changed = seeded.profile.model_copy(update=changes)
    if isinstance(seeded, HostDevice):
        seeded = HostDevice(changed)
    else:
        seeded.profile = changed  # type: ignore[misc]
    run, cases = run_device(
        seeded, [models.job(Format.ONNX), models.job(Format.COREML)], bundle, ENDLESS
    )
    watcher.join()
    assert cases[0].status is Status.INVALID
    assert "2 s" in cases[0].reason
    assert run.status is Status.OK
    assert_dead(pids[0])
    assert folders(seeded) == []


DAMAGE = {
    "garbage": ('head -c 500 /dev/urandom >"$r"', "result cannot be used"),
    "huge": ('truncate -s 100M "$r"', "104857600|more than"),
    "missing": ('rm "$r"', "No such file"),
    "another model": ('sed -i s/model_bytes..../model_bytes\\":1/ "$r"', "cannot be used"),
    "long outputs": ('truncate -s 1M "$o"', "1048576|more than"),
    "short outputs": ('truncate -s 8 "$o"', "8 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_the_runner_leaves_is_not_trusted(
    seeded: Device, models: Models, bundle: harness.Bundle, damage: str
) -> None:
    script, says = DAMAGE[damage]
    wrapped = (
        "for a; do case $p in --result) r=$a;; --outputs) o=$a;; esac; p=$a; done; "
        f'"$@" && {script}'
    )
    lying = bundle.model_copy(
        update={"launch": ("sh", "-c", wrapped, "sh", *bundle.launch)},
    )
    run, cases = run_device(seeded, [models.job(Format.ONNX)], lying, EXACT)
    _, after = run_device(seeded, [models.job(Format.ONNX)], bundle, EXACT)
    difference = cases[0].measurement(Metric.OUTPUT_MAX_ABS_DIFF)
    reason = difference.reason if difference else cases[0].reason
    assert Status.OK is not (difference.status if difference else cases[0].status)
    assert len(reason) < 400
    assert any(word in reason for word in says.split("|")), reason
    assert run.status is Status.OK
    assert after[0].status is Status.OK
    assert folders(seeded) == []


def test_a_lost_device_ends_its_cases_with_the_reason(
    adbd: NativeAdbd, models: Models, bundle: harness.Bundle, tmp_path: Path
) -> None:
    device = adbd.connect(tmp_path / "dev")
    kept: list[Case] = []

    def keep(case: Case, _: bytes | None) -> None:
        kept.append(case)
        if len(kept) == 1:
            adbd.kill()

    jobs = [models.job(fmt) for fmt in [*RUNS, Format.COREML]]
    run, cases = run_device(device, jobs, bundle, EXACT, keep=keep, patience=HASTY)
    invalid = Status.INVALID
    assert [c.status for c in cases] == [Status.OK, invalid, invalid, Status.NOT_RUN]
    assert "refused" in cases[1].reason
    assert all(case.reason.startswith("device lost: ") for case in cases[1:3])
    assert run.status is Status.INVALID
    assert run.bytes_pushed > 0
    assert kept == cases
    again, cases = run_device(device, jobs, bundle, EXACT, patience=HASTY)
    assert again.status is Status.INVALID
    assert [c.status for c in cases] == [invalid] * 3 + [Status.NOT_RUN]


def test_a_bundle_of_another_architecture_is_refused(
    host: HostDevice, models: Models, bundle: harness.Bundle
) -> None:
    other = bundle.model_copy(update={"abi": "riscv64"})
    run, cases = run_device(host, [models.job(Format.ONNX)], other, EXACT)
    assert run.status is Status.INVALID
    assert "riscv64" in run.reason
    assert cases[0].status is Status.INVALID
    assert cases[0].reason == run.reason


def test_ctrl_c_cleans_up_and_ends(seeded: Device, models: Models, bundle: harness.Bundle) -> None:
    """The signal arrives while the runner computes; the runner must not outlive it."""
    pids = []

    def interrupt() -> None:
        pids.append(runner_pid(seeded))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_device(seeded, [models.job(Format.ONNX)], bundle, ENDLESS)
    thread.join()
    assert_dead(pids[0])
    assert folders(seeded) == []


def test_a_preset_too_short_for_a_gauge_says_so(
    host: HostDevice, models: Models, bundle: harness.Bundle
) -> None:
    rails = host.profile.model_copy(update={"energy": EnergySource(source="power_rails")})
    _, cases = run_device(HostDevice(rails), [models.job(Format.ONNX)], bundle, EXACT)
    energy = cases[0].measurement(Metric.ENERGY_MJ)
    assert energy is not None
    assert (energy.source, energy.status) == ("power_rails", Status.NOT_RUN)
    assert "less than 60 s" in energy.reason


def test_a_case_stands_between_two_states_of_its_device(
    seeded: Device, models: Models, bundle: harness.Bundle
) -> None:
    _, cases = run_device(seeded, [models.job(Format.ONNX)], bundle, EXACT)
    before, after = cases[0].before, cases[0].after
    assert before is not None
    assert after is not None
    assert before.boot_id == after.boot_id
    assert before.uptime_s is not None
    assert after.uptime_s is not None
    assert before.uptime_s <= after.uptime_s
    assert "dumpsys" in before.unknown["thermal_status"]
    assert not (Path(seeded.profile.work_dir) / "changed").exists() or not list(
        (Path(seeded.profile.work_dir) / "changed").iterdir()
    )


DUMPSYS = """#!/bin/sh
echo 'Thermal Status: '$(cat "$(dirname "$0")/status")
"""


def test_a_case_during_which_the_phone_throttles_is_invalid(
    adbd: NativeAdbd, models: Models, bundle: harness.Bundle, tmp_path: Path
) -> None:
    device = adbd.connect(tmp_path / "dev")
    dumpsys, status = adbd.commands / "dumpsys", adbd.commands / "status"
    dumpsys.write_text(DUMPSYS)
    dumpsys.chmod(0o755)
    status.write_text("0")
    # The first case begins cool and heats the phone up; before the second it is cool again.
    heating = 'echo 2 >"$0"; exec "$@"'
    hot = bundle.model_copy(update={"launch": ("sh", "-c", heating, str(status), *bundle.launch)})
    _, (spoilt,) = run_device(device, [models.job(Format.ONNX)], hot, EXACT)
    status.write_text("0")
    _, (good,) = run_device(device, [models.job(Format.ONNX)], bundle, EXACT)
    assert spoilt.status is Status.INVALID
    assert spoilt.reason.startswith("thermal: the status changed from none to moderate")
    assert spoilt.measurements == ()
    assert good.status is Status.OK
    assert good.before is not None
    assert good.before.thermal_status == 0
