"""Passes beside timing, with the real runner; and which of them a case gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import harness
from deploy.bench import outputs
from deploy.bench.job import Job, TaskBatch, TaskSamples, TaskScore
from deploy.bench.passes.choice import MADE, passes_for
from deploy.bench.passes.operators import Operators
from deploy.bench.passes.timing import Timing
from deploy.bench.runner import PRESETS
from deploy.bench.session import run_device
from deploy.config import PassName
from deploy.devices import profiles
from deploy.devices.base import Device
from deploy.devices.host import HostDevice
from deploy.errors import ConfigError
from deploy.metrics.layers import Layers, ProgramNode
from deploy.types import Case, Format, Metric, Status
from tests.deploy.bench.conftest import FEATURES, Models

EXACT = PRESETS["exact"]
ALL = ("loads", "memory", "operators", "task")


def names(passes: Any) -> list[str]:
    return [one.name for one in passes]


def test_presets_choose_and_a_pipeline_overrules() -> None:
    host, phone = profiles.load("host"), profiles.load("emulated-arm64")
    assert names(passes_for(None, PRESETS["quick"], host)) == [
        "timing",
        "loads",
        "memory",
        "task",
        "energy",
    ]
    assert names(passes_for(None, PRESETS["release"], host)) == ["timing", *ALL, "energy"]
    assert names(passes_for(None, EXACT, host)) == ["timing", "energy"]
    # A process is dear there.
    assert names(passes_for(None, PRESETS["release"], phone)) == ["timing", "energy"]
    assert names(passes_for(["task", "loads", "task"], EXACT, phone)) == [
        "timing",
        "loads",
        "task",
        "energy",
    ]
    assert names(passes_for([], PRESETS["release"], host)) == ["timing", "energy"]


def test_the_pipeline_file_knows_every_pass() -> None:
    assert set(PassName.__args__) == set(MADE)  # type: ignore[attr-defined]
    for made in PRESETS.values():
        assert set(made.passes) <= set(MADE)


def score(there: list[outputs.Arrays], here: np.ndarray) -> TaskScore:
    """Mean of all outputs; higher is better."""
    found = float(np.mean([arrays[0] for arrays in there]))
    return TaskScore("mean", found, float(here.mean()), float(here.mean()) - found)


@pytest.fixture
def job(models: Models, tmp_path: Path) -> Job:
    """The tiny matrix product with five samples in batches of two, and one layer."""
    random = np.random.default_rng(3)
    samples = random.standard_normal((5, FEATURES), dtype=np.float32)

    def batches() -> Iterator[TaskBatch]:
        for at in range(0, 5, 2):
            path = tmp_path / "batch.bin"
            path.write_bytes(samples[at : at + 2].tobytes())
            yield TaskBatch(path, len(samples[at : at + 2]))

    task = TaskSamples(batches, lambda there: score(list(there), samples @ models.weight.T))
    layers = Layers((ProgramNode("linear", "linear", "head"),))
    return dataclasses.replace(models.job(Format.EXECUTORCH), task=task, layers=lambda: layers)


def measured(device: Device, job: Job, bundle: Any, asked: Any = ALL) -> Case:
    passes = passes_for(asked, EXACT, device.profile)
    _, (case,) = run_device(device, [job], bundle, EXACT, passes=passes)
    return case


def test_every_pass_leaves_its_rows(seeded: Device, job: Job, bundle: harness.Bundle) -> None:
    case = measured(seeded, job, bundle)
    assert case.status is Status.OK, case.reason
    rows = {row.metric: row for row in case.measurements}
    assert len(rows) == len(case.measurements), "a metric has two rows"
    for metric in (Metric.LOAD_MS, Metric.FIRST_MS):
        assert len(rows[metric].samples) == 3
        assert "3 fresh processes" in rows[metric].source
    assert len(rows[Metric.INSTALL_LOAD_MS].samples) == 1
    assert rows[Metric.PSS_KIB].samples
    assert (rows[Metric.PRIVATE_DIRTY_KIB].median or 0) < (rows[Metric.PSS_KIB].median or 0)
    assert rows[Metric.TASK_METRIC].unit == "mean"
    assert "5 evaluation samples" in rows[Metric.TASK_METRIC].source
    assert rows[Metric.TASK_METRIC_DROP].median == pytest.approx(0, abs=1e-5)
    (linear,) = [row for row in case.operators if row.layers]
    assert (linear.layers, linear.unit, len(linear.samples)) == (("head",), "ms", 3)
    assert case.operators_reason == ""
    again = measured(seeded, job, bundle, asked=())
    # Nothing was pushed this time, so no load is the first one after a push.
    assert again.measurement(Metric.INSTALL_LOAD_MS) is None
    load = again.measurement(Metric.LOAD_MS)
    assert load is not None
    assert len(load.samples) == 1
    assert list((Path(seeded.profile.work_dir) / "cases").iterdir()) == []


def test_what_a_device_computes_wrong_is_a_drop(
    host: HostDevice, job: Job, models: Models, bundle: harness.Bundle
) -> None:
    """A phone that gives other outputs, here by flipping bits in what the runner wrote."""
    wrong = (
        "for a; do case $p in --outputs) o=$a;; esac; p=$a; done; "
        '"$@" && s=$(stat -c %s "$o") && head -c "$s" /dev/zero >"$o"'
    )
    lying = bundle.model_copy(update={"launch": ("sh", "-c", wrong, "sh", *bundle.launch)})
    case = measured(host, job, lying, asked=["task"])
    there, drop = (case.measurement(m) for m in (Metric.TASK_METRIC, Metric.TASK_METRIC_DROP))
    assert there is not None
    assert drop is not None
    assert there.median == 0
    assert abs(drop.median or 0) > 1e-3


def test_a_pass_that_fails_leaves_its_rows_with_the_reason(
    host: HostDevice, job: Job, bundle: harness.Bundle
) -> None:
    assert job.task is not None

    def failing(_: Any) -> TaskScore:
        raise ConfigError("the metric failed", where="task.metric")

    broken = dataclasses.replace(job, task=dataclasses.replace(job.task, judge=failing))
    case = measured(host, broken, bundle, asked=["task"])
    assert case.status is Status.OK
    row = case.measurement(Metric.TASK_METRIC_DROP)
    assert row is not None
    assert row.status is Status.INVALID
    assert "the metric failed" in row.reason
    without = dataclasses.replace(job, task=None, no_task="a saved program has no task metric")
    row = measured(host, without, bundle, asked=["task"]).measurement(Metric.TASK_METRIC)
    assert row is not None
    assert row.status is Status.NOT_RUN
    assert "saved program" in row.reason


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ('echo "{}" >"$f"', "profile cannot be used: "),
        ('truncate -s 100M "$f"', "104857600|more than"),
        ("exit 6", "the inference failed"),
    ],
)
def test_a_profile_is_not_trusted(
    host: HostDevice, job: Job, bundle: harness.Bundle, damage: str, says: str
) -> None:
    """The case keeps its figures, and says why it has no operators."""
    script = (
        "for a; do case $p in --profile) f=$a;; esac; p=$a; done; "
        f'"$@" || exit; if [ -n "$f" ]; then {damage}; fi'
    )
    lying = bundle.model_copy(update={"launch": ("sh", "-c", script, "sh", *bundle.launch)})
    _, (case,) = run_device(host, [job], lying, EXACT, passes=(Timing(), Operators()))
    assert case.status is Status.OK
    assert case.operators == ()
    assert any(word in case.operators_reason for word in says.split("|")), case.operators_reason
