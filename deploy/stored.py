"""What each stage leaves in the run folder, written and read back. No stage's work is done here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compress.capture import load_program
from compress.errors import CompressError
from compress.ledger import LedgerRow
from compress.recipe import Compressed
from compress.task import Sample, Task, TaskMetric, check, load_task
from deploy import __version__, workspace
from deploy.bench.session import Job, Keep, case_id
from deploy.config import DeviceConfig, PipelineConfig
from deploy.devices import profiles
from deploy.errors import ConfigError, ParityError, PocketshipError, first_line
from deploy.export.options import Target, Written
from deploy.export.parallel import Request
from deploy.files import sha256, tree_digest, write_bytes
from deploy.types import (
    Artifact,
    Case,
    DeviceRun,
    Model,
    Parity,
    Progress,
    Quality,
    Status,
    TensorSpec,
)
from deploy.verify.parity import ParityLimits, violations
from deploy.workspace import RunFolder

INPUTS = "inputs.bin"
_SAMPLES = "samples.pt"
_LEDGER = "ledger.json"


# --- compress -------------------------------------------------------------------------------------


def task_of(folder: RunFolder) -> Task:
    """The task that the pipeline names: its callable's, or a saved program with random data."""
    wanted = folder.config.task
    if wanted.callable is not None:
        return load_task(wanted.callable, wanted.arguments, folder.search())
    assert wanted.program is not None
    places = [place / wanted.program for place in folder.search()]
    path = next((place for place in places if place.is_file()), places[0])
    program = load_program(path)
    if program.example_inputs is None or program.example_inputs[1]:
        raise ConfigError(
            "was saved without positional example inputs",
            where=str(path),
            hint="Use task.callable and give the inputs in a Task.",
        )
    example = tuple(program.example_inputs[0])
    random = torch.Generator().manual_seed(folder.config.seed)
    task = Task(
        model=program,
        example_inputs=example,
        evaluation=[
            Sample(tuple(_random_like(tensor, random) for tensor in example))
            for _ in range(wanted.random_samples)
        ],
        metric=NO_METRIC,
    )
    check(task)
    return task


NO_METRIC = TaskMetric("none", lambda outputs, targets: 0.0)
"""Stands where a bare program has no task to be judged by."""


def _random_like(tensor: Tensor, random: torch.Generator) -> Tensor:
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
    # Indices stay inside what the example shows to be legal.
    high = int(tensor.max()) + 1 if tensor.numel() else 1
    return torch.randint(0, max(high, 1), tensor.shape, generator=random).to(tensor.dtype)


def chosen(made: Compressed, config: PipelineConfig) -> list[tuple[Any, list[Any]]]:
    """Program and outputs of each variant, in the order of ``config.variants``."""
    pairs: list[tuple[Any, list[Any]]] = []
    if config.baseline:
        pairs.append((made.baseline, made.baseline_outputs))
    if config.recipe:
        pairs.append((made.program, made.program_outputs))
    return pairs


def write_compressed(scratch: Path, task: Task, made: Compressed, config: PipelineConfig) -> None:
    """Programs, reference outputs, evaluation samples, the ledger, and the phone's input."""
    for variant, (program, outputs) in zip(config.variants, chosen(made, config), strict=True):
        torch.export.save(program, scratch / f"{variant}.pt2")
        torch.save([list(sample) for sample in outputs], scratch / f"outputs.{variant}.pt")
    samples = [(list(sample.inputs), sample.target) for sample in task.evaluation]
    torch.save(samples, scratch / _SAMPLES)
    raw = b"".join(_raw(tensor) for tensor in task.evaluation[0].inputs)
    write_bytes(scratch / INPUTS, raw)
    rows = list(made.ledger)
    if config.task.program is not None:
        note = f"no data: judged on {len(samples)} random inputs (seed {config.seed})"
        rows = [row.model_copy(update={"notes": (*row.notes, note)}) for row in rows]
    workspace.write_json(scratch / _LEDGER, rows)


def _raw(tensor: Tensor) -> bytes:
    try:
        return bytes(tensor.contiguous().numpy().tobytes())
    except TypeError as error:
        raise ConfigError(
            f"no runtime takes inputs of {tensor.dtype}",
            where="task.example_inputs",
            hint="Give float32 inputs and convert inside the model.",
        ) from error


def tell_ledger(folder: RunFolder, progress: Progress) -> None:
    """One progress line for each compression step."""
    for row in ledger(folder)[1:]:
        if row.quality:
            progress(f"{row.step}: {quality_in_words(row.quality)} against uncompressed")


def require(folder: RunFolder) -> None:
    """Raise ``CompressError`` where the compressed model lost more than the pipeline allows."""
    recipe = folder.config.recipe
    rows = ledger(folder)
    if recipe is None or not rows or rows[-1].quality is None:
        return
    limits = ParityLimits.model_validate(recipe.require.model_dump())
    if broken := violations(rows[-1].quality, limits):
        raise CompressError(
            "the recipe lost too much: " + "; ".join(broken.values()),
            where=f"variant '{recipe.name}'",
            hint="Nothing was exported. Change the recipe, or recipe.require if that is enough.",
        )


def ledger(folder: RunFolder) -> tuple[LedgerRow, ...]:
    """What each compression step bought."""
    if not folder.compress.is_dir():
        raise ConfigError(
            "has no compressed model yet",
            where=str(folder.root),
            hint=f"pocketship run {folder.asked.pipeline_file} --resume makes it.",
        )
    return tuple(workspace.read_json(folder.compress / _LEDGER, list[LedgerRow]))


def samples(folder: RunFolder) -> list[Sample]:
    """The evaluation samples that the compressed model was judged on."""
    return [Sample(tuple(inputs), target) for inputs, target in _load(folder.compress / _SAMPLES)]


def outputs(folder: RunFolder, variant: str) -> list[tuple[Tensor, ...]]:
    """The program's outputs on every sample."""
    return [tuple(sample) for sample in _load(folder.compress / f"outputs.{variant}.pt")]


def first_outputs(folder: RunFolder, variant: str) -> list[Any]:
    """The program's outputs on the first sample (the one that phones run) as NumPy arrays."""
    return [tensor.numpy() for tensor in outputs(folder, variant)[0]]


def _load(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"cannot be read: {first_line(error)}",
            where=str(path),
            hint="Run the compress stage again.",
        ) from error


def metric_of(folder: RunFolder) -> TaskMetric:
    """The task's metric; loads the task, because a metric is code and is never stored."""
    return task_of(folder).metric if folder.config.task.callable else NO_METRIC


# --- export ---------------------------------------------------------------------------------------


def _manifest(folder: RunFolder, name: str) -> Path:
    return folder.artifacts / f"{name}.manifest.json"


def export_requests(folder: RunFolder) -> list[Request]:
    """For each variant the targets whose files are not there yet, or not whole."""
    requests = []
    for variant in folder.config.variants:
        missing = [t for t in folder.config.targets if not _is_exported(folder, variant, t)]
        if missing:
            request = Request(
                variant=variant,
                program=str(folder.compress / f"{variant}.pt2"),
                folder=str(folder.artifacts),
                targets=tuple(target.model_dump(mode="json") for target in missing),
            )
            requests.append(request)
    return requests


def _is_exported(folder: RunFolder, variant: str, target: Target) -> bool:
    """Whether every file of that target is there, with the content that its manifest says."""
    source = sha256(folder.compress / f"{variant}.pt2")
    for wanted in target.formats():
        try:
            artifact = workspace.read_json(_manifest(folder, f"{variant}.{wanted}"), Artifact)
        except ConfigError:
            return False
        if artifact.source_sha256 != source or workspace.damage(artifact, folder.artifacts):
            return False
    return True


def write_manifest(folder: RunFolder, variant: str, written: Written) -> Artifact:
    """Describe a file that an exporter wrote; the manifest is written last, so it vouches."""
    source = folder.compress / f"{variant}.pt2"
    program = load_program(source)
    digest, size = tree_digest(written.path)
    steps = folder.config.recipe.steps if folder.config.recipe else ()
    recipe = () if variant == folder.config.baseline else steps
    artifact = Artifact(
        name=f"{variant}.{written.format}",
        variant=variant,
        format=written.format,
        path=written.path.name,
        sha256=digest,
        bytes=size,
        inputs=_specs(program, program.graph_signature.user_inputs),
        outputs=_specs(program, program.graph_signature.user_outputs),
        source_sha256=sha256(source),
        tools={"pocketship": __version__, **written.tools},
        recipe=tuple(step.model_dump(mode="json") for step in recipe),
        placement=written.placement,
    )
    workspace.write_json(_manifest(folder, artifact.name), artifact)
    return artifact


def _specs(program: Any, names: Sequence[Any]) -> tuple[TensorSpec, ...]:
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    return tuple(
        TensorSpec(
            name=str(name),
            dtype=str(values[name].dtype).removeprefix("torch."),
            shape=tuple(int(size) for size in values[name].shape),
        )
        for name in names
        if isinstance(values.get(name), Tensor)
    )


# --- verify ---------------------------------------------------------------------------------------


class _Verified(Model):
    """``parity.json``: the rows, and the content that each was found for."""

    artifact_sha256: dict[str, str]
    rows: tuple[Parity, ...]


def write_parity(folder: RunFolder, artifacts: Sequence[Artifact], rows: Sequence[Parity]) -> None:
    """Keep what the verify stage found."""
    hashes = {artifact.name: artifact.sha256 for artifact in artifacts}
    workspace.write_json(folder.parity, _Verified(artifact_sha256=hashes, rows=tuple(rows)))


def parity(folder: RunFolder, artifacts: Sequence[Artifact]) -> list[Parity]:
    """What the verify stage found for these artifacts as they are now, in their order.

    An artifact that has changed since, or was never verified, has no row.
    """
    if not folder.parity.is_file():
        return []
    found = workspace.read_json(folder.parity, _Verified)
    rows = {row.artifact: row for row in found.rows}
    return [
        rows[artifact.name]
        for artifact in artifacts
        if artifact.name in rows and found.artifact_sha256.get(artifact.name) == artifact.sha256
    ]


def parity_failed(folder: RunFolder) -> bool:
    """Whether an artifact was found to compute something else than its program."""
    rows = parity(folder, workspace.artifacts_of(folder))
    return any(row.status is Status.FAILED for row in rows)


def require_parity(folder: RunFolder) -> None:
    """Raise where an artifact is not verified, or failed: its figures would mean nothing."""
    artifacts = workspace.artifacts_of(folder)
    rows = parity(folder, artifacts)
    if len(rows) < len(artifacts):
        raise ConfigError(
            f"{len(artifacts) - len(rows)} artifacts are not verified as they are now",
            where=str(folder.root),
            hint=f"pocketship verify {folder.root} does it.",
        )
    if failed := [row for row in rows if row.status is Status.FAILED]:
        raise ParityError(
            failed[0].reason, where=failed[0].artifact, hint="Nothing is measured before it holds."
        )


def in_words(row: Parity) -> str:
    """One parity row for a progress line."""
    if row.quality is None or row.status is not Status.OK:
        return f"{row.status.replace('_', ' ')} ({row.reason})"
    return f"ok, {quality_in_words(row.quality)}"


def quality_in_words(quality: Quality) -> str:
    """SQNR, agreement and metric in a line."""
    words = ["equal" if quality.sqnr_db is None else f"SQNR {quality.sqnr_db:.1f} dB"]
    if quality.top1_agreement is not None:
        words.append(f"top-1 agreement {quality.top1_agreement:.1%}")
    if quality.metric != NO_METRIC.name:
        words.append(f"{quality.metric} {quality.metric_value:.4g}")
    return ", ".join(words)


# --- bench ----------------------------------------------------------------------------------------


def _case_file(folder: RunFolder, identity: str) -> Path:
    return folder.bench / "cases" / f"{identity.replace('/', '_')}.json"


def _device_file(folder: RunFolder, profile: str) -> Path:
    return folder.bench / "devices" / f"{profile}.json"


def _name(wanted: DeviceConfig) -> str:
    # The pipeline may give a path to a profile; results carry the profile's name.
    return profiles.load(wanted.profile).name


def missing_jobs(folder: RunFolder, wanted: DeviceConfig, jobs: Sequence[Job]) -> list[Job] | None:
    """Jobs that have no lasting result on that device yet; None where the device is done.

    An INVALID case says nothing about the model, so it is measured again.
    """
    missing = []
    device = _name(wanted)
    for job in jobs:
        path = _case_file(folder, case_id(job.artifact.name, device, job.threads))
        if path.is_file():
            case = workspace.read_json(path, Case)
            if case.artifact_sha256 == job.artifact.sha256 and case.status is not Status.INVALID:
                continue
        missing.append(job)
    file = _device_file(folder, device)
    done = file.is_file() and workspace.read_json(file, DeviceRun).status is Status.OK
    return None if done and not missing else missing


def keeper(folder: RunFolder) -> Keep:
    """Write each case, and the runner's own JSON, the moment that it ends."""

    def keep(case: Case, raw: bytes | None) -> None:
        workspace.write_json(_case_file(folder, case.id), case)
        if raw is not None:
            write_bytes(folder.bench / "raw" / f"{case.id.replace('/', '_')}.json", raw)

    return keep


def absent(wanted: DeviceConfig, error: PocketshipError) -> DeviceRun:
    """A device that could not be had: foreseen where it is optional, else INVALID."""
    return DeviceRun(
        profile=profiles.load(wanted.profile),
        status=Status.NOT_RUN if wanted.optional else Status.INVALID,
        reason=str(error),
    )


def write_device(folder: RunFolder, device_run: DeviceRun) -> None:
    """Keep what became of a device."""
    workspace.write_json(_device_file(folder, device_run.profile.name), device_run)


def devices(folder: RunFolder) -> list[DeviceRun]:
    """One row for each device of the pipeline, in its order; those not reached yet say so."""
    rows = []
    for wanted in folder.config.devices:
        profile = profiles.load(wanted.profile)
        path = _device_file(folder, profile.name)
        if path.is_file():
            rows.append(workspace.read_json(path, DeviceRun))
        else:
            reason = "the run ended before this device's turn"
            rows.append(DeviceRun(profile=profile, status=Status.NOT_RUN, reason=reason))
    return rows


def cases(folder: RunFolder, artifacts: Sequence[Artifact]) -> list[Case]:
    """Every case of these artifacts as they are now, by device, artifact and threads."""
    found = []
    for wanted in folder.config.devices:
        device = _name(wanted)
        for artifact in artifacts:
            for threads in folder.config.bench.threads:
                path = _case_file(folder, case_id(artifact.name, device, threads))
                if not path.is_file():
                    continue
                case = workspace.read_json(path, Case)
                if case.artifact_sha256 == artifact.sha256:
                    found.append(case)
    return found
