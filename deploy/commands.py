"""What the commands do, apart from parsing their options and printing."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from deploy import config, connect, pipeline, stored, workspace
from deploy.bench.runner import preset
from deploy.bench.session import run_device
from deploy.config import CostConfig, DeviceConfig, PipelineConfig
from deploy.console import Session
from deploy.devices import adb, profiles
from deploy.devices.recording import RecordingDevice
from deploy.emulator import machine
from deploy.errors import ConfigError, PocketshipError
from deploy.files import write_text
from deploy.harness import bundle
from deploy.history import address
from deploy.report import words
from deploy.report.pages import run as pages
from deploy.report.schema import schema_text
from deploy.types import Progress, Report
from deploy.workspace import RunFolder

Wanted = TypeVar("Wanted", DeviceConfig, CostConfig)


@dataclass(frozen=True)
class Reach:
    """How this command reaches devices, in place of what the pipeline says; None: as it says."""

    transport: str | None = None
    wait_s: float | None = None

    def of(self, loaded: PipelineConfig) -> PipelineConfig:
        """``loaded`` with every device reached that way. Never kept in a run folder."""
        devices = tuple(self._of(wanted) for wanted in loaded.devices)
        recipe = loaded.recipe
        if recipe is not None and recipe.cost is not None:
            recipe = recipe.model_copy(update={"cost": self._of(recipe.cost)})
        return loaded.model_copy(update={"devices": devices, "recipe": recipe})

    def within(self, folder: RunFolder) -> RunFolder:
        """``folder`` with its devices reached that way; its files stay as they are."""
        asked = folder.asked.model_copy(update={"config": self.of(folder.config)})
        return replace(folder, asked=asked)

    def _of(self, wanted: Wanted) -> Wanted:
        changes: dict[str, object] = {}
        if self.wait_s is not None:
            changes["wait_s"] = self.wait_s
        name = wanted.device if isinstance(wanted, CostConfig) else wanted.profile
        # A device without a serial is not reached over ADB, or only once it was started.
        if self.transport is not None and (wanted.serial is not None or name == profiles.AUTO):
            changes["transport"] = self.transport
        return wanted.model_copy(update=changes)


AS_SAID = Reach()
"""As the pipeline says."""


def reach(transport: str | None, wait_s: float | None) -> Reach:
    """The options ``--transport`` and ``--wait``; ``ConfigError`` where one is wrong."""
    if transport is not None and transport not in adb.TRANSPORTS:
        choices = ", ".join(adb.TRANSPORTS)
        raise ConfigError(f"no transport '{transport}'", hint=f"Choose one of: {choices}.")
    return Reach(transport, wait_s)


def _load(path: Path, reports: Path | None) -> PipelineConfig:
    loaded = config.load(path)
    if reports is not None:
        loaded = loaded.model_copy(update={"reports": reports})
    # A misspelt device must not show itself after minutes of compression.
    for wanted in loaded.devices:
        connect.check(wanted)
    _refuse_twins(loaded, path)
    # An address that cannot be right shall be told now, and not after the run.
    address.chosen(loaded.history, loaded.reports, os.environ)
    if loaded.recipe and (cost := loaded.recipe.cost):
        connect.check(cost.wanted)
    return loaded


def _refuse_twins(loaded: PipelineConfig, path: Path) -> None:
    names: set[str] = set()
    for wanted in loaded.devices:
        name = profiles.load(wanted.profile).name
        if name in names and name != profiles.AUTO:
            raise ConfigError(f"devices: the profile '{name}' appears twice", where=str(path))
        names.add(name)


def _resolve(loaded: PipelineConfig, path: Path, how: Reach, ui: Session) -> PipelineConfig:
    """``loaded`` with the profile and serial of every phone that was named ``auto``."""
    reached = how.of(loaded)
    devices = []
    for wanted, over in zip(loaded.devices, reached.devices, strict=True):
        found = connect.resolved(over, ui.progress)
        devices.append(wanted.model_copy(update={"profile": found.profile, "serial": found.serial}))
    recipe = loaded.recipe
    if recipe and recipe.cost and reached.recipe and reached.recipe.cost:
        found = connect.resolved(reached.recipe.cost.wanted, ui.progress)
        cost = recipe.cost.model_copy(update={"device": found.profile, "serial": found.serial})
        recipe = recipe.model_copy(update={"cost": cost})
    resolved = loaded.model_copy(update={"devices": tuple(devices), "recipe": recipe})
    _refuse_twins(resolved, path)
    return resolved


def run(
    path: Path, ui: Session, *, resume: bool, reports: Path | None, how: Reach = AS_SAID
) -> int:
    """All stages of a pipeline file; returns the exit code that the gate chose."""
    loaded = _resolve(_load(path, reports), path, how, ui)
    folder = workspace.newest_like(loaded) if resume else None
    if resume:
        ui.progress(f"going on with {folder.root}" if folder else "no earlier run: a new one")
    if folder is None:
        folder = workspace.create(loaded, path)
    with _at_work(folder, ui, _resume(path, reports)):
        report = pipeline.run(how.within(folder), ui.progress)
        _remember(report, folder, ui)
    return show(report, folder, ui)


def compress(path: Path, ui: Session, *, reports: Path | None, how: Reach = AS_SAID) -> Path:
    """The first stage in a new run folder, which is returned."""
    loaded = _resolve(_load(path, reports), path, how, ui)
    folder = workspace.create(loaded, path)
    with _at_work(folder, ui, _resume(path, reports)):
        pipeline.run_compress(how.within(folder), ui.progress)
    return folder.root


def _resume(path: Path, reports: Path | None) -> str:
    words = ["pocketship", "run", str(path), "--resume"]
    if reports is not None:
        words += ["--reports", str(reports)]
    return f"What is done is kept; go on with: {shlex.join(words)}"


@contextlib.contextmanager
def _at_work(folder: RunFolder, ui: Session, resume_hint: str) -> Iterator[None]:
    """Hold the run folder, log into it, and say how to go on after Ctrl-C."""
    with workspace.exclusive(folder):
        ui.log_to(folder.root / "log.txt")
        ui.progress(f"run folder {folder.root}")
        ui.resume_hint = resume_hint
        yield


@dataclass(frozen=True)
class _Stage:
    """A stage that can be repeated: what it leaves, and what must hold before that is removed."""

    run: Callable[[RunFolder, Progress], object]
    output: str
    ready: Callable[[RunFolder], object]


_STAGES = {
    "export": _Stage(pipeline.run_export, "artifacts", stored.require),
    "verify": _Stage(pipeline.run_verify, "verify", workspace.artifacts_of),
    "bench": _Stage(pipeline.run_bench, "bench", stored.require_parity),
}


def stage(name: str, root: Path, ui: Session, how: Reach = AS_SAID) -> int:
    """One stage again on a run folder, and the report; ``report`` alone repeats nothing else.

    What the stage left there is removed first. What later stages left stays as long as it was found
    for artifacts of the same content.
    """
    folder = workspace.open_run(root)
    with _at_work(folder, ui, "Give the same command again."):
        if chosen := _STAGES.get(name):
            chosen.ready(folder)
            if (output := folder.root / chosen.output).exists():
                shutil.rmtree(output)
            chosen.run(how.within(folder), ui.progress)
        report = pipeline.run_report(folder, ui.progress)
        _remember(report, folder, ui)
    if name == "export":
        ui.say(f"{len(report.artifacts)} files in {folder.artifacts}")
        return 0
    return show(report, folder, ui)


def _remember(report: Report, folder: RunFolder, ui: Session) -> None:
    """Add the report to the history; where that fails, the report and its verdict stand."""
    # SQLAlchemy and Alembic come with it: nothing before the history itself needs them.
    from deploy import history_commands

    try:
        history_commands.remember(report, folder, ui.progress)
    except PocketshipError as error:
        ui.progress(f"warning: the report is not in the history: {error}")
        pages.write_trends(report, folder.root, without_series=f"the history failed: {error}")


def show(report: Report, folder: RunFolder, ui: Session) -> int:
    """The verdict, what is missing, the main table, and where the report is."""
    for line in words.summary_lines(report):
        ui.say(line)
    ui.say(f"Report: {folder.root / 'index.html'}")
    return report.exit_code


def check(path: Path, ui: Session) -> str:
    """Validate a pipeline file, its devices and its task; says what a run would do."""
    loaded = _load(path, None)
    ui.progress("loading the task")
    folder = RunFolder(Path.cwd(), workspace.asked(loaded, path, "check"))
    task = stored.task_of(folder)
    formats = ", ".join(target.format for target in loaded.targets)
    names = ", ".join(device.profile for device in loaded.devices) or "none"
    return (
        f"{path}: good. Variants {', '.join(loaded.variants)}; formats {formats}; devices {names}; "
        f"{len(task.calibration)} calibration and {len(task.evaluation)} evaluation samples."
    )


def init(path: Path) -> None:
    """Write the commented template; never over a file that is there."""
    if path.exists():
        raise ConfigError("exists already", where=str(path), hint="Give another name.")
    template = Path(__file__).with_name("pipeline_template.yaml")
    try:
        write_text(path, template.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(path)) from error


def schema(of: str) -> str:
    """JSON Schema of ``pipeline`` files, of a ``report`` or of a ``gate``'s."""
    kinds: dict[str, Callable[[], str]] = {
        "pipeline": config.json_schema,
        "report": lambda: schema_text("report"),
        "gate": lambda: schema_text("gate"),
    }
    if of not in kinds:
        raise ConfigError(f"no schema of '{of}'", hint=f"Choose one of: {', '.join(kinds)}.")
    return kinds[of]()


def record(
    profile: str, output: Path, serial: str | None, run_folder: Path | None, ui: Session
) -> None:
    """Write a recording of a device; with a run folder its cases too, which stays as it is."""
    wanted = DeviceConfig(profile=profile, serial=serial, wait_s=0)
    connect.check(wanted)
    folder = workspace.open_run(run_folder) if run_folder else None
    with connect.connected(wanted, ui.progress) as device:
        recording = RecordingDevice(device, output)
        recording.ask_questions()
        if folder is not None:
            jobs = stored.bench_jobs(folder, workspace.artifacts_of(folder))
            runner = bundle(device.profile.abi, ui.progress)
            limits = preset(folder.config.bench.preset)
            _, cases = run_device(recording, jobs, runner, limits, progress=ui.progress)
            for case in cases:
                ui.say(f"{case.id}: {case.status.value}{case.reason and ': '}{case.reason}")
        recording.finish()
    for line in recording.redacted:
        ui.say(f"left out: {line}")
    ui.say(f"{output}: look at it before you give it away; docs/replay.md says how to run it")


def phone_start(profile: str, keys: Sequence[Path], port: int | None, ui: Session) -> str:
    """Start a detached phone and return its serial."""
    started = machine.start(
        profiles.load(profile), keys=keys, port=port, detached=True, progress=ui.progress
    )
    return started.serial


def phone_list(ui: Session) -> None:
    """One row for each phone that runs; a line on standard error where none does."""
    rows = [
        [phone.serial, phone.profile, "yes" if phone.icount else "no", phone.started_utc]
        for phone in machine.running()
    ]
    if not rows:
        ui.progress("no emulated phone runs; start one with: pocketship phone start")
        return
    titles = ("Serial", "Profile", "Counts instructions", "Started (UTC)")
    ui.table("Emulated phones", [(title, False) for title in titles], rows)
