"""What a compression step bought: the rows that end in the report."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quality(_Frozen):
    """How near one set of outputs is to another, and the task metric on both.

    ``sqnr_db`` is 10·log10(Σ ref² / Σ (ref − out)²) over all outputs of all samples; None when the
    outputs are equal (infinite). ``top1_agreement`` is the share of rows (one a sample for shape
    [1, classes]) whose first output has its maximum over the last axis at the same place; None
    where the first output has no class axis.
    """

    samples: int
    max_abs_diff: float
    sqnr_db: float | None
    top1_agreement: float | None
    metric: str
    metric_value: float
    metric_reference: float


class Interval(_Frozen):
    """Where the metric lies with probability ``level``, from the spread over evaluation samples.

    ``resamples``: how many times the bootstrap drew; 0 for ``wilson``, which draws nothing.
    """

    low: float
    high: float
    level: float = 0.95
    method: Literal["wilson", "bootstrap"]
    resamples: int = 0


class Footprint(_Frozen):
    """Size of a program. All is counted but ``ram_bytes``, which is an estimate.

    ``nonzeros``: weights whose real value is not zero. ``macs``: multiply-accumulates of one
    inference, None where an operator is unknown (``macs_unknown`` names it). ``packed_bytes``:
    weights in the packed container (to download with our decoder), None with ``packed_reason``.
    ``deflated_bytes``: weights compressed by zlib (what an app store's archive does).
    ``disk_bytes``: weights as the program stores them. ``ram_bytes``: those and the largest sum of
    activations that are alive at once; None where a shape is not fixed.
    """

    parameters: int
    nonzeros: int
    macs: int | None
    macs_unknown: tuple[str, ...] = ()
    packed_bytes: int | None = None
    packed_reason: str = ""
    deflated_bytes: int
    disk_bytes: int
    ram_bytes: int | None


class Cost(_Frozen):
    """One inference of the program on a device that the user named, or why there is no figure.

    ``tier``, ``metric`` (with its unit) and ``device`` are as in the report's measurements.
    """

    device: str
    format: str
    metric: str
    tier: str
    value: float | None
    artifact_bytes: int | None = None
    reason: str = ""


class LedgerRow(_Frozen):
    """One step. ``quality`` compares with the uncompressed model on the evaluation data.

    ``seconds`` are those of the step itself, without judging and measuring it.

    ``program_bytes`` is the size of all weights as the program holds them (int8 weights count one
    byte each), before any file format. ``validation`` is the metric on (at most 2,048 of) the
    validation data, which ``keep_if`` decides by; None without such data. ``kept`` is False for a
    step that ``keep_if`` dropped: its figures are shown, the model is that of the last row that was
    kept, and so is what the next row is compared with. ``warnings``: what the user
    should know of this step, such as that it made things worse.

    ``detail``: all settings of the step; ``chosen``: those that are not the step's defaults, None
    in a row of before this was recorded.
    """

    step: str
    detail: dict[str, Any] = Field(default_factory=dict)
    parameters: int
    program_bytes: int
    seconds: float
    quality: Quality | None = None
    notes: tuple[str, ...] = ()
    interval: Interval | None = None
    validation: float | None = None
    footprint: Footprint | None = None
    cost: Cost | None = None
    kept: bool = True
    warnings: tuple[str, ...] = ()
    chosen: dict[str, Any] | None = None
