"""A runner of a few hundred bytes: a real process with a real bundle, whose behaviour tests choose.

It takes the real runner's options and leaves a result in the real format; only the figures are no
measurements.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deploy.bench.job import Job
from deploy.devices.host import HostDevice
from deploy.types import Artifact, Format, Placement, TensorSpec

VALUES = 50_000
"""float32 outputs of the pretended model: 200 kB to pull."""

SCRIPT = """\
while [ $# -gt 1 ]; do
  case $1 in
    --result) result=$2;; --outputs) outputs=$2;; --model) model=$2;; --threads) threads=$2;;
  esac
  shift 2
done
@BEHAVIOUR@
cat ./values >"$outputs.part" && mv "$outputs.part" "$outputs" || exit 7
sed "s/11111/$(wc -c <"$model")/; s/22222/$threads/" template >"$result.part" || exit 7
mv "$result.part" "$result"
"""
TENSOR = {"name": "y", "dtype": "float32", "shape": [1, VALUES], "bytes": 4 * VALUES}
RESULT = {
    "schema": 1,
    "runner_version": "fake",
    "backend": "onnxruntime",
    "runtime_version": "0",
    "arch": "none",
    "model_bytes": 11111,
    "threads": 22222,
    "cpu_mask": None,
    "affinity_applied": False,
    "load_ns": 1000,
    "first_ns": 2000,
    "warmup_ns": [],
    "steady_ns": [3000, 3000, 3000],
    "stopped_by": "iterations",
    "baseline_rss_kib": 100,
    "loaded_rss_kib": 200,
    "peak_rss_kib": 300,
    "inputs": [],
    "outputs": [TENSOR],
}


@dataclass(frozen=True)
class FakeBundle:
    """A :class:`deploy.bench.agent.RunnerBundle`."""

    abi: str
    folder: Path
    files: dict[str, str]
    launch: tuple[str, ...] = ("sh", "./runner")


def values() -> np.ndarray:
    """What the pretended model computes."""
    return np.random.default_rng(3).standard_normal(VALUES, dtype=np.float32)


def make(folder: Path, behaviour: str = "", *, abi: str | None = None) -> FakeBundle:
    """A bundle whose runner does ``behaviour`` (shell) before it leaves its results."""
    folder.mkdir(parents=True)
    contents = {
        "runner": SCRIPT.replace("@BEHAVIOUR@", behaviour).encode(),
        "template": json.dumps(RESULT).encode(),
        "values": values().tobytes(),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return FakeBundle(abi or HostDevice().profile.abi, folder, hashes)


def job(folder: Path, number: int = 1, size: int = 400_000) -> Job:
    """A job with a model of ``size`` random bytes, which the fake runner takes as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    path, inputs = folder / f"m{number}.onnx", folder / "inputs.bin"
    path.write_bytes(os.urandom(size))
    inputs.write_bytes(b"1234")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = TensorSpec(name="y", dtype="float32", shape=(1, VALUES))
    artifact = Artifact(
        name=f"m{number}.onnx",
        variant=f"m{number}",
        format=Format.ONNX,
        path=path.name,
        sha256=digest,
        bytes=size,
        inputs=(TensorSpec(name="x", dtype="float32", shape=(1, 1)),),
        outputs=(spec,),
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="cpu"),
    )
    return Job(artifact, path, inputs, [values().reshape(1, VALUES)])
