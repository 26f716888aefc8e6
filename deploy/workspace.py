"""The run folder: what was asked, what each stage left, and nothing half-written.

A stage's folder appears by one rename when the stage is done. A stage that runs again first looks
at what is there; that is what makes a run resumable.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from deploy import __version__
from deploy.config import PipelineConfig
from deploy.errors import ConfigError, ExportError
from deploy.files import tree_digest, write_text
from deploy.types import Artifact, Model

LOCK = ".lock"

Value = TypeVar("Value")
_LEFTOVER_AGE_S = 3600


class Asked(Model):
    """``run.json``: what a run was asked to do, and by which pocketship.

    ``key`` is random: run ids are times, and two machines may begin in the same second.
    """

    schema_version: Literal[1] = 1
    pocketship_version: str
    run_id: str
    created_utc: str
    pipeline_file: str
    working_folder: str
    key: str = ""
    config: PipelineConfig


@dataclass(frozen=True)
class RunFolder:
    """One run's folder and what it was asked."""

    root: Path
    asked: Asked

    @property
    def config(self) -> PipelineConfig:
        """The validated pipeline."""
        return self.asked.config

    @property
    def compress(self) -> Path:
        """Programs, ledger, samples and reference outputs."""
        return self.root / "compress"

    @property
    def artifacts(self) -> Path:
        """Exported files and their manifests."""
        return self.root / "artifacts"

    @property
    def bench(self) -> Path:
        """Cases and devices, one file each."""
        return self.root / "bench"

    @property
    def parity(self) -> Path:
        """The parity file."""
        return self.root / "verify" / "parity.json"

    def search(self) -> tuple[Path, ...]:
        """Folders in which the task's module is looked for."""
        return Path(self.asked.pipeline_file).parent, Path(self.asked.working_folder)


def create(
    config: PipelineConfig, pipeline_file: Path, *, working_folder: Path | None = None
) -> RunFolder:
    """Make a new run folder ``<reports>/<name>/<UTC time>`` and write what was asked.

    ``working_folder`` stands for the current one where the run is for another checkout.
    """
    parent = config.reports / config.name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        root = new_folder(parent)
        wanted = asked(config, pipeline_file, root.name)
        if working_folder is not None:
            wanted = wanted.model_copy(update={"working_folder": str(working_folder.resolve())})
        write_text(root / "run.json", wanted.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            f"cannot write here: {error.strerror}",
            where=str(parent),
            hint="Choose another folder with --reports or 'reports:' in the pipeline file.",
        ) from error
    return RunFolder(root.resolve(), wanted)


def asked(config: PipelineConfig, pipeline_file: Path, run_id: str) -> Asked:
    """What a run is asked to do, as of now and from here."""
    return Asked(
        pocketship_version=__version__,
        run_id=run_id,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        pipeline_file=str(pipeline_file.resolve()),
        working_folder=str(Path.cwd()),
        key=secrets.token_hex(16),
        config=config,
    )


def new_folder(parent: Path) -> Path:
    """Make a folder named by the time (UTC) in ``parent``; ``OSError`` where it cannot be made."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        with contextlib.suppress(FileExistsError):
            root = parent / f"{stamp}{suffix}"
            root.mkdir()
            return root
    raise FileExistsError(17, "100 runs in one second")


def open_run(root: Path) -> RunFolder:
    """Open a run folder that is there; ``ConfigError`` where it is none or of another version."""
    path = root / "run.json"
    if not path.is_file():
        raise ConfigError(
            "is not a run folder (no run.json)",
            where=str(root),
            hint="Give a folder below reports/, such as reports/NAME/latest.",
        )
    return RunFolder(root.resolve(), read_json(path, Asked))


def newest_like(config: PipelineConfig) -> RunFolder | None:
    """The newest run of the same pipeline with the same configuration, to go on with."""
    parent = config.reports / config.name
    for root in sorted(parent.glob("[0-9]*-[0-9]*"), key=age, reverse=True):
        with contextlib.suppress(ConfigError):
            run = open_run(root)
            # The same folder can be named in several ways.
            if run.config.model_copy(update={"reports": config.reports}) == config:
                return run
    return None


def age(root: Path) -> list[int]:
    """Sorts ``<date>-<time>-10`` behind ``<date>-<time>-2``."""
    return [int(part) for part in root.name.split("-") if part.isdecimal()]


def exclusive(run: RunFolder) -> contextlib.AbstractContextManager[None]:
    """Hold the run folder against a second pocketship; the lock dies with the process."""
    return held(run.root)


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold a folder as :func:`exclusive` does; what a killed pocketship left half-written goes."""
    try:
        stream = (root / LOCK).open("a")
    except OSError as error:
        raise ConfigError(f"cannot write here: {error.strerror}", where=str(root)) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                "another pocketship works in this folder",
                where=str(root),
                hint="Wait for it to end.",
            ) from error
        _sweep(root)
        yield


def _sweep(root: Path) -> None:
    """Remove what a killed pocketship left half-written: names with a dot, here and one below."""
    for leftover in (*root.glob(".*"), *root.glob("*/.*"), *root.glob("bench/*/.*")):
        if leftover.name == LOCK:
            continue
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def journal(run: RunFolder) -> Path:
    """Finished trainings of all runs of this pipeline: an edited recipe repeats only what changed.

    Files are named by all that went into them and are written whole, so that several runs may use
    the folder at once. It may be removed at any time.
    """
    folder = run.root.parent / "journal"
    for leftover in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):
            # Younger ones may be another run's that is writing now.
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                leftover.unlink()
    return folder


@contextlib.contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes ``folder`` when the block succeeds."""
    scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    scratch.mkdir(parents=True)
    try:
        yield scratch
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_json(path: Path, kind: type[Value]) -> Value:
    """Read and validate a file that pocketship wrote; ``ConfigError`` where it is not whole."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            f"cannot be read: {first}",
            where=str(path),
            hint="It was cut off, edited or written by another version: run the stage again.",
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a pydantic value, or a list of them, as readable JSON."""
    data = TypeAdapter(type(value)).dump_python(value, mode="json")
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def artifacts_of(run: RunFolder) -> list[Artifact]:
    """All artifacts in the order variant, format as the pipeline names them; hashes are checked.

    Raises:
        ExportError: nothing was exported, or a file is not what its manifest says.
    """
    found = [read_json(path, Artifact) for path in run.artifacts.glob("*.manifest.json")]
    if not found:
        raise ExportError(
            "holds no artifacts",
            where=str(run.artifacts),
            hint=f"pocketship export {run.root} makes them.",
        )
    for artifact in found:
        if problem := damage(artifact, run.artifacts):
            raise ExportError(
                problem,
                where=str(run.artifacts / artifact.path),
                hint=f"pocketship export {run.root} makes it again.",
            )
    variants = list(run.config.variants)
    formats = [made for target in run.config.targets for made in target.formats()]
    wanted = [a for a in found if a.variant in variants and a.format in formats]
    return sorted(wanted, key=lambda a: (variants.index(a.variant), formats.index(a.format)))


def damage(artifact: Artifact, folder: Path) -> str:
    """Why an artifact's file is not what its manifest says; empty where it is."""
    path = folder / artifact.path
    if Path(artifact.path).name != artifact.path or not path.exists():
        return "is missing"
    try:
        digest, _ = tree_digest(path)
    except (OSError, ValueError) as error:
        return f"cannot be hashed: {error}"
    if digest == artifact.sha256:
        return ""
    return f"changed since it was exported (sha256 {digest[:12]}, was {artifact.sha256[:12]})"
