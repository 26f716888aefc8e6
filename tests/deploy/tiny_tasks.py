"""Task functions for the tests of the command line; copied beside their pipeline files."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.task import TOP1, Sample, Task, TaskMetric

HERE = Path(__file__).resolve().parent


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4 * 6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(nn.functional.relu6(self.conv(x)).flatten(1))


class DataDependent(Net):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def tiny(metric: TaskMetric = TOP1, model: nn.Module | None = None) -> Task:
    torch.manual_seed(0)
    network = (model or Net()).eval()
    inputs = [torch.randn(1, 1, 8, 8) for _ in range(12)]
    with torch.no_grad():
        judged = [Sample((x,), network(x).argmax(-1)) for x in inputs[4:]]
    return Task(network, (inputs[0],), [(x,) for x in inputs[:4]], judged, metric)


class Counted(nn.Module):
    """Some ten million ARM64 instructions: a tick of the guest's timer is far below 0.1 % of it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 32, 3), nn.ReLU6(), nn.Conv2d(32, 64, 3), nn.ReLU6()),
            *(nn.Conv2d(64, 64, 3), nn.ReLU6()),
        )
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def counted() -> Task:
    torch.manual_seed(0)
    network = Counted().eval()
    inputs = [torch.randn(1, 3, 64, 64) for _ in range(8)]
    with torch.no_grad():
        judged = [Sample((x,), network(x).argmax(-1)) for x in inputs[4:]]
    return Task(network, (inputs[0],), [(x,) for x in inputs[:4]], judged)


def noisy() -> Task:
    """A task that prints by every way there is."""
    print("NOISE print")
    print("NOISE stderr", file=sys.stderr)
    os.write(1, b"NOISE fd 1\n")
    os.write(2, b"NOISE fd 2\n")
    os.system("echo NOISE child")
    return tiny()


def held() -> Task:
    """Does not return while the file ``hold`` is there, and says so with the file ``$HELD``."""
    while (HERE / "hold").exists():
        Path(os.environ["HELD"]).touch()
        time.sleep(0.02)
    return tiny()


def untraceable() -> Task:
    return tiny(model=DataDependent())


def wrong_type() -> int:
    return 3


def raises() -> Task:
    raise RuntimeError("the data [red]are[/red]\x1b]0;owned\x07 not there\nsecond line")


def exits() -> Task:
    sys.exit("bye")


def takes_size(size: int) -> Task:
    return tiny()


def bad_metric() -> Task:
    def compute(outputs: object, targets: object) -> float:
        raise KeyError("no such label")

    return tiny(TaskMetric("mine", compute))


def nan_metric() -> Task:
    return tiny(TaskMetric("mine", lambda outputs, targets: float("nan")))


def no_evaluation() -> Task:
    return Task(Net().eval(), (torch.zeros(1, 1, 8, 8),))
