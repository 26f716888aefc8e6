"""``pocketship calibrate``: A/A sessions on a device, and the noise certificate that they give.

Sessions lie in ``<certificates>/unfinished/<what is calibrated>/`` until the certificate is
written; an interrupted calibration goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import __version__, connect, paths, workspace
from deploy.bench.backends import backends, refusal
from deploy.bench.job import Job
from deploy.bench.runner import preset
from deploy.bench.sessions import run_sessions
from deploy.config import DeviceConfig
from deploy.console import Session as Ui
from deploy.devices import profiles
from deploy.devices.base import Device
from deploy.errors import ConfigError, MeasurementError
from deploy.files import write_text
from deploy.gating import calibration_model, sides
from deploy.gating.meeting import Filter, jobs, meet
from deploy.harness import bundle
from deploy.report import certificate_files, certificates
from deploy.report.certificate_files import Found
from deploy.report.comparable import circumstances, device_hash
from deploy.types import (
    Artifact,
    Case,
    Certificate,
    DeviceInfo,
    DeviceProfile,
    DeviceRun,
    Format,
    GateRules,
    Metric,
    Progress,
    Session,
)

_UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Wish:
    """What is to be calibrated, as the user said it.

    ``model`` None: the built-in one. ``format_`` and ``artifact`` choose among a model's files;
    ``pairs`` is how many pairs are measured, ``folder`` where the certificate goes.
    """

    device: DeviceConfig
    folder: Path
    model: Path | None = None
    artifact: str | None = None
    format_: Format | None = None
    threads: int = 1
    preset: str = "quick"
    pairs: int = 12


def folder() -> Path:
    """Where certificates lie: ``certificates`` in the user's data folder."""
    return paths.data_dir() / "certificates"


def identity(device: Device) -> str:
    """What tells this device from others of its kind; only its hash is kept.

    A phone's own serial number, whatever way it is reached; for what runs on this machine
    (``host``, simulators, emulated phones, which are all alike) the machine and the profile.
    """
    profile = device.profile
    if profile.transport in ("host", "simctl", "emulator"):
        return f"{profile.transport}\0{profile.name}\0{_this_machine()}"
    return str(getattr(device, "identity", device.serial))


def _this_machine() -> str:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        with contextlib.suppress(OSError):
            if text := path.read_text(encoding="utf-8", errors="replace").strip():
                return text
    return platform.node()


def holding(
    case: Case,
    *,
    artifact: Artifact,
    info: DeviceInfo,
    identity: str,
    preset: str,
    where: Path | None = None,
) -> Found:
    """The certificate that holds for a case on this device, and what was passed over.

    ``identity`` is :func:`identity` of the device, ``preset`` the name of the one that was measured
    with, ``where`` the folder of certificates, None: the user's own.
    """
    at = circumstances(case, artifact=artifact, info=info, identity=identity, preset=preset)
    return certificate_files.find(where or folder(), at)


def calibrate(wish: Wish, ui: Ui, *, resume: bool = False) -> Path:
    """Measure the pairs, write the certificate, show it; gives its path.

    Raises ``ConfigError`` for a wish that cannot be, ``DeviceError`` for a device that cannot be
    had, ``MeasurementError`` where too few sessions came out: those that did are kept.
    """
    limits = preset(wish.preset)
    connect.check(wish.device)
    device_config = connect.resolved(wish.device, ui.progress)
    profile = profiles.load(device_config.profile)
    with _at_work(wish, device_config, ui, resume=resume) as home:
        job = _job(wish, profile, home, ui.progress)
        if why := refusal(profile, job):
            raise ConfigError(why, where=f"{job.artifact.name} on {profile.name}")
        ui.progress(f"{job.artifact.name}: {wish.pairs} pairs of sessions of the same file")
        reached: list[DeviceRun] = []
        with connect.connected(device_config, ui.progress) as device:
            info, name = device.info(), identity(device)
            _refuse_another(home, info, name)
            sessions = run_sessions(
                device,
                job,
                job,
                pairs=range(wish.pairs),
                runner=bundle(device.profile.abi, ui.progress),
                limits=limits,
                done=_kept(home),
                keep=lambda session: _keep(home, session),
                progress=ui.progress,
                reached=reached.append,
            )
        made = certificates.make(
            sessions,
            artifact=job.artifact,
            info=info,
            identity=name,
            preset=wish.preset,
            pocketship_version=__version__,
        )
        for metric in certificates.CERTIFIED:
            found = certificates.figure(sessions, metric)
            if isinstance(found, str) and _measured(sessions, metric):
                ui.progress(f"not certified: {found}")
        path = certificate_files.write(made, wish.folder)
        shutil.rmtree(home, ignore_errors=True)
    _show(made, ui)
    ui.say(f"Certificate: {path}")
    return path


def _measured(sessions: Sequence[Session], metric: Metric) -> bool:
    rows = (session.case.measurement(metric) for session in sessions)
    return any(row is not None and row.samples for row in rows)


# --- what is measured -----------------------------------------------------------------------------


def _job(wish: Wish, profile: DeviceProfile, home: Path, progress: Progress) -> Job:
    """The one artifact that is compared with itself."""
    model = wish.model
    if model is None:
        model = home / "model"
        runs = next(one for one in calibration_model.FORMATS if one in backends(profile))
        wanted = wish.format_ or runs
        if not (model / f"{calibration_model.NAME}.{wanted.value}.manifest.json").exists():
            progress(f"no model is named: making the one that is {calibration_model.DESCRIPTION}")
            shutil.rmtree(model, ignore_errors=True)
            calibration_model.export(wanted, model)
    version = sides.find(sides.Wish("model", str(model), Path.cwd()), progress)
    chosen = Filter(formats=(wish.format_,) if wish.format_ else ())
    both = meet(version, version, chosen)
    fitting = [name for name in both.names if wish.artifact in (None, name)]
    if not fitting:
        raise ConfigError(
            f"has no artifact {wish.artifact}",
            where=str(model),
            hint=f"There are: {', '.join(both.names)}.",
        )
    every = [jobs(both, name, wish.threads, home / "inputs")[1] for name in fitting]
    return next((job for job in every if not refusal(profile, job)), every[0])


# --- the folder of a calibration that is under way ------------------------------------------------


@contextlib.contextmanager
def _at_work(wish: Wish, device: DeviceConfig, ui: Ui, *, resume: bool) -> Iterator[Path]:
    """Hold the folder of this calibration; without ``resume`` it begins empty."""
    home = wish.folder / _UNFINISHED / _name(wish, device)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot write here: {error.strerror}",
            where=str(wish.folder),
            hint="Choose another folder with --output, or set POCKETSHIP_DATA.",
        ) from error
    with workspace.held(home):
        there = len(list((home / "sessions").glob("*.json")))
        if resume:
            ui.progress(f"going on with {there} sessions" if there else "nothing to go on with")
        else:
            if there:
                ui.progress(f"{there} sessions of an interrupted calibration are dropped")
            shutil.rmtree(home / "sessions", ignore_errors=True)
        ui.resume_hint = "What is done is kept; go on with the same command and --resume."
        yield home


def _name(wish: Wish, device: DeviceConfig) -> str:
    """The same for the same wish; readable as far as it can be."""
    parts = [
        device.serial,
        str(wish.model.resolve()) if wish.model else None,
        wish.artifact,
        wish.format_.value if wish.format_ else None,
        wish.pairs,
    ]
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    profile = profiles.load(device.profile).name
    return f"{profile}.t{wish.threads}.{wish.preset}-{digest}"


def _keep(home: Path, session: Session) -> None:
    path = home / "sessions" / f"{session.order:04d}.json"
    path.parent.mkdir(exist_ok=True)
    workspace.write_json(path, session)


def _kept(home: Path) -> list[Session]:
    found = sorted((home / "sessions").glob("*.json"))
    return [workspace.read_json(path, Session) for path in found]


def _refuse_another(home: Path, info: DeviceInfo, name: str) -> None:
    """Sessions of two devices, or of two OS builds, say nothing about the noise of either."""
    path = home / "device.json"
    now = json.dumps({"device": device_hash(name), "os_build": info.os_build})
    if path.exists() and _kept(home) and path.read_text(encoding="utf-8") != now:
        raise MeasurementError(
            "the kept sessions are of another device or OS build",
            where=info.serial,
            hint="Begin anew: the same command without --resume.",
        )
    write_text(path, now)


# --- what the user sees ---------------------------------------------------------------------------


def _show(certificate: Certificate, ui: Ui) -> None:
    rows = []
    for one in certificate.figures:
        spread = certificates.spread_interval(one.log_ratios)
        factors = f"{spread.low:.2f} to {spread.high:.2f} x" if spread else "-"
        rows.append(
            [
                one.metric.value,
                f"{len(one.log_ratios)}",
                _percent(one.between_sd),
                factors,
                _percent(one.mde),
            ]
        )
    pairs = certificate.figures[0].pairs
    columns = [
        ("Metric", False),
        ("Pairs", True),
        ("sd between sessions", True),
        ("uncertainty of it (95 %)", True),
        (f"least change seen by {pairs} + {pairs} pairs", True),
    ]
    ui.table(
        f"{certificate.profile}, {certificate.artifact}, {certificate.threads} thread(s), "
        f"{certificate.preset}, {certificate.format.value} {certificate.runtime_version}",
        columns,
        rows,
    )
    for note in certificates.notes(certificate):
        ui.say(f"note: {note}")
    first = certificate.figures[0]
    if first.metric is Metric.INSTRUCTIONS:
        ui.say("Instructions are counted here: a gate compares them exactly, without this.")
        return
    default = GateRules().threshold
    word = "can" if first.mde <= default else "cannot"
    ui.say(
        f"A gate on this device {word} be held to {default:.0%} of {first.metric.value}: "
        f"its minimum detectable effect is {_percent(first.mde)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def show_all(where: Path, ui: Ui) -> None:
    """One row for each certificate in a folder, its age included; those that cannot be read."""
    found = certificate_files.files(where)
    rows = []
    for path in found:
        try:
            one = certificate_files.read(path)
        except ConfigError as error:
            ui.progress(f"passed over: {error}")
            continue
        for note in certificates.notes(one):
            ui.progress(f"{path.name}: {note}")
        first = one.figures[0] if one.figures else None
        age = certificates.age_days(one)
        rows.append(
            [
                one.profile,
                one.device_sha256[:8],
                one.os_build or "not known",
                f"{one.format.value} {one.runtime_version}",
                str(one.threads),
                one.preset,
                one.artifact,
                first.metric.value if first else "-",
                _percent(first.between_sd) if first else "-",
                _percent(first.mde) if first else "-",
                "not known" if age is None else f"{age:.0f} days",
            ]
        )
    if not found:
        ui.progress(f"no certificates in {where}; make one with: pocketship calibrate DEVICE")
        return
    titles = ("Profile", "Device", "OS build", "Runtime", "Threads", "Preset", "Model", "Metric")
    columns = [(title, False) for title in titles]
    columns += [("sd", True), ("Least change seen", True), ("Age", True)]
    ui.table(f"Noise certificates in {where}", columns, rows)
