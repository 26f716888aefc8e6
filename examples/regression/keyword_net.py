"""A small keyword-spotting network for docs/walkthrough.md: about cost, so its weights are random.

The walk-through changes :class:`Block` as a colleague might, measures, and changes it back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.task import Sample, Task


class Block(nn.Module):
    """Convolution, batch norm, activation; the three become one operation on the phone."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class KeywordNet(nn.Module):
    """Twelve words from one second of sound: 40 mel bands, 48 frames."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(Block(1, 16, 2), Block(16, 32, 2), Block(32, 32, 1))
        self.words = nn.Linear(32, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.words(self.features(x).mean((2, 3)))


def task() -> Task:
    """The network with made-up spectrograms; the labels are its own answers."""
    torch.manual_seed(0)
    network = KeywordNet().eval()
    inputs = [torch.randn(1, 1, 40, 48) for _ in range(24)]
    with torch.no_grad():
        judged = [Sample((x,), network(x).argmax(-1)) for x in inputs[8:]]
    return Task(network, (inputs[0],), [(x,) for x in inputs[:8]], judged)
