"""What the bench stage takes from a finished run: samples in batches, the metric, the layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy import stored, workspace
from deploy.bench.job import Job, TaskSamples
from deploy.stored import jobs as jobs_module
from deploy.types import Format
from tests.deploy.conftest import FinishedRun


@pytest.fixture
def jobs(finished: FinishedRun, tmp_path: Path) -> dict[str, Job]:
    folder = workspace.open_run(finished.copy(tmp_path))
    made = stored.bench_jobs(folder, workspace.artifacts_of(folder))
    return {job.artifact.name: job for job in made}


def task_of(job: Job) -> TaskSamples:
    assert job.task is not None
    return job.task


def test_batches_hold_every_sample_once_and_leave_nothing(
    jobs: dict[str, Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs["fp32.executorch"]
    root = job.path.parent.parent
    whole = [(batch.samples, batch.path.read_bytes()) for batch in task_of(job).batches()]
    one = job.inputs.read_bytes()
    assert [count for count, _ in whole] == [8]  # tiny_tasks.tiny has eight to judge by
    assert whole[0][1].startswith(one)
    assert len(whole[0][1]) == 8 * len(one)
    monkeypatch.setattr(jobs_module, "MAX_BATCH_BYTES", 3 * len(one) + 1)
    parts = [(batch.samples, batch.path.read_bytes()) for batch in task_of(job).batches()]
    assert [count for count, _ in parts] == [3, 3, 2]
    assert b"".join(data for _, data in parts) == whole[0][1]
    assert not list(root.glob(".task-*"))


def test_the_drop_is_against_the_program_here(jobs: dict[str, Job]) -> None:
    """The task's targets are the float model's own classes, so its outputs score 1."""
    job = jobs["fp32.executorch"]
    program = torch.export.load(job.path.parent.parent / "compress" / "fp32.pt2").module()
    there = []
    for batch in task_of(job).batches():
        inputs = np.frombuffer(batch.path.read_bytes(), np.float32)
        for sample in inputs.reshape(batch.samples, 1, 1, 8, 8):
            there.append([program(torch.from_numpy(sample.copy())).detach().numpy()])
    same = task_of(job).judge(there)
    assert (same.metric, same.device, same.here, same.drop) == ("top1", 1.0, 1.0, 0.0)
    wrong = [[-arrays[0]] for arrays in there[:2]] + there[2:]
    assert task_of(job).judge(wrong).drop == pytest.approx(2 / 8)


def test_layers_have_the_names_of_the_model(jobs: dict[str, Job]) -> None:
    plain = {node.op: node.layer for node in jobs["fp32.executorch"].layers().program}
    assert (plain["conv2d"], plain["linear"]) == ("conv", "fc")
    for name, job in jobs.items():
        layers = job.layers()
        named = [n.layer for n in layers.program if n.op in ("conv2d", "linear")]
        assert named == ["conv", "fc"], name
        assert any("Conv" in node.op for node in layers.graph) == any(
            other.artifact.format is Format.ONNX for other in jobs.values()
        )
