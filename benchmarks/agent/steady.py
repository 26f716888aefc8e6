"""Steady latency of bench_runner beside the runtime's own calls in a bare loop.

Processes take turns in the order ABBA; both sides load the same libraries from the same bundle. The
statistic is the median over pairs of the log ratio of two processes' medians, with a bootstrap
interval over pairs (docs/measuring.md, but on this machine and without a thermal gate).
"""

from __future__ import annotations

import json
import statistics
import subprocess
from pathlib import Path

import numpy as np

from benchmarks.agent.figures import Part, Row, interval, say
from benchmarks.agent.tiny import Exported
from deploy.bench.runner import BACKENDS
from deploy.harness import Bundle, native_abi
from deploy.harness.toolchain import cmake_build, target
from deploy.harness.wheels import installed_versions, package_folder
from deploy.paths import harness_dir
from deploy.types import Format

TARGET = 1.01
_TIMEOUT_S = 120.0


def build(folder: Path) -> Path:
    """Build the bare loops for this machine; their folder."""
    package = package_folder(
        "executorch",
        installed_versions()["executorch"],
        target(native_abi()),
        wheels=folder,
        unpacked=folder,
        progress=say,
    )
    cmake_build(
        harness_dir() / "bench",
        folder / "bare",
        {"executorch_DIR": package / "share" / "cmake"},
        what="building the bare loops",
        log=folder / "bare.log",
        progress=say,
    )
    return folder / "bare"


def measure(
    bundle: Bundle, bare: Path, models: Exported, *, folder: Path, pairs: int, iterations: int
) -> Part:
    """Ratios of both runtimes; ``pairs`` is rounded up to an even number, as ABBA needs it."""
    part = Part(f"steady latency, 1 thread, {iterations} iterations a process")
    warmup = max(20, iterations // 5)
    for fmt in (Format.EXECUTORCH, Format.ONNX):
        backend = BACKENDS[fmt]
        ours = _ours(bundle, backend, models.files[fmt], models.inputs, folder)
        ours += ["--warmup-iterations", str(warmup), "--iterations", str(iterations)]
        theirs = _theirs(bundle, backend, bare, models.files[fmt], models.inputs)
        theirs += [str(warmup), str(iterations)]
        taken: dict[str, list[list[int]]] = {"bench_runner": [], "bare": []}
        for number in range(2 * ((pairs + 1) // 2)):
            say(f"steady latency, {backend}: pair {number + 1}")
            for who in list(taken) if number % 2 == 0 else list(taken)[::-1]:
                if who == "bare":
                    samples = json.loads(_run(theirs, bundle.folder))
                else:
                    _run(ours, bundle.folder)
                    samples = json.loads((folder / "result.json").read_text())["steady_ns"]
                taken[who].append(samples)
        part.samples[backend] = {}
        part.rows += _rows(backend, taken, part.samples[backend])
    return part


def _rows(
    backend: str, taken: dict[str, list[list[int]]], samples: dict[str, dict[str, list[float]]]
) -> list[Row]:
    bare = statistics.median(statistics.median(one) for one in taken["bare"]) / 1e6
    rows = [Row(f"{backend}, bare loop", bare, "ms")]
    # The 10th percentile beside it: other processes on the machine reach it last.
    for title, quantile, wanted in (("medians", 0.5, TARGET), ("10th percentiles", 0.1, None)):
        per_process = {who: np.quantile(runs, quantile, axis=1) for who, runs in taken.items()}
        ratios = (per_process["bench_runner"] / per_process["bare"]).tolist()
        low, middle, high = interval(ratios)
        samples[title] = {f"{who}_ns": values.tolist() for who, values in per_process.items()}
        rows.append(
            Row(
                f"{backend}, bench_runner / bare loop, {title}",
                middle,
                "x",
                "<=",
                wanted,
                f"95 %: {low:.4f} to {high:.4f}, {len(ratios)} pairs",
                (low, high),
            )
        )
    return rows


def _ours(bundle: Bundle, backend: str, model: Path, inputs: Path, folder: Path) -> list[str]:
    return [
        *bundle.launch,
        *("--backend", backend, "--model", str(model), "--inputs", str(inputs)),
        *("--outputs", str(folder / "outputs"), "--result", str(folder / "result.json")),
        *("--threads", "1"),
    ]


def _theirs(bundle: Bundle, backend: str, bare: Path, model: Path, inputs: Path) -> list[str]:
    loader = bundle.launch[:-1]
    program = [str(bare / f"bare_{backend}")]
    if backend == "onnxruntime":
        (library,) = (n for n in bundle.files if n.startswith("libonnxruntime.so"))
        program.append(f"./{library}")
    return [*loader, *program, str(model), str(inputs)]


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(f"{Path(command[-5]).name}: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout
