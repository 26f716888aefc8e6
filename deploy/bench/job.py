"""One case to run, as it is known before any device is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.bench import outputs
from deploy.metrics.layers import Layers
from deploy.types import Artifact


@dataclass(frozen=True)
class TaskScore:
    """The task's metric on the device, and that of the program here on the same samples.

    ``drop`` is how much worse the device is, in the metric's unit; negative where it is better.
    """

    metric: str
    device: float
    here: float
    drop: float


@dataclass(frozen=True)
class TaskBatch:
    """A raw file with the inputs of ``samples`` samples, one sample after another."""

    path: Path
    samples: int


@dataclass(frozen=True)
class TaskSamples:
    """Evaluation samples to be run on a device.

    ``batches`` gives them anew each time; a batch's file is there until the next one is asked for.
    ``judge`` gets the outputs of each sample in order; it raises ``PocketshipError`` where the
    task's own metric fails.
    """

    batches: Callable[[], Iterator[TaskBatch]]
    judge: Callable[[Sequence[outputs.Arrays]], TaskScore]


@dataclass(frozen=True)
class Job:
    """One case to run: an artifact with its file, inputs and reference outputs on this machine.

    ``inputs`` is a raw file as the runner takes it (docs/architecture.md). ``reference`` is a raw
    file of outputs, or arrays in the order of the artifact's outputs, or None. ``task`` and
    ``layers`` are for the passes that need them, and load what they need when they are called;
    ``no_task`` says why there is no ``task``.
    """

    artifact: Artifact
    path: Path
    inputs: Path
    reference: Path | outputs.Arrays | None = None
    threads: int = 1
    task: TaskSamples | None = None
    no_task: str = "no evaluation samples were given"
    layers: Callable[[], Layers] = Layers


def case_id(artifact: str, device: str, threads: int) -> str:
    """``<artifact name>@<device profile>/t<threads>``."""
    return f"{artifact}@{device}/t{threads}"
