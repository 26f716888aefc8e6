"""What is decided of figures, and by which limits."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from deploy.types.base import Metric, Model, Tier


class Outcome(StrEnum):
    """What the gate says of one thing."""

    PASS = "PASS"
    IMPROVED = "IMPROVED"
    REGRESSED = "REGRESSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    INVALID = "INVALID"


class Paired(Model):
    """How a noisy figure was decided: sessions of base and head on one device, pair by pair.

    ``ratios`` are head / base of the sessions' medians, one a pair, in the order of the pairs;
    ``ratio`` is exp of the median of their logarithms, ``interval`` (low, high) that of it.
    ``p_worse`` and ``p_better`` are one-sided; ``alpha`` is what they were held to. ``margin`` is
    the relative change that counts (0.03: 3 %), ``mde`` the device's minimum detectable effect from
    its noise certificate, None where it has none. ``design`` is ``stored`` where base was measured
    at another time, which is weaker evidence.
    """

    ratios: tuple[float, ...]
    ratio: float
    interval: tuple[float, float]
    p_worse: float
    p_better: float
    alpha: float
    margin: float
    mde: float | None = None
    design: Literal["paired", "stored"] = "paired"


class Verdict(Model):
    """One decision with its evidence: ``subject`` is a case id or an artifact name.

    ``value`` is head's figure; ``limit`` the most that it may be; ``base_value`` the figure that it
    was compared with, where it was compared. ``accepted`` says by whom, when and why a change was
    signed off (:class:`deploy.types.Acceptance`), where that decided.
    """

    outcome: Outcome
    subject: str
    metric: str
    value: float | None
    limit: float | None
    source: str
    reason: str = ""
    tier: Tier | None = None
    base_value: float | None = None
    paired: Paired | None = None
    accepted: str = ""

    @classmethod
    def without_figure(
        cls,
        outcome: Outcome,
        subject: str,
        metric: str,
        reason: str,
        *,
        source: str,
        limit: float | None = None,
    ) -> Verdict:
        """A decision for which there is no figure, and the reason why it is what it is."""
        return cls(
            outcome=outcome,
            subject=subject,
            metric=metric,
            value=None,
            limit=limit,
            source=source,
            reason=reason,
        )


ARTIFACT_METRICS = ("bytes", "partitions", "macs", "planned_bytes")
"""What a budget can limit of an artifact's file; every other metric is a case's."""


class Budget(Model):
    """An upper limit that the gate holds figures to; a figure equal to ``max`` is within it.

    ``subject`` is an artifact name (for :data:`ARTIFACT_METRICS`) or a case id (for a
    :class:`Metric`); ``*``, ``?`` and ``[...]`` match as in file names. ``max`` is in the metric's
    unit.
    """

    subject: str = Field(min_length=1)
    metric: str = Field(json_schema_extra={"enum": [*ARTIFACT_METRICS, *map(str, Metric)]})
    max: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _known_metric(self) -> Budget:
        known = (*ARTIFACT_METRICS, *(str(metric) for metric in Metric))
        if self.metric not in known:
            raise ValueError(f"no metric {self.metric!r}; choose one of {', '.join(known)}")
        return self
