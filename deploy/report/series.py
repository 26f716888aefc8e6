"""What a trend is drawn from: one figure over many runs, and the places where it changed.

Whoever keeps a history hands series in (:mod:`deploy.history` does); the pages need no more than
what stands here. All points of a series are of one tier, device, OS build, runtime and thread
count: whoever makes series keeps that, and begins a new one where any of them changes. A figure of
a file itself has no device and 0 threads.
"""

# What each attribute means stands in its class's docstring.
# ruff: noqa: D102

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Point(Protocol):
    """The figure of one run: the median of ``n`` samples, with its interval where it has one."""

    @property
    def created_utc(self) -> str: ...
    @property
    def commit(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def median(self) -> float: ...
    @property
    def interval(self) -> tuple[float, float] | None: ...
    @property
    def n(self) -> int: ...


class Change(Protocol):
    """The level moved from ``before`` to ``after``; ``index`` is of the first point after it.

    ``p_value`` is that of the test that found it, None where figures are exact;
    ``with_it`` names what else changed there.
    """

    @property
    def index(self) -> int: ...
    @property
    def commit_before(self) -> str: ...
    @property
    def before(self) -> float: ...
    @property
    def after(self) -> float: ...
    @property
    def p_value(self) -> float | None: ...
    @property
    def with_it(self) -> Sequence[str]: ...


class Series(Protocol):
    """Points in the order of time. ``missing`` counts the runs that have no figure.

    ``branch`` is None where points are of several branches; then nobody looked for changes.
    ``note`` is what a reader should know of the series, such as why it begins where it does.
    """

    @property
    def device(self) -> str: ...
    @property
    def os_build(self) -> str: ...
    @property
    def tier(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def artifact(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def metric(self) -> str: ...
    @property
    def branch(self) -> str | None: ...
    @property
    def points(self) -> Sequence[Point]: ...
    @property
    def missing(self) -> int: ...
    @property
    def changes(self) -> Sequence[Change]: ...
    @property
    def note(self) -> str: ...
