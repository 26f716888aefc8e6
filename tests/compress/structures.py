"""Tiny networks with the couplings that structured pruning meets, and a task on small images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from compress.samples import TensorSamples
from compress.task import Task
from tests.compress.networks import seeded

SHAPE = (1, 3, 8, 8)


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms with scales and statistics as training leaves them: fresh ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value in (module.weight, module.running_var):
                value.data = torch.rand(value.shape, generator=generator) + 0.5
            for value in (module.bias, module.running_mean):
                value.data = torch.randn(value.shape, generator=generator) * 0.3
    return model.eval()


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    return lively(seeded(make, seed), seed)


class Residual(nn.Module):
    """torchvision's basic block."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.down = nn.Conv2d(inner, outer, 1, stride) if stride > 1 or inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x if self.down is None else self.down(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.layer1 = nn.Sequential(Residual(8, 8), Residual(8, 8))
        self.layer2 = nn.Sequential(Residual(8, 16, 2), Residual(16, 16))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.stem(x).relu())).mean((2, 3)))


def conv_bn(inner: int, outer: int, size: int = 3, groups: int = 1, stride: int = 1) -> nn.Module:
    conv = nn.Conv2d(inner, outer, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), nn.ReLU6())


class Inverted(nn.Module):
    """MobileNetV2's inverted residual, called with one more argument, as EfficientNet's is."""

    def __init__(self, inner: int, outer: int, stride: int = 1) -> None:
        super().__init__()
        self.skip = stride == 1 and inner == outer
        self.conv = nn.Sequential(
            conv_bn(inner, 2 * inner, 1),
            conv_bn(2 * inner, 2 * inner, 3, 2 * inner, stride),
            nn.Conv2d(2 * inner, outer, 1, bias=False),
            nn.BatchNorm2d(outer),
        )

    def forward(self, x: Tensor, drop_connect_rate: float | None = None) -> Tensor:
        y = self.conv(x)
        if self.skip and drop_connect_rate:
            y = nn.functional.dropout(y, drop_connect_rate, self.training)
        return x + y if self.skip else y


class MobileNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.blocks = nn.ModuleList([Inverted(8, 8), Inverted(8, 12, 2), Inverted(12, 12)])
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for index, block in enumerate(self.blocks):
            x = block(x, drop_connect_rate=0.1 * index)
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Concatenation: one batch norm and one convolution read channels of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.bn = nn.BatchNorm2d(11)
        self.third = nn.Conv2d(11, 7, 3)
        self.hidden = nn.Linear(7 * 36, 9)
        self.head = nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        x = self.third(self.bn(torch.cat([x, self.second(x)], 1)).relu())
        return self.head(self.hidden(x.relu().flatten(1)).relu())


class Grouped(nn.Module):
    """Grouped and transposed convolutions, squeeze and excitation, PReLU, a bare scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.prelu = nn.PReLU(6)
        self.squeeze, self.excite = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        self.gamma = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.last = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.grouped(self.first(x).relu()).relu())
        x = self.prelu(x) * self.gamma
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(self.last(x).relu().mean((2, 3)))


class Shared(nn.Module):
    """A convolution that is called twice, between others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.twice(self.twice(self.stem(x).relu()).relu()).mean((2, 3)))


class Transformer(nn.Module):
    """Attention written by hand, then ``nn.MultiheadAttention``, and a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 2, width // 2)
        mixed = nn.functional.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        x = x + self.attention(x, x, x)[0]
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.head(x.mean(1))


class Slim(nn.Module):
    """A small image classifier for training: three convolutions with batch norm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width)
        self.fc1 = nn.Linear(2 * width * 16, 16)
        self.fc2 = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        return self.fc2(self.fc1(x.flatten(1)).relu())


def image_task(model: nn.Module, count: int = 192) -> Task:
    """Images [3, 8, 8] of four classes: a pattern of the class in noise."""
    generator = torch.Generator().manual_seed(11)
    patterns = torch.randn(4, 3, 8, 8, generator=generator)

    def samples() -> TensorSamples:
        target = torch.randint(0, 4, (count,), generator=generator)
        noise = torch.randn(count, 3, 8, 8, generator=generator) * 2.0
        return TensorSamples((patterns[target] + noise,), target)

    evaluation = samples()
    return Task(
        model=model,
        example_inputs=(torch.zeros(SHAPE),),
        calibration=[sample.inputs for sample in samples()[:4]],
        evaluation=evaluation,
        train=samples(),
        validation=samples(),
    )


def probe(seed: int = 3) -> tuple[Tensor, ...]:
    return (torch.randn(2, *SHAPE[1:], generator=torch.Generator().manual_seed(seed)),)
