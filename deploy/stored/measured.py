"""What measuring leaves: cases and devices, one file each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy import workspace
from deploy.bench.session import Job, Keep, case_id
from deploy.config import DeviceConfig
from deploy.devices import profiles
from deploy.errors import PocketshipError
from deploy.files import write_bytes
from deploy.types import Artifact, Case, DeviceRun, Progress, Status
from deploy.workspace import RunFolder


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


def write_absent(
    folder: RunFolder, wanted: DeviceConfig, error: PocketshipError, say: Progress
) -> None:
    """Keep that a device could not be had: foreseen where it is optional, else INVALID."""
    say(f"{wanted.profile}: {error}")
    absent = DeviceRun(
        profile=profiles.load(wanted.profile),
        status=Status.NOT_RUN if wanted.optional else Status.INVALID,
        reason=str(error),
    )
    write_device(folder, absent)


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
