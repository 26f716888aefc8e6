"""Fashion-MNIST: 70,000 pictures of clothes in ten classes, and three networks trained on it.

The data are the four files of Debian's package dataset-fashion-mnist; the same files elsewhere are
found through the environment variable FASHION_MNIST. The uncompressed network of each task is
trained here, once: finished trainings are kept in pocketship's cache.
"""

from __future__ import annotations

import copy
import gzip
import math
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.errors import ConfigError
from compress.journal import Run
from compress.samples import Inputs, TensorSamples
from compress.task import TOP1, Task
from compress.training import Training, fit
from deploy.paths import cache_dir

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = 10
SIDE = 28
VALIDATION = 5_000
CALIBRATION = 256
_MOST_BYTES = 64_000_000
"""The largest file holds 47,040,016 bytes; more than this is not one of them."""


# --- The files -----------------------------------------------------------------------------------


def read_idx(path: Path) -> Tensor:
    """One file in IDX format (gzip or plain) with unsigned bytes -> uint8 tensor of its shape.

    IDX: two zero bytes, the element type (8: unsigned byte), the number of dimensions, each
    dimension as a big-endian 32-bit number, then the elements. Raises ``ConfigError`` for a file
    that is missing, cut, longer than it says, or of another kind.
    """
    where = str(path)
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(path) as stream:
                raw = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(
            "no such file",
            where=where,
            hint="Install dataset-fashion-mnist (Debian), or set FASHION_MNIST to its folder.",
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot be read: {error}", where=where) from error
    if len(raw) > _MOST_BYTES:
        raise ConfigError(f"holds more than {_MOST_BYTES:,} bytes", where=where)
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ConfigError("is not an IDX file of unsigned bytes", where=where)
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ConfigError("is cut off in its header", where=where)
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) - start != math.prod(shape):
        raise ConfigError(
            f"holds {len(raw) - start:,} elements, its header says {math.prod(shape):,}",
            where=where,
        )
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).reshape(shape)


@dataclass(frozen=True)
class Data:
    """Pictures as float32 [n, 1, 28, 28] in [0, 1], labels as int64 [n]; the split is fixed."""

    train: TensorSamples
    validation: TensorSamples
    test: TensorSamples


def folder() -> Path:
    """Where the files are looked for."""
    return Path(os.environ.get("FASHION_MNIST") or FOLDER)


@cache
def data(where: Path) -> Data:
    """Training set without 5,000 held out for validation, those 5,000, and the test set."""
    pictures, labels = _pair(where, "train", 60_000)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2017))
    held_out, fitted = order[:VALIDATION], order[VALIDATION:]
    return Data(
        train=TensorSamples((pictures[fitted],), labels[fitted]),
        validation=TensorSamples((pictures[held_out],), labels[held_out]),
        test=TensorSamples(*_test(where)),
    )


def _test(where: Path) -> tuple[Inputs, Tensor]:
    pictures, labels = _pair(where, "t10k", 10_000)
    return (pictures,), labels


def _pair(where: Path, name: str, count: int) -> tuple[Tensor, Tensor]:
    read = []
    for kind, shape in (("images-idx3", (count, SIDE, SIDE)), ("labels-idx1", (count,))):
        zipped = where / f"{name}-{kind}-ubyte.gz"
        path = zipped if zipped.exists() or not zipped.with_suffix("").exists() else None
        tensor = read_idx(path or zipped.with_suffix(""))
        if tuple(tensor.shape) != shape:
            raise ConfigError(
                f"has shape {list(tensor.shape)}, Fashion-MNIST has {list(shape)}",
                where=str(path or zipped.with_suffix("")),
            )
        read.append(tensor)
    pictures, labels = read
    if int(labels.max()) >= CLASSES:
        raise ConfigError(f"has a label {int(labels.max())} of 10 classes", where=str(where))
    return pictures[:, None].float() / 255, labels.long()


# --- The networks --------------------------------------------------------------------------------


class LeNet300100(nn.Module):
    """Two hidden layers of 300 and 100 (LeCun et al. 1998): 266,610 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(SIDE * SIDE, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc3(torch.relu(self.fc2(x)))


class LeNet5(nn.Module):
    """LeNet-5 as Caffe has it (20 and 50 filters of 5x5, 800-500-10): 431,080 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc1 = nn.Linear(800, 500)
        self.fc2 = nn.Linear(500, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(torch.relu(self.conv1(x)))
        x = self.pool(torch.relu(self.conv2(x)))
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise 3x3, project (1x1): the block of MobileNetV2 (arXiv 1801.04381)."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inside * expansion
        expand = [] if expansion == 1 else _conv(inside, hidden, 1)
        self.layers = nn.Sequential(
            *expand,
            *_conv(hidden, hidden, 3, stride, groups=hidden),
            nn.Conv2d(hidden, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.skip = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.skip else self.layers(x)


def _conv(
    inside: int, outside: int, size: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outside),
        nn.ReLU6(),
    ]


class SmallMobileNetV2(nn.Module):
    """MobileNetV2 for 28x28: five stages of inverted residuals, 28 -> 14 -> 7 -> 7."""

    STAGES = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 32, 2, 2), (4, 64, 2, 1), (4, 96, 1, 1))
    """Expansion, channels, blocks, stride of the first: the t, c, n, s of the paper's table 2."""

    def __init__(self) -> None:
        super().__init__()
        layers = _conv(1, 16, 3, 2)
        width = 16
        for expansion, channels, blocks, stride in self.STAGES:
            for block in range(blocks):
                layers.append(
                    InvertedResidual(width, channels, stride if block == 0 else 1, expansion)
                )
                width = channels
        self.features = nn.Sequential(*layers, *_conv(width, 384, 1))
        self.classifier = nn.Linear(384, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


# --- The tasks -----------------------------------------------------------------------------------


def mirrored(inputs: Inputs, generator: torch.Generator) -> Inputs:
    """Every second picture mirrored left to right: clothes have no side."""
    (pictures,) = inputs
    chosen = torch.rand(len(pictures), 1, 1, 1, generator=generator) < 0.5
    return (torch.where(chosen, pictures.flip(-1), pictures),)


MEAN, DEVIATION = 0.286, 0.353
"""Of all pixels of the training pictures."""


class Standardised(nn.Module):
    """A network that is trained on pixels of mean 0 and deviation 1, and then takes them raw.

    Its first layer must not pad: :meth:`folded` moves mean and deviation into that layer's weights.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network((x - MEAN) / DEVIATION)

    def folded(self) -> nn.Module:
        """The network for raw pictures; the same function but for rounding."""
        first = next(m for m in self.network.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        with torch.no_grad():
            first.weight /= DEVIATION
            first.bias -= MEAN * first.weight.flatten(1).sum(dim=1)
        return self.network


@dataclass(frozen=True)
class Plan:
    """How an uncompressed network is trained, and in whose trainings pictures are mirrored.

    A LeNet-300-100 with just enough weights left learns the pictures as they are better. The narrow
    LeNet-5 of ``fashion_mnist.yaml`` validates at 91.7 % with mirrored ones and at 91.4 % without.
    """

    training: Training
    mirrored: bool = False
    mirrored_in_recipes: bool = False
    standardised: bool = False


PLANS: dict[type[nn.Module], Plan] = {
    LeNet300100: Plan(Training(epochs=20, learning_rate=1e-3)),
    LeNet5: Plan(
        Training(
            epochs=12,
            batch_size=64,
            learning_rate=1.5e-3,
            warmup_epochs=0.5,
            optimizer="adamw",
            weight_decay=0.05,
        ),
        mirrored=True,
        mirrored_in_recipes=True,
        standardised=True,
    ),
    SmallMobileNetV2: Plan(
        Training(
            epochs=5, learning_rate=4e-3, warmup_epochs=0.5, optimizer="adamw", weight_decay=0.02
        ),
        mirrored=True,
        mirrored_in_recipes=True,
    ),
}


class Ensemble(nn.Module):
    """The mean logits of several networks: a better teacher than each (arXiv 1503.02531)."""

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([network(x) for network in self.networks]).mean(dim=0)


class Remembered(nn.Module):
    """A teacher whose answers to the training pictures are computed once.

    A picture is found again by its product with a fixed random vector. A picture that is not among
    them, or whose product another one shares, is answered by the teacher itself.
    """

    def __init__(self, teacher: nn.Module, pictures: Tensor) -> None:
        super().__init__()
        self.teacher = teacher
        random = torch.Generator().manual_seed(0)
        self.register_buffer("direction", torch.rand(SIDE * SIDE, generator=random).double())
        with torch.no_grad():
            marks = torch.cat([self._marks(part) for part in pictures.split(1_000)])
            answers = torch.cat([teacher(part) for part in pictures.split(1_000)])
        order = marks.argsort()
        marks, answers = marks[order], answers[order]
        alone = torch.ones_like(marks, dtype=torch.bool)
        alone[1:] &= marks[1:] - marks[:-1] > _APART
        alone[:-1] &= marks[1:] - marks[:-1] > _APART
        self.register_buffer("marks", marks[alone])
        self.register_buffer("answers", answers[alone])

    def _marks(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1).double() @ self.direction

    def forward(self, x: Tensor) -> Tensor:
        marks = self._marks(x)
        place = torch.searchsorted(self.marks, marks - _APART / 2).clamp(max=len(self.marks) - 1)
        answer = self.answers[place].clone()
        new = (self.marks[place] - marks).abs() > _APART / 2
        if bool(new.any()):
            answer[new] = self.teacher(x[new])
        return answer


_APART = 1e-9
"""Products of 784 numbers in double precision differ by less than this between batch sizes."""


def lenet_300_100(
    evaluation: int = 1_000, seed: int = 0, epochs: int | None = None, teacher: str | None = None
) -> Task:
    """LeNet-300-100.

    Args:
        evaluation: how many of the 10,000 test pictures report.
        seed: what the uncompressed network starts from.
        epochs: how long it is trained, if not as :data:`PLANS` says.
        teacher: ``lenet_5`` lets recipes distil from that uncompressed network of the same seed,
            and not from the task's own.
    """
    task = _task(LeNet300100, evaluation, seed, epochs)
    if teacher is None:
        return task
    if teacher != "lenet_5":
        raise ConfigError(f"'{teacher}' is not lenet_5", where="task.teacher")
    return _taught_by(_task(LeNet5, 1, seed, None).model, task)


def lenet_5(
    evaluation: int = 1_000,
    seed: int = 0,
    epochs: int | None = None,
    remember: bool = False,
    teachers: int = 1,
) -> Task:
    """LeNet-5; arguments as for :func:`lenet_300_100`.

    ``remember``: what the uncompressed network answers is computed once, for recipes that distil.
    ``teachers``: more than one: they distil from the mean logits of as many uncompressed networks,
    of the seeds from 0 on, and those are remembered.
    """
    if teachers < 1:
        raise ConfigError(f"is {teachers}; at least 1 is needed", where="task.teachers")
    task = _task(LeNet5, evaluation, seed, epochs)
    if teachers > 1:
        return _taught_by(
            Ensemble([_task(LeNet5, 1, n, epochs).model for n in range(teachers)]), task
        )
    return _taught_by(task.model, task) if remember else task


def mobilenet_v2(evaluation: int = 1_000, seed: int = 0, epochs: int | None = None) -> Task:
    """A small MobileNetV2; arguments as for :func:`lenet_300_100`."""
    return _task(SmallMobileNetV2, evaluation, seed, epochs)


def _taught_by(other: object, task: Task) -> Task:
    assert isinstance(other, nn.Module)
    pictures = data(folder()).train.inputs[0]
    if task.augment is mirrored:
        pictures = torch.cat([pictures, pictures.flip(-1)])
    return replace(task, teacher=Remembered(copy.deepcopy(other), pictures).eval())


def _task(kind: type[nn.Module], evaluation: int, seed: int, epochs: int | None) -> Task:
    if not 1 <= evaluation <= 10_000:
        raise ConfigError(f"is {evaluation}; there are 10,000 pictures", where="task.evaluation")
    pictures = data(folder())
    plan = PLANS[kind]
    torch.manual_seed(seed)
    model = kind()
    bare = Task(
        model=model,
        example_inputs=(torch.zeros(1, 1, SIDE, SIDE),),
        calibration=[(pictures.train.inputs[0][i : i + 1],) for i in range(CALIBRATION)],
        evaluation=pictures.test[:evaluation],
        metric=TOP1,
        train=pictures.train,
        validation=pictures.validation,
        augment=mirrored if plan.mirrored else None,
    )
    training = plan.training
    if epochs is not None:
        training = training.model_copy(update={"epochs": epochs})
    trained = copy.deepcopy(model)
    whole = Standardised(trained) if plan.standardised else trained
    run = Run(seed, _say, cache_dir() / "fashion_mnist", place="training the uncompressed network")
    fit(whole, bare, training, run, purpose=kind.__name__)
    if isinstance(whole, Standardised):
        whole.folded()
    later = mirrored if plan.mirrored_in_recipes else None
    return replace(bare, model=trained, augment=later)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
