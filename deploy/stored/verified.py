"""What verifying leaves: parity, tied to the content that it was found for."""

from __future__ import annotations

from collections.abc import Sequence

from deploy import workspace
from deploy.errors import ConfigError, ParityError
from deploy.stored.compressed import quality_in_words
from deploy.types import (
    Artifact,
    Model,
    Parity,
    Status,
)
from deploy.workspace import RunFolder


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
