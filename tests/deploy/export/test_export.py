"""Each exporter on a float and a quantized program: the files load, hold what they say, repeat."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from compress.capture import capture, load_program
from compress.quality import compare, run_all
from compress.recipe import Compressed
from deploy.errors import ExportError
from deploy.export import EXPORTERS
from deploy.export import onnx as onnx_exporter
from deploy.export.options import CoreMLTarget, ExecuTorchTarget, OnnxTarget, Written
from deploy.export.placement import placement
from deploy.types import Format
from deploy.verify.parity import RUNTIMES
from tests.compress.networks import (
    IMAGE,
    NO_TARGET,
    Shared,
    Small,
    images,
    made_of,
    made_of_tokens,
    seeded,
    task_of,
)

ROOT = Path(__file__).resolve().parents[3]
TARGETS: dict[Format, Any] = {
    Format.EXECUTORCH: ExecuTorchTarget(format=Format.EXECUTORCH),
    Format.ONNX: OnnxTarget(format=Format.ONNX),
    Format.COREML: CoreMLTarget(format=Format.COREML),
}


def export(program: Any, fmt: Format, folder: Path, stem: str = "m") -> dict[Format, Written]:
    return {w.format: w for w in EXPORTERS[fmt](program, TARGETS[fmt], folder, stem)}


class Exported:
    """Both programs of the small network in every format, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = made_of(Small)

    @functools.cache  # noqa: B019 - lives as long as the module's tests
    def of(self, variant: str, fmt: Format) -> Written:
        program = self.made.baseline if variant == "fp32" else self.made.program
        source = Format.ONNX if fmt is Format.ORT else fmt
        return export(program, source, self.folder, variant)[fmt]

    def outputs(self, variant: str) -> list[tuple[Tensor, ...]]:
        return self.made.baseline_outputs if variant == "fp32" else self.made.program_outputs


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    yield Exported(tmp_path_factory.mktemp("exported"))


def sqnr(reference: list[Any], path: Path, fmt: Format, inputs: list[Any] | None = None) -> float:
    samples = inputs or list(task_of(seeded(Small)).evaluation)
    quality = compare(
        reference, run_all(RUNTIMES[fmt](path), samples), NO_TARGET, [None] * len(samples)
    )
    return float("inf") if quality.sqnr_db is None else quality.sqnr_db


VARIANTS = pytest.mark.parametrize("variant", ["fp32", "int8"])
RUNNABLE = pytest.mark.parametrize("fmt", [Format.EXECUTORCH, Format.ONNX, Format.ORT])


@VARIANTS
@RUNNABLE
def test_file_computes_what_its_program_computes(
    exported: Exported, variant: str, fmt: Format
) -> None:
    written = exported.of(variant, fmt)
    least = 100 if variant == "fp32" else 35
    assert sqnr(exported.outputs(variant), written.path, fmt) > least


def test_the_runtimes_agree_on_the_quantized_program(exported: Exported) -> None:
    samples = list(task_of(seeded(Small)).evaluation)
    onnx_outputs = run_all(RUNTIMES[Format.ONNX](exported.of("int8", Format.ONNX).path), samples)
    # One step of the last layer's output range is what rounding may cost.
    pte = run_all(RUNTIMES[Format.EXECUTORCH](exported.of("int8", Format.EXECUTORCH).path), samples)
    quality = compare(onnx_outputs, pte, NO_TARGET, [None] * len(samples))
    step = max(
        float(node.args[1])
        for node in exported.made.program.graph.nodes
        if str(node.target).startswith("quantized_decomposed.quantize_per_tensor")
    )
    assert quality.max_abs_diff <= 2 * step
    assert quality.top1_agreement == 1.0


@VARIANTS
@pytest.mark.parametrize(
    "fmt", [Format.EXECUTORCH, Format.ONNX, Format.ORT, Format.COREML], ids=str
)
def test_nothing_of_this_machine_is_inside(exported: Exported, variant: str, fmt: Format) -> None:
    written = exported.of(variant, fmt)
    paths = written.path.rglob("*") if written.path.is_dir() else [written.path]
    content = b"".join(path.read_bytes() for path in paths if path.is_file())
    assert content
    traces = [str(ROOT), str(Path.home()), sys.prefix, torch.__file__, str(exported.folder)]
    for trace in (*traces, "stack_trace", "Traceback", "networks.py", 'File "'):
        assert trace.encode() not in content, trace


def test_xnnpack_takes_all_but_what_is_named(exported: Exported) -> None:
    where = exported.of("fp32", Format.EXECUTORCH).placement
    assert where.backend == "xnnpack"
    assert where.left == {"aten_mean_dim": 1}  # a mean without keepdim is not XNNPACK's
    assert (where.delegated, where.total) == (8, 9)
    assert where.delegated_share == pytest.approx(8 / 9)
    assert where.partitions == 2


class Sine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sinh(self.conv(x))


class Conv(Sine):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_whole_and_partial_delegation(tmp_path: Path) -> None:
    x = images(1, 1)[0]
    whole = export(capture(seeded(Conv), x), Format.EXECUTORCH, tmp_path)[Format.EXECUTORCH]
    assert (whole.placement.delegated_share, whole.placement.left) == (1.0, {})
    part = export(capture(seeded(Sine), x), Format.EXECUTORCH, tmp_path)[Format.EXECUTORCH]
    assert part.placement.left == {"aten_sinh_default": 1}
    assert part.placement.delegated_share == 0.5


def test_placement_of_nothing_has_a_reason() -> None:
    nothing = placement("xnnpack", {"getitem": 3}, {"getitem": 2, "Total": 5}, 0)
    assert (nothing.total, nothing.delegated_share) == (0, None)
    assert nothing.reason


def _initializers(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}


def _weight_dequantizers(path: Path) -> list[Any]:
    known = _initializers(path)
    nodes = onnx.load(path).graph.node
    return [n for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] in known]


@VARIANTS
def test_onnx_is_valid(exported: Exported, variant: str) -> None:
    onnx.checker.check_model(str(exported.of(variant, Format.ONNX).path), full_check=True)


def _no_shared_qparams(path: Path) -> int:
    known, nodes = _initializers(path), _weight_dequantizers(path)
    # A scalar is an operand of elementwise arithmetic and has the activations' type.
    weights = [known[n.input[0]] for n in nodes if known[n.input[0]].dims]
    assert all(weight.data_type == onnx.TensorProto.INT8 for weight in weights)
    qparams = [name for node in nodes for name in node.input]
    assert len(qparams) == len(set(qparams))
    names = [tensor.name for tensor in onnx.load(path).graph.initializer]
    assert len(names) == len(set(names))
    return len(nodes)


def test_int8_weights_are_int8_in_onnx(exported: Exported) -> None:
    path = exported.of("int8", Format.ONNX).path
    assert _no_shared_qparams(path) == 4
    floats = [t for t in _initializers(path).values() if t.data_type == onnx.TensorProto.FLOAT]
    assert max(int(np.prod(tensor.dims)) for tensor in floats) == 8  # biases and scales only


def _kernels(path: Path, folder: Path) -> set[str]:
    """What ONNX Runtime makes of the model on this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options)
    return {node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node}


def test_onnx_runtime_runs_convolutions_and_sums_as_integers(
    exported: Exported, tmp_path: Path
) -> None:
    kernels = _kernels(exported.of("int8", Format.ONNX).path, tmp_path)
    assert {"QLinearConv", "QLinearAdd", "QGemm"} <= kernels
    assert not kernels & {"Conv", "FusedConv", "Add", "Gemm", "Clip", "Pad"}


def _activation_types(path: Path) -> set[int]:
    known = _initializers(path)
    nodes = onnx.load(path).graph.node
    return {known[n.input[2]].data_type for n in nodes if n.op_type == "QuantizeLinear"}


def test_activations_are_stored_as_asked(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The .ort is made of int8 ones in any case: x86 saturates products with the others."""
    converted: list[set[int]] = []

    def converter(source: Path, destination: Path) -> Path:
        converted.append(_activation_types(source))
        return destination

    monkeypatch.setattr(onnx_exporter, "to_ort", converter)
    int8, uint8 = {onnx.TensorProto.INT8}, {onnx.TensorProto.UINT8}
    for activations, stored in (("int8", int8), ("uint8", uint8)):
        target = OnnxTarget.model_validate({"format": "onnx", "activations": activations})
        made = EXPORTERS[Format.ONNX](exported.made.program, target, tmp_path, "int8")
        assert _activation_types(made[0].path) == stored
    assert converted == [int8, int8]
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Compressed, Path]:
    return made_of(Shared), tmp_path_factory.mktemp("shared")


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [Format.EXECUTORCH, Format.ONNX], ids=str)
def test_a_weight_used_three_times(shared: tuple[Compressed, Path], fmt: Format) -> None:
    made, folder = shared
    written = export(made.program, fmt, folder)[fmt]
    assert sqnr(made.program_outputs, written.path, fmt) > 35
    if fmt is Format.ONNX:
        assert _no_shared_qparams(written.path) >= 3


def _saved(exported: Exported, variant: str) -> Path:
    path = exported.folder / f"{variant}.pt2"
    if not path.exists():
        made = exported.made
        torch.export.save(made.baseline if variant == "fp32" else made.program, path)
    return path


AGAIN = """
import sys; from pathlib import Path
import deploy
from compress.capture import load_program
from deploy.export import EXPORTERS
from deploy.export.options import ExecuTorchTarget, OnnxTarget
from deploy.types import Format
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
for target in (ExecuTorchTarget(format="executorch"), OnnxTarget(format="onnx", ort=False)):
    EXPORTERS[target.format](load_program(source), target, folder, source.stem)
"""


@pytest.mark.soak
def test_reloaded_in_another_process_gives_the_same_bytes(
    exported: Exported, tmp_path: Path
) -> None:
    # Of the quantized program only: each lowering takes long, and this one has every operator.
    variant = "int8"
    command = [sys.executable, "-c", AGAIN, str(_saved(exported, variant)), str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    program = load_program(_saved(exported, variant))
    for fmt, suffix in ((Format.EXECUTORCH, "pte"), (Format.ONNX, "onnx")):
        other = tmp_path / f"{variant}.{suffix}"
        here = export(program, fmt, tmp_path / "here", variant)[fmt].path
        assert other.read_bytes() == here.read_bytes()
        assert sqnr(exported.outputs(variant), other, fmt) > 35


def test_permuted_example_survives_saving_and_lowering(tmp_path: Path) -> None:
    """A channels-last example once failed to lower with "Propagating input shapes failed"."""
    (x,) = images(1, 1)[0]
    permuted = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    model = seeded(Small)
    torch.export.save(capture(model, (permuted,)), tmp_path / "m.pt2")
    written = export(load_program(tmp_path / "m.pt2"), Format.EXECUTORCH, tmp_path)
    output = RUNTIMES[Format.EXECUTORCH](written[Format.EXECUTORCH].path)((permuted,))
    torch.testing.assert_close(output[0], model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("fmt", [Format.EXECUTORCH, Format.ONNX, Format.COREML], ids=str)
def test_two_inputs_one_of_them_integers(tmp_path: Path, fmt: Format) -> None:
    from tests.compress.networks import token_task

    made = made_of_tokens()
    written = export(made.program, fmt, tmp_path)[fmt]
    if fmt is Format.COREML:
        assert [i.name for i in _coreml(written.path).description.input] == ["tokens", "mask"]
    else:
        samples = list(token_task().evaluation)
        assert sqnr(made.program_outputs, written.path, fmt, samples) > 35


def _coreml(path: Path) -> Any:
    import coremltools as ct

    return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


@VARIANTS
def test_coreml_package_is_an_ml_program(exported: Exported, variant: str) -> None:
    spec = _coreml(exported.of(variant, Format.COREML).path)
    assert spec.WhichOneof("Type") == "mlProgram"
    assert [int(n) for n in spec.description.input[0].type.multiArrayType.shape] == list(IMAGE)
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    kinds = {operation.type for operation in block.operations}
    assert "conv" in kinds
    assert ("quantize" in kinds) == (variant == "int8")


def test_coreml_replaces_an_older_package(exported: Exported, tmp_path: Path) -> None:
    stale = tmp_path / "m.mlpackage" / "stale"
    stale.mkdir(parents=True)
    export(exported.made.baseline, Format.COREML, tmp_path)
    assert not stale.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["m.mlpackage"]


class Sort(nn.Module):
    """No runtime takes this operator."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.pocketship_test.nothing(x)


@pytest.fixture(scope="module")
def unknown() -> Iterator[Any]:
    with torch.library._scoped_library("pocketship_test", "FRAGMENT") as library:
        library.define("nothing(Tensor x) -> Tensor")
        library.impl("nothing", lambda x: x.clone(), "CompositeExplicitAutograd")
        torch.library.register_fake("pocketship_test::nothing", torch.empty_like, lib=library)
        yield capture(Sort(), (torch.zeros(1, 4),))


@pytest.mark.parametrize("fmt", list(TARGETS), ids=str)
def test_refusal_is_one_line_and_leaves_nothing(unknown: Any, fmt: Format, tmp_path: Path) -> None:
    word = {Format.EXECUTORCH: "ExecuTorch", Format.ONNX: "onnx", Format.COREML: "coremltools"}
    with pytest.raises(ExportError) as caught:
        export(unknown, fmt, tmp_path)
    assert word[fmt] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_ort_conversion_that_fails_or_is_interrupted(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"garbage.onnx: ONNX Runtime cannot convert"):
        onnx_exporter.to_ort(garbage, tmp_path / "out" / "m.ort")
    assert list((tmp_path / "out").iterdir()) == []

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_exporter.subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        onnx_exporter.to_ort(exported.of("fp32", Format.ONNX).path, tmp_path / "out" / "m.ort")
    assert list((tmp_path / "out").iterdir()) == []


def test_weights_read_only_by_a_branch_are_kept() -> None:
    """Cleaning up after unsharing must see what the bodies of If and Loop read."""
    helper = onnx.helper
    names = ("a", "b", "never")
    weights = [helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [1.0]) for name in names]

    def branch(name: str, reads: str) -> Any:
        out = helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, [1])
        node = helper.make_node("Identity", [reads], [f"{name}_y"])
        node.doc_string = "/home/someone/model.py"
        return helper.make_graph([node], name, [], [out])

    condition = helper.make_node(
        "If", ["c"], ["y"], then_branch=branch("t", "a"), else_branch=branch("e", "b")
    )
    graph = helper.make_graph(
        [condition],
        "g",
        [helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
        initializer=weights,
    )
    model = helper.make_model(graph)
    onnx_exporter.unshare_weights(model)
    onnx_exporter.strip_provenance(model)
    assert [tensor.name for tensor in model.graph.initializer] == ["a", "b"]
    assert b"/home/someone" not in model.SerializeToString()
    onnx.checker.check_model(model, full_check=True)
