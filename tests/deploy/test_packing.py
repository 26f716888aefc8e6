"""`pocketship pack` and `unpack`: files, the table, and one line for each thing that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compress.capture import capture, forward_of, load_program
from compress.task import Sample
from deploy.export import EXPORTERS
from deploy.export.options import PackedTarget
from deploy.files import tree_digest
from deploy.types import Artifact, Format, Status
from deploy.verify.parity import ParityLimits, verify
from tests.compress.networks import NO_TARGET, Small, images, seeded
from tests.deploy.conftest import Answer

Call = Callable[..., Answer]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = seeded(Small)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[parameter.abs() < 0.1] = 0.0
    path = tmp_path / "model.pt2"
    torch.export.save(capture(network, images(1, 1)[0]), path)
    return path


def test_pack_and_unpack_a_program(call: Call, model: Path, tmp_path: Path) -> None:
    packed, back = tmp_path / "model.psk", tmp_path / "back.pt2"
    answer = call("pack", model, "-o", packed)
    assert answer.code == 0, answer.err
    assert "head.weight" in answer.out
    assert "all tensors" in answer.out
    size = packed.stat().st_size
    assert f"{size:,} bytes of {model.stat().st_size:,}" in answer.out.splitlines()[-1]
    answer = call("unpack", packed, "--output", back)
    assert answer.code == 0, answer.err
    wanted, found = load_program(model), load_program(back)
    for name, tensor in wanted.state_dict.items():
        assert torch.equal(found.state_dict[name], tensor)
    (inputs,) = images(1, 7)
    assert torch.equal(found.module()(*inputs), wanted.module()(*inputs))


@pytest.mark.parametrize("coder", ["huffman", "rans"])
def test_pack_a_state_dict(call: Call, tmp_path: Path, coder: str) -> None:
    state = seeded(Small).state_dict()
    torch.save(state, tmp_path / "model.pt")
    words = ("--coder", coder)
    assert call("pack", tmp_path / "model.pt", "-o", tmp_path / "m.psk", *words).code == 0
    assert call("unpack", tmp_path / "m.psk", "-o", tmp_path / "back.pt").code == 0
    found = torch.load(tmp_path / "back.pt", weights_only=True)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_mistakes_are_one_line_and_leave_nothing(call: Call, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = tmp_path / "text.pt2"
    text.write_text("no model")
    assert call("pack", model, "-o", tmp_path / "m.psk").code == 0
    damaged = tmp_path / "damaged.psk"
    damaged.write_bytes((tmp_path / "m.psk").read_bytes()[:-1])
    cases: list[tuple[int, str, tuple[object, ...]]] = [
        (2, "cannot be read", ("pack", tmp_path / "none.pt2", "-o", out)),
        (2, "neither a program", ("pack", text, "-o", out)),
        (2, "no coder 'zip'", ("pack", model, "-o", out, "--coder", "zip")),
        (2, "is the input too", ("pack", model, "-o", model)),
        (2, "cannot be written", ("pack", model, "-o", text / "m.psk")),
        (2, "cannot be read", ("unpack", tmp_path / "none.psk", "-o", out)),
        (3, "no packed container", ("unpack", text, "-o", out)),
        (3, "damaged or cut off", ("unpack", damaged, "-o", out)),
        (3, "more than may be", ("unpack", tmp_path / "m.psk", "-o", out, "--max-bytes", "50")),
        (2, "cannot be written", ("unpack", tmp_path / "m.psk", "-o", text / "m.pt2")),
    ]
    for code, message, words in cases:
        answer = call(*words)
        assert answer.code == code, (words, answer.err)
        assert message in answer.last
        assert not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.pt2",
        "text.pt2",
        "m.psk",
        "damaged.psk",
    }


def test_a_packed_target_is_exported_and_verified_bit_for_bit(tmp_path: Path) -> None:
    program = capture(seeded(Small), images(1, 1)[0])
    target = PackedTarget(format=Format.PACKED, coder="huffman")
    (written,) = EXPORTERS[Format.PACKED](program, target, tmp_path, "int8")
    assert (written.format, written.path) == (Format.PACKED, tmp_path / "int8.psk")
    assert written.placement.reason
    samples = [Sample(inputs) for inputs in images(3, 9)]
    with torch.no_grad():
        outputs = [forward_of(program)(sample.inputs) for sample in samples]
    digest, size = tree_digest(written.path)
    artifact = Artifact(
        name="int8.packed",
        variant="int8",
        format=Format.PACKED,
        path="int8.psk",
        sha256=digest,
        bytes=size,
        inputs=(),
        outputs=(),
        source_sha256="",
        tools={},
        placement=written.placement,
    )
    limits = ParityLimits(max_abs_diff=0.0)
    row = verify(artifact, written.path, samples, outputs, metric=NO_TARGET, limits=limits)
    assert (row.status, row.reason) == (Status.OK, "")
    written.path.write_bytes(written.path.read_bytes()[:-1])
    row = verify(artifact, written.path, samples, outputs, metric=NO_TARGET, limits=limits)
    assert row.status is Status.FAILED
    assert "damaged or cut off" in row.reason
