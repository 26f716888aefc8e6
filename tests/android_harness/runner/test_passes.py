"""What the passes beside timing get from the runner."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.metrics.operators import OUTSIDE, executorch_operators, onnxruntime_operators

BACKENDS = {"pte": "executorch", "onnx": "onnxruntime", "ort": "onnxruntime"}
PARSERS = {"executorch": executorch_operators, "onnxruntime": onnxruntime_operators}


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_profile_has_every_operator_of_every_inference(
    kind: str, runner: Any, models: Any, content: bytes
) -> None:
    file = runner.folder / "profile"
    options = ("--warmup-iterations", "2", "--iterations", "4", "--profile", file)
    got = runner.run(BACKENDS[kind], models[kind], content, *options)
    assert got.stderr == ""
    rows = PARSERS[BACKENDS[kind]](file.read_bytes(), inferences=4, clock="monotonic")
    kinds = " ".join(row.kind for row in rows)
    assert "Conv" in kinds
    # The embedding runs on no delegate: ExecuTorch's own kernel, or ONNX Runtime's Gather.
    assert ("embedding" in kinds) or ("Gather" in kinds)
    assert all(len(row.samples) == 4 for row in rows)
    assert rows[-1].name == OUTSIDE
    # The runtime's own clock saw no more than the one around its call.
    whole = [sum(column) for column in zip(*(row.samples for row in rows), strict=True)]
    for inside, outside_ns in zip(whole, got.result["steady_ns"], strict=True):
        assert 0 < inside <= outside_ns / 1e6 + 0.001
    assert runner.left_behind() == {"outputs", "result.json", "profile"}


def test_memory_is_polled_and_ends_with_the_process(
    runner: Any, models: Any, content: bytes
) -> None:
    options = ("--poll-memory-ms", "5", "--iterations", "1", "--min-seconds", "0.1")
    result = runner.run("onnxruntime", models["onnx"], content, *options).result
    memory = result["memory"]
    assert (memory["interval_ms"], memory["reason"]) == (5, "")
    assert len(memory["pss_kib"]) == len(memory["private_dirty_kib"])
    assert 0 < memory["steady_from"] < len(memory["pss_kib"])
    last = memory["pss_kib"][-1], memory["private_dirty_kib"][-1]
    # PSS is at most RSS, and private dirty pages are part of PSS.
    assert result["baseline_rss_kib"] < last[0] <= result["peak_rss_kib"] + 1024
    assert 0 < last[1] < last[0]
    assert runner.run("onnxruntime", models["onnx"], content).result["memory"] is None


@pytest.mark.parametrize("kind", BACKENDS)
def test_each_sample_has_the_outputs_that_it_has_alone(kind: str, runner: Any, models: Any) -> None:
    random = np.random.default_rng(6)
    samples = []
    for _ in range(3):
        image = random.standard_normal((1, 3, 16, 16), dtype=np.float32)
        samples.append(image.tobytes() + random.integers(0, 10, (1, 3)).tobytes())
    alone = [runner.run(BACKENDS[kind], models[kind], sample).outputs for sample in samples]
    got = runner.run(BACKENDS[kind], models[kind], b"".join(samples), "--samples", "3")
    assert got.stderr == ""
    assert got.outputs == b"".join(alone)
    assert len(set(alone)) == 3
    assert (got.result["samples"], got.result["steady_ns"]) == (3, [])
    short = runner.run(BACKENDS[kind], models[kind], samples[0], "--samples", "2")
    assert short.code == 4
    assert "for 2 samples" in short.stderr


def test_no_iterations_are_the_load_and_the_first_inference(
    runner: Any, models: Any, content: bytes
) -> None:
    got = runner.run("executorch", models["pte"], content, "--iterations", "0")
    assert (got.result["warmup_ns"], got.result["steady_ns"]) == ([], [])
    assert got.result["load_ns"] > 0
    assert got.result["first_ns"] > 0
    assert len(got.outputs) == 4 * (5 + 8 * 16 * 16)


def test_minutes_count_the_steady_inferences(runner: Any, models: Any, content: bytes) -> None:
    result = runner.run("executorch", models["pte"], content, "--iterations", "6").result
    assert result["steady_minutes"] == [6]


def test_a_profile_is_not_written_over_what_is_read(
    runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(models["pte"].read_bytes())
    got = runner.run("executorch", model, content, "--profile", model)
    assert got.code == 2
    assert model.read_bytes() == models["pte"].read_bytes()
    same = runner.run("executorch", model, content, "--profile", runner.folder / "outputs")
    assert same.code == 2
    assert json.dumps("two options name one file")[1:-1] in same.stderr
