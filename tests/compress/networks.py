"""Tiny networks with the constructions that matter, and tasks on random data."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.quantize import Quantize
from compress.recipe import Compressed, apply
from compress.samples import TensorSamples
from compress.task import Sample, Task, TaskMetric

NO_TARGET = TaskMetric("none", lambda outputs, targets: 0.0)
IMAGE = (1, 3, 12, 12)


class Small(nn.Module):
    """conv + bn + ReLU6 (reaching far above 6), depthwise + ReLU6, residual add, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)
        self.clamp = nn.ReLU6()
        nn.init.constant_(self.norm.running_var, 2e-4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.clamp(self.norm(self.stem(x)))
        x = x + self.point(self.clamp(self.depthwise(x)))
        return self.head(x.mean((2, 3)))


class Layer(nn.Module):
    """A convolution, one of its channels 80 times as wide as the others; then ``after``."""

    def __init__(self, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.after = after
        with torch.no_grad():
            self.conv.weight[-1] *= 80

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.conv(x))


class Shared(nn.Module):
    """A convolution that is used three times, as a detector's head is on each level."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x) + self.conv(x * 0.5))


class TokensAndMask(nn.Module):
    """Two inputs: int64 tokens through an embedding, and a float mask."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.head((self.table(tokens) * mask[..., None]).sum(1))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make().eval()


def images(count: int, seed: int, shape: tuple[int, ...] = IMAGE) -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator),) for _ in range(count)]


def task_of(
    model: nn.Module | torch.export.ExportedProgram, shape: tuple[int, ...] = IMAGE
) -> Task:
    return Task(
        model=model,
        example_inputs=images(1, 1, shape)[0],
        calibration=images(8, 2, shape),
        evaluation=[Sample(inputs) for inputs in images(8, 3, shape)],
        metric=NO_TARGET,
    )


def token_task() -> Task:
    generator = torch.Generator().manual_seed(0)

    def one() -> tuple[Tensor, Tensor]:
        return torch.randint(0, 11, (1, 7), generator=generator), torch.rand(
            1, 7, generator=generator
        )

    return Task(
        model=seeded(TokensAndMask),
        example_inputs=one(),
        calibration=[one() for _ in range(4)],
        evaluation=[Sample(one()) for _ in range(4)],
        metric=NO_TARGET,
    )


@functools.cache
def made_of(make: Callable[[], nn.Module], fuse: bool = True) -> Compressed:
    """Quantizing takes seconds whatever the size, so that the tests share results."""
    return apply(task_of(seeded(make)), [Quantize(fuse_clamps=fuse)])


@functools.cache
def made_of_tokens() -> Compressed:
    return apply(token_task(), [Quantize()])


def classes_task(count: int = 256) -> Task:
    """Ten-dimensional points [1, 10] of four overlapping classes, and a perceptron for them."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(4, 10, generator=generator) * 1.5

    def samples(size: int) -> TensorSamples:
        target = torch.randint(0, 4, (size,), generator=generator)
        points = centres[target] + torch.randn(size, 10, generator=generator)
        return TensorSamples((points[:, None],), target)

    def network() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 4))

    return Task(
        model=seeded(network),
        example_inputs=(torch.zeros(1, 1, 10),),
        calibration=[sample.inputs for sample in samples(8)],
        evaluation=samples(count),
        train=samples(count),
        validation=samples(count),
    )
