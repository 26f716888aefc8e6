"""The cost of each step: exported, pushed, run, remembered; and the ways in which it is missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram

from compress import capture, recipe
from compress.errors import CompressError
from compress.journal import key_of
from compress.judgement.judging import Measure
from compress.judgement.worth import KeepIf
from compress.quantize import Quantize
from compress.task import Task
from deploy import config, ledger_cost, stored, workspace
from deploy.config import PipelineConfig
from deploy.devices.host import HostDevice
from deploy.errors import ConfigError, DeviceError, ExportError
from deploy.export.options import Written
from deploy.types import Case, Format, Measurement, Metric, Placement, Status, Tier
from deploy.workspace import RunFolder
from tests.deploy.conftest import write_pipeline
from tests.deploy.tiny_tasks import tiny

RECIPE: dict[str, Any] = {
    "name": "int8",
    "steps": [{"kind": "quantize", "keep_if": {"min_cost_gain": 0.1}}],
    "cost": {"device": "host"},
}


def run_folder(folder: Path, **cost: Any) -> RunFolder:
    file = write_pipeline(folder, recipe={**RECIPE, "cost": {"device": "host", **cost}})
    return workspace.create(config.load(file), file)


def program_of(task: Task, factor: float = 1.0) -> ExportedProgram:
    assert isinstance(task.model, torch.nn.Module)
    program = capture.capture(task.model, task.example_inputs)
    with torch.no_grad():
        program.state_dict["fc.bias"].mul_(factor)
    return program


# --- with a device that is not there --------------------------------------------------------------


class Bench:
    """Stands for export, connection and runner, and notes what is asked of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.exported: list[dict[str, Any]] = []
        self.connections = 0
        self.closed = 0
        self.cases: list[Case] = []
        self.inputs: list[bytes] = []
        self.refusal: Exception | None = None
        self.absence: DeviceError | None = None
        self.answers: Callable[[int], dict[str, Any]] = lambda number: ok(100.0 * number)
        monkeypatch.setattr(ledger_cost, "export_all", self.export_all)
        monkeypatch.setattr(ledger_cost.connect, "connected", self.connected)
        monkeypatch.setattr(ledger_cost, "bundle", lambda abi, progress: None)
        monkeypatch.setattr(ledger_cost, "run_device", self.run_device)

    def export_all(self, requests: Any) -> Iterator[tuple[str, Format | Written]]:
        (request,) = requests
        if self.refusal:
            raise self.refusal
        self.exported.append(dict(request.targets[0]))
        path = Path(request.folder) / "step.pte"
        path.write_bytes(b"x" * 77)
        kind = Format(request.targets[0]["format"])
        yield "step", kind
        yield "step", Written(kind, path, Placement(backend="none"), {})

    @contextlib.contextmanager
    def connected(self, wanted: Any, progress: Any) -> Iterator[HostDevice]:
        self.connections += 1
        if self.absence:
            raise self.absence
        yield HostDevice()
        self.closed += 1

    def run_device(self, device: Any, jobs: Any, bundle: Any, limits: Any, progress: Any) -> Any:
        (job,) = jobs
        self.inputs.append(job.inputs.read_bytes())
        assert job.path.read_bytes() == b"x" * 77
        case = Case(
            id="c",
            artifact=job.artifact.name,
            artifact_sha256=job.artifact.sha256,
            device="host",
            threads=job.threads,
            **self.answers(len(self.cases) + 1),
        )
        self.cases.append(case)
        return None, [case]


def ok(milliseconds: float) -> dict[str, Any]:
    row = Measurement(
        metric=Metric.LATENCY_MS,
        unit="ms",
        tier=Tier.HOST,
        source="s",
        status=Status.OK,
        samples=(milliseconds, milliseconds + 1, milliseconds + 5),
    )
    return {"status": Status.OK, "measurements": (row,)}


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@contextlib.contextmanager
def measuring(folder: RunFolder, said: list[str] | None = None) -> Iterator[Measure]:
    notes: list[str] = [] if said is None else said
    with ledger_cost.measuring(folder, tiny(), notes.append) as measure:
        assert measure is not None
        yield measure


def test_one_connection_for_all_programs_closed_at_the_end(tmp_path: Path, bench: Bench) -> None:
    folder, task = run_folder(tmp_path, threads=2), tiny()
    with measuring(folder) as measure:
        assert bench.connections == 0, "connected before there is anything to measure"
        costs = [measure(program_of(task, factor)) for factor in (1, 2, 3)]
        assert (bench.connections, bench.closed) == (1, 0)
    assert bench.closed == 1
    assert [cost.value for cost in costs] == [101, 201, 301]
    assert costs[0].model_dump() == {
        "device": "host",
        "format": "executorch",
        "metric": "latency_ms",
        "tier": "host",
        "value": 101.0,
        "artifact_bytes": 77,
        "reason": "",
    }
    # What the bench stage gives to phones: the first evaluation sample.
    (sample,) = task.evaluation[0].inputs
    assert bench.inputs == [sample.numpy().tobytes()] * 3
    assert {case.threads for case in bench.cases} == {2}
    assert not list(folder.root.glob(".cost-*"))


def test_a_resumed_run_measures_nothing_again(tmp_path: Path, bench: Bench) -> None:
    folder, task = run_folder(tmp_path), tiny()
    with measuring(folder) as measure:
        first = measure(program_of(task))
    with measuring(folder) as measure:
        assert measure(program_of(task)) == first
    assert (len(bench.cases), bench.connections) == (1, 1)
    # Another program, other threads, another format: another figure.
    with measuring(folder) as measure:
        measure(program_of(task, 2))
    for change in ({"threads": 4}, {"format": "onnx"}):
        with measuring(run_folder(tmp_path, **change)) as measure:
            measure(program_of(task))
    assert len(bench.cases) == 4
    assert bench.exported[-1] == {"format": "onnx", "ort": False}


def test_a_lost_device_is_asked_once(tmp_path: Path, bench: Bench) -> None:
    bench.absence = DeviceError("nobody answers", where="1.2.3.4:5555")
    folder, said = run_folder(tmp_path), list[str]()
    with measuring(folder, said) as measure:
        costs = [measure(program_of(tiny(), factor)) for factor in (1, 2)]
    assert [cost.value for cost in costs] == [None, None]
    assert all("1.2.3.4:5555: nobody answers" in cost.reason for cost in costs)
    assert costs[0].artifact_bytes == 77
    assert bench.connections == 1
    assert any("nobody answers" in line for line in said)
    # A failure is not remembered.
    bench.absence = None
    with measuring(folder) as measure:
        assert measure(program_of(tiny())).value == 101


def test_what_an_exporter_refuses_is_a_reason(tmp_path: Path, bench: Bench) -> None:
    bench.refusal = ExportError("ExecuTorch refuses the program", where="step")
    with measuring(run_folder(tmp_path)) as measure:
        cost = measure(program_of(tiny()))
    assert (cost.value, cost.artifact_bytes) == (None, None)
    assert "refuses" in cost.reason
    assert bench.connections == 0


def test_a_runner_that_fails_is_a_reason(tmp_path: Path, bench: Bench) -> None:
    bench.answers = lambda number: {"status": Status.FAILED, "reason": "the model cannot be loaded"}
    with measuring(run_folder(tmp_path)) as measure:
        assert measure(program_of(tiny())).reason == "the model cannot be loaded"


def test_counted_instructions_where_there_is_no_time(tmp_path: Path, bench: Bench) -> None:
    def answer(number: int) -> dict[str, Any]:
        count = Measurement(
            metric=Metric.INSTRUCTIONS,
            unit="instructions",
            tier=Tier.EMULATOR,
            source="s",
            status=Status.OK,
            samples=(7.0,),
        )
        time = Measurement(
            metric=Metric.LATENCY_MS,
            unit="ms",
            tier=Tier.EMULATOR,
            source="s",
            status=Status.UNAVAILABLE,
            reason="counts",
        )
        return {"status": Status.OK, "measurements": (count, time)}

    bench.answers = answer
    with measuring(run_folder(tmp_path)) as measure:
        cost = measure(program_of(tiny()))
    assert (cost.metric, cost.tier, cost.value) == ("instructions", "emulator", 7.0)


def test_a_recipe_drops_the_step_that_is_not_faster(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the recipe: each program is slower than the one before."""

    def add_bias(state: recipe.State, config: Quantize) -> recipe.State:
        state.float_model().fc.bias.data += 1  # Any change will do, and this one takes no time.
        return state

    monkeypatch.setitem(recipe._HANDLERS, Quantize, add_bias)
    folder = run_folder(tmp_path)
    keep_if = KeepIf(min_cost_gain=0.1)
    with measuring(folder) as measure:
        made = recipe.apply(tiny(), [Quantize(keep_if=keep_if)], measure=measure)
    assert made.ledger[1].cost is not None
    assert made.ledger[1].cost.value == 201
    assert not made.ledger[1].kept
    assert made.program is made.baseline
    # Nothing of it reaches a manifest, and what it lost is not held against the recipe.
    with workspace.whole(folder.compress) as scratch:
        stored.write_compressed(scratch, tiny(), made, folder.config)
    assert stored.kept_steps(folder) == ()
    said: list[str] = []
    stored.tell_ledger(folder, said.append)
    assert said[0].startswith("quantize (dropped): ")
    stored.require(folder)
    bench.absence = DeviceError("gone")
    (tmp_path / "again").mkdir()
    with (
        measuring(run_folder(tmp_path / "again")) as measure,
        pytest.raises(CompressError, match=r"keep_if.min_cost_gain cannot be judged: gone"),
    ):
        recipe.apply(tiny(), [Quantize(keep_if=keep_if)], measure=measure)


def test_no_device_no_measuring(tmp_path: Path) -> None:
    file = write_pipeline(tmp_path)
    folder = workspace.create(config.load(file), file)
    with ledger_cost.measuring(folder, tiny(), print) as measure:
        assert measure is None


# --- the pipeline file ----------------------------------------------------------------------------


def test_a_gain_without_a_device_is_wrong(tmp_path: Path) -> None:
    file = write_pipeline(tmp_path, recipe={**RECIPE, "cost": None})
    with pytest.raises(ConfigError, match=r"recipe.steps\[0\].keep_if.min_cost_gain: nothing is"):
        config.load(file)


@pytest.mark.parametrize(
    "wrong", [{"device": "host", "format": "coreml"}, {"device": "host", "threads": 0}, {}]
)
def test_impossible_costs(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"recipe\.cost"):
        config.load(write_pipeline(tmp_path, recipe={**RECIPE, "cost": wrong}))


def test_a_misspelt_device_is_found_before_anything_runs(tmp_path: Path, call: Any) -> None:
    file = write_pipeline(tmp_path, recipe={**RECIPE, "cost": {"device": "hots"}})
    answer = call("check", file)
    assert answer.code == 2
    assert "there is no device profile 'hots'" in answer.last


def test_a_report_keeps_its_pipeline(tmp_path: Path) -> None:
    loaded = config.load(write_pipeline(tmp_path, recipe=RECIPE))
    assert PipelineConfig.model_validate(json.loads(loaded.model_dump_json())) == loaded


# --- the key of a program -------------------------------------------------------------------------


def test_a_programs_key_is_its_content(tmp_path: Path) -> None:
    one = program_of(tiny())
    assert key_of(one) == key_of(program_of(tiny()))
    assert key_of(one) != key_of(program_of(tiny(), 2))
    torch.export.save(one, tmp_path / "p.pt2")
    assert key_of(capture.load_program(tmp_path / "p.pt2")) == key_of(one)


# --- for real -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_this_machine(tmp_path: Path) -> None:
    """Export, runner and journal as they are; the figure itself is a clock's."""
    file = write_pipeline(tmp_path, recipe=RECIPE, bench={"preset": "exact"})
    folder = workspace.create(config.load(file), file)
    program = program_of(tiny())
    with measuring(folder) as measure:
        cost = measure(program)
        again = measure(program)
    assert cost.reason == ""
    assert cost.value is not None
    assert cost.value > 0
    assert (cost.metric, cost.tier, cost.device) == ("latency_ms", "host", "host")
    assert cost.artifact_bytes is not None
    assert cost.artifact_bytes > capture.weight_bytes(program)
    assert again == cost
