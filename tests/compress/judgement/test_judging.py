"""Rows of a ledger: what is judged on what, what is dropped, what is measured."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from compress import capture, quality, recipe
from compress.errors import CompressError, ConfigError
from compress.fine_tune import FineTuneStep
from compress.judgement import judging
from compress.judgement.intervals import wilson
from compress.judgement.judging import in_batches, spread
from compress.judgement.worth import KeepIf
from compress.ledger import Cost
from compress.recipe import State, StepConfig, apply, handles
from compress.samples import Sample
from compress.task import TOP1, Task, TaskMetric
from compress.training import evaluate
from tests.compress.networks import Small, classes_task, seeded, task_of


class Prune(StepConfig):
    """Zero a share of each weight, smallest first: enough of a step to be judged."""

    kind: Literal["zero"] = "zero"
    share: float = 0.5


class Shrink(StepConfig):
    """A smaller hidden layer, the largest units kept."""

    kind: Literal["shrink"] = "shrink"
    units: int = 12


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recipe, "_HANDLERS", dict(recipe._HANDLERS))

    @handles(Prune)
    def prune(state: State, config: Prune) -> State:
        assert config.keep_if is None
        for weight in state.float_model().parameters():
            if weight.ndim > 1:
                limit = (
                    weight.detach()
                    .abs()
                    .flatten()
                    .kthvalue(max(1, int(config.share * weight.numel())))
                )
                weight.data[weight.abs() <= limit.values] = 0
        return replace(state, notes=("zeroed",))

    @handles(Shrink)
    def shrink(state: State, config: Shrink) -> State:
        old = state.float_model()
        first, last = old[1], old[3]
        chosen = (first.weight.abs().sum(1) * last.weight.abs().sum(0)).topk(config.units).indices
        new = copy.deepcopy(old)
        new[1], new[3] = nn.Linear(10, config.units), nn.Linear(config.units, 4)
        new[1].weight.data, new[1].bias.data = first.weight[chosen], first.bias[chosen]
        new[3].weight.data, new[3].bias.data = last.weight[:, chosen], last.bias
        return replace(state, model=new.eval())

    yield


TRAIN = FineTuneStep(epochs=2, batch_size=16, learning_rate=0.01)


def counted_forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the sample lists that programs were run on, one sample at a time."""
    sizes: list[int] = []
    real = quality.run_all

    def run_all(forward: quality.Forward, samples: list[Sample]) -> list[quality.Outputs]:
        sizes.append(len(samples))
        return real(forward, samples)

    monkeypatch.setattr(quality, "run_all", run_all)
    return sizes


def test_rows_between_run_in_batches_and_the_last_one_exactly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = classes_task(300)
    sizes = counted_forwards(monkeypatch)
    made = apply(task, [TRAIN, Prune(share=0.3), Shrink(units=20)])
    # The uncompressed program and the last one; nothing between them.
    assert sizes == [300, 300]
    for program, outputs in (
        (made.baseline, made.baseline_outputs),
        (made.program, made.program_outputs),
    ):
        forward = capture.forward_of(program)
        for sample, found in zip(task.evaluation, outputs, strict=True):
            assert torch.equal(forward(sample.inputs)[0], found[0])
    metric, targets = task.metric, quality.targets_of(task)
    assert made.ledger[-1].quality == quality.compare(
        made.baseline_outputs, made.program_outputs, metric, targets
    )
    for row in made.ledger:
        assert row.quality is not None
        hits = round(row.quality.metric_value * 300)
        assert row.interval == wilson(hits, 300)


def test_validation_is_what_training_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    task = classes_task(300)
    made = apply(task, [TRAIN])
    assert made.ledger[0].validation == evaluate(task.model, task, task.validation)
    assert made.ledger[1].validation == pytest.approx(
        float(made.ledger[1].notes[0].rpartition("validation ")[2].rstrip(")")), abs=1e-4
    )
    monkeypatch.setattr(judging, "VALIDATION_SAMPLES", 10)
    few = apply(task, [])
    chosen = spread(task.validation, 10)
    assert few.ledger[0].validation == evaluate(task.model, task, chosen)
    assert apply(task_of(seeded(Small)), []).ledger[0].validation is None


def test_spread_samples() -> None:
    task = classes_task(100)
    assert spread(task.validation, 100) is task.validation
    chosen = spread(task.validation, 4)
    assert [torch.equal(s.inputs[0], task.validation[i].inputs[0]) for s, i in
            zip(chosen, (0, 25, 50, 75), strict=True)] == [True] * 4  # fmt: skip
    listed = list(task.validation)
    assert spread(listed, 4) == [listed[i] for i in (0, 25, 50, 75)]


def test_batches_give_each_sample_its_own_rows() -> None:
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    samples = [Sample((torch.randn(rows, 4),)) for rows in (1, 3, 2)] * 100
    found = in_batches(model, samples)
    assert found is not None
    for sample, outputs in zip(samples, found, strict=True):
        assert torch.allclose(outputs[0], model(*sample.inputs), atol=1e-6)


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.reshape(1, 10))


def test_a_module_that_cannot_run_batches_is_judged_as_a_program() -> None:
    task = replace(classes_task(20), model=seeded(FixedBatch))
    assert in_batches(task.model, task.evaluation) is None
    made = apply(task, [Prune(share=0.01)])
    assert made.ledger[1].quality is not None
    assert made.ledger[1].quality.samples == 20
    assert made.ledger[1].validation is not None


# --- keep_if --------------------------------------------------------------------------------------


def test_a_dropped_step_leaves_no_trace_in_the_model() -> None:
    task = classes_task()
    ruin = Prune(share=1.0, keep_if=KeepIf(max_metric_drop=0.05))
    after = Shrink(units=20, keep_if=KeepIf(min_macs_gain=0.1))
    made = apply(task, [TRAIN, ruin, after])
    assert [row.kept for row in made.ledger] == [True, True, False, True]
    dropped = made.ledger[2]
    assert len(dropped.warnings) == 1
    assert dropped.warnings[0].startswith("dropped: the validation metric got worse by")
    assert dropped.notes == ("zeroed",)
    assert dropped.detail == {"share": 1.0, "keep_if": ruin.model_dump()["keep_if"]}
    assert dropped.chosen == {"share": 1.0, "keep_if": {"max_metric_drop": 0.05}}
    assert dropped.footprint is not None
    assert dropped.footprint.nonzeros < 40
    # As if the step had never been there, but for its place.
    without = apply(task, [TRAIN, Shrink(units=20)])
    for name, tensor in without.program.state_dict.items():
        assert torch.equal(made.program.state_dict[name], tensor)
    # The next row is compared with the last one that was kept: nothing about zeros there.
    assert made.ledger[3].warnings == without.ledger[2].warnings


def test_the_last_step_dropped() -> None:
    task = classes_task()
    made = apply(task, [TRAIN, Prune(share=1.0, keep_if=KeepIf(max_metric_drop=0.05))])
    kept = apply(task, [TRAIN])
    assert torch.equal(made.program_outputs[0][0], kept.program_outputs[0][0])
    assert made.ledger[1].quality == kept.ledger[1].quality
    assert made.ledger[2].quality is not None
    assert made.ledger[2].quality.metric_value < 0.6


def test_everything_dropped_is_the_uncompressed_model() -> None:
    made = apply(classes_task(), [Shrink(keep_if=KeepIf(min_disk_gain=0.99))])
    assert made.program is made.baseline
    assert made.program_outputs is made.baseline_outputs


@pytest.mark.parametrize(
    ("task", "keep_if", "words"),
    [
        (task_of(seeded(Small)), KeepIf(max_metric_drop=0.1), "task.validation is empty"),
        (classes_task(), KeepIf(min_cost_gain=0.1), "recipe.cost names no device"),
    ],
)
def test_what_cannot_be_known_stops_before_the_first_step(
    task: Task, keep_if: KeepIf, words: str
) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match=rf"recipe step 2 \(zero\): keep_if: .*{words}"):
        apply(task, [TRAIN, Prune(keep_if=keep_if)], progress=said.append)
    assert said == []


def test_a_changed_keep_if_repeats_no_training(tmp_path: Path) -> None:
    task = classes_task()
    apply(task, [TRAIN], journal=tmp_path)
    wanted = TRAIN.model_copy(update={"keep_if": KeepIf(max_metric_drop=0.5)})
    again = apply(task, [wanted], journal=tmp_path)
    assert "2 of them from a checkpoint" in again.ledger[1].notes[0]


# --- cost -----------------------------------------------------------------------------------------


def device(programs: list[ExportedProgram], costs: list[float | None]) -> judging.Measure:
    def measure(program: ExportedProgram) -> Cost:
        value = costs[len(programs)]
        programs.append(program)
        return Cost(
            device="d",
            format="executorch",
            metric="instructions",
            tier="emulator",
            value=value,
            reason="" if value is not None else "the phone is off",
        )

    return measure


def test_every_row_is_measured_and_the_slow_step_dropped() -> None:
    programs: list[ExportedProgram] = []
    wanted = KeepIf(min_cost_gain=0.2)
    made = apply(
        classes_task(),
        [Shrink(units=20, keep_if=wanted), Shrink(units=10, keep_if=wanted)],
        measure=device(programs, [1000.0, 900.0, 500.0]),
    )
    assert [row.cost.value if row.cost else None for row in made.ledger] == [1000.0, 900.0, 500.0]
    assert [row.kept for row in made.ledger] == [True, False, True]
    assert programs[0] is made.baseline
    assert programs[-1] is made.program


def test_a_cost_that_is_missing_decides_nothing() -> None:
    steps = [Shrink(keep_if=KeepIf(min_cost_gain=0.2))]
    with pytest.raises(CompressError) as caught:
        apply(classes_task(), steps, measure=device([], [1000.0, None]))
    assert (
        "recipe step 1 (shrink): keep_if.min_cost_gain cannot be judged: the phone is off"
        in str(caught.value)
    )
    made = apply(classes_task(), [Shrink()], measure=device([], [None, None]))
    assert made.ledger[1].warnings == ("the cost on d was not measured: the phone is off",)


def test_a_loss_that_falls_is_better() -> None:
    def miss(outputs: list[Tensor], targets: list[Tensor | None]) -> float:
        return 1 - TOP1.compute(outputs, targets)

    metric = TaskMetric("miss", miss, higher_is_better=False)
    task = replace(classes_task(64), metric=metric)
    made = apply(
        task, [replace_keep(TRAIN, 0.0), Prune(share=1.0, keep_if=KeepIf(max_metric_drop=0.1))]
    )
    assert [row.kept for row in made.ledger] == [True, True, False]
    assert made.ledger[1].interval is not None
    assert made.ledger[1].interval.method == "bootstrap"


def replace_keep(step: FineTuneStep, drop: float) -> FineTuneStep:
    return step.model_copy(update={"keep_if": KeepIf(max_metric_drop=drop)})
