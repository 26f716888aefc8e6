"""Programs and state dicts through the packed container: equal members, equal outputs."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from torch import nn

from compress import archive, entropy
from compress.capture import capture, forward_of, load_program
from compress.errors import CompressError, ConfigError
from tests.compress.networks import Small, images, made_of, seeded


class Odd(nn.Module):
    """A tied weight, a transposed one, a buffer of whole numbers, a constant, an empty one."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)
        self.two.weight = self.one.weight
        self.across = nn.Parameter(torch.randn(6, 4).T)
        self.register_buffer("steps", torch.arange(4))
        self.register_buffer("none", torch.zeros(0, 3))
        self.constant = torch.ones(6) * 0.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.two(self.one(x)) + self.constant
        return x @ self.across.T + self.steps + self.none.sum()


def saved(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        return {name: found.read(name) for name in found.namelist()}


def zipped(content: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as made:
        for name, data in content.items():
            made.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:No complete tensor found")
@pytest.mark.parametrize("kind", ["float", "quantized", "odd"])
def test_a_program_comes_back_equal(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if kind == "quantized":
        program = made_of(Small).program
    elif kind == "float":
        program = capture(seeded(Small), images(1, 1)[0])
    else:
        program = capture(seeded(Odd), (torch.randn(2, 6),))
    data = saved(program)
    packed = archive.pack_file(data, where="model.pt2")
    assert len(packed) < len(data) / 3
    back = archive.unpack_file(packed, where="model.psk")
    assert members(back) == members(data)
    path = tmp_path_factory.mktemp("back") / "model.pt2"
    path.write_bytes(back)
    again = load_program(path)
    inputs = (torch.randn(2, 6),) if kind == "odd" else images(1, 5)[0]
    for one, other in zip(forward_of(again)(inputs), forward_of(program)(inputs), strict=True):
        assert torch.equal(one, other)
    rows = {row.name: row for row in entropy.describe(packed)}
    assert len(rows) > 4
    if kind == "float":
        assert rows["stem.weight"].shape == (8, 3, 3, 3)


def test_a_state_dict_comes_back_equal() -> None:
    state = seeded(Small).state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    packed = archive.pack_file(buffer.getvalue(), where="x.pt")
    found = torch.load(io.BytesIO(archive.unpack_file(packed, where="x.psk")), weights_only=True)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_unpacking_gives_the_same_file_each_time() -> None:
    packed = archive.pack_file(saved(capture(seeded(Small), images(1, 1)[0])), where="x")
    assert archive.unpack_file(packed, where="x") == archive.unpack_file(packed, where="x")


class Trap:
    """What unpickling this would do must not be done."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("code of the file was executed",))


def other_files() -> dict[str, bytes]:
    trap, number, nested = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"w": Trap()}, trap)
    torch.save(7, number)
    torch.save({"model": {"w": torch.ones(2)}}, nested)
    config = b'{"config": {"w": {"path_name": "weight_0", "use_pickle": false}}}'
    return {
        "empty": b"",
        "text": b"hello",
        "cut": saved(capture(seeded(Small), images(1, 1)[0]))[:-50],
        "pickle": trap.getvalue(),
        "number": number.getvalue(),
        "nested": nested.getvalue(),
        "escape": zipped({"m/archive_format": b"pt2", "../../evil": b"x"}),
        "absolute": zipped({"m/archive_format": b"pt2", "/etc/evil": b"x"}),
        "compressed": zipped(
            {"m/archive_format": b"pt2", "m/x": bytes(10**6)}, zipfile.ZIP_DEFLATED
        ),
        "config": zipped(
            {
                "m/archive_format": b"pt2",
                "m/data/weights/weight_0": b"1234",
                "m/data/weights/model_weights_config.json": config,
            }
        ),
    }


@pytest.mark.parametrize("kind", list(other_files()))
def test_other_files_are_refused_in_one_line(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"^model\.x: is neither a program") as told:
        archive.pack_file(other_files()[kind], where="model.x")
    assert "\n" not in str(told.value)


def test_packed_tensors_without_a_model_are_told_so() -> None:
    with pytest.raises(CompressError, match=r"^x\.psk: holds tensors, but neither"):
        archive.unpack_file(entropy.pack({"w": torch.ones(3)}), where="x.psk")


@pytest.mark.parametrize(
    "metadata",
    [
        b"\1\x07../evil\0\1x",
        b"\1\x01a\0\1x\x01a\0\1x",
        b"\1\x01a\0\x7fx",
        b"\1\x01a\2",
        b"\1\x01a\1\x01b\1",
        b"\1\x01a\0\1x",
        b"\1\x01a",
        b"\1\xff\xff",
    ],
    ids=["escape", "doubled", "cut", "kind", "too many", "too few", "end", "name"],
)
def test_forged_programs_are_refused(metadata: bytes) -> None:
    packed = entropy.pack({"w": torch.ones(3)}, metadata=metadata)
    with pytest.raises(CompressError, match=r"^x\.psk: "):
        archive.unpack_file(packed, where="x.psk")
