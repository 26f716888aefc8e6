"""The data files of the Fashion-MNIST example, and its networks; no test needs the data set."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from compress import task as tasks
from compress.errors import ConfigError
from compress.samples import TensorSamples
from deploy.config import load

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("fashion_mnist", EXAMPLES / "fashion_mnist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fashion_mnist"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fashion_mnist"]


def idx(shape: tuple[int, ...], elements: bytes, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + elements


@pytest.mark.parametrize("zipped", [True, False])
def test_file_is_read_with_its_shape(example: ModuleType, tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "some-ubyte"
    raw = idx((2, 3), bytes([0, 1, 2, 253, 254, 255]))
    path.write_bytes(gzip.compress(raw, mtime=0) if zipped else raw)
    read = example.read_idx(path)
    assert read.dtype is torch.uint8
    assert read.tolist() == [[0, 1, 2], [253, 254, 255]]


WHOLE = idx((2, 3), bytes(6))


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, "no such file"),
        (b"", "not an IDX file"),
        (WHOLE[:3], "not an IDX file"),
        (idx((6,), bytes(6), kind=13), "not an IDX file"),
        (WHOLE[:9], "cut off in its header"),
        (WHOLE[:-1], "holds 5 elements, its header says 6"),
        (WHOLE + b"x", "holds 7 elements, its header says 6"),
        (idx((2**31, 2**31), b""), "holds 0 elements"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "cannot be read"),
        (gzip.compress(WHOLE, mtime=0)[:12] + b"\xff" * 12, "cannot be read"),
    ],
)
def test_other_files_are_refused(
    example: ModuleType, tmp_path: Path, raw: bytes | None, said: str
) -> None:
    path = tmp_path / "some-ubyte.gz"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises(ConfigError, match=said) as caught:
        example.read_idx(path)
    assert str(path) in str(caught.value)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the right shapes; each picture's first pixel tells its number and its set."""
    folder = tmp_path_factory.mktemp("fashion-mnist")
    for name, count in (("train", 60_000), ("t10k", 10_000)):
        pictures = torch.zeros(count, 28 * 28, dtype=torch.uint8)
        pictures[:, 0] = torch.arange(count) % 251
        pictures[:, 1] = 255 if name == "t10k" else 0
        labels = (torch.arange(count) % 10).to(torch.uint8)
        for kind, shape, tensor in (
            ("images-idx3", (count, 28, 28), pictures),
            ("labels-idx1", (count,), labels),
        ):
            raw = idx(shape, tensor.numpy().tobytes())
            (folder / f"{name}-{kind}-ubyte").write_bytes(raw)
    return folder


@pytest.fixture
def files(made_up: Path, tmp_path: Path) -> Path:
    """Links to the made-up files, which a test may replace."""
    for path in made_up.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


def replace_file(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def test_split_is_fixed_and_nothing_is_in_two_sets(example: ModuleType, files: Path) -> None:
    data = example.data.__wrapped__(files)
    sizes = [len(data.train), len(data.validation), len(data.test)]
    assert sizes == [55_000, 5_000, 10_000]
    again = example.data.__wrapped__(files)
    assert torch.equal(data.validation.targets, again.validation.targets)
    assert torch.equal(data.validation.inputs[0], again.validation.inputs[0])
    # All 60,000 are there once: the counts of first pixels of both parts add up to the file's.
    parts = (data.train, data.validation)
    seen = torch.cat([part.inputs[0][:, 0, 0, 0] * 255 for part in parts]).round().long()
    assert torch.equal(seen.bincount(minlength=251), (torch.arange(60_000) % 251).bincount())
    assert all(float(part.inputs[0][:, 0, 0, 1].max()) == 0 for part in parts)
    assert float(data.test.inputs[0][:, 0, 0, 1].min()) == 1
    assert data.train.inputs[0].shape[1:] == (1, 28, 28)
    assert data.train.targets.dtype is torch.int64


def test_other_data_sets_are_refused(example: ModuleType, files: Path) -> None:
    replace_file(files / "t10k-labels-idx1-ubyte", idx((3,), bytes(3)))
    with pytest.raises(ConfigError, match=r"has shape \[3\], Fashion-MNIST has \[10000\]"):
        example.data.__wrapped__(files)


def test_labels_beyond_the_classes_are_refused(example: ModuleType, files: Path) -> None:
    replace_file(files / "train-labels-idx1-ubyte", idx((60_000,), b"\x0a" * 60_000))
    with pytest.raises(ConfigError, match="a label 10 of 10 classes"):
        example.data.__wrapped__(files)


def test_variable_names_the_folder(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_MNIST", str(tmp_path))
    assert example.folder() == tmp_path
    with pytest.raises(ConfigError, match="FASHION_MNIST"):
        example.lenet_300_100()
    monkeypatch.delenv("FASHION_MNIST")
    assert example.folder() == example.FOLDER


@pytest.mark.parametrize(
    ("network", "parameters"),
    # As counted in Han et al. (arXiv 1510.00149): 267K and 431K.
    [("LeNet300100", 266_610), ("LeNet5", 431_080), ("SmallMobileNetV2", 162_858)],
)
def test_networks_have_their_size(example: ModuleType, network: str, parameters: int) -> None:
    model = getattr(example, network)().eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_half_of_the_pictures_are_mirrored(example: ModuleType) -> None:
    pictures = torch.rand(400, 1, 28, 28)
    (changed,) = example.mirrored((pictures,), torch.Generator().manual_seed(0))
    same = (changed == pictures).flatten(1).all(dim=1)
    other = (changed == pictures.flip(-1)).flatten(1).all(dim=1)
    assert bool((same ^ other).all())
    assert 150 < int(other.sum()) < 250


@pytest.fixture
def random_pictures(example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random ones in place of the data set, and a cache of its own."""
    monkeypatch.setenv("POCKETSHIP_CACHE", str(tmp_path / "cache"))
    random = torch.Generator().manual_seed(0)
    parts = [
        TensorSamples(
            (torch.rand(count, 1, 28, 28, generator=random),),
            torch.randint(10, (count,), generator=random),
        )
        for count in (300, 50, 100)
    ]
    monkeypatch.setattr(example, "data", lambda _: example.Data(*parts))


@pytest.mark.usefixtures("random_pictures")
def test_task_trains_once_and_is_sound(example: ModuleType, tmp_path: Path) -> None:
    task = example.lenet_300_100(evaluation=20, seed=3, epochs=1)
    tasks.check(task)
    assert len(task.evaluation) == 20
    kept = list((tmp_path / "cache/fashion_mnist").iterdir())
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    again = example.lenet_300_100(evaluation=20, seed=3, epochs=1)
    assert [p.stat().st_mtime_ns for p in (tmp_path / "cache/fashion_mnist").iterdir()] == [before]
    for one, two in zip(task.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    other = example.lenet_300_100(evaluation=20, seed=4, epochs=1)
    assert not torch.equal(task.model.fc1.weight, other.model.fc1.weight)


@pytest.mark.usefixtures("random_pictures")
def test_three_teachers_answer_with_the_mean_of_their_logits(example: ModuleType) -> None:
    asked = torch.rand(6, 1, 28, 28)
    task = example.lenet_5(evaluation=5, seed=1, epochs=1, teachers=3)
    alone = [example.lenet_5(evaluation=5, seed=n, epochs=1).model for n in range(3)]
    with torch.no_grad():
        wanted = sum(network(asked) for network in alone) / 3
        torch.testing.assert_close(task.teacher(asked), wanted)
    # It starts from its own seed all the same.
    assert torch.equal(task.model.fc1.weight, alone[1].fc1.weight)
    with pytest.raises(ConfigError, match="teachers"):
        example.lenet_5(teachers=0)


@pytest.mark.parametrize("kind", ["LeNet5", "LeNet300100"])
def test_folding_keeps_what_the_network_computes(example: ModuleType, kind: str) -> None:
    torch.manual_seed(0)
    whole = example.Standardised(getattr(example, kind)().eval())
    pictures = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        wanted = whole(pictures)
        torch.testing.assert_close(whole.folded()(pictures), wanted, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(whole(pictures), wanted, atol=1e-3)


def test_remembered_answers_are_the_teachers(example: ModuleType) -> None:
    """Also for a picture that it does not know, and for two whose marks cannot be told apart."""
    torch.manual_seed(0)
    teacher = example.LeNet5().eval()
    known, new = torch.rand(40, 1, 28, 28), torch.rand(5, 1, 28, 28)
    known[7] = known[3]
    # Another picture with the same product: two pixels change so that their weighted sum stays.
    remembered = example.Remembered(teacher, known).eval()
    one, two = remembered.direction[:2].tolist()
    known[9] = known[4]
    known[9, 0, 0, 0] += 0.001
    known[9, 0, 0, 1] -= 0.001 * one / two
    remembered = example.Remembered(teacher, known).eval()
    asked = torch.cat([known.flip(0), new])
    assert torch.allclose(remembered(asked), teacher(asked), atol=1e-5)
    calls = []
    teacher.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    remembered(torch.cat([known[10:20], new]))
    assert calls == [5]


@pytest.mark.parametrize("name", ["deep_compression", "fashion_mnist", "low_rank"])
def test_example_pipelines_are_sound(name: str) -> None:
    config = load(EXAMPLES / f"{name}.yaml")
    assert config.recipe is not None
    assert config.name == name


@pytest.mark.parametrize("count", [0, 10_001])
def test_number_of_judged_pictures_is_checked(example: ModuleType, count: int) -> None:
    with pytest.raises(ConfigError, match="there are 10,000 pictures"):
        example.lenet_5(evaluation=count)
