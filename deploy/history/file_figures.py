"""Figures of a file itself, which nobody has to measure: bytes, partitions, MACs, planned memory.

They stand beside the measured ones, on series of their own: of no device (``DEVICE``), with 0
threads. They are exact, so every difference is a change.
"""

from __future__ import annotations

from typing import Any

from deploy.history.identity import storable
from deploy.types import ARTIFACT_METRICS, Artifact, Status, Tier

DEVICE = {"device_sha256": "", "profile": "", "tier": Tier.HOST.value, "os_build": ""}
THREADS = 0


def is_exact(metric: str) -> bool:
    """Whether equal files have equal figures of this metric."""
    return metric in ARTIFACT_METRICS


def unit(metric: str) -> str:
    """``bytes`` where the metric counts them; else it counts what its name says."""
    return "bytes" if metric.endswith("bytes") else ""


def row(artifact: Artifact, metric: str) -> dict[str, Any]:
    """The columns of a figure: what ``artifact`` has of ``metric``, or why that is unknown."""
    value, why = artifact.figure(metric)
    stated = {
        "status": (Status.UNAVAILABLE if value is None else Status.OK).value,
        "reason": storable(why) if value is None else "",
        "source": "the exported file",
        "n": 0 if value is None else 1,
        "low": None,
        "high": None,
    }
    spread = {"mad": None if value is None else 0.0}
    return stated | spread | dict.fromkeys(("median", "mean", "p90", "min", "max"), value)
