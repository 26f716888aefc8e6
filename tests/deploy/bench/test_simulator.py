"""Core ML cases on a simulator, from the session to the report, with a stand-in for xcrun."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import harness
from deploy.bench.recovery import Patience
from deploy.bench.runner import PRESETS, Preset
from deploy.bench.session import Job, run_device
from deploy.devices import profiles, simctl
from deploy.devices.simctl import Simulator
from deploy.errors import DeviceError
from deploy.files import tree_digest
from deploy.harness import ios_simulator
from deploy.report import budgets, render, store
from deploy.types import (
    Artifact,
    Budget,
    Case,
    DeviceRun,
    Format,
    Metric,
    Outcome,
    Placement,
    Report,
    Status,
    TensorSpec,
    Tier,
)
from tests.deploy.coreml_packages import model, write_package
from tests.deploy.fake_mac import IOS_17, FakeXcrun, install, runtime, usual

EXACT = PRESETS["exact"]
WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)
X = np.array([[1, -2, 3]], dtype=np.float32)


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeXcrun:
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "it's a $(touch pwned) cache"))
    return install(tmp_path / "mac", monkeypatch)


@pytest.fixture
def phone(mac: FakeXcrun) -> Iterator[Simulator]:
    opened = simctl.connect(profiles.load("ios-simulator"))
    yield opened
    opened.close()
    assert mac.devices == []


@pytest.fixture
def bundle(mac: FakeXcrun) -> harness.Bundle:
    return harness.bundle(ios_simulator.ABI)


def job(folder: Path, name: str = "tiny", fmt: Format = Format.COREML, **behaviour: Any) -> Job:
    content = behaviour.pop("content", model(["x"], ["var_7"]))
    path = write_package(folder / f"{name}.mlpackage", content, WEIGHT.tolist(), **behaviour)
    inputs = folder / "inputs.bin"
    inputs.write_bytes(X.tobytes())
    digest, size = tree_digest(path)
    artifact = Artifact(
        name=f"{name}.{fmt.value}",
        variant=name,
        format=fmt,
        path=path.name,
        sha256=digest,
        bytes=size,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 3)),),
        outputs=(TensorSpec(name="add", dtype="float32", shape=(1, 2)),),
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="coreml"),
    )
    return Job(artifact, path, inputs, [X @ WEIGHT])


HASTY = Patience(comeback_s=0.0, first_pause_s=0.01)


def run(
    phone: Simulator, bundle: harness.Bundle, *jobs: Job, preset: Preset = EXACT
) -> tuple[DeviceRun, list[Case]]:
    return run_device(phone, jobs, bundle, preset, patience=HASTY)


def leftovers(phone: Simulator) -> list[str]:
    return [one.name for one in (Path(phone.profile.work_dir) / "cases").iterdir()]


def test_a_case_from_the_session_to_the_report(
    mac: FakeXcrun, phone: Simulator, bundle: harness.Bundle, tmp_path: Path
) -> None:
    good = job(tmp_path)
    others = [job(tmp_path, fmt.value, fmt) for fmt in Format if fmt is not Format.COREML]
    device_run, cases = run(phone, bundle, good, *others, dataclasses.replace(good, threads=4))
    case, *rest = cases
    assert case.status is Status.OK, case.reason
    assert case.id == "tiny.coreml@ios-simulator/t1"
    assert case.runtime_version == "iOS 18.0 (Build 22A3351)"
    rows = {row.metric: row for row in case.measurements}
    assert all(row.tier is Tier.SIMULATOR for row in case.measurements)
    assert rows[Metric.OUTPUT_MAX_ABS_DIFF].samples == (0.0,)
    assert rows[Metric.LATENCY_MS].samples == (1.0, 1.0, 1.0)
    assert "no statement about a phone's time" in rows[Metric.LATENCY_MS].source
    assert "threads chosen by Core ML" in rows[Metric.LATENCY_MS].source
    assert rows[Metric.PHYS_FOOTPRINT_KIB].samples == (6144.0,)
    assert rows[Metric.DELTA_RSS_KIB].samples == (5120.0,)
    assert "TASK_VM_INFO" in rows[Metric.PEAK_RSS_KIB].source
    assert rows[Metric.ENERGY_MJ].status is Status.UNAVAILABLE
    assert "the Mac's is no phone's" in rows[Metric.ENERGY_MJ].reason
    assert [one.status for one in rest] == [Status.NOT_RUN] * len(rest)
    assert all("Core ML packages only" in one.reason for one in rest[:3])
    assert "chooses its own threads" in rest[-1].reason
    assert device_run.status is Status.OK
    assert device_run.bytes_pushed == 0
    assert leftovers(phone) == []
    assert not list(tmp_path.rglob("pwned"))

    limits = [
        Budget(subject="*", metric="latency_ms", max=0.001),
        Budget(subject=case.id, metric="latency_ms", max=1000),
        Budget(subject="*", metric="output_max_abs_diff", max=0.001),
    ]
    verdicts = budgets.verdicts(
        artifacts=[good.artifact], parity=[], devices=[device_run], cases=[case], budgets=limits
    )
    assert [(one.metric, one.outcome) for one in verdicts] == [
        ("latency_ms", Outcome.INVALID),
        ("latency_ms", Outcome.INVALID),
        ("output_max_abs_diff", Outcome.PASS),
    ]
    assert "no case of this id" in verdicts[0].reason
    assert "computed by the Mac" in verdicts[1].reason
    report = Report(
        pocketship_version="0",
        pipeline="tiny",
        run_id="r",
        created_utc="2026-01-01T00:00:00Z",
        commit=None,
        seed=0,
        baseline_variant=None,
        machine={},
        tools={},
        artifacts=(good.artifact,),
        devices=(device_run,),
        cases=tuple(cases),
        verdicts=tuple(verdicts[2:]),
        outcome=Outcome.PASS,
        exit_code=0,
    )
    folder = tmp_path / "run"
    folder.mkdir()
    store.write(report, folder)
    render.write(report, folder)
    assert store.load(folder).cases == tuple(cases)
    assert "tiny.coreml" in (folder / "report.md").read_text()


def test_model_and_runner_are_compiled_once(
    mac: FakeXcrun, phone: Simulator, bundle: harness.Bundle, tmp_path: Path
) -> None:
    tiny = job(tmp_path)
    run(phone, bundle, tiny)
    compiles = [call for call in mac.calls if "compile" in call or "-o" in call]
    assert harness.bundle(ios_simulator.ABI) == bundle
    _, (case,) = run(phone, bundle, tiny)
    assert case.status is Status.OK
    assert [call for call in mac.calls if "compile" in call or "-o" in call] == compiles
    assert [call[0] for call in compiles] == ["--sdk", "coremlcompiler"]
    assert bundle.executables == ("bench_runner",)
    # A compiled model that is no longer whole is made again.
    (weight,) = (tmp_path / "it's a $(touch pwned) cache").glob("coreml/*/*/weight.json")
    weight.write_text("[[0]]")
    _, (case,) = run(phone, bundle, tiny)
    assert case.status is Status.OK, case.reason


def test_features_are_told_in_the_packages_order(
    mac: FakeXcrun, phone: Simulator, bundle: harness.Bundle, tmp_path: Path
) -> None:
    two = job(tmp_path, content=model(["x", "mask"], ["var_7"]))
    _, (case,) = run(phone, bundle, two)
    assert case.status is Status.INVALID
    assert "2 inputs and its manifest 1" in case.reason
    _, (case,) = run(phone, bundle, job(tmp_path, "other", content=model(["z"], ["var_7"])))
    assert case.status is Status.FAILED
    assert "the model's inputs are x, not z" in case.reason


DESPITE = {
    "exit 3": ({"exit": [3, "noise\nbench_runner: cannot load: m"]}, Status.FAILED, "cannot load"),
    "exit 6": ({"exit": [6, "bench_runner: the inference failed: m"]}, Status.FAILED, "inference"),
    "exit 2": ({"exit": [2, "bench_runner: unknown option: -x"]}, Status.INVALID, "options"),
    "crash": ({"signal": int(signal.SIGSEGV)}, Status.FAILED, "SIGSEGV"),
    "killed": ({"signal": int(signal.SIGTERM)}, Status.INVALID, "SIGTERM"),
    "garbage": ({"result": "<html>"}, Status.INVALID, "result cannot be used"),
    "other keys": ({"result": "{}"}, Status.INVALID, "result cannot be used"),
}


def test_runners_that_fail_are_named_and_the_next_case_runs(
    phone: Simulator, bundle: harness.Bundle, tmp_path: Path
) -> None:
    bad = [
        job(tmp_path, f"bad{number}", **behaviour)
        for number, (behaviour, _, _) in enumerate(DESPITE.values())
    ]
    device_run, cases = run(phone, bundle, *bad, job(tmp_path))
    for case, (name, (_, status, says)) in zip(cases, DESPITE.items(), strict=False):
        assert (case.status, says in case.reason) == (status, True), (name, case.reason)
    assert cases[-1].status is Status.OK
    assert device_run.status is Status.OK
    assert leftovers(phone) == []


def test_a_late_runner_is_ended(phone: Simulator, bundle: harness.Bundle, tmp_path: Path) -> None:
    """Ending simctl does not end the program: it is no child of it."""
    spawn = phone.spawn
    ended: list[int] = []
    threads: list[threading.Thread] = []

    def late(argv: list[str], *, timeout_s: float) -> Any:
        thread = threading.Thread(
            target=lambda: ended.append(spawn(argv, timeout_s=timeout_s).exit_code)
        )
        threads.append(thread)
        thread.start()
        note = Path(argv[argv.index("--pid-file") + 1])
        while not (note.exists() and note.read_text().endswith("\n")):
            threading.Event().wait(0.01)
        raise DeviceError("did not end in time") from TimeoutError()

    phone.spawn = late  # type: ignore[method-assign,assignment]
    _, (case,) = run(phone, bundle, job(tmp_path, hangs=True))
    assert case.status is Status.INVALID
    assert "did not end in time" in case.reason
    threads[0].join(60)
    assert ended == [128 + signal.SIGKILL]
    assert leftovers(phone) == []


def test_a_package_that_changed_or_does_not_compile(
    mac: FakeXcrun, phone: Simulator, bundle: harness.Bundle, tmp_path: Path
) -> None:
    changed = job(tmp_path, "changed")
    (changed.path / "weight.json").write_text("[]")
    _, (case,) = run(phone, bundle, changed)
    assert (case.status, "the package changed" in case.reason) == (Status.INVALID, True)
    mac.fault(compile="error: Unsupported opset 'CoreML99'")
    _, (case,) = run(phone, bundle, job(tmp_path, "refused"))
    assert "coremlcompiler refuses the package: error: Unsupported opset" in case.reason


def test_a_package_for_a_newer_ios_blames_the_simulator(mac: FakeXcrun, tmp_path: Path) -> None:
    kind = "com.apple.CoreSimulator.SimDeviceType.iPhone-15"
    mac.set({**usual(), "runtimes": [runtime(IOS_17, "17.5", "21F79", kind)]})
    phone = simctl.connect(profiles.load("ios-simulator"))
    _, cases = run(
        phone,
        harness.bundle(ios_simulator.ABI),
        job(tmp_path),
        job(tmp_path, "older", content=model(["x"], ["var_7"], version=8)),
    )
    phone.close()
    assert [one.status for one in cases] == [Status.INVALID, Status.OK]
    assert "needs iOS 18 and the simulator has iOS 17.5" in cases[0].reason


def test_a_simulator_that_goes_away_loses_the_rest(
    mac: FakeXcrun,
    phone: Simulator,
    bundle: harness.Bundle,
    tmp_path: Path,
) -> None:
    mac.fault(spawn="shut down")
    device_run, cases = run(phone, bundle, job(tmp_path), job(tmp_path, "second"))
    assert [one.status for one in cases] == [Status.INVALID] * 2
    assert "current state: Shutdown" in cases[0].reason
    assert device_run.status is Status.INVALID
    assert "'Shutdown'" in device_run.reason


def test_a_runner_that_does_not_compile_is_said(mac: FakeXcrun) -> None:
    mac.fault(swiftc="Tensors.swift:3:8: error: no such module 'CoreML'\nnote: x")
    with pytest.raises(DeviceError, match="no such module 'CoreML'"):
        harness.bundle(ios_simulator.ABI)


def test_the_runner_is_built_for_the_simulator(mac: FakeXcrun, bundle: harness.Bundle) -> None:
    (call,) = [one for one in mac.calls if "-o" in one]
    assert call[:3] == ["--sdk", "iphonesimulator", "swiftc"]
    assert call[call.index("-target") + 1].endswith("-apple-ios17.0-simulator")
    sources = {Path(word).name for word in call if word.endswith(".swift")}
    assert {"main.swift", "Tensors.swift"} <= sources
    assert json.loads((bundle.folder / "bundle.json").read_text())["launch"] == ["./bench_runner"]
