"""What the runner measures, and that it computes what the runtimes compute from Python."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from executorch.runtime import Runtime

BACKENDS = {"pte": "executorch", "onnx": "onnxruntime", "ort": "onnxruntime"}


def from_python(kind: str, model: Path, arguments: tuple[torch.Tensor, ...]) -> bytes:
    if kind == "pte":
        method = Runtime.get().load_program(model).load_method("forward")
        assert method is not None
        outputs = [tensor.numpy() for tensor in method.execute(list(arguments))]
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.load_model_format", kind.upper())
        session = onnxruntime.InferenceSession(model, options)
        names = [one.name for one in session.get_inputs()]
        feeds = dict(zip(names, (one.numpy() for one in arguments), strict=True))
        outputs = session.run(None, feeds)
    return b"".join(np.ascontiguousarray(output).tobytes() for output in outputs)


@pytest.mark.parametrize("kind", BACKENDS)
def test_outputs_are_those_of_the_python_runtime(
    kind: str, runner: Any, models: Any, content: bytes, image_and_tokens: Any
) -> None:
    got = runner.run(BACKENDS[kind], models[kind], content)
    assert (got.code, got.stdout, got.stderr) == (0, "", "")
    expected = np.frombuffer(from_python(kind, models[kind], image_and_tokens), np.float32)
    actual = np.frombuffer(got.outputs, np.float32)
    assert actual.size == 5 + 8 * 16 * 16
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    assert np.ptp(actual) > 0.1


@pytest.mark.parametrize("kind", BACKENDS)
def test_the_result_describes_the_run(kind: str, runner: Any, models: Any, content: bytes) -> None:
    got = runner.run(
        BACKENDS[kind], models[kind], content, "--warmup-iterations", "3", "--iterations", "7"
    )
    result = got.result
    assert result["schema"] == 1
    assert result["backend"] == BACKENDS[kind]
    assert result["arch"] == platform.machine()
    assert result["runtime_version"] == runner.bundle.versions[BACKENDS[kind]]
    assert result["model_bytes"] == models[kind].stat().st_size
    assert (result["threads"], result["cpu_mask"], result["affinity_applied"]) == (1, None, False)
    assert len(result["warmup_ns"]) == 3
    assert len(result["steady_ns"]) == 7
    assert result["stopped_by"] == "iterations"
    times = [result["load_ns"], result["first_ns"], *result["warmup_ns"], *result["steady_ns"]]
    assert min(times) > 0
    assert 0 < result["baseline_rss_kib"] < result["loaded_rss_kib"] <= result["peak_rss_kib"]
    assert [(one["dtype"], one["shape"], one["bytes"]) for one in result["inputs"]] == [
        ("float32", [1, 3, 16, 16], 3072),
        ("int64", [1, 3], 24),
    ]
    assert [(one["dtype"], one["shape"], one["bytes"]) for one in result["outputs"]] == [
        ("float32", [1, 5], 20),
        ("float32", [1, 8, 16, 16], 8192),
    ]
    assert runner.left_behind() == {"outputs", "result.json"}


@pytest.mark.parametrize("kind", ["pte", "onnx"])
def test_every_element_type_goes_in_and_out(kind: str, runner: Any, all_types: Any) -> None:
    got = runner.run(BACKENDS[kind], all_types[kind], all_types["inputs"])
    assert got.stderr == ""
    assert got.outputs == all_types["outputs"]


def test_outputs_are_of_the_first_inference_and_inputs_survive_the_next(
    runner: Any, models: Any, content: bytes
) -> None:
    """Planned inputs are overwritten by an inference: without care the outputs would drift."""
    once = runner.run(
        "executorch", models["pte"], content, "--warmup-iterations", "0", "--iterations", "1"
    )
    often = runner.run("executorch", models["pte"], content, "--iterations", "40")
    assert once.outputs == often.outputs


def test_channels_last_tensors_are_given_and_returned_in_c_order(
    runner: Any, tmp_path: Path
) -> None:
    from executorch.exir import to_edge

    class Twice(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image + image

    image = torch.randn(1, 3, 4, 5).to(memory_format=torch.channels_last)
    program = to_edge(torch.export.export(Twice(), (image,))).to_executorch()
    model = tmp_path / "channels_last.pte"
    model.write_bytes(program.buffer)
    plain = np.ascontiguousarray(image.numpy())
    got = runner.run("executorch", model, plain.tobytes())
    assert got.stderr == ""
    np.testing.assert_array_equal(np.frombuffer(got.outputs, np.float32), plain.ravel() * 2)


@pytest.mark.parametrize("kind", ["pte", "onnx"])
def test_minimum_time_prolongs_and_maximum_time_ends_a_run(
    kind: str, runner: Any, models: Any, content: bytes
) -> None:
    longer = runner.run(
        BACKENDS[kind], models[kind], content, "--iterations", "1", "--min-seconds", "0.05"
    ).result
    assert longer["stopped_by"] == "min_seconds"
    assert len(longer["steady_ns"]) > 1
    assert sum(longer["steady_ns"]) <= 60e9
    ended = runner.run(
        BACKENDS[kind], models[kind], content, "--iterations", "10000000", "--max-seconds", "0.05"
    ).result
    assert ended["stopped_by"] == "max_seconds"
    assert 1 <= len(ended["steady_ns"]) < 10_000_000


def test_warm_up_lasts_until_both_its_limits_are_met(
    runner: Any, models: Any, content: bytes
) -> None:
    options = ("--warmup-iterations", "2", "--warmup-seconds", "0.05", "--iterations", "1")
    result = runner.run("executorch", models["pte"], content, *options).result
    assert len(result["warmup_ns"]) > 2
    # All of the time but the copies between inferences.
    assert sum(result["warmup_ns"]) <= 60e9


@pytest.mark.parametrize("kind", ["pte", "onnx"])
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_what_was_asked_for(
    kind: str, threads: int, runner: Any, models: Any, content: bytes
) -> None:
    arguments = runner.arguments(BACKENDS[kind], models[kind], content)
    arguments += ["--threads", str(threads), "--iterations", "10000000", "--max-seconds", "60"]
    process = subprocess.Popen(runner.command(*arguments), cwd=runner.bundle.folder)
    try:
        # The temporary outputs have content once the first inference is over.
        partial = runner.folder / "outputs.tmp"
        while process.poll() is None and not (partial.exists() and partial.stat().st_size):
            time.sleep(0.005)
        assert process.poll() is None
        assert len(os.listdir(f"/proc/{process.pid}/task")) == threads
        assert runner.left_behind() == {"outputs.tmp", "result.json.tmp"}
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
    assert runner.left_behind() == set()


def test_two_threads_compute_the_same(runner: Any, models: Any, content: bytes) -> None:
    for kind in ("pte", "onnx"):
        one = runner.run(BACKENDS[kind], models[kind], content).outputs
        two = runner.run(BACKENDS[kind], models[kind], content, "--threads", "2")
        assert two.result["threads"] == 2
        np.testing.assert_allclose(
            np.frombuffer(two.outputs, np.float32), np.frombuffer(one, np.float32), atol=1e-6
        )


def test_the_cpu_mask_is_applied_or_said_not_to_be(
    runner: Any, models: Any, content: bytes
) -> None:
    cpu = min(os.sched_getaffinity(0))
    mask = hex(1 << cpu)
    there = runner.run("executorch", models["pte"], content, "--cpu-mask", mask).result
    assert (there["cpu_mask"], there["affinity_applied"]) == (mask, True)
    absent = "0x1" + "0" * 200
    missing = runner.run("executorch", models["pte"], content, "--cpu-mask", absent).result
    assert (missing["cpu_mask"], missing["affinity_applied"]) == (absent, False)


@pytest.mark.parametrize("kind", BACKENDS)
def test_describe_needs_no_inputs(kind: str, runner: Any, models: Any) -> None:
    done = runner.call("--describe", "--backend", BACKENDS[kind], "--model", models[kind])
    assert (done.returncode, done.stderr) == (0, "")
    described = json.loads(done.stdout)
    assert [one["shape"] for one in described["inputs"]] == [[1, 3, 16, 16], [1, 3]]
    assert [one["bytes"] for one in described["outputs"]] == [20, 8192]
    if kind != "pte":
        assert [one["name"] for one in described["inputs"]] == ["image", "tokens"]


def test_version_is_one_json_line(runner: Any) -> None:
    done = runner.call("--version")
    assert json.loads(done.stdout)["arch"] == platform.machine()
    assert done.stdout.count("\n") == 1


def test_it_runs_from_any_folder_without_the_loader(
    runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    program = runner.bundle.folder / "bench_runner"
    arguments = runner.arguments("onnxruntime", models["onnx"], content)
    done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_kill_9_leaves_no_result(runner: Any, models: Any, content: bytes) -> None:
    arguments = runner.arguments("executorch", models["pte"], content)
    arguments += ["--iterations", "10000000", "--max-seconds", "60"]
    process = subprocess.Popen(runner.command(*arguments), cwd=runner.bundle.folder)
    partial = runner.folder / "outputs.tmp"
    while process.poll() is None and not (partial.exists() and partial.stat().st_size):
        time.sleep(0.005)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert not (runner.folder / "result.json").exists()
    assert not (runner.folder / "outputs").exists()
    # What was left does not disturb the next run.
    again = runner.run("executorch", models["pte"], content)
    assert again.code == 0
    assert runner.left_behind() == {"outputs", "result.json"}
