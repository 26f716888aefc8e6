"""What export leaves, and what verify found of it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from compress.ledger import Quality
from deploy.types.base import Format, Model, Status


class TensorSpec(Model):
    """One input or output of a model. ``shape`` is static; ``dtype`` is a torch name: float32."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Placement(Model):
    """Which part of the graph runs on which backend.

    ``delegated_share`` is delegated operators / all operators in [0, 1]; None with a reason where
    nobody can say it before the model is on the device.
    """

    backend: str
    delegated: int | None = None
    total: int | None = None
    partitions: int | None = None
    delegated_share: float | None = None
    left: dict[str, int] = Field(default_factory=dict)
    reason: str = ""


class Artifact(Model):
    """An exported model with its provenance; stored beside the file as its manifest.

    ``name`` is ``<variant>.<format>``; ``path`` is relative to the manifest's folder; ``bytes`` and
    ``sha256`` cover a whole folder (``.mlpackage``) as :func:`deploy.files.tree_digest` says.
    """

    name: str
    variant: str
    format: Format
    path: str
    sha256: str
    bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source_sha256: str
    tools: dict[str, str]
    recipe: tuple[dict[str, Any], ...] = ()
    placement: Placement


class Parity(Model):
    """One artifact against the program that it was exported from."""

    artifact: str
    status: Status
    reason: str = ""
    quality: Quality | None = None
    limits: dict[str, float] = Field(default_factory=dict)
    violated: tuple[str, ...] = ()
