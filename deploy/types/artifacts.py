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
    ``macs`` are the multiply-accumulates of one inference of the program that the file was made of;
    ``planned_bytes`` the buffers that the file's own memory plan asks its runtime for. A None of
    these two has its reason in ``unknown[field]``; where that is missing, an older pocketship made
    the file.
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
    macs: int | None = Field(default=None, ge=0)
    planned_bytes: int | None = Field(default=None, ge=0)
    unknown: dict[str, str] = Field(default_factory=dict)

    def figure(self, metric: str) -> tuple[float | None, str]:
        """A deterministic figure of the file, or None with the reason why nobody knows it.

        ``metric`` is one of :data:`deploy.types.ARTIFACT_METRICS`, or ``delegated_share``.
        """
        if metric == "bytes":
            return float(self.bytes), ""
        if metric in ("partitions", "delegated_share"):
            value: float | None = getattr(self.placement, metric)
            why = self.placement.reason or "the exporter did not say"
        elif metric in ("macs", "planned_bytes"):
            value = getattr(self, metric)
            why = self.unknown.get(metric) or "its manifest is of before this was noted"
        else:
            raise ValueError(f"{metric!r} is no figure of a file")
        return (None, why) if value is None else (float(value), "")


class Parity(Model):
    """One artifact against the program that it was exported from."""

    artifact: str
    status: Status
    reason: str = ""
    quality: Quality | None = None
    limits: dict[str, float] = Field(default_factory=dict)
    violated: tuple[str, ...] = ()
