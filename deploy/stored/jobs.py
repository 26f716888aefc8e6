"""What the bench stage asks of each device: one job for each artifact and thread count."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from compress.quality import figure
from compress.task import Sample, TaskMetric
from deploy.bench import outputs as outputs_
from deploy.bench.job import Job, TaskBatch, TaskSamples, TaskScore
from deploy.files import write_bytes
from deploy.stored import compressed
from deploy.stored.layers import layers_of
from deploy.types import Artifact
from deploy.workspace import RunFolder

MAX_BATCH_BYTES = 16 << 20
"""Inputs of one batch, and outputs of one: what a device and this machine hold at a time."""


def bench_jobs(folder: RunFolder, artifacts: Sequence[Artifact]) -> list[Job]:
    """Every artifact with its input, its reference outputs, and what passes may ask for."""
    layers = {
        variant: functools.cache(functools.partial(layers_of, folder, artifacts, variant))
        for variant in dict.fromkeys(artifact.variant for artifact in artifacts)
    }
    no_task = "a saved program has no task metric"
    tasks: dict[str, TaskSamples] = {}
    if artifacts and folder.config.task.callable:
        tasks = _tasks(folder, artifacts)
    return [
        Job(
            artifact=artifact,
            path=folder.artifacts / artifact.path,
            inputs=folder.compress / compressed.INPUTS,
            reference=compressed.first_outputs(folder, artifact.variant),
            threads=threads,
            task=tasks.get(artifact.variant),
            no_task=no_task,
            layers=layers[artifact.variant],
        )
        for artifact in artifacts
        for threads in folder.config.bench.threads
    ]


def _tasks(folder: RunFolder, artifacts: Sequence[Artifact]) -> dict[str, TaskSamples]:
    """The evaluation samples for each variant. Nothing is loaded before a pass asks for it."""
    most = folder.config.bench.task_samples

    @functools.cache
    def samples() -> list[Sample]:
        return compressed.samples(folder)[:most]

    @functools.cache
    def metric() -> TaskMetric:
        return compressed.metric_of(folder)

    def one_output() -> int:
        return max(outputs_.expected_bytes(artifact.outputs) for artifact in artifacts)

    def judge(variant: str, there: Sequence[outputs_.Arrays]) -> TaskScore:
        targets = [sample.target for sample in samples()]
        here = compressed.outputs(folder, variant)[: len(targets)]
        device = figure(metric(), [torch.from_numpy(arrays[0]) for arrays in there], targets)
        program = figure(metric(), [tensors[0] for tensors in here], targets)
        drop = round(metric().gain(program, device), 12)
        return TaskScore(metric().name, device, program, drop)

    return {
        variant: TaskSamples(
            lambda: _batches(folder.root, samples(), one_output()),
            functools.partial(judge, variant),
        )
        for variant in dict.fromkeys(artifact.variant for artifact in artifacts)
    }


def _batches(root: Path, samples: Sequence[Sample], one_output: int) -> Iterator[TaskBatch]:
    """The samples in files of at most :data:`MAX_BATCH_BYTES`, one file at a time."""
    one_input = max(len(compressed.raw_sample(sample)) for sample in samples)
    count = max(1, MAX_BATCH_BYTES // max(1, one_output, one_input))
    # A name with a dot: whatever a killed run leaves is swept by the next one.
    with tempfile.TemporaryDirectory(prefix=".task-", dir=root) as scratch:
        for at in range(0, len(samples), count):
            batch = samples[at : at + count]
            path = Path(scratch) / "inputs.bin"
            write_bytes(path, b"".join(map(compressed.raw_sample, batch)))
            yield TaskBatch(path, len(batch))
