"""What a unit leaves: one JSON file, written whole or not at all, and found again by its key."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmarks.compression.rows import Row
from deploy import provenance
from deploy.files import write_text
from deploy.paths import cache_dir

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("torch", "torchao", "executorch", "onnxruntime", "coremltools", "torch-pruning")
SOURCES = (
    *("compress/**/*.py", "deploy/export/**/*.py", "benchmarks/compression/makers.py"),
    *("benchmarks/compression/figures.py", "benchmarks/compression/unit.py"),
)
"""Files that decide what any unit makes and measures; another content, another key."""


class Result(BaseModel):
    """One unit. ``figures`` are numbers by name, ``missing`` says why a figure is not there.

    ``files`` are the made files by kind, relative to the unit's folder. Bytes are of files, shares
    (``top1``, ``agreement``) of 1, instructions those of one inference on the emulated phone.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: int = 1
    row: str
    variant: str
    seed: int
    key: str
    figures: dict[str, float] = Field(default_factory=dict)
    missing: dict[str, str] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    files: dict[str, str] = Field(default_factory=dict)
    make_seconds: float = 0.0
    measure_seconds: float = 0.0
    created_utc: str = ""
    commit: str | None = None
    tools: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, str] = Field(default_factory=dict)


def folder() -> Path:
    """Where units leave their files; below pocketship's cache, so that a second run is short."""
    return cache_dir() / "bench-compress"


def unit_folder(row: str, variant: str, seed: int) -> Path:
    """The folder of one unit."""
    return folder() / row / f"{variant}-seed{seed}"


def key_of(row: Row, variant: str, seed: int, code: str, tools: dict[str, str]) -> str:
    """Hash of all that a unit depends on but the machine: definition, seed, code, versions."""
    wanted = row.variants[variant]
    examples = [f"{row.task.callable.partition(':')[0]}.py"]
    if "pipeline" in wanted.arguments:
        examples.append(wanted.arguments["pipeline"])
    own = [_content(ROOT / "examples" / name) for name in examples]
    parts = [row.task.model_dump(), wanted.model_dump(), variant, seed, code, tools, own]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def code_print(root: Path = ROOT) -> str:
    """SHA-256 over the files that take part."""
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in root.glob(pattern)):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def tool_versions() -> dict[str, str]:
    """Versions of the libraries that take part."""
    return provenance.versions(TOOLS)


def blank(row: Row, variant: str, seed: int) -> Result:
    """A result with everything but figures."""
    tools = tool_versions()
    return Result(
        row=row.name,
        variant=variant,
        seed=seed,
        key=key_of(row, variant, seed, code_print(), tools),
        created_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        commit=provenance.commit_of(ROOT),
        tools=tools,
        machine=provenance.machine(),
    )


def path_of(row: str, variant: str, seed: int) -> Path:
    """The unit's JSON file."""
    return unit_folder(row, variant, seed) / "result.json"


def write(result: Result) -> None:
    """Write the unit's JSON; the last thing that a unit does."""
    path = path_of(result.row, result.variant, result.seed)
    write_text(path, json.dumps(result.model_dump(), indent=2, allow_nan=False) + "\n")


def read(row: str, variant: str, seed: int) -> Result | None:
    """What is there of a unit, whatever its key; None for nothing or nothing readable."""
    try:
        text = path_of(row, variant, seed).read_text(encoding="utf-8")
        return Result.model_validate_json(text)
    except (OSError, ValidationError, ValueError):
        return None


def finished(row: Row, variant: str, seed: int) -> Result | None:
    """The unit's result if it was made of just this definition, code and tools, with its files."""
    result = read(row.name, variant, seed)
    if result is None:
        return None
    wanted = key_of(row, variant, seed, code_print(), tool_versions())
    where = unit_folder(row.name, variant, seed)
    if result.key != wanted or not all((where / name).exists() for name in result.files.values()):
        return None
    return result
