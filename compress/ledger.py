"""What a compression step bought: the rows that end in the report."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Quality(BaseModel):
    """How near one set of outputs is to another, and the task metric on both.

    ``sqnr_db`` is 10·log10(Σ ref² / Σ (ref − out)²) over all outputs of all samples; None when the
    outputs are equal (infinite). ``top1_agreement`` is the share of rows (one a sample for shape
    [1, classes]) whose first output has its maximum over the last axis at the same place; None
    where the first output has no class axis.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    samples: int
    max_abs_diff: float
    sqnr_db: float | None
    top1_agreement: float | None
    metric: str
    metric_value: float
    metric_reference: float


class LedgerRow(BaseModel):
    """One step. ``quality`` compares with the uncompressed model on the evaluation data.

    ``program_bytes`` is the size of all weights as the program holds them (int8 weights count one
    byte each), before any file format.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: str
    detail: dict[str, Any] = Field(default_factory=dict)
    parameters: int
    program_bytes: int
    seconds: float
    quality: Quality | None = None
    notes: tuple[str, ...] = ()
