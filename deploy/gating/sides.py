"""BASE and HEAD as the user names them, and what each comes to: files that can be measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy import config, provenance, stored, workspace
from deploy.bench.outputs import Arrays
from deploy.config import PipelineConfig
from deploy.errors import ConfigError
from deploy.files import sha256
from deploy.gating import bare, making, revisions
from deploy.report import store
from deploy.types import Artifact, Case, DeviceRun, GateReport, Parity, Progress, Side
from deploy.workspace import RunFolder

_MANIFEST = ".manifest.json"
_PIPELINES = (".yaml", ".yml")
_KINDS = (
    "Give a pipeline file, a run folder, a folder of artifacts, a model file (.pte, .onnx, .ort), "
    "or a git revision (git:NAME)."
)


@dataclass(frozen=True)
class Wish:
    """How one side is asked for.

    ``name`` is the user's word; ``pipeline`` the pipeline file of a revision, relative to its
    repository's top; ``reports`` where a pipeline file's run goes in place of its own folder;
    ``earlier`` the run folder in which an interrupted gate made this side, and ``begun`` is told of
    the one that is used; ``here`` is the folder that relative names begin at.
    """

    label: str
    name: str
    here: Path
    pipeline: Path | None = None
    reports: Path | None = None
    earlier: Path | None = None
    begun: Callable[[Path], None] = lambda run: None


@dataclass(frozen=True)
class Version:
    """A side with what measuring it needs.

    ``files``, ``inputs`` and ``outputs`` go by the artifact's name: the file, the raw inputs that
    it is run with, and what its program computes of them. ``parity`` is what verifying found;
    ``cases`` and ``devices`` are what was measured earlier. ``home`` is the folder that relative
    names in ``config`` begin at.
    """

    side: Side
    files: Mapping[str, Path] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: Mapping[str, Arrays] = field(default_factory=dict)
    parity: tuple[Parity, ...] = ()
    config: PipelineConfig | None = None
    home: Path | None = None
    run: Path | None = None
    cases: tuple[Case, ...] = ()
    devices: tuple[DeviceRun, ...] = ()

    def artifact(self, name: str) -> Artifact:
        """The artifact of that name; ``KeyError`` where there is none."""
        return {artifact.name: artifact for artifact in self.side.artifacts}[name]


def find(wish: Wish, progress: Progress) -> Version:
    """What the user's word stands for; a pipeline is compressed, exported and verified for it.

    A file or folder comes before a git revision of the same name, which ``git:NAME`` names in any
    case. Raises ``ConfigError`` where it is none of them, and what making the files raises.
    """
    path = wish.here / Path(wish.name).expanduser()
    if wish.name.startswith(revisions.PREFIX):
        return _revision(wish, wish.name.removeprefix(revisions.PREFIX), progress)
    if path.is_dir():
        return _folder(wish, path, progress)
    if path.is_file():
        return _file(wish, path, progress)
    if not path.exists() and revisions.known(wish.name, wish.here):
        return _revision(wish, wish.name, progress)
    raise ConfigError("is not there", where=f"{wish.label} {wish.name}", hint=_KINDS)


def _folder(wish: Wish, path: Path, progress: Progress) -> Version:
    if (path / "run.json").exists():
        return _run(wish, path)
    if any((path / name).exists() for name in (store.FILE_NAME, store.GATE_FILE_NAME)):
        return _measured(wish, path)
    return _artifacts(wish, path, progress)


def _file(wish: Wish, path: Path, progress: Progress) -> Version:
    if path.suffix in _PIPELINES:
        return _pipeline(wish, path, progress)
    if path.suffix in bare.SUFFIXES:
        return _single(wish, path, progress)
    if path.suffix == ".json":
        return _measured(wish, path)
    where = f"{wish.label} {wish.name}"
    raise ConfigError("is a file of no kind that can be compared", where=where, hint=_KINDS)


def is_pipeline(name: str, here: Path) -> bool:
    """Whether the user's word names a pipeline file."""
    path = here / Path(name).expanduser()
    return path.suffix in _PIPELINES and path.is_file()


def _pipeline(wish: Wish, path: Path, progress: Progress) -> Version:
    loaded = config.load(path)
    if wish.reports is not None:
        loaded = loaded.model_copy(update={"reports": wish.reports})
    folder = _earlier(wish, loaded) or workspace.create(loaded, path)
    wish.begun(folder.root)
    progress(f"{wish.label}: run folder {folder.root}")
    making.make(folder, wish.label, progress)
    commit = provenance.commit_of(path.parent)
    return _made(folder, Side(label=wish.name, kind="pipeline", commit=commit), path.parent)


def _earlier(wish: Wish, loaded: PipelineConfig) -> RunFolder | None:
    if wish.earlier is None or not (wish.earlier / "run.json").is_file():
        return None
    folder = workspace.open_run(wish.earlier)
    same = folder.config.model_copy(update={"reports": loaded.reports}) == loaded
    return folder if same else None


def _revision(wish: Wish, name: str, progress: Progress) -> Version:
    revision = revisions.find(name, wish.here)
    where = f"{wish.label} {revisions.PREFIX}{name} ({revision.commit[:12]})"
    relative = wish.pipeline
    if relative is None:
        raise ConfigError(
            "needs the name of its pipeline file",
            where=where,
            hint="Give --pipeline FILE, relative to the repository's top folder.",
        )
    with revisions.kept(revision, progress) as home:
        tree = revisions.check_out(revision, progress)
        path = revisions.inside(tree, relative)
        if path is None:
            raise ConfigError(
                f"has no file {relative}",
                where=where,
                hint="--pipeline is relative to the repository's top; name another revision where "
                "the pipeline is younger than this one.",
            )
        try:
            loaded = config.load(path)
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{where}: {relative}", hint=error.hint) from error
        loaded = loaded.model_copy(update={"reports": home / _made_by(relative)})
        folder = workspace.newest_like(loaded)
        if folder is None:
            working = tree / _beneath(wish.here, revision.repository)
            folder = workspace.create(
                loaded, path, working_folder=working if working.is_dir() else tree
            )
        if making.is_made(folder):
            progress(f"{wish.label}: {name} was made before, in {folder.root}")
        making.make(folder, wish.label, progress)
    side = Side(label=wish.name, kind="revision", commit=revision.commit)
    return _made(folder, side, path.parent)


def _made_by(pipeline: Path) -> str:
    """A name for what this pipeline file and these tools make: other tools make other files.

    So does a pocketship whose manifests say more: what they say is compared.
    """
    noted = sorted(Artifact.model_fields)
    content = json.dumps([pipeline.as_posix(), provenance.tools(), noted], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _beneath(here: Path, top: Path) -> Path:
    try:
        return here.resolve().relative_to(top.resolve())
    except ValueError:
        return Path()


def _run(wish: Wish, path: Path) -> Version:
    folder = workspace.open_run(path)
    commit = None
    cases: tuple[Case, ...] = ()
    devices: tuple[DeviceRun, ...] = ()
    if (path / store.FILE_NAME).exists():
        report = store.load(path)
        commit, cases, devices = report.commit, report.cases, report.devices
    side = Side(label=wish.name, kind="run", commit=commit)
    home = Path(folder.asked.pipeline_file).parent
    return _made(folder, side, home, cases=cases, devices=devices)


def _made(
    folder: RunFolder,
    side: Side,
    home: Path,
    *,
    cases: tuple[Case, ...] = (),
    devices: tuple[DeviceRun, ...] = (),
) -> Version:
    """A run folder whose artifacts are there and verified; raises as the stages do where not."""
    artifacts = workspace.artifacts_of(folder)
    parity = stored.parity(folder, artifacts)
    if missing := {a.name for a in artifacts} - {row.artifact for row in parity}:
        raise ConfigError(
            f"{sorted(missing)[0]} is not verified as it is now",
            where=str(folder.root),
            hint=f"pocketship verify {folder.root} does it.",
        )
    return Version(
        side=side.model_copy(update={"artifacts": tuple(artifacts), "run_id": folder.asked.run_id}),
        files={a.name: folder.artifacts / a.path for a in artifacts},
        inputs={a.name: folder.compress / stored.INPUTS for a in artifacts},
        outputs={a.name: stored.first_outputs(folder, a.variant) for a in artifacts},
        parity=tuple(parity),
        config=folder.config,
        home=home,
        run=folder.root,
        cases=cases,
        devices=devices,
    )


def _measured(wish: Wish, path: Path) -> Version:
    """A report whose files are gone, or that was named itself: figures of another time.

    Of a gate's report they are its head's: each of its sessions counts.
    """
    report = store.load_any(path)
    if isinstance(report, GateReport):
        return Version(
            side=report.head.model_copy(
                update={"label": wish.name, "kind": "run", "run_id": report.run_id}
            ),
            cases=tuple(s.case for s in report.sessions if s.side == "head"),
            devices=(report.device,) if report.device is not None else (),
        )
    side = Side(
        label=wish.name,
        kind="run",
        commit=report.commit,
        run_id=report.run_id,
        artifacts=report.artifacts,
    )
    return Version(side=side, parity=report.parity, cases=report.cases, devices=report.devices)


def _artifacts(wish: Wish, folder: Path, progress: Progress) -> Version:
    manifests = sorted(folder.glob(f"*{_MANIFEST}"))
    found = [workspace.read_json(path, Artifact) for path in manifests]
    for artifact in found:
        if problem := workspace.damage(artifact, folder):
            raise ConfigError(
                problem,
                where=str(folder / artifact.path),
                hint="Copy file and manifest anew, or leave the manifest out.",
            )
    taken = {artifact.path for artifact in found}
    for path in sorted(folder.iterdir()):
        if path.suffix in bare.SUFFIXES and path.name not in taken and path.is_file():
            progress(f"{wish.label}: {path.name} has no manifest; asking this machine's runner")
            found.append(_described(path, progress))
    if not found:
        raise ConfigError(
            "holds no artifacts",
            where=f"{wish.label} {wish.name}",
            hint="Give a folder with .pte, .onnx or .ort files, or with manifests.",
        )
    names = [artifact.name for artifact in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ConfigError(f"holds {twice} twice", where=f"{wish.label} {wish.name}")
    side = Side(label=wish.name, kind="artifacts", artifacts=tuple(found))
    return Version(side=side, files={a.name: folder / a.path for a in found})


def _single(wish: Wish, path: Path, progress: Progress) -> Version:
    artifact = _described(path, progress)
    side = Side(label=wish.name, kind="artifacts", artifacts=(artifact,))
    return Version(side=side, files={artifact.name: path})


def _described(path: Path, progress: Progress) -> Artifact:
    manifest = next(
        (
            artifact
            for candidate in sorted(path.parent.glob(f"*{_MANIFEST}"))
            if (artifact := workspace.read_json(candidate, Artifact)).path == path.name
            and artifact.sha256 == sha256(path)
        ),
        None,
    )
    if manifest is not None:
        return manifest
    artifact = bare.described(path, progress)
    bare.refuse_open_shapes(artifact, path)
    return artifact
