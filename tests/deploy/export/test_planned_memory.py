"""What a .pte says of its memory plan, against ExecuTorch's own reader; damaged files; MACs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compress.capture import capture
from deploy import stored
from deploy.errors import ExportError
from deploy.export import EXPORTERS
from deploy.export.options import ExecuTorchTarget, Written
from deploy.export.planned_memory import buffer_sizes, planned_bytes
from deploy.types import Artifact, Format, Placement

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Delegated(nn.Module):
    """A residual block that XNNPACK takes whole: outside are only its input and its output."""

    def __init__(self, convolutions: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(convolutions)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x)) + x


class Broken(Delegated):
    """The same with an activation that XNNPACK does not take: three tensors meet at the sum."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sinh(self.layers(x)) + x


class Spectral(Delegated):
    """Work that nobody counts."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + torch.fft.fft2(x).real


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planned")


def manifest(model: nn.Module, folder: Path, name: str, format_: Format) -> Artifact:
    """Of a file that holds nothing: what is known of the program alone."""
    program = capture(model.eval(), (X,))
    source = folder / f"{name}.pt2"
    torch.export.save(program, source)
    written = Written(format_, source, Placement(backend="none"), {})
    return stored.described(name, program, source, written)


def exported(model: nn.Module, folder: Path, name: str) -> Artifact:
    program = capture(model.eval(), (X,))
    source = folder / f"{name}.pt2"
    torch.export.save(program, source)
    target = ExecuTorchTarget(format=Format.EXECUTORCH)
    (written,) = EXPORTERS[Format.EXECUTORCH](program, target, folder, name)
    return stored.described(name, program, source, written)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Artifact:
    return exported(Delegated(), folder, "whole")


def as_executorch_reads(path: Path) -> list[int]:
    from executorch.exir._serialize._program import deserialize_pte_binary

    read: Any = deserialize_pte_binary(path.read_bytes())
    (plan,) = getattr(read, "program", read).execution_plan
    return list(plan.non_const_buffer_sizes)[1:]


def test_the_plan_is_the_one_that_executorch_reads(whole: Artifact, folder: Path) -> None:
    path = folder / whole.path
    assert list(buffer_sizes(path.read_bytes())) == as_executorch_reads(path)
    # Input and output of 3 x 8 x 8 floats, and what aligning them takes.
    assert whole.planned_bytes is not None
    assert 2 * 768 <= whole.planned_bytes <= 2 * 768 + 64
    assert planned_bytes(path, Format.EXECUTORCH) == (whole.planned_bytes, "")


def test_an_operator_that_falls_out_of_the_delegate_needs_a_buffer(
    whole: Artifact, folder: Path
) -> None:
    broken = exported(Broken(), folder, "broken")
    assert sum(as_executorch_reads(folder / broken.path)) == broken.planned_bytes
    assert whole.planned_bytes is not None
    assert broken.planned_bytes is not None
    assert broken.planned_bytes >= whole.planned_bytes + 768
    assert broken.macs == whole.macs


def test_macs_are_those_of_the_program_and_an_extra_convolution_shows(
    whole: Artifact, folder: Path
) -> None:
    assert whole.macs == 3 * 3 * 64
    assert manifest(Delegated(2), folder, "two", Format.ONNX).macs == 2 * 3 * 3 * 64


def test_what_nobody_can_say_has_its_reason(folder: Path) -> None:
    unknown = manifest(Spectral(), folder, "spectral", Format.ONNX)
    value, why = unknown.figure("macs")
    assert value is None
    assert "nobody counts aten._fft_c2c" in why
    assert set(unknown.unknown) == {"macs", "planned_bytes"}
    for format_ in (Format.ONNX, Format.ORT, Format.COREML, Format.PACKED):
        value, why = planned_bytes(Path("never opened"), format_)
        assert value is None
        assert why


def test_what_is_no_program_of_ours_is_said(whole: Artifact, folder: Path) -> None:
    content = (folder / whole.path).read_bytes()
    with pytest.raises(ExportError, match="another identifier"):
        buffer_sizes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ExportError, match="no method 'backward'"):
        buffer_sizes(content, "backward")
    cut = folder / "cut.pte"
    cut.write_bytes(content[:64])
    value, why = planned_bytes(cut, Format.EXECUTORCH)
    assert value is None
    assert "damaged" in why or "no method" in why


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_file_gives_sizes_or_an_error_and_nothing_else(
    whole: Artifact, folder: Path, data: st.DataObject
) -> None:
    content = bytearray((folder / whole.path).read_bytes()[:4096])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1).filter(lambda i: not 4 <= i < 8))
        content[at] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    try:
        sizes = buffer_sizes(bytes(content[:end]))
    except ExportError:
        return
    assert all(size >= 0 for size in sizes)
