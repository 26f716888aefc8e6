"""One case to run, as it is known before any device is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.bench import outputs
from deploy.types import Artifact


@dataclass(frozen=True)
class Job:
    """One case to run: an artifact with its file, inputs and reference outputs on this machine.

    ``inputs`` is a raw file as the runner takes it (docs/architecture.md). ``reference`` is a raw
    file of outputs, or arrays in the order of the artifact's outputs, or None.
    """

    artifact: Artifact
    path: Path
    inputs: Path
    reference: Path | outputs.Arrays | None = None
    threads: int = 1


def case_id(artifact: str, device: str, threads: int) -> str:
    """``<artifact name>@<device profile>/t<threads>``."""
    return f"{artifact}@{device}/t{threads}"
