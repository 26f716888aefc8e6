"""Each failure: its exit code, its one line, and nothing left behind."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from executorch.exir._serialize._program import deserialize_pte_binary
from onnx import TensorProto, helper

USAGE, MODEL, INPUTS, RUNTIME, INFERENCE, UNWRITABLE = 2, 3, 4, 5, 6, 7
BACKENDS = {"pte": "executorch", "onnx": "onnxruntime", "ort": "onnxruntime"}


def assert_failed(runner: Any, got: Any, code: int, *words: str) -> None:
    assert got.code == code, got.stderr
    assert got.stdout == ""
    assert got.stderr.startswith("bench_runner: ")
    assert got.stderr.count("\n") == 1
    assert got.stderr.endswith("\n")
    for word in words:
        assert word in got.stderr
    assert runner.left_behind() == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--frobnicate"], ["--frobnicate"]),
        (["--iterations", "-1"], ["--iterations", "'-1'"]),
        (["--samples", "0"], ["--samples", "'0'"]),
        (["--poll-memory-ms", "60001"], ["--poll-memory-ms"]),
        (["--samples", "2", "--profile", "p"], ["--samples and --profile"]),
        (["--iterations", "ten"], ["--iterations", "'ten'"]),
        (["--iterations", "99999999999999999999"], ["--iterations"]),
        (["--threads", "-1"], ["--threads", "'-1'"]),
        (["--min-seconds", "nan"], ["--min-seconds", "'nan'"]),
        (["--max-seconds", "1e9"], ["--max-seconds"]),
        (["--max-seconds", "1.2.3"], ["--max-seconds"]),
        (["--cpu-mask", "0xzz"], ["--cpu-mask", "0xzz"]),
        (["--cpu-mask", "0"], ["--cpu-mask"]),
        (["--threads"], ["--threads"]),
        (["--model", "twice"], ["--model", "twice"]),
        (["line\nbreak\x1b[31m"], ["line break"]),
    ],
)
def test_bad_usage(
    options: list[str], words: list[str], runner: Any, models: Any, content: bytes
) -> None:
    got = runner.run("executorch", models["pte"], content, *options)
    assert_failed(runner, got, USAGE, *words)
    assert "\x1b" not in got.stderr


def test_unknown_backend_and_missing_option(runner: Any, models: Any, content: bytes) -> None:
    assert_failed(runner, runner.run("tflite", models["pte"], content), USAGE, "tflite")
    done = runner.call("--backend", "executorch", "--model", models["pte"])
    assert done.returncode == USAGE
    assert "--inputs" in done.stderr


@pytest.mark.parametrize("option", ["--result", "--outputs"])
def test_what_is_read_is_never_overwritten(
    option: str, runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    model = tmp_path / "model.pte"
    shutil.copy(models["pte"], model)
    os.link(model, tmp_path / "other-name")
    arguments = runner.arguments("executorch", model, content)
    arguments[arguments.index(option) + 1] = tmp_path / "other-name"
    done = runner.call(*arguments)
    assert done.returncode == USAGE
    assert "both read and written" in done.stderr
    assert model.read_bytes() == models["pte"].read_bytes()


@pytest.mark.parametrize("backend", ["executorch", "onnxruntime"])
@pytest.mark.parametrize("garbage", [b"", b"\0" * 5000, b"not a model\n" * 100, bytes(range(256))])
def test_garbage_is_no_model(
    backend: str, garbage: bytes, runner: Any, content: bytes, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.write_bytes(garbage)
    assert_failed(runner, runner.run(backend, model, content), MODEL, str(model))


def test_missing_unreadable_and_foreign_models(
    runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    assert_failed(runner, runner.run("executorch", tmp_path / "no", content), MODEL, "No such file")
    assert_failed(runner, runner.run("executorch", tmp_path, content), MODEL, str(tmp_path))
    foreign = runner.run("executorch", models["onnx"], content)
    assert_failed(runner, foreign, MODEL, "ET12")
    assert_failed(runner, runner.run("onnxruntime", models["pte"], content), MODEL)


def test_a_program_of_a_future_schema_is_refused(
    runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    future = bytearray(models["pte"].read_bytes())
    assert future[4:8] == b"ET12"
    future[4:8] = b"ET99"
    model = tmp_path / "future.pte"
    model.write_bytes(future)
    got = runner.run("executorch", model, content)
    assert_failed(runner, got, MODEL, "ET99")


def test_a_program_with_an_unknown_operator_is_refused_by_name(
    runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    data = models["pte"].read_bytes()
    names = {op.name for op in deserialize_pte_binary(data).program.execution_plan[0].operators}
    name = sorted(names)[0].encode()
    model = tmp_path / "unknown.pte"
    model.write_bytes(data.replace(name, name[:-1] + b"Q"))
    got = runner.run("executorch", model, content)
    assert_failed(runner, got, MODEL)


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_cut_off_model_never_gives_a_result_or_a_signal(
    kind: str, runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    whole = models[kind].read_bytes()
    for length in (1, 7, 8, 63, 64, len(whole) // 3, len(whole) // 2, len(whole) * 9 // 10):
        model = tmp_path / f"cut-{length}"
        model.write_bytes(whole[:length])
        assert_failed(runner, runner.run(BACKENDS[kind], model, content), MODEL, str(model))


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_flipped_bit_gives_a_result_or_one_line(
    kind: str, runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    """Whatever a damaged file does to a runtime, the caller gets a documented answer."""
    whole = models[kind].read_bytes()
    generator = random.Random(6)
    failed = 0
    for number in range(30):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        model = tmp_path / f"flipped-{number}"
        model.write_bytes(damaged)
        got = runner.run(BACKENDS[kind], model, content, "--iterations", "1")
        if got.code == 0:
            assert got.result is not None
            assert got.stderr == ""
        else:
            assert_failed(runner, got, got.code)
            assert got.code in (MODEL, INPUTS, INFERENCE)
            failed += 1
        for path in runner.folder.iterdir():
            path.unlink()
    assert failed > 0


@pytest.mark.parametrize("kind", BACKENDS)
@pytest.mark.parametrize("change", [-1, 1])
def test_inputs_of_another_size(
    kind: str, change: int, runner: Any, models: Any, content: bytes
) -> None:
    wrong = content + b"x" if change > 0 else content[:-1]
    got = runner.run(BACKENDS[kind], models[kind], wrong)
    assert_failed(runner, got, INPUTS, str(len(wrong)), str(len(content)))


def test_inputs_that_are_missing(runner: Any, models: Any, content: bytes) -> None:
    arguments = runner.arguments("executorch", models["pte"], content)
    (runner.folder / "inputs").unlink()
    done = runner.call(*arguments)
    assert done.returncode == INPUTS
    assert "No such file" in done.stderr


def test_a_model_without_fixed_shapes(runner: Any, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2])],
    )
    model = tmp_path / "dynamic.onnx"
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, model)
    assert_failed(runner, runner.run("onnxruntime", model, b"x" * 8), INPUTS, "'x'", "[-1, 2]")
    done = runner.call("--describe", "--backend", "onnxruntime", "--model", model)
    assert '"shape": [-1,2]' in done.stdout
    assert '"bytes": null' in done.stdout


@pytest.mark.parametrize(
    "shapes",
    [
        [[2**62 - 1], [26]],  # together 100 bytes, where the sum wraps
        [[2**61, 2**61], [25]],  # a product that does not fit
        [[2**45], [25]],
    ],
)
def test_impossible_sizes_are_refused(shapes: Any, runner: Any, tmp_path: Path) -> None:
    """Sizes are the model's word: a sum that wraps would pass for the file's size."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["i1"], ["out"])],
        "impossible",
        [
            helper.make_tensor_value_info(f"i{number}", TensorProto.FLOAT, shape)
            for number, shape in enumerate(shapes)
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shapes[1])],
    )
    model = tmp_path / "impossible.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), model
    )
    outcome = runner.run("onnxruntime", model, bytes(100))
    assert outcome.code == 4, outcome.stderr
    assert "impossible size" in outcome.stderr
    assert outcome.result is None


def test_an_inference_that_fails(
    runner: Any, models: Any, image_and_tokens: tuple[torch.Tensor, ...]
) -> None:
    """A token number beyond the embedding table: only the inference can find out."""
    image, tokens = image_and_tokens
    data = image.numpy().tobytes() + torch.full_like(tokens, 10_000).numpy().tobytes()
    for kind in ("pte", "onnx"):
        got = runner.run(BACKENDS[kind], models[kind], data)
        assert_failed(runner, got, INFERENCE, "the inference failed")


def test_a_result_that_cannot_be_written(runner: Any, models: Any, content: bytes) -> None:
    for option in ("--result", "--outputs"):
        arguments = runner.arguments("executorch", models["pte"], content)
        arguments[arguments.index(option) + 1] = runner.folder / "no" / "folder"
        done = runner.call(*arguments)
        assert done.returncode == UNWRITABLE
        assert str(runner.folder / "no" / "folder") in done.stderr
        assert runner.left_behind() == set()
    arguments[arguments.index("--outputs") + 1] = runner.folder
    assert runner.call(*arguments).returncode == UNWRITABLE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_failure_removes_the_result_of_an_earlier_run(
    runner: Any, models: Any, content: bytes
) -> None:
    assert runner.run("executorch", models["pte"], content).code == 0
    assert runner.left_behind() == {"outputs", "result.json"}
    got = runner.run("executorch", models["pte"], content[:-1])
    assert_failed(runner, got, INPUTS)


def without(runner: Any, folder: Path, *names: str) -> Any:
    shutil.copytree(runner.bundle.folder, folder)
    for name in names:
        (folder / name).unlink()
    return replace(runner, bundle=runner.bundle.model_copy(update={"folder": folder}))


@pytest.mark.parametrize(
    ("kind", "library", "named"),
    [
        ("pte", "libps_executorch.so", "libps_executorch.so"),
        ("pte", "libexecutorch_backend_xnnpack.so", "libexecutorch_backend_xnnpack.so"),
        ("onnx", "libonnxruntime.so.1.31.1", "libonnxruntime.so."),
        ("onnx", "libps_onnxruntime.so", "libps_onnxruntime.so"),
    ],
)
def test_a_missing_runtime_library_is_named(
    kind: str, library: str, named: str, runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    poorer = without(runner, tmp_path / "bundle", library)
    got = poorer.run(BACKENDS[kind], models[kind], content)
    assert_failed(poorer, got, RUNTIME, named)


def test_a_library_that_is_no_runtime(
    runner: Any, models: Any, content: bytes, tmp_path: Path
) -> None:
    library = "libonnxruntime.so.1.31.1"
    poorer = without(runner, tmp_path / "bundle", library)
    shutil.copy(poorer.bundle.folder / "libm.so.6", poorer.bundle.folder / library)
    got = poorer.run("onnxruntime", models["onnx"], content)
    assert_failed(poorer, got, RUNTIME, "wrong version", library)
    shutil.copy(poorer.bundle.folder / "libm.so.6", poorer.bundle.folder / "libexecutorch.so")
    got = poorer.run("executorch", models["pte"], content)
    assert_failed(poorer, got, RUNTIME)
