"""The task's metric on the device: an accuracy loss that exists only there is seen."""

from __future__ import annotations

import dataclasses

from deploy.bench import outputs
from deploy.bench.job import TaskSamples, TaskScore
from deploy.bench.passes.base import CaseRun, Gathered, PassFailed
from deploy.files import sha256
from deploy.types import Measurement, Metric, Status


class TaskMetric:
    """Evaluation samples go there in batches, outputs come back, the metric is computed here."""

    name = "task"
    metrics = (Metric.TASK_METRIC, Metric.TASK_METRIC_DROP)

    def wants_cool(self, run: CaseRun) -> bool:
        """Results do not depend on heat."""
        return False

    def measure(self, run: CaseRun) -> Gathered:
        """One process of the runner for each batch."""
        task = run.job.task
        if task is None:
            raise PassFailed(Status.NOT_RUN, run.job.no_task)
        found = _outputs(run, task)
        score = task.judge(found)
        source = (
            f"{score.metric} of {len(found)} evaluation samples run on the device; "
            f"{score.here:.6g} for the program on this machine"
        )
        return Gathered(
            measurements=tuple(
                Measurement(
                    metric=metric,
                    unit=score.metric,
                    tier=run.info.tier,
                    source=source,
                    status=Status.OK,
                    samples=(value,),
                )
                for metric, value in _values(score)
            )
        )


def _values(score: TaskScore) -> tuple[tuple[Metric, float], ...]:
    return (Metric.TASK_METRIC, score.device), (Metric.TASK_METRIC_DROP, score.drop)


def _outputs(run: CaseRun, task: TaskSamples) -> list[outputs.Arrays]:
    """The outputs of every sample in their order, each list in the model's order."""
    specs = run.job.artifact.outputs
    one = outputs.expected_bytes(specs)
    found: list[outputs.Arrays] = []
    # The model is hashed and looked for once, not for each batch.
    wanted = run.request()
    for batch in task.batches():
        request = dataclasses.replace(
            wanted,
            inputs=run.agent.push_content(batch.path, sha256(batch.path)),
            output_bytes=one * batch.samples,
            samples=batch.samples,
        )
        _, answer = run.run(request)
        if len(answer.outputs) != one * batch.samples:
            raise PassFailed(
                Status.INVALID,
                f"{len(answer.outputs)} bytes of outputs came back for {batch.samples} samples, "
                f"expected {one * batch.samples}",
            )
        found += [
            outputs.arrays(answer.outputs[at : at + one], specs)
            for at in range(0, one * batch.samples, one)
        ]
    return found
