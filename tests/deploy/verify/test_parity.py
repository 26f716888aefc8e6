"""Parity: right files pass, wrong ones fail with the reason, and nothing takes the process down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.capture import capture, forward_of
from compress.quality import run_all
from compress.task import Sample, TaskMetric
from deploy.export import EXPORTERS
from deploy.export.options import ExecuTorchTarget, OnnxTarget
from deploy.types import Artifact, Format, Parity, Placement, Quality, Status
from deploy.verify.parity import ParityLimits, verify, violations
from tests.compress.networks import NO_TARGET, images, seeded

STRICT = ParityLimits(max_abs_diff=1e-3, min_sqnr_db=80, min_top1_agreement=1.0)
FORMATS = (Format.EXECUTORCH, Format.ONNX, Format.ORT)
SAMPLES = [Sample(inputs) for inputs in images(4, 3)]


class Root(nn.Module):
    """NaN where the linear layer's output is negative and ``safe`` is off."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


class Broken(Root):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sqrt(super().forward(x) - 1e3)


class Files:
    """Root, Root with one weight changed, and Broken, in every format that runs here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        model = seeded(Root)
        program = capture(model, SAMPLES[0].inputs)
        self.reference = run_all(forward_of(program), SAMPLES)
        self.export(program, "right")
        with torch.no_grad():
            model.head.weight[0, 0] += 0.5  # type: ignore[union-attr, operator, index]
        self.export(capture(model, SAMPLES[0].inputs), "changed")
        self.export(capture(seeded(Broken), SAMPLES[0].inputs), "nan")

    def export(self, program: Any, stem: str) -> None:
        targets: Sequence[Any] = (
            ExecuTorchTarget(format=Format.EXECUTORCH),
            OnnxTarget(format=Format.ONNX, ort=stem == "right"),
        )
        for target in targets:
            EXPORTERS[target.format](program, target, self.folder, stem)

    def path(self, stem: str, fmt: Format) -> Path:
        suffix = {Format.EXECUTORCH: "pte"}.get(fmt, str(fmt))
        return self.folder / f"{stem}.{suffix}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("files"))


def judged(
    path: Path,
    fmt: Format,
    reference: Sequence[tuple[Tensor, ...]],
    samples: Sequence[Sample] = SAMPLES,
    limits: ParityLimits = STRICT,
    metric: TaskMetric = NO_TARGET,
) -> Parity:
    artifact = Artifact(
        name=f"m.{fmt}",
        variant="m",
        format=fmt,
        path=path.name,
        sha256="0" * 64,
        bytes=1,
        inputs=(),
        outputs=(),
        source_sha256="0" * 64,
        tools={},
        placement=Placement(backend="cpu"),
    )
    return verify(artifact, path, samples, reference, metric=metric, limits=limits)


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_right_file_is_ok(files: Files, fmt: Format) -> None:
    row = judged(files.path("right", fmt), fmt, files.reference)
    assert (row.status, row.reason, row.violated) == (Status.OK, "", ())
    assert row.quality is not None
    assert row.quality.samples == len(SAMPLES)
    assert row.limits == {"max_abs_diff": 1e-3, "min_sqnr_db": 80, "min_top1_agreement": 1.0}


@pytest.mark.parametrize("fmt", [Format.EXECUTORCH, Format.ONNX], ids=str)
def test_one_changed_weight_fails_by_name(files: Files, fmt: Format) -> None:
    row = judged(files.path("changed", fmt), fmt, files.reference)
    assert row.status is Status.FAILED
    assert set(row.violated) >= {"max_abs_diff", "min_sqnr_db"}
    assert "min_sqnr_db: " in row.reason
    assert "breaks the limit 80" in row.reason


@pytest.mark.parametrize("fmt", [Format.EXECUTORCH, Format.ONNX], ids=str)
def test_nan_fails_and_is_not_stored(files: Files, fmt: Format) -> None:
    row = judged(files.path("nan", fmt), fmt, files.reference)
    assert row.status is Status.FAILED
    assert "NaN" in row.reason
    assert row.quality is None


def _failed(row: Parity) -> None:
    assert row.status is Status.FAILED, row
    assert row.quality is None
    assert row.reason
    assert "\n" not in row.reason


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.98])
def test_cut_off_file(files: Files, fmt: Format, share: float, tmp_path: Path) -> None:
    data = files.path("right", fmt).read_bytes()
    path = tmp_path / files.path("right", fmt).name
    path.write_bytes(data[: int(len(data) * share)])
    _failed(judged(path, fmt, files.reference))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
@pytest.mark.parametrize("content", [b"garbage" * 100, bytes(4096), None], ids=["text", "0", "-"])
def test_foreign_or_missing_file(
    files: Files, fmt: Format, content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / files.path("right", fmt).name
    if content is not None:
        path.write_bytes(content)
    _failed(judged(path, fmt, files.reference))


def test_formats_mixed_up(files: Files) -> None:
    _failed(judged(files.path("right", Format.ONNX), Format.EXECUTORCH, files.reference))
    _failed(judged(files.path("right", Format.EXECUTORCH), Format.ONNX, files.reference))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_inputs_that_do_not_fit(files: Files, fmt: Format) -> None:
    (x,) = SAMPLES[0].inputs
    for inputs in ((x, x), (), (x[:, :2],), (x[0],), (x.long(),)):
        _failed(judged(files.path("right", fmt), fmt, files.reference[:1], [Sample(inputs)]))


def test_reference_of_another_length(files: Files) -> None:
    row = judged(files.path("right", Format.ONNX), Format.ONNX, files.reference[:2])
    _failed(row)
    assert "4 outputs, but the reference has 2" in row.reason


def test_outputs_of_another_shape(files: Files) -> None:
    wrong = [(torch.zeros(1, 6),) for _ in SAMPLES]
    row = judged(files.path("right", Format.ONNX), Format.ONNX, wrong)
    _failed(row)
    assert "[[1, 5]], expected [[1, 6]]" in row.reason


def test_onnx_model_with_a_missing_weight(files: Files, tmp_path: Path) -> None:
    model = onnx.load(files.path("right", Format.ONNX))
    del model.graph.initializer[0]
    onnx.save(model, tmp_path / "m.onnx")
    _failed(judged(tmp_path / "m.onnx", Format.ONNX, files.reference))


def test_coreml_is_not_run_with_a_reason(tmp_path: Path) -> None:
    row = judged(tmp_path / "absent.mlpackage", Format.COREML, [])
    assert row.status is Status.NOT_RUN
    assert "macOS" in row.reason
    assert row.quality is None


def _error(outputs: Sequence[Tensor], _: Sequence[Tensor | None]) -> float:
    return float(sum(o.abs().sum() for o in outputs))


@pytest.mark.parametrize("higher", [True, False])
def test_metric_drop_follows_the_metrics_direction(files: Files, higher: bool) -> None:
    # Half as large a reference: the artifact's value is twice the reference's.
    smaller = [(t / 2,) for (t,) in files.reference]
    metric = TaskMetric("size", _error, higher_is_better=higher)
    limits = ParityLimits(max_metric_drop=0.001)
    path = files.path("right", Format.ONNX)
    row = judged(path, Format.ONNX, smaller, limits=limits, metric=metric)
    assert row.status is (Status.OK if higher else Status.FAILED)
    assert row.violated == (() if higher else ("max_metric_drop",))


def quality(**changes: Any) -> Quality:
    values: dict[str, Any] = {
        "samples": 1,
        "max_abs_diff": 0.0,
        "sqnr_db": 30.0,
        "top1_agreement": 1.0,
        "metric": "m",
        "metric_value": 1.0,
        "metric_reference": 1.0,
    }
    return Quality(**(values | changes))


FIGURE = st.floats(-1e6, 1e6)


@given(FIGURE, FIGURE, st.one_of(st.none(), FIGURE), st.floats(0, 1), FIGURE, FIGURE, st.booleans())
def test_violations_are_exactly_the_broken_limits(
    diff: float,
    limit: float,
    sqnr: float | None,
    agreement: float,
    value: float,
    reference: float,
    higher: bool,
) -> None:
    got = violations(
        quality(
            max_abs_diff=diff,
            sqnr_db=sqnr,
            top1_agreement=agreement,
            metric_value=value,
            metric_reference=reference,
        ),
        ParityLimits(
            max_abs_diff=limit, min_sqnr_db=limit, min_top1_agreement=limit, max_metric_drop=limit
        ),
        higher_is_better=higher,
    )
    lost = reference - value if higher else value - reference
    assert ("max_abs_diff" in got) == (diff > limit)
    assert ("min_sqnr_db" in got) == (sqnr is not None and sqnr < limit)
    assert ("min_top1_agreement" in got) == (agreement < limit)
    if abs(lost - limit) > 1e-9:
        assert ("max_metric_drop" in got) == (lost > limit)
    assert all(text.startswith(name) and "\n" not in text for name, text in got.items())


def test_no_limits_no_violations() -> None:
    assert violations(quality(max_abs_diff=1e9, sqnr_db=-50.0), ParityLimits()) == {}


def test_limit_is_met_when_equal() -> None:
    drop = quality(metric_value=0.95)  # 1.0 - 0.95 is above 0.05 in binary
    assert violations(drop, ParityLimits(max_metric_drop=0.05)) == {}
    assert violations(quality(max_abs_diff=0.1), ParityLimits(max_abs_diff=0.1)) == {}


@pytest.mark.parametrize("name", ["max_abs_diff", "min_sqnr_db", "min_top1_agreement"])
def test_nan_and_absent_figures_break_every_limit(name: str) -> None:
    field = {"min_sqnr_db": "sqnr_db", "min_top1_agreement": "top1_agreement"}.get(name, name)
    broken = violations(quality(**{field: math.nan}), ParityLimits(**{name: 0.5}))
    assert list(broken) == [name]


def test_agreement_that_cannot_be_computed_breaks_its_limit() -> None:
    broken = violations(quality(top1_agreement=None), ParityLimits(min_top1_agreement=0.5))
    assert "cannot be computed" in broken["min_top1_agreement"]
