"""What the bench stage asks of each device."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.bench.job import Job
from deploy.stored.compressed import INPUTS, first_outputs
from deploy.types import Artifact
from deploy.workspace import RunFolder


def bench_jobs(folder: RunFolder, artifacts: Sequence[Artifact]) -> list[Job]:
    """A job for each artifact and number of threads."""
    return [
        Job(
            artifact=artifact,
            path=folder.artifacts / artifact.path,
            inputs=folder.compress / INPUTS,
            reference=first_outputs(folder, artifact.variant),
            threads=threads,
        )
        for artifact in artifacts
        for threads in folder.config.bench.threads
    ]
