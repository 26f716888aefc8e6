"""Memory of the agent over many cases, with a stand-in for the runner that does nothing.

Run as a process of its own, so that no torch hides what grows. The stand-in copies a prepared
result and prepared outputs, and the model is no model: everything else is the real path.
"""

from __future__ import annotations

import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.agent.cases import must_be_ok
from benchmarks.agent.figures import Part, Row, say
from deploy.bench.job import Job
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.devices.base import Device
from deploy.files import sha256
from deploy.types import Artifact, Case, Format, Placement, TensorSpec

GROWTH = 1.05
_CASES_A_RUN = 20
_EARLY = 100


def measure(device: Device, folder: Path, *, cases: int) -> Part:
    """Resident memory while ``cases`` cases run, in runs of 20 whose results are dropped.

    A user's run keeps its cases until the report is written; that is not what this asks.
    """
    part = Part(f"memory of the agent, {cases} cases, a stand-in for the runner")
    folder.mkdir()
    job = _job(folder)
    bundle = _instant_bundle(device, folder / "bundle", job.artifact.bytes)
    rss: list[int] = []

    def note(case: Case, _: bytes | None) -> None:
        must_be_ok(case)
        rss.append(_rss_kib())
        if len(rss) % 100 == 0:
            say(f"memory: {len(rss)} of {cases} cases, {rss[-1]} KiB")

    start = time.perf_counter()
    while len(rss) < cases:
        run_device(
            device, [job] * min(_CASES_A_RUN, cases - len(rss)), bundle, PRESETS["exact"], keep=note
        )
    seconds = time.perf_counter() - start
    early = min(_EARLY, cases // 2)
    part.samples = {"rss_kib": rss[:: max(1, cases // 100)], "seconds": seconds}
    growth = f"memory after {cases} / after {early} cases"
    part.rows = [
        Row(f"resident after {early} cases", rss[early - 1], "KiB"),
        Row(f"resident after {cases} cases", rss[-1], "KiB"),
        Row(
            growth,
            rss[-1] / rss[early - 1],
            "x",
            "<=",
            GROWTH,
        ),
        Row("wall time a case", seconds / cases, "s"),
    ]
    return part


def _job(folder: Path) -> Job:
    model, inputs = folder / "model.pte", folder / "inputs"
    model.write_bytes(bytes(1000))
    inputs.write_bytes(bytes(40))
    specs = (TensorSpec(name="y", dtype="float32", shape=(1, 10)),)
    artifact = Artifact(
        name="nothing.executorch",
        variant="nothing",
        format=Format.EXECUTORCH,
        path=model.name,
        sha256=sha256(model),
        bytes=model.stat().st_size,
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="cpu"),
        inputs=specs,
        outputs=specs,
    )
    reference = folder / "reference"
    reference.write_bytes(bytes(40))
    return Job(artifact, model, inputs, reference, 1)


@dataclass(frozen=True)
class _Instant:
    abi: str
    folder: Path
    files: dict[str, str]
    launch: tuple[str, ...] = ("./bench_runner",)


_SCRIPT = """\
#!/bin/sh
while [ $# -gt 1 ]; do
  case $1 in --outputs) cp -- ./outputs "$2";; --result) cp -- ./result.json "$2";; esac
  shift 2
done
"""


def _instant_bundle(device: Device, folder: Path, model_bytes: int) -> _Instant:
    folder.mkdir()
    tensor = {"name": "y", "dtype": "float32", "shape": [1, 10], "bytes": 40}
    result: dict[str, Any] = {
        "schema": 1,
        "runner_version": "stand-in",
        "backend": "executorch",
        "runtime_version": "none",
        "arch": "none",
        "model_bytes": model_bytes,
        "threads": 1,
        "cpu_mask": None,
        "affinity_applied": False,
        "load_ns": 1,
        "first_ns": 1,
        "warmup_ns": [1],
        "steady_ns": [1, 1, 1],
        "stopped_by": "iterations",
        "baseline_rss_kib": 1,
        "loaded_rss_kib": 1,
        "peak_rss_kib": 1,
        "inputs": [],
        "outputs": [tensor],
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "outputs").write_bytes(bytes(40))
    script = folder / "bench_runner"
    script.write_text(_SCRIPT)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    files = {path.name: sha256(path) for path in folder.iterdir()}
    return _Instant(device.profile.abi, folder, files)


def _rss_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
