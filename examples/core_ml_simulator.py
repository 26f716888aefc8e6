"""A small network with random weights: whether Core ML runs it right, not what it is good for.

It has two inputs, one of integers, and two outputs, so that their order and types are tried too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from compress.task import TOP1, Sample, Task


class Conditioned(nn.Module):
    """A convolutional classifier with a learned bias for each of eight conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU6(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU6(),
        )
        self.conditions = nn.Embedding(8, 32)
        self.classify = nn.Linear(32, 10)

    def forward(self, image: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``image`` float32 [1, 3, 32, 32] and ``condition`` int64 [1] -> ([1, 10], [1, 32])."""
        pooled = self.features(image).mean((2, 3)) + self.conditions(condition)
        return self.classify(pooled), pooled


def task() -> Task:
    """The network judged against itself: its own answers are the targets."""
    torch.manual_seed(0)
    model = Conditioned().eval()
    inputs = [(torch.randn(1, 3, 32, 32), torch.tensor([i % 8])) for i in range(16)]
    with torch.no_grad():
        judged = [Sample(one, model(*one)[0].argmax(-1)) for one in inputs[4:]]
    return Task(model, inputs[0], inputs[:4], judged, TOP1)
