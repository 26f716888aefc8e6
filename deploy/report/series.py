"""One figure over many runs, with the places where it changed: what a trend is drawn from.

All points of a series are of one tier, device, OS build and runtime: whoever makes series keeps
that, and begins a new one where any of them changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from deploy.types import Tier


@dataclass(frozen=True)
class Point:
    """The figure of one run. ``low`` to ``high`` is its interval, None where nobody made one.

    ``when`` is UTC in ISO 8601, ``value`` the median of ``n`` samples in the metric's unit.
    """

    when: str
    commit: str | None
    run_id: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ChangePoint:
    """The level moved from ``before`` to ``after``; ``index`` is of the first point after it."""

    index: int
    before: float
    after: float
    note: str = ""


@dataclass(frozen=True)
class Series:
    """Points in the order of time. ``method`` says how ``changes`` were found, and its source.

    ``subject`` is what was measured (an artifact and its thread count), ``note`` what a reader
    should know of the series, such as why it begins where it does.
    """

    device: str
    os_build: str | None
    runtime: str
    subject: str
    metric: str
    tier: Tier
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...] = ()
    method: str = ""
    note: str = ""
