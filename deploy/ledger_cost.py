"""What one inference of a program costs on the device that ``recipe.cost`` names.

Each program goes the way that an artifact goes: exported in a worker process, pushed, run by the
native runner. One connection (and one emulated phone) serves all steps of a recipe; it is opened at
the first program that the journal has no figure for, and closed with the context.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.export import ExportedProgram

from compress.journal import Run, key_of
from compress.judgement.judging import Measure
from compress.ledger import Cost
from compress.task import Task
from deploy import connect, provenance, stored, workspace
from deploy.bench.runner import preset
from deploy.bench.session import Job, run_device
from deploy.config import CostConfig
from deploy.devices import profiles
from deploy.devices.base import Device
from deploy.errors import DeviceError, ExportError
from deploy.export.options import Written
from deploy.export.parallel import Request, export_all
from deploy.files import write_bytes
from deploy.harness import bundle
from deploy.types import Artifact, Case, DeviceProfile, Format, Metric, Progress, Tier
from deploy.workspace import RunFolder

_NAME = "step"
_TARGETS: dict[Format, dict[str, object]] = {
    Format.EXECUTORCH: {"format": Format.EXECUTORCH},
    Format.ONNX: {"format": Format.ONNX, "ort": False},
}


@contextlib.contextmanager
def measuring(folder: RunFolder, task: Task, progress: Progress) -> Iterator[Measure | None]:
    """A callable that measures programs, or None where the recipe names no device for its costs.

    It raises for nothing that a device, a runtime or an exporter does: that is the ``reason`` of a
    :class:`Cost` without a value. Values are remembered in the journal by the program's content,
    the device and the versions of all tools; a failure is tried again.
    """
    recipe = folder.config.recipe
    if recipe is None or recipe.cost is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        yield _Meter(folder, recipe.cost, task, progress, stack)


class _Meter:
    def __init__(
        self,
        folder: RunFolder,
        config: CostConfig,
        task: Task,
        progress: Progress,
        stack: contextlib.ExitStack,
    ) -> None:
        self._folder, self._config, self._progress, self._stack = folder, config, progress, stack
        self._profile = profiles.load(config.device)
        self._preset = folder.config.bench.preset
        # The input that the bench stage gives to phones.
        self._inputs = stored.raw_inputs(task)
        self._journal = Run(progress=progress, folder=workspace.journal(folder))
        self._device: Device | None = None
        self._lost = ""

    def __call__(self, program: ExportedProgram) -> Cost:
        """The cost of one program."""
        key = "cost-" + key_of(program, self._identity(), self._inputs.hex())
        failed: list[Cost] = []

        def compute() -> dict[str, object]:
            cost = self._measure(program)
            if cost.value is None:
                failed.append(cost)
                raise _Unknown
            return cost.model_dump(mode="json")

        try:
            return Cost.model_validate(self._journal.remember(key, compute))
        except _Unknown:
            self._progress(f"cost on {self._profile.name}: {failed[0].reason}")
            return failed[0]

    def _identity(self) -> list[object]:
        """All but the program that a figure depends on."""
        where = self._config.model_dump(mode="json", exclude={"transport", "wait_s"})
        wanted = [where, self._profile.model_dump(mode="json")]
        return [*wanted, self._preset, provenance.machine(), provenance.tools()]

    def _measure(self, program: ExportedProgram) -> Cost:
        # A name with a dot: whatever a killed run leaves is swept by the next one.
        with tempfile.TemporaryDirectory(prefix=".cost-", dir=self._folder.root) as name:
            scratch = Path(name)
            try:
                artifact = self._export(program, scratch)
            except ExportError as error:
                return self._unknown(str(error))
            try:
                case = self._run(artifact, scratch)
            except DeviceError as error:
                self._lost = str(error)
                return self._unknown(self._lost, artifact.bytes)
        return self._cost(case, artifact.bytes)

    def _export(self, program: ExportedProgram, scratch: Path) -> Artifact:
        path = scratch / f"{_NAME}.pt2"
        torch.export.save(program, path)
        request = Request(
            variant=_NAME,
            program=str(path),
            folder=str(scratch),
            targets=(_TARGETS[self._config.format],),
        )
        (written,) = [item for _, item in export_all([request]) if isinstance(item, Written)]
        return stored.described(_NAME, program, path, written)

    def _run(self, artifact: Artifact, scratch: Path) -> Case:
        device = self._connected()
        write_bytes(scratch / stored.INPUTS, self._inputs)
        job = Job(
            artifact=artifact,
            path=scratch / artifact.path,
            inputs=scratch / stored.INPUTS,
            threads=self._config.threads,
        )
        runner = bundle(device.profile.abi, self._progress)
        limits = preset(self._preset, self._folder.config.bench.minutes)
        _, cases = run_device(device, [job], runner, limits, progress=self._progress)
        return cases[0]

    def _connected(self) -> Device:
        if self._lost:
            raise DeviceError(self._lost)  # Not another minute of waiting for each further step.
        if self._device is None:
            connecting = connect.connected(self._config.wanted, self._progress)
            self._device = self._stack.enter_context(connecting)
        return self._device

    def _cost(self, case: Case, size: int) -> Cost:
        for metric in (Metric.LATENCY_MS, Metric.INSTRUCTIONS):
            found = case.measurement(metric)
            if found is not None and found.median is not None:
                return self._answer(metric, found.tier, found.median, size)
        return self._unknown(case.reason or "no steady inference was measured", size)

    def _unknown(self, reason: str, size: int | None = None) -> Cost:
        metric = _metric_of(self._profile)
        return self._answer(metric, self._profile.tier, None, size, reason)

    def _answer(
        self, metric: Metric, tier: Tier, value: float | None, size: int | None, reason: str = ""
    ) -> Cost:
        return Cost(
            device=self._profile.name,
            format=self._config.format,
            metric=metric.value,
            tier=tier.value,
            value=value,
            artifact_bytes=size,
            reason=reason,
        )


class _Unknown(Exception):
    """There is no figure to remember."""


def _metric_of(profile: DeviceProfile) -> Metric:
    """What is measured where it can be: our emulator's clock counts instructions."""
    return Metric.INSTRUCTIONS if profile.tier is Tier.EMULATOR else Metric.LATENCY_MS
